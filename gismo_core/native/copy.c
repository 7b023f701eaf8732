/*
 * copy.c - how to copy n payload bytes.
 *
 *   n < STREAM_FROM_BYTES     cached stores: the data stays in the cache, where whoever reads it next finds it
 *   above                     non-temporal stores: a cached store first reads the line that it then overwrites, half as
 *                             much traffic again; these do not
 *   n >= PARALLEL_FROM_BYTES  in slices, by the threads of copy_pool.c too
 *
 * In all of them the CRC32C is computed from the register that is stored (crc32c.c), so the source is read once.
 * Every access runs under a guard (guard.h, 3 ns).
 *
 * measured: 2 virtual cores of an AMD EPYC (Zen 4), kernel 6.18, 4 KiB pages, private memory to pre-faulted /dev/shm,
 * both rotating over 1 GiB; GB/s, best of 5 to 9 on a machine that others used too:
 *
 *     bytes     memcpy  stream, no CRC   stream, no CRC,   CRC fused,   CRC fused,   CRC fused, COPY_AUTO
 *                       (no prefetch)    best of 1 and 2   1 thread     2 threads
 *     64 KiB    14.8    22.0 (20.0)      22.0              24.1         -            23.9
 *     1 MiB     13.1    22.9 (20.3)      22.9              24.8         -            24.5
 *     8 MiB     13.4    23.5 (20.5)      25.6              24.2         25.8         24.8
 *     16 MiB    12.0    22.8 (20.4)      41.7              24.7         43.8         28.2
 *     64 MiB    13.4    23.7 (20.3)      42.7              24.8         45.7         31.4
 *     1 GiB     12.5    21.6 (19.7)      40.4              21.7         42.4         43.1
 *
 * Each row is of one run; 1 GiB of an earlier one than the rest, before spread_helpers(); 16 and 64 MiB COPY_AUTO
 * before idle_processors() left the pool's own spinning helpers out of its count, and with other work about, when it
 * declines threads. Last run, busy machine, best plain / COPY_AUTO with CRC: 8 MiB 22.6 / 22.9, 16 MiB 24.7 / 23.9,
 * 64 MiB 32.9 / 24.6, 1 GiB 25.1 / 25.3.
 *
 * The CRC is free: both wait for memory. Streaming overtakes cached stores from 16 KiB on (19.8 against 14.9) and is
 * equal at 4 KiB; 32 KiB leaves cached what fits the first-level cache. A short copy, back to back, with CRC: 16 B
 * 12 ns, 256 B 24 ns, 1 KiB 32 ns, 2 KiB 45 ns, against 8, 10, 26 and 60 ns of memcpy and then crc32c without a guard.
 * CRC alone on cached 64 KiB: table 1.8, sse4.2 28, avx512 59 GB/s; fused into a streaming copy of 1 MiB: 1.7, 11, 22.
 * Sapphire Rapids (one core; two): streaming with CRC 10.1; 19.3, the C library's memcpy of 1 GiB 9.8; 18.
 * On a Zen 3, which has no avx512: sse4.2 24.5, avx2 25.7; fused 10.3, 18.4; a streaming copy without one 16.0.
 */
#include "copy.h"

#include <immintrin.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "copy_pool.h"
#include "cpu.h"
#include "crc32c_ways.h"
#include "gismo.h"
#include "guard.h"

#define LINE_BYTES 64u
#define STREAM_FROM_BYTES (32u << 10)
#define PARALLEL_FROM_BYTES (1u << 20)

/* ---- streaming without a CRC -------------------------------------------------------------------- */

typedef void (*stream_function)(char *dst, const char *src, size_t n);

/* dst 64-byte aligned, n a multiple of 64. */
static void stream_sse2(char *dst, const char *src, size_t n) {
    for (size_t i = 0; i < n; i += 64) {
        prefetch_source(src + i, 64, PREFETCH_PAST_CACHES);
        for (size_t k = i; k < i + 64; k += 16)
            _mm_stream_si128((__m128i *)(void *)(dst + k), _mm_loadu_si128((const __m128i *)(const void *)(src + k)));
    }
}

/* One full line per store: it never waits in a write-combining buffer for its other parts. */
__attribute__((target("avx512f"), always_inline)) static inline void stream_avx512(char *dst, const char *src, size_t n,
                                                                                   const enum prefetch_to prefetch) {
    size_t i = 0;
    for (; i + 256 <= n; i += 256) {
        prefetch_source(src + i, 256, prefetch);
        __m512i a = _mm512_loadu_si512(src + i), b = _mm512_loadu_si512(src + i + 64);
        __m512i c = _mm512_loadu_si512(src + i + 128), d = _mm512_loadu_si512(src + i + 192);
        _mm512_stream_si512((void *)(dst + i), a);
        _mm512_stream_si512((void *)(dst + i + 64), b);
        _mm512_stream_si512((void *)(dst + i + 128), c);
        _mm512_stream_si512((void *)(dst + i + 192), d);
    }
    for (; i < n; i += 64)
        _mm512_stream_si512((void *)(dst + i), _mm512_loadu_si512(src + i));
}

__attribute__((target("avx512f"))) static void stream_avx512_amd(char *dst, const char *src, size_t n) {
    stream_avx512(dst, src, n, PREFETCH_PAST_CACHES);
}

__attribute__((target("avx512f"))) static void stream_avx512_intel(char *dst, const char *src, size_t n) {
    stream_avx512(dst, src, n, PREFETCH_SECOND_LEVEL);
}

