/*
 * crc32c_fold.c - folding by carry-less multiplication, 32 or 64 bytes at a time. See crc32c.c.
 *
 * A register v that lies D bits ahead of the place it is folded into becomes lo(v)*x^(D+32) + hi(v)*x^(D-32) in each
 * of its 128-bit lanes. Four accumulators hide the latency of the multiplication; at the end they are folded into 16
 * bytes, which two crc32 instructions reduce. The register that is folded is the one that is stored.
 *
 * Streaming copies prefetch: see crc32c_ways.h.
 */
#include "cpu.h"
#include "crc32c_ways.h"

#define TARGET_AVX2 __attribute__((target("avx2,vpclmulqdq,pclmul")))
#define TARGET_AVX512 __attribute__((target("avx512f,vpclmulqdq,pclmul")))

/* (x^(D-32), x^(D+32)) mod P, reflected, shifted left by one; D = 8 * the bytes in the name */
#define BY_256_BYTES _mm_set_epi64x(0xb9e02b86, 0xdcb17aa4)
#define BY_128_BYTES _mm_set_epi64x(0x0d3b6092, 0x6992cea2)
#define BY_64_BYTES _mm_set_epi64x(0x9e4addf8, 0x740eef02)
#define BY_32_BYTES _mm_set_epi64x(0xba4fc28e, 0x1384aa63a)
#define BY_16_BYTES _mm_set_epi64x(0x14cd00bd6, 0xf20c0dfe)

enum { FOLDING_PAYS_BYTES = 128 }; /* of cached stores and of none: below it the crc32 instruction is as fast */

TARGET_SSE42 ALWAYS_INLINE __m128i fold16(__m128i accumulator, __m128i next) {
    const __m128i by = BY_16_BYTES;
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(accumulator, by, 0x00), next),
                         _mm_clmulepi64_si128(accumulator, by, 0x11));
}

TARGET_SSE42 ALWAYS_INLINE uint32_t reduce16(__m128i y) {
    return (uint32_t)_mm_crc32_u64(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(y)), (uint64_t)_mm_extract_epi64(y, 1));
}

/* The dst of a CRC alone: it is not written, but zero may be added to it, which C forbids for NULL. */
static uint8_t nowhere;

/* ---- avx2: half a line at a time ----------------------------------------------------------------- */

TARGET_AVX2 ALWAYS_INLINE __m256i take_half(uint8_t *dst, const uint8_t *src, const enum crc32c_store store) {
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)src);
    if (store == CRC32C_STORE_CACHED)
        _mm256_storeu_si256((__m256i *)(void *)dst, v);
    else if (store == CRC32C_STORE_STREAM)
        _mm256_stream_si256((__m256i *)(void *)dst, v);
    return v;
}

TARGET_AVX2 ALWAYS_INLINE __m256i fold32(__m256i accumulator, __m256i by, __m256i next) {
    return _mm256_xor_si256(_mm256_xor_si256(_mm256_clmulepi64_epi128(accumulator, by, 0x00), next),
                            _mm256_clmulepi64_epi128(accumulator, by, 0x11));
}

TARGET_AVX2 ALWAYS_INLINE uint32_t body_avx2(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t n,
                                             const enum crc32c_store store, const enum prefetch_to prefetch) {
    const size_t step = store == CRC32C_STORE_NONE ? 0 : 1; /* dst stays where it is when nothing is stored */
    uint32_t c = ~crc;
    if (n >= FOLDING_PAYS_BYTES || (store == CRC32C_STORE_STREAM && n >= 64)) {
        const __m256i by_128_bytes = _mm256_broadcastsi128_si256(BY_128_BYTES);
        const __m256i by_32_bytes = _mm256_broadcastsi128_si256(BY_32_BYTES);
        const __m256i state = _mm256_zextsi128_si256(_mm_cvtsi32_si128((int)c));
        __m256i x0;
        if (n >= 128) {
            x0 = _mm256_xor_si256(take_half(dst, src, store), state);
            __m256i x1 = take_half(dst + 32 * step, src + 32, store);
            __m256i x2 = take_half(dst + 64 * step, src + 64, store);
            __m256i x3 = take_half(dst + 96 * step, src + 96, store);
            for (src += 128, dst += 128 * step, n -= 128; n >= 128; src += 128, dst += 128 * step, n -= 128) {
                if (store == CRC32C_STORE_STREAM)
                    prefetch_source(src, 128, prefetch);
                x0 = fold32(x0, by_128_bytes, take_half(dst, src, store));
                x1 = fold32(x1, by_128_bytes, take_half(dst + 32 * step, src + 32, store));
                x2 = fold32(x2, by_128_bytes, take_half(dst + 64 * step, src + 64, store));
                x3 = fold32(x3, by_128_bytes, take_half(dst + 96 * step, src + 96, store));
            }
            x0 = fold32(fold32(fold32(x0, by_32_bytes, x1), by_32_bytes, x2), by_32_bytes, x3);
        } else {
            x0 = _mm256_xor_si256(take_half(dst, src, store), state);
            src += 32, dst += 32 * step, n -= 32;
        }
        for (; n >= 32; src += 32, dst += 32 * step, n -= 32)
            x0 = fold32(x0, by_32_bytes, take_half(dst, src, store));
        c = reduce16(fold16(_mm256_castsi256_si128(x0), _mm256_extracti128_si256(x0, 1)));
    }
    SERIAL_BODY(c, dst, src, n, store);
    return ~c;
}

