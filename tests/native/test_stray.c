/*
 * test_stray.c - what is said of a fault outside the core (stray.c), for memory that cannot be made to fail here: poisoned, with
 * its tables whole. tests/store/test_media.py has real faults.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "gismo.h"
#include "guard.h"
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define STORES 200 /* more than stray.c has room for */

/* In a child, for it is said once in a process. NULL: nothing. */
static void said(const void *address, bool is_poisoned, const char *expected) {
    int ends[2];
    CHECK(pipe(ends) == 0, "pipe");
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        guard_stray_fn *told = guard_on_stray;
        told(address, is_poisoned);
        told(address, is_poisoned);
        _exit(0);
    }
    close(ends[1]);
    static char text[8192]; /* of the parent alone */
    memset(text, 0, sizeof text);
    size_t n = 0;
    for (ssize_t got; (got = read(ends[0], text + n, sizeof text - 1 - n)) > 0;)
        n += (size_t)got;
    close(ends[0]);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0, "the child ended with %d", status);
    CHECK(strcmp(text, expected ? expected : "") == 0, "it said '%s' and not '%s'", text, expected ? expected : "");
}

int main(void) {
    alarm(60);
    gismo_format_options o = {.size_bytes = 8 << 20, .force = 1};
    OK(gismo_format("store", &o, NULL, NULL, NULL));
    gismo_open_options at = {.state_dir = "state", .host_id = -1, .no_thread = 1};
    gismo_store *s = NULL, *looks = NULL;
    OK(gismo_open("store", &at, &s));

    static uint8_t bytes[100000];
    gismo_buffer buffer = {bytes, sizeof bytes};
    gismo_create_options named = {.name = "a\nname", .name_bytes = 6};
    gismo_handle small, large;
    OK(gismo_put(s, &(gismo_buffer){"small", 5}, 1, NULL, &small));
    OK(gismo_put(s, &buffer, 1, &named, &large));
    gismo_view view;
    OK(gismo_get(s, &large, &view));

    static char expected[8192];
    const uint8_t *data = view.data;
    snprintf(
        expected, sizeof expected,
        "gismo: SIGBUS: %s is poisoned at byte %llu, byte 70000 of the 100000 of object slot %u generation %llu, named "
        "'a?name': the hardware has lost what was there\n",
        s->path, (unsigned long long)large.offset + 70000, large.slot, (unsigned long long)large.generation);
    said(data + 70000, true, expected);

    snprintf(expected, sizeof expected,
             "gismo: SIGBUS: %s has no memory any more at byte %llu, byte 4 of the 5 of object slot %u generation "
             "%llu: it was "
             "cut short, its device was unbound, or its file system is full\n",
             s->path, (unsigned long long)small.offset + 4, small.slot, (unsigned long long)small.generation);
    said(s->base + small.offset + 4, false, expected);

    uint64_t end = s->sb.data_offset + s->sb.data_bytes - 1;
    snprintf(expected, sizeof expected,
             "gismo: SIGBUS: %s is poisoned at byte %llu, in no object: the hardware has lost what was there\n",
             s->path, (unsigned long long)end);
    said(s->base + end, true, expected);

    snprintf(expected, sizeof expected,
             "gismo: SIGBUS: %s is poisoned at byte 4096, in the tables of the store: the hardware has lost what was "
             "there\n",
             s->path);
    said(s->base + 4096, true, expected);

    said(bytes, true, NULL); /* not ours */
    said(NULL, true, NULL);

    /* A second mapping of this process has its own place, and gives it back. */
    gismo_open_options reads = {.read_only = 1};
    void *taken[STORES];
    for (int i = 0; i < STORES; i++) {
        OK(gismo_open("store", &reads, &looks));
        if (i % 50 == 0)
            said(looks->base + 4096, true, expected);
        uint8_t *was = looks->base;
        OK(gismo_close(looks));
        gismo_free(looks);
        taken[i] = malloc(sizeof *looks); /* so that no store is where one was before */
        if (i % 50 == 0)
            said(was + 4096, true, NULL);
    }
    for (int i = 0; i < STORES; i++)
        free(taken[i]);
    OK(gismo_release(s, view.slot));
    OK(gismo_close(s));
    gismo_free(s);
    return 0;
}
