/*
 * test_quota.c - a busy host that fills the store makes room for another one that wishes for some, up to fair shares.
 */
/* variants: plain asan */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "gismo.h"
#include "internal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 200000 };
static gismo_handle kept[MOST];
static uint32_t held;
static atomic_bool enough;
static uint64_t state = 88172645463325252ull;
static uint8_t payload[200000];

static uint64_t random64(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static gismo_store *open_in(const char *state_dir) {
    gismo_open_options o = {.state_dir = state_dir, .host_id = -1};
    gismo_store *s;
    OK(gismo_open("store", &o, &s));
    return s;
}

static void shut(gismo_store *s) {
    OK(gismo_close(s));
    gismo_free(s);
}

static int put(gismo_store *s, uint64_t bytes, int64_t wait_ns, gismo_handle *h) {
    gismo_buffer buffer = {payload, bytes};
    gismo_create_options o = {.wait_ns = wait_ns};
    return gismo_put(s, &buffer, 1, &o, h);
}

static void drop_one(gismo_store *s) {
    uint32_t i = (uint32_t)(random64() % held);
    OK(gismo_delete(s, &kept[i]));
    kept[i] = kept[--held];
}

/* Busy: takes all there is, and whenever nothing fits any more deletes something at random and goes on. */
static void *is_busy(void *argument) {
    gismo_store *s = argument;
    while (!atomic_load(&enough)) {
        uint64_t bytes = random64() % 4 ? 1 + random64() % 6000 : 1 + random64() % 60000;
        int status = held < MOST ? put(s, bytes, GISMO_WAIT_NEVER, &kept[held]) : GISMO_EFULL;
        CHECK(status == GISMO_OK || status == GISMO_EFULL, "put: %s", gismo_status_name(status));
        if (status == GISMO_OK)
            held++;
        else if (held)
            drop_one(s);
    }
    return NULL;
}

static uint32_t arenas_of(gismo_store *s) {
    gismo_stats stats;
    OK(gismo_get_stats(s, &stats));
    return stats.arenas_owned;
}

static void clean(gismo_store *s) {
    gismo_fsck_result r;
    CHECK(gismo_fsck(s, 0, NULL, NULL, &r) == GISMO_OK && r.leaked_bytes == 0, "fsck");
}

static void test_shares(uint64_t wanted) {
    gismo_format_options f = {.size_bytes = 8 << 20, .max_hosts = 4, .force = 1};
    OK(gismo_format("store", &f, NULL, NULL, NULL));
    gismo_store *busy = open_in("state-busy");
    gismo_info info;
    OK(gismo_get_info(busy, &info));
    held = 0;
    atomic_store(&enough, false);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, is_busy, busy) == 0, "thread");
    while (arenas_of(busy) < info.arenas)
        sleep_ns(1000000);
    sleep_ns(100000000); /* it works in a full store */
    gismo_store *other = open_in("state-other");
    uint32_t objects = 0;
    uint64_t bytes = 0, began = now_ns();
    static gismo_handle others[MOST];
    /* As much as comes within some time: a fair share, near enough. Each put waits for the busy host's deletes. */
    while (bytes < info.data_bytes / 4 && now_ns() - began < 40000000000ull) {
        int status = put(other, wanted, 15000000000ll, &others[objects]);
        CHECK(status == GISMO_OK, "%u objects of %llu bytes, then nothing for 15 s", objects,
              (unsigned long long)wanted);
        objects++;
        bytes += wanted;
    }
    printf(
        "%llu bytes each: %u objects, %llu KiB after %.1f s; arenas: %u of the busy host, %u of the other, %u in all\n",
        (unsigned long long)wanted, objects, (unsigned long long)(bytes >> 10), (double)(now_ns() - began) / 1e9,
        arenas_of(busy), arenas_of(other), info.arenas);
    CHECK(bytes >= info.data_bytes / 4, "no quarter of the store within 40 s");
    CHECK(arenas_of(busy) >= info.arenas / 2 - 1, "the busy one keeps its share");
    /* When the other has gone, the busy one has all again. */
    for (uint32_t i = 0; i < objects; i++)
        OK(gismo_delete(other, &others[i]));
    shut(other);
    uint64_t waits = now_ns();
    while (arenas_of(busy) < info.arenas && now_ns() - waits < 10000000000ull)
        sleep_ns(10000000);
    atomic_store(&enough, true);
    pthread_join(thread, NULL);
    CHECK(arenas_of(busy) == info.arenas, "%u of %u arenas came back", arenas_of(busy), info.arenas);
    clean(busy);
    while (held)
        drop_one(busy);
    shut(busy);
}

/* While nobody wishes, one host may have all. */
static void test_no_wish(void) {
    gismo_format_options f = {.size_bytes = 8 << 20, .max_hosts = 4, .force = 1};
    OK(gismo_format("store", &f, NULL, NULL, NULL));
    gismo_store *a = open_in("state-busy"), *idle = open_in("state-other");
    gismo_info info;
    OK(gismo_get_info(a, &info));
    held = 0;
    while (put(a, 30000, GISMO_WAIT_NEVER, &kept[held]) == GISMO_OK)
        held++;
    CHECK(arenas_of(a) == info.arenas, "%u of %u arenas", arenas_of(a), info.arenas);
    while (held)
        drop_one(a);
    shut(idle);
    shut(a);
}

int main(void) {
    alarm(240);
    test_no_wish();
    test_shares(3000);
    test_shares(sizeof payload); /* more than an arena: a run of several has to drain */
    return 0;
}
