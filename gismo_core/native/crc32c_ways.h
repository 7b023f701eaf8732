/*
 * crc32c_ways.h - what the ways of crc32c.c share. A way has one function, which copies as crc32c_copy() does.
 */
#ifndef GISMO_CRC32C_WAYS_H
#define GISMO_CRC32C_WAYS_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "crc32c.h"

#define CRC32C_POLYNOMIAL_REFLECTED 0x82F63B78u
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define TARGET_SSE42 __attribute__((target("sse4.2,pclmul")))

uint32_t crc32c_copy_table(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store);
uint32_t crc32c_copy_sse42(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store);
uint32_t crc32c_copy_avx2(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store);
uint32_t crc32c_copy_avx512(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store);

/* Tolerates any alignment; compiles to one mov. */
ALWAYS_INLINE uint64_t load64(const void *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

ALWAYS_INLINE void store64(void *p, uint64_t v) { memcpy(p, &v, sizeof v); }

/* One 64-byte line with baseline instructions. */
ALWAYS_INLINE void stream_line_sse2(uint8_t *dst, const uint8_t *src) {
    for (int i = 0; i < 64; i += 16)
        _mm_stream_si128((__m128i *)(void *)(dst + i), _mm_loadu_si128((const __m128i *)(const void *)(src + i)));
}

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

#endif
