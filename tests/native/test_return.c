/*
 * test_return.c - a host returns to its lane while another host has taken it for a moment to tidy it up (P10): it waits for its own lane. And
 * what the other had begun it brings to an end, also when its state directory was lost in between (a reboot), and before it leaves.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "gismo.h"
#include "internal.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TIDIES_NS 150000000ull /* longer than any number of tries without a pause */
#define LITTER 20000

static gismo_store *open_in(const char *state_dir, int32_t host_id) {
    gismo_open_options o = {.state_dir = state_dir, .host_id = host_id, .no_thread = 1};
    gismo_store *s = NULL;
    OK(gismo_open("store", &o, &s));
    return s;
}

static void shut(gismo_store *s) {
    OK(gismo_close(s));
    gismo_free(s);
}

/* It has had what it needs agreed, and is slow; then it goes on where it was. */
static void *finish(void *store) {
    gismo_evict_result result;
    sleep_ns(TIDIES_NS);
    OK(gismo_evict_host(store, 1, NULL, 0, &result));
    CHECK(result.state == GISMO_LANE_QUIET, "left in order, but state %u", result.state);
    return NULL;
}

/* What another program left there: to remove it takes so long that the other host is back in its lane before the taker has looked again. */
static void litter(gismo_store *first) {
    char path[128], uuid[HOST_NAME_BYTES];
    host_directory_name(first, uuid);
    CHECK(mkdirat(first->state_dir_fd, "lane.1", 0700) == 0, "mkdir");
    snprintf(path, sizeof path, "lane.1/%s", uuid);
    CHECK(mkdirat(first->state_dir_fd, path, 0700) == 0, "mkdir");
    for (int i = 0; i < LITTER; i++) {
        snprintf(path, sizeof path, "lane.1/%s/%d", uuid, i);
        int fd = openat(first->state_dir_fd, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        CHECK(fd >= 0, "open");
        close(fd);
    }
}

/* "first" has begun to take the lane of "second", and a process of it died over it. */
static void begin_to_tidy(gismo_store *first, bool noted) {
    uint64_t value = lane_register(first, 1);
    if (noted)
        loc_store(&first->host.silence[1].taking, host_claim_word(200, 77)); /* of nobody who lives */
    CHECK(host_claim(first, &first->host.lane_claim[1]), "claim");
    OK(lane_agree(first, 1, value, LANE_VALUE(lane_incarnation(value) + 1, 1, LANE_JOINING)));
    host_unclaim(first, &first->host.lane_claim[1]);
}

static void unfinished(bool state_is_lost) {
    gismo_format_options o = {.size_bytes = 4 << 20, .force = 1};
    OK(gismo_format("store", &o, NULL, NULL, NULL));
    gismo_store *first = open_in("first", 0), *second = open_in("second", 1);
    shut(second);
    begin_to_tidy(first, !state_is_lost);
    shut(first);
    if (state_is_lost) {
        CHECK(system("rm -rf first") == 0, "rm");
        lane_join_wait_ns = 50000000;
        gismo_open_options beside = {.state_dir = "second", .host_id = 1, .no_thread = 1};
        CHECK(gismo_open("store", &beside, &second) == GISMO_EBUSY, "nobody has brought it to an end");
        first = open_in("first", 0);
        CHECK(gismo_tick(first) >= 0, "tick");
        shut(first);
    }
    second = open_in("second", 1);
    shut(second);
}

int main(void) {
    alarm(60);
    for (int given = 0; given < 2; given++) { /* the host has found its id, or was given it */
        gismo_format_options o = {.size_bytes = 4 << 20, .force = 1};
        OK(gismo_format("store", &o, NULL, NULL, NULL));
        gismo_store *first = open_in("first", 0), *second = open_in("second", 1);
        gismo_buffer buffer = {"stays", 5};
        gismo_handle h;
        OK(gismo_put(second, &buffer, 1, NULL, &h));
        shut(second);
        begin_to_tidy(first, true);
        litter(first);
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, finish, first) == 0, "thread");
        uint64_t before = now_ns();
        second = open_in("second", given ? 1 : -1);
        CHECK(now_ns() - before >= TIDIES_NS / 2, "it did not wait");
        CHECK(second->lane == 1, "it has lane %u", second->lane);
        gismo_view view;
        OK(gismo_get(second, &h, &view));
        CHECK(memcmp(view.data, "stays", 5) == 0, "content");
        OK(gismo_release(second, view.slot));
        pthread_join(thread, NULL);
        shut(second);
        shut(first);
    }
    unfinished(false);
    unfinished(true);
    return 0;
}
