/*
 * test_stale.c - a handle whose object goes, and whose slot is given to another, while a call with it is under way: the
 * object is gone then, and not "damaged". (Found by the soak: a delete was stopped between two of its reads.)
 */
/* variants: sites */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "gismo.h"
#include "sites_of.h"

static gismo_handle stale;
static gismo_store *child_store;
static int *answer; /* of the call that was stopped */

static gismo_store *open_it(void) {
    gismo_open_options o = {.state_dir = "state", .host_id = -1, .no_thread = 1};
    gismo_store *s = NULL;
    OK(gismo_open("store", &o, &s));
    return s;
}

static gismo_handle put(gismo_store *s, const char *text) {
    gismo_buffer buffer = {text, strlen(text)};
    gismo_handle h;
    OK(gismo_put(s, &buffer, 1, NULL, &h));
    return h;
}

static void join(void *ctx) {
    (void)ctx;
    child_store = open_it();
}

static void delete_it(void *ctx) {
    (void)ctx;
    *answer = gismo_delete(child_store, &stale);
}

static void get_it(void *ctx) {
    (void)ctx;
    gismo_view view;
    *answer = gismo_get(child_store, &stale, &view);
}

/* Stopped at each place that the call comes by before it is through. */
static uint32_t stopped_anywhere(void (*call)(void *)) {
    gismo_store *s = open_it();
    stale = put(s, "the first");
    uint64_t *hits = count_hits(join, call, NULL);
    uint32_t tried = 0;
    for (uint32_t site = 0; site < gismo_sites_count(); site++)
        for (uint64_t nth = 1; nth <= hits[site]; nth++) {
            stale = put(s, "the first");
            int status;
            *answer = -1000;
            pid_t child = run_armed(join, call, NULL, site, nth, SIGSTOP, &status);
            if (!WIFSTOPPED(status))
                continue; /* it took another way this time */
            int deleted = gismo_delete(s, &stale);
            CHECK(deleted == GISMO_OK || deleted == GISMO_EGONE, "delete beside one that stopped in %s",
                  site_function(site));
            gismo_handle next = stale;
            for (int i = 0; i < 200; i++) {
                next = put(s, "another, longer than the first");
                if (next.slot == stale.slot)
                    break;
                OK(gismo_delete(s, &next));
            }
            CHECK(kill(child, SIGCONT) == 0 && waitpid(child, &status, 0) == child && status == 0, "the child");
            CHECK(*answer == GISMO_OK || *answer == GISMO_EGONE, "in %s: %s", site_function(site),
                  gismo_status_name(*answer));
            gismo_view view;
            if (next.slot == stale.slot) { /* what is there now is not harmed */
                tried++;
                OK(gismo_get(s, &next, &view));
                OK(gismo_release(s, view.slot));
                OK(gismo_delete(s, &next));
            }
        }
    OK(gismo_close(s));
    gismo_free(s);
    return tried;
}

int main(void) {
    answer = shared_memory(sizeof *answer);
    gismo_format_options o = {.size_bytes = 2 << 20};
    OK(gismo_format("store", &o, NULL, NULL, NULL));
    CHECK(stopped_anywhere(delete_it) > 0, "no slot was used again while a delete was stopped");
    CHECK(stopped_anywhere(get_it) > 0, "no slot was used again while a get was stopped");
    return 0;
}
