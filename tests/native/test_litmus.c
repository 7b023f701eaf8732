/*
 * test_litmus.c - the litmus tests between two processes: on coherent memory each holds, and each finds the flaw that it is there for.
 * And the line in which a host's verdict stands: never half of it, never another machine's.
 */
/* variants: plain asan */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define SLICE_NS 20000000ull
#define SILENT_NS 30000000000ull /* on a busy machine a side may not run for seconds */
#define FLAW_NS 60000000000ull

static const char *const names[] = {"A1.dekker", "A1.message", "A2.never_dirtied", "A3.tearing"};

struct both {
    uint8_t area[2][GISMO_LITMUS_BYTES];
    gismo_litmus result[2];
    int found; /* a violation, by either */
};

static struct both *two_areas(void) {
    struct both *both = mmap(NULL, sizeof *both, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(both != MAP_FAILED, "mmap");
    for (int side = 0; side < 2; side++) {
        memset(both->area[side], 0xa5, GISMO_LITMUS_BYTES); /* an object's bytes are whatever was there before */
        OK(gismo_litmus_begin(both->area[side]));
    }
    return both;
}

static gismo_litmus side_of(struct both *both, int side, uint32_t test) {
    return (gismo_litmus){.own = both->area[side],
                          .other = both->area[1 - side],
                          .test = test,
                          .rounds = 20000,
                          .limit_ns = 2000000000ull};
}

/* Until it is over, or with stop_at_first until one side has found a violation. */
static void run_side(struct both *both, int side, gismo_litmus run, bool stop_at_first) {
    for (;;) {
        int status = gismo_litmus_run(&run, SLICE_NS);
        CHECK(status >= 0, "%s", names[run.test]);
        both->result[side] = run;
        CHECK(run.idle_ns < SILENT_NS, "%s: side %d waits in vain after %llu rounds", names[run.test], side,
              (unsigned long long)run.done);
        if (status == 1)
            return;
        if (run.violations > 0)
            __atomic_store_n(&both->found, 1, __ATOMIC_RELAXED);
        if (stop_at_first && __atomic_load_n(&both->found, __ATOMIC_RELAXED))
            run.limit_ns = 1;
    }
}

static void run_both(struct both *both, gismo_litmus first, gismo_litmus second, bool stop_at_first) {
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (child == 0) {
        run_side(both, 1, second, stop_at_first);
        _exit(0);
    }
    run_side(both, 0, first, stop_at_first);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0, "the other side");
}

static void each_holds(void) {
    struct both *both = two_areas(); /* the same for all: none may live on what another has left there */
    for (uint32_t test = 0; test < 4; test++) {
        uint64_t begin = now_ns();
        run_both(both, side_of(both, 0, test), side_of(both, 1, test), false);
        for (int side = 0; side < 2; side++) {
            gismo_litmus *r = &both->result[side];
            CHECK(r->violations == 0, "%s: %llu violations", names[test], (unsigned long long)r->violations);
            CHECK(r->done >= r->rounds || now_ns() - begin > r->limit_ns, "%s: it ended too early", names[test]);
            printf("%-17s side %d: %llu rounds, %llu contended, %llu ns each\n", names[test], side,
                   (unsigned long long)r->done, (unsigned long long)r->contended,
                   (unsigned long long)((now_ns() - begin) / r->done));
        }
        if (test == GISMO_LITMUS_DEKKER || test == GISMO_LITMUS_NEVER_DIRTIED) /* in lockstep */
            CHECK(both->result[0].done == both->result[1].done, "%s: the sides differ", names[test]);
    }
    munmap(both, sizeof *both);
}

static void each_finds_its_flaw(void) {
    for (uint32_t test = 0; test < 4; test++) {
        struct both *both = two_areas();
        gismo_litmus first = side_of(both, 0, test), second = side_of(both, 1, test);
        first.flawed = second.flawed = 1;
        first.rounds = second.rounds = 1ull << 40;
        first.limit_ns = second.limit_ns = FLAW_NS;
        run_both(both, first, second, true);
        uint64_t found = both->result[0].violations + both->result[1].violations;
        printf("%-17s flawed: %llu violations in %llu rounds\n", names[test], (unsigned long long)found,
               (unsigned long long)both->result[0].done);
        CHECK(found > 0, "%s does not find its own flaw", names[test]);
        munmap(both, sizeof *both);
    }
}

/* A flaw of one side alone is found by the other, or by both. */
static void one_side_is_enough(void) {
    static const uint32_t tests[] = {GISMO_LITMUS_MESSAGE, GISMO_LITMUS_NEVER_DIRTIED, GISMO_LITMUS_TEARING};
    for (int i = 0; i < 3; i++) {
        struct both *both = two_areas();
        gismo_litmus first = side_of(both, 0, tests[i]), second = side_of(both, 1, tests[i]);
        first.flawed = 1;
        first.rounds = second.rounds = 1ull << 40;
        first.limit_ns = second.limit_ns = FLAW_NS;
        run_both(both, first, second, true);
        CHECK(both->result[1].violations > 0, "%s: not seen by the other side", names[tests[i]]);
        munmap(both, sizeof *both);
    }
}

static void who_is_alone_can_tell(void) {
    for (uint32_t test = 0; test < 4; test++) {
        struct both *both = two_areas();
        gismo_litmus run = side_of(both, 0, test);
        for (int i = 0; i < 5; i++)
            CHECK(gismo_litmus_run(&run, SLICE_NS) == 0, "%s ended without a partner", names[test]);
        CHECK(run.idle_ns >= 3 * SLICE_NS && run.done == 0, "%s: %llu ns", names[test],
              (unsigned long long)run.idle_ns);
        munmap(both, sizeof *both);
    }
}

