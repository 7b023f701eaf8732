/*
 * gismo_bench.h - what `gismo bench store` must run in C: the timed loops.
 *
 * Linked against libgismo.so by its public API only, so that the figures are those of any C user. The
 * Python side (gismo_core/bench/clib.py) calls these by ctypes; that is why a store is opened here too:
 * no struct of gismo.h has to be spelled a second time in Python.
 *
 * Every function returns GISMO_OK or a GISMO_E* code; gismo_error_message() says more. Times are
 * nanoseconds of CLOCK_MONOTONIC, sizes bytes.
 */
#ifndef GISMO_BENCH_H
#define GISMO_BENCH_H

#include "gismo.h"

#define BENCH_API __attribute__((visibility("default")))

/* Changes with any signature below; the Python side refuses another one. */
#define GISMO_BENCH_ABI_VERSION 2u

BENCH_API uint32_t gismo_bench_abi_version(void);
BENCH_API uint64_t gismo_bench_now(void);

/* ---- stores --------------------------------------------------------------------------------- */

/* software: as for hosts whose memory is not coherent. */
BENCH_API int gismo_bench_format(const char *path, uint64_t size_bytes, uint64_t max_objects, int populate,
                                 int software);
/* Size of the store on the medium; GISMO_ENOTSTORE when there is none. */
BENCH_API int gismo_bench_probe(const char *path, uint64_t *size_bytes);
/* *ns = what gismo_open() alone took. */
BENCH_API int gismo_bench_open(const char *path, const char *state_dir, gismo_store **out, uint64_t *ns);
BENCH_API int gismo_bench_close(gismo_store *store);

/* ---- copies --------------------------------------------------------------------------------- */

/*
 * Puts that rotate: put i takes its bytes from src + (i mod slots) * length and first deletes what was put
 * `slots` puts ago, so that sources and destinations both walk over slots * length bytes. Only the puts are
 * in *ns, not the deletes. handles: slots entries, all zero before the first lap.
 */
BENCH_API int gismo_bench_put_lap(gismo_store *store, const void *src, uint64_t length, uint64_t slots,
                                  gismo_handle *handles, uint64_t *ns);

enum gismo_bench_copy {
    BENCH_COPY_MEMCPY = 0,    /* the C library's, which chooses by length */
    BENCH_COPY_CACHED = 1,    /* vector loads and ordinary vector stores */
    BENCH_COPY_REP_MOVSB = 2, /* the microcode's */
    BENCH_COPY_STREAM = 3,    /* vector loads and non-temporal stores */
    BENCH_COPY_STREAM_2 = 4,  /* the same by two threads, half each */
    BENCH_COPY_MEMCPY_2 = 5,  /* the C library's by two threads */
    BENCH_COPY_VARIANTS = 6
};

typedef struct gismo_bench_copier gismo_bench_copier;
/* The second thread of the threaded variants is made once here: a store could keep one, too. */
BENCH_API int gismo_bench_copier_new(gismo_bench_copier **out);
BENCH_API void gismo_bench_copier_free(gismo_bench_copier *copier);
/* One lap of copies dst + i * length <- src + i * length, timed one by one as put_lap times its puts. */
BENCH_API int gismo_bench_copy_lap(gismo_bench_copier *copier, int variant, void *dst, const void *src, uint64_t length,
                                   uint64_t slots, uint64_t *ns);

/* count gets of one object, in batches of at most 256 pins; *ns = the gets alone, not the releases. */
BENCH_API int gismo_bench_get(gismo_store *store, const gismo_handle *handle, uint64_t count, uint64_t *ns);
BENCH_API int gismo_bench_put(gismo_store *store, const void *src, uint64_t length, gismo_handle *out);

/* ---- cycles --------------------------------------------------------------------------------- */

/* count times create + write + seal + get + release + delete of `length` (at most 64) bytes. */
BENCH_API int gismo_bench_cycle(gismo_store *store, uint64_t length, uint64_t count, uint64_t *ns);
/*
 * The same until `end`; *count = the cycles that began and ended within [begin, end], *longest_ns = the longest of
 * them as the clock, read every 16th cycle, shows it.
 */
BENCH_API int gismo_bench_cycle_window(gismo_store *store, uint64_t length, uint64_t begin, uint64_t end,
                                       uint64_t *count, uint64_t *longest_ns);
/* count objects of `length` (at most 64) bytes; named != 0: "gismo-bench-object-%08x". handles may be NULL. */
BENCH_API int gismo_bench_fill(gismo_store *store, uint64_t length, uint64_t count, int named, gismo_handle *handles);
/* `pairs` times: delete a random one of the `count` live objects and make one in its stead; each at most once. */
BENCH_API int gismo_bench_replace(gismo_store *store, uint64_t length, gismo_handle *handles, uint64_t count,
                                  uint64_t pairs, uint64_t seed, uint64_t *ns);
/* `lookups` random names among the `count` of gismo_bench_fill; the names are spelled out beforehand. */
BENCH_API int gismo_bench_lookup(gismo_store *store, uint64_t count, uint64_t lookups, uint64_t seed, uint64_t *ns);

/* ---- deaths --------------------------------------------------------------------------------- */

/* Begins count objects, by turns of small_bytes and large_bytes, half fills each, and seals none. */
BENCH_API int gismo_bench_hold(gismo_store *store, uint64_t small_bytes, uint64_t large_bytes, uint64_t count);
/* One operation: create + abort of 64 bytes. */
BENCH_API int gismo_bench_touch(gismo_store *store, uint64_t *ns);
BENCH_API int gismo_bench_writing(gismo_store *store, uint64_t *objects);
/* Asks every 50 us until no object is half-written; GISMO_EBUSY when the time is over. *ns = when that was, since
 * `since`. */
BENCH_API int gismo_bench_wait_free(gismo_store *store, uint64_t since, uint64_t timeout_ns, uint64_t *ns);

#endif
