/*
 * crc32c.c - three ways to the same CRC-32C, each also as a copy that computes it on the way.
 *
 * Polynomial 0x1EDC6F41, reflected (bit 0 of a byte is the highest power), state inverted at both ends. A CRC is the
 * remainder of the message, a polynomial over GF(2), modulo P. Everything below follows from one fact: a piece of the
 * message may be replaced by anything congruent to it modulo P.
 *
 *   table     slicing-by-8: eight table look-ups per 8 bytes. Any processor. About 2 GB/s.
 *   sse4.2    the crc32 instruction: 8 bytes per cycle, but 3 cycles of latency; so three independent streams side by
 *             side, joined by a carry-less multiplication with x^(8 * stream length).
 *   avx512    VPCLMULQDQ folding: 64 bytes v, D bits ahead of their place, become lo(v)*x^(D+32) + hi(v)*x^(D-32) per
 *             128-bit lane, added to the bytes D bits later (Gopal et al., "Fast CRC Computation for Generic
 *             Polynomials Using PCLMULQDQ", Intel 2009). Four accumulators of 64 bytes hide the latency; at the end
 *             they are folded into 16 bytes, which two crc32 instructions reduce.
 *
 * Fused: the source is read from memory once. In the avx512 code the very register that is folded is also stored; the
 * others compute the CRC of a cache-hot block and store it, so that there a source changed by another thread during
 * the copy (an error of the caller anyway) may leave a CRC that fits neither version.
 *
 * Each body is one always_inline function with the kind of store as a constant, instantiated once per kind: no branch
 * per block, no three copies of the source text. The choice of implementation is made at the first call and kept in a
 * function pointer; racing first calls store the same pointer.
 *
 * Streaming copies prefetch PREFETCH_BYTES ahead: the hardware prefetcher stops at each 4 KiB page, and a
 * non-temporal store gives the core nothing to wait on, so the copy would stall once per page (measured: +10 to 25 %).
 * A prefetch past the end of the source cannot fault.
 */
#include "crc32c.h"

#include <immintrin.h>
#include <stdatomic.h>
#include <string.h>

#include "cpu.h"
#include "gismo.h"

#define POLYNOMIAL_REFLECTED 0x82F63B78u
#define PREFETCH_BYTES 2048
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Tolerates any alignment; compiles to one mov. */
ALWAYS_INLINE uint64_t load64(const void *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

ALWAYS_INLINE void store64(void *p, uint64_t v) { memcpy(p, &v, sizeof v); }

/* ---- table ----------------------------------------------------------------------------------- */

/*
 * table[k][b] = state after byte b followed by k zero bytes, from state 0. Filled at first use without a lock (a fork
 * could leave one held): every thread that comes too early computes all of it and stores the same values.
 */
static _Atomic uint32_t table[8][256];
static _Atomic int table_ready;

#define TABLE(k, b) atomic_load_explicit(&table[k][b], memory_order_relaxed)

static void table_fill(void) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t c = b;
        for (int bit = 0; bit < 8; bit++)
            c = (c >> 1) ^ (POLYNOMIAL_REFLECTED & -(c & 1));
        atomic_store_explicit(&table[0][b], c, memory_order_relaxed);
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t b = 0; b < 256; b++) {
            uint32_t c = TABLE(k - 1, b);
            atomic_store_explicit(&table[k][b], (c >> 8) ^ TABLE(0, c & 0xFF), memory_order_relaxed);
        }
    atomic_store_explicit(&table_ready, 1, memory_order_release);
}

static uint32_t table_state(uint32_t c, const uint8_t *src, size_t n) {
    for (; n >= 8; n -= 8, src += 8) {
        uint64_t v = load64(src) ^ c;
        c = TABLE(7, v & 0xFF) ^ TABLE(6, (v >> 8) & 0xFF) ^ TABLE(5, (v >> 16) & 0xFF) ^ TABLE(4, (v >> 24) & 0xFF) ^
            TABLE(3, (v >> 32) & 0xFF) ^ TABLE(2, (v >> 40) & 0xFF) ^ TABLE(1, (v >> 48) & 0xFF) ^ TABLE(0, v >> 56);
    }
    for (; n > 0; n--, src++)
        c = (c >> 8) ^ TABLE(0, (c ^ *src) & 0xFF);
    return c;
}

/* One 64-byte line with baseline instructions. */
ALWAYS_INLINE void stream_line_sse2(uint8_t *dst, const uint8_t *src) {
    for (int i = 0; i < 64; i += 16)
        _mm_stream_si128((__m128i *)(void *)(dst + i), _mm_loadu_si128((const __m128i *)(const void *)(src + i)));
}