static void stream_plain(char *dst, const char *src, size_t n) {
    static _Atomic(stream_function) chosen; /* racing first calls store the same */
    stream_function function = atomic_load_explicit(&chosen, memory_order_relaxed);
    if (function == NULL) {
        uint32_t features = cpu_features();
        function = !(features & CPU_AVX512F) ? stream_sse2
                   : features & CPU_INTEL    ? stream_avx512_intel
                                             : stream_avx512_amd;
        atomic_store_explicit(&chosen, function, memory_order_relaxed);
    }
    function(dst, src, n);
}

/* ---- one range ------------------------------------------------------------------------------------ */

static inline void copy_cached(char *dst, const char *src, size_t n, uint32_t *crc) {
    if (crc != NULL)
        *crc = crc32c_copy(*crc, dst, src, n, CRC32C_STORE_CACHED);
    else
        memcpy(dst, src, n);
}

static void copy_stream(char *dst, const char *src, size_t n, uint32_t *crc) {
    size_t head = -(uintptr_t)dst % LINE_BYTES;
    head = head < n ? head : n;
    size_t lines = (n - head) & ~(size_t)(LINE_BYTES - 1), tail = n - head - lines;
    if (head != 0)
        copy_cached(dst, src, head, crc);
    if (lines != 0) {
        if (crc != NULL)
            *crc = crc32c_copy(*crc, dst + head, src + head, lines, CRC32C_STORE_STREAM);
        else
            stream_plain(dst + head, src + head, lines);
    }
    if (tail != 0)
        copy_cached(dst + head + lines, src + head + lines, tail, crc);
    /* Non-temporal stores are weakly ordered even towards this host's other cores: without the fence a later plain
     * store (done_slices, the state word) could be seen before them. */
    _mm_sfence();
}

void copy_range(void *dst, const void *src, size_t n, enum copy_mode mode, uint32_t *crc) {
    if (mode == COPY_STREAM)
        copy_stream(dst, src, n, crc);
    else
        copy_cached(dst, src, n, crc);
}

/* ---- the whole copy --------------------------------------------------------------------------------- */

/*
 * The short way for short copies: as few calls, branches and passes through memory as there can be around the guard.
 * Not inlined: __builtin_setjmp makes its function keep nothing in registers across it.
 */
static __attribute__((noinline)) int copy_small_crc(void *dst, const void *src, size_t n, uint32_t *crc,
                                                    void **fault_address) {
    struct gismo_guard guard;
    if (GUARD_TRY(guard)) {
        uint32_t ended = crc32c_copy(*crc, dst, src, n, CRC32C_STORE_CACHED);
        GUARD_END(guard);
        *crc = ended;
        return 0;
    }
    if (fault_address != NULL)
        *fault_address = guard.fault_address;
    return -1;
}

static __attribute__((noinline)) int copy_small(void *dst, const void *src, size_t n, void **fault_address) {
    struct gismo_guard guard;
    if (GUARD_TRY(guard)) {
        memcpy(dst, src, n);
        GUARD_END(guard);
        return 0;
    }
    if (fault_address != NULL)
        *fault_address = guard.fault_address;
    return -1;
}

static __attribute__((noinline)) int copy_alone(char *dst, const char *src, size_t n,
                                                const struct copy_options *options) {
    struct gismo_guard guard;
    if (GUARD_TRY(guard)) {
        /* Through a local of this block, so that a fault leaves *options->crc as it was. */
        if (options->crc != NULL) {
            uint32_t crc = *options->crc;
            copy_range(dst, src, n, options->mode, &crc);
            *options->crc = crc;
        } else {
            copy_range(dst, src, n, options->mode, NULL);
        }
        GUARD_END(guard);
        return 0;
    }
    /* Some lines may still sit in write-combining buffers; nothing orders them for us when the copy was cut short. */
    _mm_sfence();
    if (options->fault_address != NULL)
        *options->fault_address = guard.fault_address;
    return -1;
}

int copy_payload(void *dst, const void *src, size_t n, struct copy_options options) {
    guard_install(); /* failure (never seen: it needs a broken kernel) leaves SIGBUS as deadly as it was */
    if (n < STREAM_FROM_BYTES && options.mode != COPY_STREAM)
        return options.crc != NULL ? copy_small_crc(dst, src, n, options.crc, options.fault_address)
                                   : copy_small(dst, src, n, options.fault_address);
    if (options.mode == COPY_AUTO)
        options.mode = COPY_STREAM;
    if (n >= PARALLEL_FROM_BYTES && options.threads != 1) {
        enum copy_pool_result result = copy_pool_run(dst, src, n, options);
        if (result != COPY_POOL_UNAVAILABLE)
            return result == COPY_POOL_DONE ? 0 : -1;
    }
    return copy_alone(dst, src, n, &options);
}

void gismo_copy(void *dst, const void *src, uint64_t length, int mode, int threads, uint32_t *crc) {
    struct copy_options options = {.mode = mode == 1   ? COPY_CACHED
                                           : mode == 2 ? COPY_STREAM
                                                       : COPY_AUTO,
                                   .threads = threads < 0 ? 0 : threads};
    uint32_t begun = 0;
    if (crc != NULL)
        options.crc = &begun;
    /* It has no way to say that the medium failed, so it fails as memcpy does. */
    if (copy_payload(dst, src, length, options) != 0)
        raise(SIGBUS);
    if (crc != NULL)
        *crc = begun;
}
