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

/*
 * Streaming copies prefetch PREFETCH_BYTES ahead: the hardware prefetcher stops at each 4 KiB page, and a
 * non-temporal store gives the core nothing to wait on, so the copy would stall once per page. A prefetch past the end of the
 * source cannot fault. Where to:
 *   past the caches (NTA)         AMD, Zen 3 and 4: 10 to 25 % faster than none
 *   into the second level (T1)    Intel, Sapphire Rapids: 10.1 GB/s a core; without any 8.4, NTA 5.8, into the first level 8.9
 * A hint is part of the instruction, so each is a copy of the loop.
 */
#define PREFETCH_BYTES 2048
enum prefetch_to { PREFETCH_PAST_CACHES, PREFETCH_SECOND_LEVEL };

ALWAYS_INLINE void prefetch_source(const void *at, size_t bytes, const enum prefetch_to to) {
    for (size_t i = 0; i < bytes; i += 64) {
        if (to == PREFETCH_SECOND_LEVEL)
            _mm_prefetch((const char *)at + PREFETCH_BYTES + i, _MM_HINT_T1);
        else
            _mm_prefetch((const char *)at + PREFETCH_BYTES + i, _MM_HINT_NTA);
    }
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