static uint32_t copy_table(uint32_t crc, void *dst_, const void *src_, size_t n, enum crc32c_store store) {
    enum { BLOCK_BYTES = 4096 }; /* stays in the first-level cache between its CRC and its copy */
    uint8_t *dst = dst_;
    const uint8_t *src = src_;
    if (!atomic_load_explicit(&table_ready, memory_order_acquire))
        table_fill();
    uint32_t c = ~crc;
    while (n > 0) {
        size_t block = n < BLOCK_BYTES ? n : BLOCK_BYTES;
        c = table_state(c, src, block);
        if (store == CRC32C_STORE_CACHED)
            memcpy(dst, src, block);
        else if (store == CRC32C_STORE_STREAM)
            for (size_t i = 0; i < block; i += 64)
                stream_line_sse2(dst + i, src + i);
        if (store != CRC32C_STORE_NONE)
            dst += block;
        src += block;
        n -= block;
    }
    return ~c;
}

/* ---- sse4.2 ---------------------------------------------------------------------------------- */

#define TARGET_SSE42 __attribute__((target("sse4.2,pclmul")))
#define TARGET_AVX512 __attribute__((target("avx512f,vpclmulqdq,pclmul")))

/* The end of every copy: single stream, cached stores. A macro, for a function is inlined only into its own target. */
#define SERIAL_BODY(c, dst, src, n, store)                                                                             \
    do {                                                                                                               \
        uint64_t wide = (c);                                                                                           \
        for (; (n) >= 8; (n) -= 8, (src) += 8) {                                                                       \
            uint64_t v = load64(src);                                                                                  \
            wide = _mm_crc32_u64(wide, v);                                                                             \
            if ((store) != CRC32C_STORE_NONE) {                                                                        \
                store64((dst), v);                                                                                     \
                (dst) += 8;                                                                                            \
            }                                                                                                          \
        }                                                                                                              \
        (c) = (uint32_t)wide;                                                                                          \
        for (; (n) > 0; (n)--, (src)++) {                                                                              \
            uint8_t v = *(src);                                                                                        \
            (c) = _mm_crc32_u8((c), v);                                                                                \
            if ((store) != CRC32C_STORE_NONE)                                                                          \
                *(dst)++ = v;                                                                                          \
        }                                                                                                              \
    } while (0)

TARGET_SSE42 ALWAYS_INLINE void store_line_sse(uint8_t *dst, const uint8_t *src, enum crc32c_store store) {
    if (store == CRC32C_STORE_STREAM)
        stream_line_sse2(dst, src);
    else if (store == CRC32C_STORE_CACHED)
        for (int i = 0; i < 64; i += 16)
            _mm_storeu_si128((__m128i *)(void *)(dst + i), _mm_loadu_si128((const __m128i *)(const void *)(src + i)));
}

/*
 * Three streams of `stream` bytes each, line by line. shift1 = x^(8 * stream - 33), shift2 = x^(16 * stream - 33): the
 * product of two reflected 32-bit values is one bit short of a 64-bit place, and crc32 multiplies by x^32.
 */
TARGET_SSE42 ALWAYS_INLINE uint32_t three_streams(uint32_t c, uint8_t *dst, const uint8_t *src, const size_t stream,
                                                  const uint32_t shift1, const uint32_t shift2,
                                                  const enum crc32c_store store) {
    uint64_t s0 = c, s1 = 0, s2 = 0;
    for (size_t line = 0; line < stream; line += 64) {
        const uint8_t *p = src + line;
        for (int i = 0; i < 64; i += 8) {
            s0 = _mm_crc32_u64(s0, load64(p + i));
            s1 = _mm_crc32_u64(s1, load64(p + stream + i));
            s2 = _mm_crc32_u64(s2, load64(p + 2 * stream + i));
        }
        if (store == CRC32C_STORE_STREAM)
            for (int k = 3; k < 6; k++)
                _mm_prefetch(p + k * stream, _MM_HINT_T0);
        if (store == CRC32C_STORE_CACHED)
            for (int k = 0; k < 3; k++)
                store_line_sse(dst + line + k * stream, p + k * stream, store);
    }
    /* Streamed in order after the CRC of the block, from the first-level cache: lines of three streams in turn cost a
     * quarter of the bandwidth (measured: 8.5 against 11.3 GB/s). */
    if (store == CRC32C_STORE_STREAM)
        for (size_t i = 0; i < 3 * stream; i += 64) {
            stream_line_sse2(dst + i, src + i);
        }
    __m128i a = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)s0), _mm_cvtsi32_si128((int)shift2), 0);
    __m128i b = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)s1), _mm_cvtsi32_si128((int)shift1), 0);
    return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(_mm_xor_si128(a, b))) ^ (uint32_t)s2;
}

