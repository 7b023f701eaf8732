/*
 * capacity.c - how much fits a store. capacity STORE STATE_DIR WHAT [...]; prints one number or more, or says what is wrong.
 *
 *     edges      objects of 1 byte and of the largest free size, in an empty store
 *     million    1,000,000 objects of 64 bytes, all readable
 *     waste      the largest share of an extent that no byte of the object is in, over sizes above 4 KiB
 *     refill     bytes that fit with random sizes; after all is deleted in random order, the same again; after a
 *                random half is deleted, other sizes of the same kind
 *     fill       puts until StoreFull (for several at a time): bytes, and what the error said was free
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "gismo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ULL(x) ((unsigned long long)(x))
#define MUST(condition, ...)                                                                                           \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                            \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fprintf(stderr, "\nlast error: %s\n", gismo_error_message());                                              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static gismo_store *s;
static uint64_t state = 1;

static uint64_t random64(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1dull;
}

/* Without touching the payload: this is about room. */
static int make(uint64_t bytes, gismo_handle *h) {
    gismo_object object;
    int status = gismo_create(s, bytes, NULL, &object);
    if (status == GISMO_OK) {
        *h = object.handle;
        status = gismo_seal(s, &object, 0);
    }
    return status;
}

static gismo_stats stats(void) {
    gismo_stats out;
    MUST(gismo_get_stats(s, &out) == GISMO_OK, "stats");
    return out;
}

static void edges(void) {
    gismo_handle h;
    for (int again = 0; again < 3; again++) {
        gismo_stats before = stats();
        MUST(before.largest_free_bytes == before.data_bytes && before.free_bytes == before.data_bytes,
             "an empty store has %llu of %llu bytes free, %llu in one piece", ULL(before.free_bytes),
             ULL(before.data_bytes), ULL(before.largest_free_bytes));
        MUST(make(before.data_bytes, &h) == GISMO_OK, "the whole data area");
        gismo_handle other;
        MUST(make(1, &other) == GISMO_EFULL, "a byte more");
        MUST(gismo_delete(s, &h) == GISMO_OK, "delete");
        MUST(make(before.data_bytes + 1, &h) == GISMO_EFULL, "a byte too many");
        MUST(make(UINT64_MAX, &h) == GISMO_EFULL && make(1ull << 63, &h) == GISMO_EFULL, "no store is that large");
        gismo_tick(s);
    }
    MUST(make(1, &h) == GISMO_OK, "one byte");
    MUST(make(0, &h) == GISMO_OK, "no byte");
    printf("%llu\n", ULL(stats().data_bytes));
}

static void million(void) {
    const uint32_t n = 1000000;
    gismo_handle *h = malloc(n * sizeof *h);
    uint64_t payload[8] = {0};
    for (uint32_t i = 0; i < n; i++) {
        for (int w = 0; w < 8; w++)
            payload[w] = i * 8ull + (uint64_t)w;
        gismo_buffer buffer = {payload, sizeof payload};
        MUST(gismo_put(s, &buffer, 1, NULL, &h[i]) == GISMO_OK, "object %u", i);
    }
    MUST(stats().sealed_objects == n, "%llu objects", ULL(stats().sealed_objects));
    for (uint32_t i = 0; i < n; i++) {
        gismo_view view;
        MUST(gismo_get(s, &h[i], &view) == GISMO_OK && view.length == 64, "object %u", i);
        for (int w = 0; w < 8; w++)
            MUST(((const uint64_t *)view.data)[w] == i * 8ull + (uint64_t)w, "object %u", i);
        gismo_release(s, view.slot);
    }
    gismo_fsck_result r;
    MUST(gismo_fsck(s, 0, NULL, NULL, &r) == GISMO_OK && r.objects == n, "fsck");
    for (uint32_t i = 0; i < n; i++)
        MUST(gismo_delete(s, &h[i]) == GISMO_OK, "object %u", i);
    gismo_tick(s);
    MUST(stats().sealed_objects == 0, "all deleted");
    printf("%u\n", n);
}

