/*
 * test_join.c - a process is stopped or killed at each step of joining and of leaving: what others can do meanwhile.
 *
 * Three things are held that others have to wait for: the lock of the first process of a new host (other new hosts wait), the
 * agreement by which the first process of a QUIET lane makes it ACTIVE, and the one store by which the last process makes its lane
 * QUIET. Anywhere else joining holds up nobody of the same host. Who waits in vain is told which process it is.
 */
/* variants: sites */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "gismo.h"
#include "internal.h"
#include "sites_of.h"

enum situation { FIRST_EVER, SECOND_PROCESS, FIRST_AGAIN, LAST_LEAVES, SITUATIONS };

struct plan {
    enum situation situation;
};

static gismo_store *child_store, *other_store;

static int open_in(const char *state_dir, gismo_store **s) {
    gismo_open_options o = {.state_dir = state_dir, .host_id = -1, .no_thread = 1};
    *s = NULL;
    return gismo_open("store", &o, s);
}

static void shut(gismo_store *s) {
    OK(gismo_close(s));
    gismo_free(s);
}

static void put_and_get(gismo_store *s) {
    gismo_buffer buffer = {"joined", 6};
    gismo_handle h;
    gismo_view view;
    OK(gismo_put(s, &buffer, 1, NULL, &h));
    OK(gismo_get(s, &h, &view));
    CHECK(memcmp(view.data, "joined", 6) == 0, "content");
    OK(gismo_release(s, view.slot));
    OK(gismo_delete(s, &h));
}

static void prepare(enum situation situation) {
    static int number;
    gismo_format_options o = {
        .size_bytes = 2 << 20, .force = 1, .store_uuid = {7, (uint8_t)number, (uint8_t)(number >> 8)}};
    number++;
    OK(gismo_format("store", &o, NULL, NULL, NULL));
    gismo_store *s;
    other_store = NULL;
    if (situation == FIRST_EVER)
        return;
    OK(open_in("state", &s));
    if (situation == SECOND_PROCESS)
        other_store = s;
    else
        shut(s);
}

static void before(void *ctx) {
    if (((struct plan *)ctx)->situation == LAST_LEAVES) {
        OK(open_in("state", &child_store));
        put_and_get(child_store);
    }
}

static void step(void *ctx) {
    if (((struct plan *)ctx)->situation == LAST_LEAVES)
        OK(gismo_close(child_store));
    else
        OK(open_in("state", &child_store));
}

/* Somebody else opens. Returns the status; what EBUSY says must name the child. */
static int open_beside(const char *state_dir, pid_t child) {
    gismo_store *s;
    int status = open_in(state_dir, &s);
    CHECK(status == GISMO_OK || status == GISMO_EBUSY, "%s", gismo_status_name(status));
    if (status == GISMO_EBUSY) {
        char name[32];
        snprintf(name, sizeof name, "process %d ", (int)child);
        CHECK(strstr(gismo_error_message(), name), "it does not name process %d", (int)child);
        return status;
    }
    put_and_get(s);
    shut(s);
    return status;
}

static int is_agreement(const char *function) {
    return strcmp(function, "write_line") == 0 || strcmp(function, "host_claim") == 0 ||
           strcmp(function, "host_unclaim") == 0;
}

static void stop_or_kill(enum situation situation, int signal_number, uint32_t busy[2], uint32_t *met) {
    struct plan plan = {situation};
    prepare(situation);
    uint64_t *hits = count_hits(before, step, &plan);
    for (uint32_t site = 0; site < gismo_sites_count(); site++) {
        for (uint64_t nth = 1; nth <= hits[site]; nth += nth < 3 ? 1 : hits[site] / 3 + 1) {
            if (other_store)
                shut(other_store);
            prepare(situation);
            int status;
            pid_t child = run_armed(before, step, &plan, site, nth, signal_number, &status);
            if (!WIFSTOPPED(status) && !WIFSIGNALED(status))
                continue; /* it came by less often than when it was counted */
            ++*met;
            int own = open_beside("state", child), new_host = open_beside("other state", child);
            busy[0] += own == GISMO_EBUSY;
            busy[1] += new_host == GISMO_EBUSY;
            CHECK(signal_number == SIGSTOP || (own == GISMO_OK && new_host == GISMO_OK), "a dead one holds up others");
            if (own == GISMO_EBUSY && situation != FIRST_EVER)
                CHECK(situation == LAST_LEAVES || (situation == FIRST_AGAIN && is_agreement(site_function(site))),
                      "joining holds up its own host, at %s", site_function(site));
            if (new_host == GISMO_EBUSY)
                CHECK(situation == FIRST_EVER, "situation %u holds up a new host, at %s", situation,
                      site_function(site));
            if (signal_number == SIGSTOP) {
                kill(child, SIGCONT);
                CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0,
                      "thawed at %s", site_function(site));
            }
            CHECK(open_beside("state", child) == GISMO_OK && open_beside("other state", child) == GISMO_OK,
                  "afterwards");
        }
    }
    if (other_store)
        shut(other_store);
    other_store = NULL;
    munmap(hits, gismo_sites_count() * sizeof *hits);
}

int main(void) {
    alarm(240);
    static const char *names[SITUATIONS] = {"the first of a host", "the second", "the first again", "the last leaves"};
    lane_join_wait_ns = 20000000;
    for (enum situation situation = FIRST_EVER; situation < SITUATIONS; situation++) {
        uint32_t busy[2] = {0}, met = 0;
        stop_or_kill(situation, SIGSTOP, busy, &met);
        printf("%s: stopped %u times; its own host had to wait %u times, a new host %u times\n", names[situation], met,
               busy[0], busy[1]);
        CHECK(met > 0, "never stopped");
        CHECK(situation != LAST_LEAVES || (busy[0] >= 1 && busy[0] <= 4), "the window of leaving");
        CHECK(situation != FIRST_AGAIN || (busy[0] >= 1 && busy[0] <= 16), "the window of coming back");
        CHECK(situation != FIRST_EVER || busy[1] >= 1, "nobody was ever told who holds the joining lock");
        uint32_t ignored[2] = {0};
        stop_or_kill(situation, SIGKILL, ignored, &met);
    }
    return 0;
}
