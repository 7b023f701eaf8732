/* Stores and clocks of the bench: see gismo_bench.h. */
#include "gismo_bench.h"

#include <string.h>
#include <time.h>

uint32_t gismo_bench_abi_version(void) { return GISMO_BENCH_ABI_VERSION; }

uint64_t gismo_bench_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int gismo_bench_format(const char *path, uint64_t size_bytes, uint64_t max_objects, int populate, int software) {
    gismo_format_options options;
    memset(&options, 0, sizeof options);
    options.size_bytes = size_bytes;
    options.max_objects = max_objects;
    options.force = 1; /* the caller has refused what may not be overwritten */
    options.populate = populate != 0;
    options.coherence = software ? GISMO_COHERENCE_SOFTWARE : GISMO_COHERENCE_HARDWARE;
    uint8_t uuid[16];
    return gismo_format(path, &options, NULL, NULL, uuid);
}

int gismo_bench_probe(const char *path, uint64_t *size_bytes) {
    gismo_info info;
    int status = gismo_probe(path, &info);
    *size_bytes = status == GISMO_OK ? info.size_bytes : 0;
    return status;
}

int gismo_bench_open(const char *path, const char *state_dir, gismo_store **out, uint64_t *ns) {
    gismo_open_options options;
    memset(&options, 0, sizeof options);
    options.state_dir = state_dir;
    options.host_id = -1;
    uint64_t begin = gismo_bench_now();
    int status = gismo_open(path, &options, out);
    *ns = gismo_bench_now() - begin;
    return status;
}

int gismo_bench_close(gismo_store *store) {
    int status = gismo_close(store);
    if (status == GISMO_OK)
        gismo_free(store);
    return status;
}