TARGET_SSE42 ALWAYS_INLINE uint32_t body_sse42(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t n,
                                               const enum crc32c_store store) {
    enum { LONG = 1024, SHORT = 128 };
    uint32_t c = ~crc;
    for (; n >= 3 * LONG; n -= 3 * LONG, src += 3 * LONG) {
        c = three_streams(c, dst, src, LONG, 0x170076fa, 0xa51b6135, store);
        if (store != CRC32C_STORE_NONE)
            dst += 3 * LONG;
    }
    for (; n >= 3 * SHORT; n -= 3 * SHORT, src += 3 * SHORT) {
        c = three_streams(c, dst, src, SHORT, 0x0d3b6092, 0xb9e02b86, store);
        if (store != CRC32C_STORE_NONE)
            dst += 3 * SHORT;
    }
    if (store == CRC32C_STORE_STREAM) {
        uint64_t wide = c;
        for (; n >= 64; n -= 64, src += 64, dst += 64) {
            for (int i = 0; i < 64; i += 8)
                wide = _mm_crc32_u64(wide, load64(src + i));
            stream_line_sse2(dst, src);
        }
        return ~(uint32_t)wide;
    }
    SERIAL_BODY(c, dst, src, n, store);
    return ~c;
}

TARGET_SSE42 static uint32_t copy_sse42(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store) {
    if (store == CRC32C_STORE_NONE)
        return body_sse42(crc, NULL, src, n, CRC32C_STORE_NONE);
    if (store == CRC32C_STORE_CACHED)
        return body_sse42(crc, dst, src, n, CRC32C_STORE_CACHED);
    return body_sse42(crc, dst, src, n, CRC32C_STORE_STREAM);
}

/* ---- avx512 ---------------------------------------------------------------------------------- */

TARGET_AVX512 ALWAYS_INLINE __m512i take_line(uint8_t *dst, const uint8_t *src, const enum crc32c_store store) {
    __m512i v = _mm512_loadu_si512(src);
    if (store == CRC32C_STORE_CACHED)
        _mm512_storeu_si512(dst, v);
    else if (store == CRC32C_STORE_STREAM)
        _mm512_stream_si512((void *)dst, v);
    return v;
}

/* 0x96 = xor of three. */
TARGET_AVX512 ALWAYS_INLINE __m512i fold(__m512i accumulator, __m512i by, __m512i next) {
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(accumulator, by, 0x00),
                                     _mm512_clmulepi64_epi128(accumulator, by, 0x11), next, 0x96);
}

TARGET_AVX512 ALWAYS_INLINE __m128i fold16(__m128i accumulator, __m128i by, __m128i next) {
    return _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(accumulator, by, 0x00), next),
                         _mm_clmulepi64_si128(accumulator, by, 0x11));
}

TARGET_AVX512 ALWAYS_INLINE uint32_t body_avx512(uint32_t crc, uint8_t *dst, const uint8_t *src, size_t n,
                                                 const enum crc32c_store store) {
    enum { FOLDING_PAYS_BYTES = 128 };
    const size_t step = store == CRC32C_STORE_NONE ? 0 : 1; /* dst stays NULL when there is none */
    uint32_t c = ~crc;
    if (n >= FOLDING_PAYS_BYTES || (store == CRC32C_STORE_STREAM && n >= 64)) {
        /* (x^(D-32), x^(D+32)) mod P, reflected, shifted left by one; D in bits */
        const __m512i by_256_bytes = _mm512_broadcast_i32x4(_mm_set_epi64x(0xb9e02b86, 0xdcb17aa4));
        const __m512i by_64_bytes = _mm512_broadcast_i32x4(_mm_set_epi64x(0x9e4addf8, 0x740eef02));
        const __m128i by_16_bytes = _mm_set_epi64x(0x14cd00bd6, 0xf20c0dfe);
        const __m512i state = _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)c));
        __m512i x0;
        if (n >= 256) {
            x0 = _mm512_xor_si512(take_line(dst, src, store), state);
            __m512i x1 = take_line(dst + 64 * step, src + 64, store);
            __m512i x2 = take_line(dst + 128 * step, src + 128, store);
            __m512i x3 = take_line(dst + 192 * step, src + 192, store);
            for (src += 256, dst += 256 * step, n -= 256; n >= 256; src += 256, dst += 256 * step, n -= 256) {
                if (store == CRC32C_STORE_STREAM)
                    for (int i = 0; i < 256; i += 64)
                        _mm_prefetch(src + PREFETCH_BYTES + i, _MM_HINT_NTA);
                x0 = fold(x0, by_256_bytes, take_line(dst, src, store));
                x1 = fold(x1, by_256_bytes, take_line(dst + 64 * step, src + 64, store));
                x2 = fold(x2, by_256_bytes, take_line(dst + 128 * step, src + 128, store));
                x3 = fold(x3, by_256_bytes, take_line(dst + 192 * step, src + 192, store));
            }
            x0 = fold(fold(fold(x0, by_64_bytes, x1), by_64_bytes, x2), by_64_bytes, x3);
        } else {
            x0 = _mm512_xor_si512(take_line(dst, src, store), state);
            src += 64, dst += 64 * step, n -= 64;
        }
        for (; n >= 64; src += 64, dst += 64 * step, n -= 64)
            x0 = fold(x0, by_64_bytes, take_line(dst, src, store));
        __m128i y = fold16(_mm512_castsi512_si128(x0), by_16_bytes, _mm512_extracti32x4_epi32(x0, 1));
        y = fold16(y, by_16_bytes, _mm512_extracti32x4_epi32(x0, 2));
        y = fold16(y, by_16_bytes, _mm512_extracti32x4_epi32(x0, 3));
        c = (uint32_t)_mm_crc32_u64(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(y)),
                                    (uint64_t)_mm_extract_epi64(y, 1));
    }
    SERIAL_BODY(c, dst, src, n, store);
    return ~c;
}