static void nonsense_is_refused(void) {
    struct both *both = two_areas();
    memset(both->area[1], 0x77, GISMO_LITMUS_BYTES);
    for (uint32_t test = 0; test < 4; test++) {
        gismo_litmus run = side_of(both, 0, test);
        int status = 0;
        for (int i = 0; i < 10 && status == 0; i++)
            status = gismo_litmus_run(&run, SLICE_NS);
        CHECK(status == GISMO_ECORRUPT || run.violations > 0 || run.idle_ns > 0, "%s believes nonsense", names[test]);
    }
    gismo_litmus run = side_of(both, 0, 4);
    CHECK(gismo_litmus_run(&run, SLICE_NS) == GISMO_EINVAL, "a fifth test");
    run = side_of(both, 0, 0);
    run.rounds = 0;
    CHECK(gismo_litmus_run(&run, SLICE_NS) == GISMO_EINVAL, "no rounds");
    uint64_t value;
    CHECK(gismo_litmus_say(both->area[0], GISMO_LITMUS_WORDS, 1) == GISMO_EINVAL, "a word too many");
    CHECK(gismo_litmus_hear(both->area[0], GISMO_LITMUS_WORDS, &value) == GISMO_EINVAL, "a word too many");
    OK(gismo_litmus_say(both->area[0], 23, 42));
    OK(gismo_litmus_hear(both->area[0], 23, &value));
    CHECK(value == 42, "a word");
    munmap(both, sizeof *both);
}

/* ---- the line ------------------------------------------------------------------------------------------ */

static gismo_store *open_it(bool read_only) {
    gismo_open_options o = {.state_dir = "state", .host_id = -1, .no_thread = 1, .read_only = read_only};
    gismo_store *s = NULL;
    OK(gismo_open("store", &o, &s));
    return s;
}

static gismo_litmus_verdict verdict_of(gismo_store *s) {
    gismo_host_info info;
    OK(gismo_host(s, 0, &info));
    return info.litmus;
}

static void the_line(void) {
    gismo_format_options o = {.size_bytes = 2 << 20, .max_hosts = 4, .coherence = GISMO_COHERENCE_SOFTWARE};
    OK(gismo_format("store", &o, NULL, NULL, NULL));
    gismo_store *s = open_it(false), *reader = open_it(true);
    CHECK(verdict_of(s).outcome == GISMO_LITMUS_NONE, "a verdict before any test");

    gismo_litmus_verdict v = {.tested_unix_ns = 1234,
                              .rounds = {1, 2, 3, UINT32_MAX},
                              .violations = {0, 5, 0, 6},
                              .partner_boot_id = "another machine",
                              .partner_host = 3,
                              .outcome = GISMO_LITMUS_VIOLATED};
    OK(gismo_litmus_record(s, &v));
    gismo_litmus_verdict back = verdict_of(s), seen = verdict_of(reader);
    CHECK(memcmp(&back, &v, sizeof v) == 0 && memcmp(&seen, &v, sizeof v) == 0, "it is not what was written");

    gismo_litmus_verdict bad[5] = {v, v, v, v, v};
    bad[0].outcome = GISMO_LITMUS_NONE;
    bad[1].outcome = 4;
    bad[2].partner_host = 4;
    bad[3].reasons = GISMO_LITMUS_FILE; /* of a verdict that is meaningful */
    bad[4].outcome = GISMO_LITMUS_NOT_MEANINGFUL;
    for (int i = 0; i < 5; i++)
        CHECK(gismo_litmus_record(s, &bad[i]) == GISMO_EINVAL, "bad verdict %d", i);
    CHECK(gismo_litmus_record(reader, &v) == GISMO_EPERM, "opened read-only");

    /* Any bit of the line that is not what was written, and any other boot: no verdict. */
    uint8_t *line = (uint8_t *)&s->lanes[0].litmus, *boot = s->identities[0].boot_id;
    for (uint32_t bit = 0; bit < 512; bit++) {
        line[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(verdict_of(reader).outcome == GISMO_LITMUS_NONE, "bit %u", bit);
        line[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (uint32_t i = 0; i < 16; i++) {
        boot[i] ^= 1;
        CHECK(verdict_of(reader).outcome == GISMO_LITMUS_NONE, "byte %u of the boot id", i);
        boot[i] ^= 1;
    }
    CHECK(verdict_of(reader).outcome == GISMO_LITMUS_VIOLATED, "it is back");

    /* Forged, with a checksum that is right. */
    struct fmt_litmus *raw = &s->lanes[0].litmus;
    raw->partner_lane = 4;
    raw->crc = crc32c(crc32c(0, raw, 60), boot, 16);
    CHECK(verdict_of(reader).outcome == GISMO_LITMUS_NONE, "a partner that cannot be");

    /* The same host again, and a new state directory in the same boot: still the same machine. */
    OK(gismo_litmus_record(s, &v));
    OK(gismo_close(s));
    gismo_free(s);
    CHECK(verdict_of(reader).outcome == GISMO_LITMUS_VIOLATED, "after a close");
    CHECK(rename("state", "state-lost") == 0, "rename");
    s = open_it(false);
    CHECK(s->lane == 0 && verdict_of(s).outcome == GISMO_LITMUS_VIOLATED, "in a new state directory");
    OK(gismo_close(s));
    gismo_free(s);
    OK(gismo_close(reader));
    gismo_free(reader);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0); /* what was found so far, should it end early */
    each_holds();
    each_finds_its_flaw();
    one_side_is_enough();
    who_is_alone_can_tell();
    nonsense_is_refused();
    the_line();
    return 0;
}
