/* Cycles, names and deaths: see gismo_bench.h. */
#include "gismo_bench.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CYCLE_MAX = 64, NAME_BYTES = 27 };

static const char payload[CYCLE_MAX] = "gismo bench: sixty-four bytes of payload, as short as a line";

/* xorshift64*: the sequence only has to jump about, and to be the same in each run. */
static uint64_t next_random(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545F4914F6CDD1Du;
}

static uint64_t below(uint64_t *state, uint64_t count) { return (next_random(state) >> 32) * count >> 32; }

static int make_one(gismo_store *store, uint64_t length, gismo_handle *out) {
    gismo_object object;
    int status = gismo_create(store, length, NULL, &object);
    if (status != GISMO_OK)
        return status;
    memcpy(object.data, payload, length);
    status = gismo_seal(store, &object, 0);
    *out = object.handle;
    return status;
}

static int cycle_once(gismo_store *store, uint64_t length) {
    gismo_handle handle;
    int status = make_one(store, length, &handle);
    if (status != GISMO_OK)
        return status;
    gismo_view view;
    if ((status = gismo_get(store, &handle, &view)) != GISMO_OK)
        return status;
    if ((status = gismo_release(store, view.slot)) != GISMO_OK)
        return status;
    return gismo_delete(store, &handle);
}

int gismo_bench_cycle(gismo_store *store, uint64_t length, uint64_t count, uint64_t *ns) {
    if (length == 0 || length > CYCLE_MAX)
        return GISMO_EINVAL;
    uint64_t begin = gismo_bench_now();
    for (uint64_t i = 0; i < count; i++) {
        int status = cycle_once(store, length);
        if (status != GISMO_OK)
            return status;
    }
    *ns = gismo_bench_now() - begin;
    return GISMO_OK;
}

int gismo_bench_cycle_window(gismo_store *store, uint64_t length, uint64_t begin, uint64_t end, uint64_t *count,
                             uint64_t *longest_ns) {
    if (length == 0 || length > CYCLE_MAX)
        return GISMO_EINVAL;
    *count = 0;
    *longest_ns = 0;
    uint64_t before = gismo_bench_now();
    while (before < end) {
        for (int i = 0; i < 16; i++) {
            int status = cycle_once(store, length);
            if (status != GISMO_OK)
                return status;
        }
        uint64_t now = gismo_bench_now();
        if (before >= begin && now <= end) {
            *count += 16;
            *longest_ns = now - before > *longest_ns ? now - before : *longest_ns;
        }
        before = now;
    }
    return GISMO_OK;
}

static void spell(char out[NAME_BYTES], uint64_t number) {
    static const char digits[] = "0123456789abcdef";
    memcpy(out, "gismo-bench-object-", 19);
    for (int i = 0; i < 8; i++)
        out[19 + i] = digits[number >> (28 - 4 * i) & 15];
}

int gismo_bench_fill(gismo_store *store, uint64_t length, uint64_t count, int named, gismo_handle *handles) {
    if (length == 0 || length > CYCLE_MAX)
        return GISMO_EINVAL;
    for (uint64_t i = 0; i < count; i++) {
        char name[NAME_BYTES];
        gismo_create_options options;
        memset(&options, 0, sizeof options);
        if (named) {
            spell(name, i);
            options.name = name;
            options.name_bytes = NAME_BYTES;
        }
        gismo_object object;
        int status = gismo_create(store, length, &options, &object);
        if (status != GISMO_OK)
            return status;
        memcpy(object.data, payload, length);
        if ((status = gismo_seal(store, &object, 0)) != GISMO_OK)
            return status;
        if (handles != NULL)
            handles[i] = object.handle;
    }
    return GISMO_OK;
}

int gismo_bench_replace(gismo_store *store, uint64_t length, gismo_handle *handles, uint64_t count, uint64_t pairs,
                        uint64_t seed, uint64_t *ns) {
    if (length == 0 || length > CYCLE_MAX || seed == 0 || pairs > count)
        return GISMO_EINVAL;
    /* Chosen before the clock runs: the misses of the caller's own array of handles are not the store's. */
    for (uint64_t i = 0; i < pairs; i++) {
        uint64_t other = i + below(&seed, count - i);
        gismo_handle chosen = handles[other];
        handles[other] = handles[i];
        handles[i] = chosen;
    }
    uint64_t begin = gismo_bench_now();
    for (uint64_t i = 0; i < pairs; i++) {
        gismo_handle *handle = &handles[i];
        int status = gismo_delete(store, handle);
        if (status == GISMO_OK)
            status = make_one(store, length, handle);
        if (status != GISMO_OK)
            return status;
    }
    *ns = gismo_bench_now() - begin;
    return GISMO_OK;
}

int gismo_bench_lookup(gismo_store *store, uint64_t count, uint64_t lookups, uint64_t seed, uint64_t *ns) {
    if (seed == 0)
        return GISMO_EINVAL;
    char (*names)[NAME_BYTES] = malloc(lookups * sizeof *names);
    if (names == NULL)
        return GISMO_ESYS;
    for (uint64_t i = 0; i < lookups; i++)
        spell(names[i], below(&seed, count));
    int status = GISMO_OK;
    uint64_t begin = gismo_bench_now();
    for (uint64_t i = 0; i < lookups && status == GISMO_OK; i++) {
        gismo_handle handle;
        status = gismo_lookup(store, names[i], NAME_BYTES, 0, &handle);
    }
    *ns = gismo_bench_now() - begin;
    free(names);
    return status;
}

int gismo_bench_hold(gismo_store *store, uint64_t small_bytes, uint64_t large_bytes, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        uint64_t length = i % 2 == 0 ? small_bytes : large_bytes;
        gismo_object object;
        int status = gismo_create(store, length, NULL, &object);
        if (status != GISMO_OK)
            return status;
        memset(object.data, 0xA5, length / 2);
    }
    return GISMO_OK;
}

int gismo_bench_touch(gismo_store *store, uint64_t *ns) {
    uint64_t begin = gismo_bench_now();
    gismo_object object;
    int status = gismo_create(store, 64, NULL, &object);
    if (status == GISMO_OK)
        status = gismo_abort(store, &object);
    *ns = gismo_bench_now() - begin;
    return status;
}

int gismo_bench_writing(gismo_store *store, uint64_t *objects) {
    gismo_stats stats;
    int status = gismo_get_stats(store, &stats);
    *objects = status == GISMO_OK ? stats.writing_objects : 0;
    return status;
}

int gismo_bench_wait_free(gismo_store *store, uint64_t since, uint64_t timeout_ns, uint64_t *ns) {
    for (;;) {
        uint64_t writing = 0;
        int status = gismo_bench_writing(store, &writing);
        *ns = gismo_bench_now() - since;
        if (status != GISMO_OK || writing == 0)
            return status;
        if (*ns > timeout_ns)
            return GISMO_EBUSY;
        struct timespec pause = {0, 50000};
        nanosleep(&pause, NULL);
    }
}
