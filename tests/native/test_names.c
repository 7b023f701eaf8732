/*
 * test_names.c - two processes of one host seal drafts of the same name, and one of them is stopped at each step of it.
 */
/* variants: sites */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "gismo.h"
#include "sites_of.h"

struct answer {
    int status;
};
static struct answer *answer;

static gismo_store *open_it(void) {
    gismo_open_options o = {.state_dir = "state", .host_id = -1, .no_thread = 1};
    gismo_store *s;
    OK(gismo_open("store", &o, &s));
    return s;
}

static gismo_object draft_of(gismo_store *s) {
    gismo_create_options o = {.name = "wanted", .name_bytes = 6};
    gismo_object draft;
    OK(gismo_create(s, 100, &o, &draft));
    return draft;
}

static gismo_store *rival_store;
static gismo_object rival_draft;

static void rival_begins(void *ctx) {
    (void)ctx;
    rival_store = open_it();
    rival_draft = draft_of(rival_store);
}

static void rival_seals(void *ctx) {
    (void)ctx;
    answer->status = gismo_seal(rival_store, &rival_draft, 0);
}

static uint32_t sealed(gismo_store *s, gismo_handle *found) {
    uint64_t cursor = 0;
    gismo_object_info info;
    uint32_t n = 0;
    while (gismo_next(s, &cursor, &info) == GISMO_OK)
        if (info.state == GISMO_SEALED) {
            *found = info.handle;
            n++;
        }
    return n;
}

/* Returns whether the rival came by the site. It is stopped there, or killed; meanwhile we seal ours. */
static bool contest(uint32_t site, int signal_number, uint32_t *lost) {
    gismo_format_options o = {.size_bytes = 1 << 20, .force = 1};
    OK(gismo_format("store", &o, NULL, NULL, NULL));
    gismo_store *s = open_it();
    gismo_object ours = draft_of(s);
    answer->status = 1;
    int status;
    pid_t child = run_armed(rival_begins, rival_seals, NULL, site, 1, signal_number, &status);
    bool met = !WIFEXITED(status);
    if (WIFSTOPPED(status) || WIFSIGNALED(status)) {
        int first = gismo_seal(s, &ours, 0);
        CHECK(first == GISMO_OK || first == GISMO_EEXIST, "seal: %s", gismo_status_name(first));
        if (WIFSTOPPED(status)) {
            kill(child, SIGCONT);
            CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the rival");
            CHECK(answer->status == (first == GISMO_OK ? GISMO_EEXIST : GISMO_OK), "ours: %s, the rival's: %s",
                  gismo_status_name(first), gismo_status_name(answer->status));
        }
        if (first == GISMO_EEXIST) {
            ++*lost;
            while (gismo_tick(s) > 0) /* buries a dead rival, whose draft then has the name no more */
                ;
            gismo_handle found;
            if (gismo_lookup(s, "wanted", 6, 0, &found) == GISMO_ENOTFOUND)
                OK(gismo_seal(s, &ours, 0));
        }
        gismo_handle one, found;
        CHECK(sealed(s, &one) == 1, "one sealed object");
        OK(gismo_lookup(s, "wanted", 6, 0, &found));
        CHECK(memcmp(&one, &found, sizeof one) == 0, "and it has the name");
        gismo_fsck_result r;
        OK(gismo_fsck(s, GISMO_FSCK_VERIFY, NULL, NULL, &r));
    }
    OK(gismo_close(s));
    gismo_free(s);
    return met;
}

int main(void) {
    alarm(120);
    answer = shared_memory(sizeof *answer);
    uint32_t met = 0, lost = 0;
    for (uint32_t site = 0; site < gismo_sites_count(); site++) {
        const char *function = site_function(site);
        if (strcmp(function, "name_win") != 0 && strcmp(function, "object_publish") != 0)
            continue;
        met += contest(site, SIGSTOP, &lost);
        met += contest(site, SIGKILL, &lost);
    }
    printf("%u stops and deaths in the middle of sealing; %u times the rival was ahead\n", met, lost);
    CHECK(met >= 8 && lost >= 2 && lost < met, "not all steps were met");
    return 0;
}