TARGET_AVX2 uint32_t crc32c_copy_avx2(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store) {
    if (store == CRC32C_STORE_NONE)
        return body_avx2(crc, &nowhere, src, n, CRC32C_STORE_NONE, PREFETCH_PAST_CACHES);
    if (store == CRC32C_STORE_CACHED)
        return body_avx2(crc, dst, src, n, CRC32C_STORE_CACHED, PREFETCH_PAST_CACHES);
    if (cpu_features() & CPU_INTEL)
        return body_avx2(crc, dst, src, n, CRC32C_STORE_STREAM, PREFETCH_SECOND_LEVEL);
    return body_avx2(crc, dst, src, n, CRC32C_STORE_STREAM, PREFETCH_PAST_CACHES);
}

/* ---- avx512: a line at a time -------------------------------------------------------------------- */

TARGET_AVX512 ALWAYS_INLINE __m512i take_line(uint8_t *dst, const uint8_t *src, const enum crc32c_store store) {
    __m512i v = _mm512_loadu_si512(src);
    if (store == CRC32C_STORE_CACHED)
        _mm512_storeu_si512(dst, v);
    else if (store == CRC32C_STORE_STREAM)
        _mm512_stream_si512((void *)dst, v);
    return v;
}

/* 0x96 = xor of three. */
TARGET_AVX512 ALWAYS_INLINE __m512i fold64(__m512i accumulator, __m512i by, __m512i next) {
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(accumulator, by, 0x00),
                                     _mm512_clmulepi64_epi128(accumulator, by, 0x11), next, 0x96);
}

TARGET_AVX512 ALWAYS_INLINE uint32_t body_avx512(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t n,
                                                 const enum crc32c_store store, const enum prefetch_to prefetch) {
    const size_t step = store == CRC32C_STORE_NONE ? 0 : 1; /* dst stays where it is when nothing is stored */
    uint32_t c = ~crc;
    if (n >= FOLDING_PAYS_BYTES || (store == CRC32C_STORE_STREAM && n >= 64)) {
        const __m512i by_256_bytes = _mm512_broadcast_i32x4(BY_256_BYTES);
        const __m512i by_64_bytes = _mm512_broadcast_i32x4(BY_64_BYTES);
        const __m512i state = _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)c));
        __m512i x0;
        if (n >= 256) {
            x0 = _mm512_xor_si512(take_line(dst, src, store), state);
            __m512i x1 = take_line(dst + 64 * step, src + 64, store);
            __m512i x2 = take_line(dst + 128 * step, src + 128, store);
            __m512i x3 = take_line(dst + 192 * step, src + 192, store);
            for (src += 256, dst += 256 * step, n -= 256; n >= 256; src += 256, dst += 256 * step, n -= 256) {
                if (store == CRC32C_STORE_STREAM)
                    prefetch_source(src, 256, prefetch);
                x0 = fold64(x0, by_256_bytes, take_line(dst, src, store));
                x1 = fold64(x1, by_256_bytes, take_line(dst + 64 * step, src + 64, store));
                x2 = fold64(x2, by_256_bytes, take_line(dst + 128 * step, src + 128, store));
                x3 = fold64(x3, by_256_bytes, take_line(dst + 192 * step, src + 192, store));
            }
            x0 = fold64(fold64(fold64(x0, by_64_bytes, x1), by_64_bytes, x2), by_64_bytes, x3);
        } else {
            x0 = _mm512_xor_si512(take_line(dst, src, store), state);
            src += 64, dst += 64 * step, n -= 64;
        }
        for (; n >= 64; src += 64, dst += 64 * step, n -= 64)
            x0 = fold64(x0, by_64_bytes, take_line(dst, src, store));
        __m128i y = fold16(_mm512_castsi512_si128(x0), _mm512_extracti32x4_epi32(x0, 1));
        y = fold16(y, _mm512_extracti32x4_epi32(x0, 2));
        c = reduce16(fold16(y, _mm512_extracti32x4_epi32(x0, 3)));
    }
    SERIAL_BODY(c, dst, src, n, store);
    return ~c;
}

TARGET_AVX512 uint32_t crc32c_copy_avx512(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store) {
    if (store == CRC32C_STORE_NONE)
        return body_avx512(crc, &nowhere, src, n, CRC32C_STORE_NONE, PREFETCH_PAST_CACHES);
    if (store == CRC32C_STORE_CACHED)
        return body_avx512(crc, dst, src, n, CRC32C_STORE_CACHED, PREFETCH_PAST_CACHES);
    if (cpu_features() & CPU_INTEL)
        return body_avx512(crc, dst, src, n, CRC32C_STORE_STREAM, PREFETCH_SECOND_LEVEL);
    return body_avx512(crc, dst, src, n, CRC32C_STORE_STREAM, PREFETCH_PAST_CACHES);
}
