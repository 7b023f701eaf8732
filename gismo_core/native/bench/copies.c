/*
 * Copies: what memory gives (reference variants, none of them the store's) and what put makes of it.
 * Both are timed copy by copy with the same two clock reads, so that these weigh the same on both sides.
 */
#include "gismo_bench.h"

#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef void (*copy_function)(void *dst, const void *src, uint64_t length);

static void copy_memcpy(void *dst, const void *src, uint64_t length) { memcpy(dst, src, length); }

static void copy_rep_movsb(void *dst, const void *src, uint64_t length) {
    __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(length) : : "memory");
}

__attribute__((target("avx2"))) static void cached_avx2(void *dst, const void *src, uint64_t length) {
    uint64_t at = 0;
    for (; at + 128 <= length; at += 128)
        for (int lane = 0; lane < 4; lane++)
            _mm256_storeu_si256((__m256i *)((char *)dst + at + 32 * lane),
                                _mm256_loadu_si256((const __m256i *)((const char *)src + at + 32 * lane)));
    memcpy((char *)dst + at, (const char *)src + at, length - at);
}

__attribute__((target("avx2"))) static void stream_avx2(void *dst, const void *src, uint64_t length) {
    uint64_t at = 0;
    for (; at + 128 <= length; at += 128) {
        _mm_prefetch((const char *)src + at + 1024, _MM_HINT_NTA);
        _mm_prefetch((const char *)src + at + 1088, _MM_HINT_NTA);
        for (int lane = 0; lane < 4; lane++)
            _mm256_stream_si256((__m256i *)((char *)dst + at + 32 * lane),
                                _mm256_loadu_si256((const __m256i *)((const char *)src + at + 32 * lane)));
    }
    memcpy((char *)dst + at, (const char *)src + at, length - at);
    _mm_sfence();
}

__attribute__((target("avx512f"))) static void cached_avx512(void *dst, const void *src, uint64_t length) {
    uint64_t at = 0;
    for (; at + 256 <= length; at += 256)
        for (int lane = 0; lane < 4; lane++)
            _mm512_storeu_si512((char *)dst + at + 64 * lane, _mm512_loadu_si512((const char *)src + at + 64 * lane));
    memcpy((char *)dst + at, (const char *)src + at, length - at);
}

__attribute__((target("avx512f"))) static void stream_avx512(void *dst, const void *src, uint64_t length) {
    uint64_t at = 0;
    for (; at + 256 <= length; at += 256) {
        for (int lane = 0; lane < 4; lane++)
            _mm_prefetch((const char *)src + at + 2048 + 64 * lane, _MM_HINT_NTA);
        for (int lane = 0; lane < 4; lane++)
            _mm512_stream_si512((__m512i *)((char *)dst + at + 64 * lane),
                                _mm512_loadu_si512((const char *)src + at + 64 * lane));
    }
    memcpy((char *)dst + at, (const char *)src + at, length - at);
    _mm_sfence();
}

static void stream_sse2(void *dst, const void *src, uint64_t length) {
    uint64_t at = 0;
    for (; at + 64 <= length; at += 64)
        for (int lane = 0; lane < 4; lane++)
            _mm_stream_si128((__m128i *)((char *)dst + at + 16 * lane),
                             _mm_loadu_si128((const __m128i *)((const char *)src + at + 16 * lane)));
    memcpy((char *)dst + at, (const char *)src + at, length - at);
    _mm_sfence();
}

struct gismo_bench_copier {
    pthread_t thread;
    _Atomic uint32_t asked; /* a futex: raised by one for each piece of work */
    _Atomic uint32_t done;
    _Atomic uint32_t stop;
    copy_function function; /* the piece: written before asked is raised */
    char *dst;
    const char *src;
    uint64_t length;
    copy_function cached, stream;
};

enum { SPINS = 2000 }; /* about 20 us: the next copy of a lap comes sooner; the store may spin as long */