TARGET_AVX512 static uint32_t copy_avx512(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store) {
    if (store == CRC32C_STORE_NONE)
        return body_avx512(crc, NULL, src, n, CRC32C_STORE_NONE);
    if (store == CRC32C_STORE_CACHED)
        return body_avx512(crc, dst, src, n, CRC32C_STORE_CACHED);
    return body_avx512(crc, dst, src, n, CRC32C_STORE_STREAM);
}

/* ---- choice ---------------------------------------------------------------------------------- */

typedef uint32_t (*copy_function)(uint32_t, void *, const void *, size_t, enum crc32c_store);

static const copy_function implementations[CRC32C_IMPLEMENTATIONS] = {
    [CRC32C_TABLE] = copy_table, [CRC32C_SSE42] = copy_sse42, [CRC32C_AVX512] = copy_avx512};

bool crc32c_is_usable(enum crc32c_implementation implementation) {
    const uint32_t sse = CPU_SSE42 | CPU_PCLMULQDQ, avx = sse | CPU_AVX512F | CPU_VPCLMULQDQ;
    const uint32_t needs = implementation == CRC32C_AVX512 ? avx : implementation == CRC32C_SSE42 ? sse : 0;
    return (cpu_features() & needs) == needs;
}

static uint32_t copy_first(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store);
static _Atomic(copy_function) chosen = copy_first;

static uint32_t copy_first(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store) {
    int best = CRC32C_IMPLEMENTATIONS - 1;
    while (!crc32c_is_usable((enum crc32c_implementation)best))
        best--;
    atomic_store_explicit(&chosen, implementations[best], memory_order_relaxed);
    return implementations[best](crc, dst, src, n, store);
}

uint32_t crc32c_copy(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store) {
    return atomic_load_explicit(&chosen, memory_order_relaxed)(crc, dst, src, n, store);
}

uint32_t crc32c_copy_by(enum crc32c_implementation implementation, uint32_t crc, void *dst, const void *src, size_t n,
                        enum crc32c_store store) {
    return implementations[implementation](crc, dst, src, n, store);
}

uint32_t crc32c(uint32_t crc, const void *data, size_t n) { return crc32c_copy(crc, NULL, data, n, CRC32C_STORE_NONE); }

uint32_t gismo_crc32c(uint32_t crc, const void *data, uint64_t length) { return crc32c(crc, data, length); }

/* ---- combine --------------------------------------------------------------------------------- */

/* a * b mod P, reflected: bit 31 is x^0. */
static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
        product ^= b & -(uint32_t)((a & bit) != 0);
        b = (b >> 1) ^ (POLYNOMIAL_REFLECTED & -(b & 1));
    }
    return product;
}

/* x^(8 * length_b) mod P by squaring. The inversions of the two CRCs cancel, as in zlib's crc32_combine. */
uint32_t crc32c_combine_operator(uint64_t length_b) {
    uint32_t result = 1u << 31, power = 1u << 23; /* x^0, x^8 */
    for (; length_b != 0; length_b >>= 1) {
        if (length_b & 1)
            result = multiply(result, power);
        power = multiply(power, power);
    }
    return result;
}

uint32_t crc32c_combine_with(uint32_t operator_b, uint32_t crc_a, uint32_t crc_b) {
    return multiply(operator_b, crc_a) ^ crc_b;
}

uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t length_b) {
    return crc32c_combine_with(crc32c_combine_operator(length_b), crc_a, crc_b);
}