static void waste(void) {
    double worst = 0;
    uint64_t worst_size = 0;
    for (uint64_t size = 4097; size <= 4 << 20; size += size < 64 << 10 ? 61 : 1 + random64() % (size / 40)) {
        gismo_handle h;
        MUST(make(size, &h) == GISMO_OK, "%llu bytes", ULL(size));
        uint64_t cursor = h.slot;
        gismo_object_info info;
        MUST(gismo_next(s, &cursor, &info) == GISMO_OK && info.handle.slot == h.slot, "next");
        double share = (double)(info.extent_bytes - size) / (double)info.extent_bytes;
        if (share > worst) {
            worst = share;
            worst_size = size;
        }
        MUST(gismo_delete(s, &h) == GISMO_OK, "delete");
    }
    /* Cells lie in whole pages: what many of each class take, against what is in them. Many, for the last chunk is not full. */
    enum { MANY = 1024 };
    static gismo_handle many[MANY];
    for (uint64_t size = 4608; size <= 32768; size += size / 9 / 64 * 64) {
        gismo_tick(s); /* two rounds without an operation: empty chunks that were kept open go */
        gismo_tick(s);
        uint64_t before = stats().free_bytes;
        for (int i = 0; i < MANY; i++)
            MUST(make(size, &many[i]) == GISMO_OK, "%llu bytes", ULL(size));
        gismo_stats now = stats();
        printf("chunk %llu %.4f\n", ULL(size), 1 - MANY * (double)size / (double)(before - now.free_bytes));
        for (int i = 0; i < MANY; i++)
            MUST(gismo_delete(s, &many[i]) == GISMO_OK, "delete");
    }
    printf("%.4f %llu\n", worst, ULL(worst_size));
}

static uint64_t some_size(uint64_t largest) {
    return 1 + (uint64_t)exp((double)(random64() >> 11) / 9007199254740992.0 * log((double)largest));
}

static uint64_t fill_store(gismo_handle *h, uint64_t most, uint64_t *n, uint64_t largest) {
    uint64_t bytes = 0;
    for (*n = 0; *n < most; ++*n) {
        uint64_t size = some_size(largest);
        int status = make(size, &h[*n]);
        if (status == GISMO_EFULL)
            break;
        MUST(status == GISMO_OK, "%llu bytes", ULL(size));
        bytes += size;
    }
    return bytes;
}

static void shuffle(gismo_handle *h, uint64_t n) {
    for (uint64_t i = n; i > 1; i--) {
        uint64_t k = random64() % i;
        gismo_handle x = h[k];
        h[k] = h[i - 1];
        h[i - 1] = x;
    }
}

static void refill(uint64_t largest) {
    const uint64_t most = 1 << 20;
    gismo_handle *h = malloc(most * sizeof *h);
    uint64_t n, m;
    state = 12345;
    uint64_t first = fill_store(h, most, &n, largest);
    gismo_stats at_full = stats();
    shuffle(h, n);
    for (uint64_t i = 0; i < n; i++)
        MUST(gismo_delete(s, &h[i]) == GISMO_OK, "delete");
    gismo_tick(s);
    state = 12345;
    uint64_t second = fill_store(h, most, &m, largest);
    shuffle(h, m);
    uint64_t left = 0;
    for (uint64_t i = 0; i < m; i++) {
        if (i % 2)
            left += h[i].length;
        else
            MUST(gismo_delete(s, &h[i]) == GISMO_OK, "delete");
    }
    gismo_tick(s);
    uint64_t third = left + fill_store(h, most, &n, largest);
    printf("%llu %llu %llu %llu %llu %llu\n", ULL(at_full.data_bytes), ULL(first), ULL(second), ULL(third),
           ULL(at_full.free_bytes), ULL(at_full.free_objects));
}

static void fill_until_full(uint64_t size, uint64_t seed) {
    uint64_t bytes = 0;
    state = seed * 2 + 1;
    for (;;) {
        gismo_handle h;
        uint64_t asked = size ? size : some_size(256 << 10);
        int status = make(asked, &h);
        if (status != GISMO_OK) {
            gismo_detail d;
            gismo_error_detail(&d);
            MUST(status == GISMO_EFULL, "%d", status);
            printf("%llu %llu %llu %llu %llu\n", ULL(bytes), ULL(d.asked_bytes), ULL(d.free_bytes),
                   ULL(d.largest_free_bytes), ULL(d.free_objects));
            break;
        }
        bytes += asked;
    }
    fflush(stdout);
    (void)getchar(); /* until all are done: nobody's close makes room for another */
}

int main(int argc, char **argv) {
    MUST(argc >= 4, "capacity STORE STATE_DIR WHAT");
    gismo_open_options o = {.state_dir = argv[2], .host_id = -1};
    MUST(gismo_open(argv[1], &o, &s) == GISMO_OK, "open");
    if (strcmp(argv[3], "edges") == 0)
        edges();
    else if (strcmp(argv[3], "million") == 0)
        million();
    else if (strcmp(argv[3], "waste") == 0)
        waste();
    else if (strcmp(argv[3], "refill") == 0)
        refill(argc > 4 ? strtoull(argv[4], NULL, 10) : 1 << 20);
    else if (strcmp(argv[3], "fill") == 0)
        fill_until_full(strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
    else
        MUST(0, "what is %s?", argv[3]);
    MUST(gismo_close(s) == GISMO_OK, "close");
    gismo_free(s);
    return 0;
}