static void *second_thread(void *argument) {
    gismo_bench_copier *copier = argument;
    uint32_t seen = 0;
    for (;;) {
        int spins = 0;
        while (atomic_load(&copier->asked) == seen) {
            if (++spins < SPINS)
                _mm_pause();
            else
                syscall(SYS_futex, &copier->asked, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
        }
        seen++;
        if (atomic_load(&copier->stop))
            return NULL;
        copier->function(copier->dst, copier->src, copier->length);
        atomic_store(&copier->done, seen);
    }
}

int gismo_bench_copier_new(gismo_bench_copier **out) {
    gismo_bench_copier *copier = calloc(1, sizeof *copier);
    if (copier == NULL)
        return GISMO_ESYS;
    __builtin_cpu_init();
    copier->cached = copy_memcpy;
    copier->stream = stream_sse2;
    if (__builtin_cpu_supports("avx2")) {
        copier->cached = cached_avx2;
        copier->stream = stream_avx2;
    }
    if (__builtin_cpu_supports("avx512f")) {
        copier->cached = cached_avx512;
        copier->stream = stream_avx512;
    }
    if (pthread_create(&copier->thread, NULL, second_thread, copier) != 0) {
        free(copier);
        return GISMO_ESYS;
    }
    *out = copier;
    return GISMO_OK;
}

static void ask(gismo_bench_copier *copier) {
    atomic_fetch_add(&copier->asked, 1);
    syscall(SYS_futex, &copier->asked, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void gismo_bench_copier_free(gismo_bench_copier *copier) {
    atomic_store(&copier->stop, 1);
    ask(copier);
    pthread_join(copier->thread, NULL);
    free(copier);
}

static void copy_by_two(gismo_bench_copier *copier, copy_function function, char *dst, const char *src,
                        uint64_t length) {
    uint64_t half = length / 2 / 4096 * 4096;
    copier->function = function;
    copier->dst = dst + half;
    copier->src = src + half;
    copier->length = length - half;
    ask(copier);
    function(dst, src, half);
    while (atomic_load(&copier->done) != atomic_load(&copier->asked))
        _mm_pause();
}

int gismo_bench_copy_lap(gismo_bench_copier *copier, int variant, void *dst, const void *src, uint64_t length,
                         uint64_t slots, uint64_t *ns) {
    copy_function functions[BENCH_COPY_VARIANTS] = {
        [BENCH_COPY_MEMCPY] = copy_memcpy,       [BENCH_COPY_CACHED] = copier->cached,
        [BENCH_COPY_REP_MOVSB] = copy_rep_movsb, [BENCH_COPY_STREAM] = copier->stream,
        [BENCH_COPY_STREAM_2] = copier->stream,  [BENCH_COPY_MEMCPY_2] = copy_memcpy,
    };
    if (variant < 0 || variant >= BENCH_COPY_VARIANTS)
        return GISMO_EINVAL;
    copy_function function = functions[variant];
    uint64_t total = 0;
    for (uint64_t slot = 0; slot < slots; slot++) {
        char *to = (char *)dst + slot * length;
        const char *from = (const char *)src + slot * length;
        uint64_t begin = gismo_bench_now();
        if (variant == BENCH_COPY_STREAM_2 || variant == BENCH_COPY_MEMCPY_2)
            copy_by_two(copier, function, to, from, length);
        else
            function(to, from, length);
        total += gismo_bench_now() - begin;
    }
    *ns = total;
    return GISMO_OK;
}

int gismo_bench_put_lap(gismo_store *store, const void *src, uint64_t length, uint64_t slots, gismo_handle *handles,
                        uint64_t *ns) {
    uint64_t total = 0;
    for (uint64_t slot = 0; slot < slots; slot++) {
        if (handles[slot].length != 0) {
            int status = gismo_delete(store, &handles[slot]);
            if (status != GISMO_OK)
                return status;
            handles[slot].length = 0;
        }
        gismo_buffer buffer = {(const char *)src + slot * length, length};
        uint64_t begin = gismo_bench_now();
        int status = gismo_put(store, &buffer, 1, NULL, &handles[slot]);
        total += gismo_bench_now() - begin;
        if (status != GISMO_OK) {
            handles[slot].length = 0;
            return status;
        }
    }
    *ns = total;
    return GISMO_OK;
}

int gismo_bench_put(gismo_store *store, const void *src, uint64_t length, gismo_handle *out) {
    gismo_buffer buffer = {src, length};
    return gismo_put(store, &buffer, 1, NULL, out);
}

int gismo_bench_get(gismo_store *store, const gismo_handle *handle, uint64_t count, uint64_t *ns) {
    uint64_t total = 0;
    for (uint64_t done = 0; done < count;) {
        uint64_t batch = count - done < 256 ? count - done : 256;
        gismo_view view;
        uint64_t got = 0;
        int status = GISMO_OK;
        uint64_t begin = gismo_bench_now();
        for (; got < batch && status == GISMO_OK; got++)
            status = gismo_get(store, handle, &view);
        total += gismo_bench_now() - begin;
        if (status != GISMO_OK)
            got--;
        for (; got > 0; got--) {
            int released = gismo_release(store, handle->slot);
            status = status == GISMO_OK ? released : status;
        }
        if (status != GISMO_OK)
            return status;
        done += batch;
    }
    *ns = total;
    return GISMO_OK;
}
