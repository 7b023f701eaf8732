/*
 * hunt.c - mutants: the core with one flush, fence, invalidation or store changed at one place (mutant.c says how).
 *
 * Each is run in a process of its own, under those scenarios that come to its place at all, until one of them finds a violation
 * or its time is over. Nothing is built anew: a place looks at what is to be done there.
 */
#include "hunt.h"

#include "explore.h"
#include "prim_sim.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SITES 1024u
#define JOBS 64u

static bool is_in(const struct sim_site *site, const char *in) {
    if (in == NULL)
        return true;
    const char *file = mutant_file(site), *colon = strchr(in, ':');
    size_t n = colon ? (size_t)(colon - in) : strlen(in);
    return strncmp(file, in, n) == 0 && file[n] == 0 && (colon == NULL || strcmp(site->function, colon + 1) == 0);
}

static bool is_chosen(const struct sim_site *site, enum sim_mutation mutation, const char *in, const char *operation) {
    return mutant_applies(site, mutation) && is_in(site, in) &&
           (operation == NULL || strcmp(operation, mutant_name(mutation)) == 0);
}

uint32_t break_places(const char *in, const char *operation) {
    uint32_t count = 0;
    for (struct sim_site *site = __start_sim_sites; site < __stop_sim_sites; site++) {
        for (int mutation = 1; mutation < MUTANT_OPERATORS; mutation++) {
            if (!is_chosen(site, (enum sim_mutation)mutation, in, operation))
                continue;
            site->mutation = (uint32_t)mutation;
            count++;
        }
    }
    return count;
}

void list_sites(void) {
    static const char *const primitives[] = {"load",  "hint",    "store",   "note",   "read",   "write", "stream",
                                             "flush", "refresh", "publish", "sfence", "mfence", "lfence"};
    uint32_t last = 0;
    for (const struct sim_site *s = __start_sim_sites; s < __stop_sim_sites; s++) {
        if (s->number <= last)
            continue;
        last = s->number;
        printf("%4u  %-8s %s:%u %s\n", s->number, primitives[s->primitive], mutant_file(s), s->line, s->function);
    }
}

/* ---- what is known of a place before the hunt --------------------------------------------------------- */

static uint8_t comes_there[SCENARIOS][SITES];
static uint32_t most_lines[SITES]; /* of one flush or invalidation there */

static void look_around(void) {
    for (uint32_t i = 0; i < SCENARIOS; i++) {
        for (struct sim_site *s = __start_sim_sites; s < __stop_sim_sites; s++)
            s->hits = 0;
        struct run run = {.scenario = scenario_number(i), .seed = 1, .number = i};
        for (; run.seed <= 16; run.seed++) {
            struct sim_result result;
            run.adversary = (enum sim_adversary)(run.seed % SIM_ADVERSARIES);
            stage_run(&run, false, &result);
        }
        for (struct sim_site *s = __start_sim_sites; s < __stop_sim_sites; s++) {
            comes_there[i][s->number] |= s->hits > 0;
            if (s->most_lines > most_lines[s->number])
                most_lines[s->number] = s->most_lines;
        }
    }
}

static bool is_reached(uint32_t site) {
    for (uint32_t i = 0; i < SCENARIOS; i++)
        if (comes_there[i][site])
            return true;
    return false;
}

/* ---- one mutant, in a child ----------------------------------------------------------------------------- */

enum fate { SURVIVED, CAUGHT, UNREACHED, SAME };

struct verdict {
    enum fate fate;
    uint64_t runs, hits;
    char by[RUN_NAME], what[256];
};

static void found(const struct run *run, const struct sim_result *result, struct verdict *out) {
    out->fate = CAUGHT;
    run_name(run, out->by, sizeof out->by);
    snprintf(out->what, sizeof out->what, "%.255s", result->what);
}

static void at_random(uint32_t number, const struct choice *choice, double until, struct verdict *out) {
    struct choice all = *choice;
    all.runs = UINT64_MAX - all.first_seed;
    for (struct run run = {0}; seconds() < until && out->fate != CAUGHT && next_run(&all, &run);) {
        struct sim_result result;
        if (!comes_there[run.number][number])
            continue;
        stage_run(&run, false, &result);
        out->runs++;
        if (result.failed)
            found(&run, &result, out);
    }
}

static void by_schedules(uint32_t number, const struct choice *choice, uint32_t preemptions, double until,
                         struct verdict *out) {
    struct choice two = *choice;
    two.first_seed = 1;
    two.runs = 2;
    for (struct run run = {0}; seconds() < until && out->fate != CAUGHT && next_run(&two, &run);) {
        struct exploration x = {.preemptions = preemptions, .kills = preemptions == 1, .until = until};
        struct sim_result result;
        struct run schedules = run;
        if (!run.scenario->small || run.adversary == SIM_RANDOM || !comes_there[run.number][number])
            continue;
        if (!explore(&schedules, &x, &result))
            found(&schedules, &result, out);
        out->runs += x.runs;
    }
}

static void live(uint32_t number, enum sim_mutation mutation, const struct hunt *hunt, struct verdict *out) {
    *out = (struct verdict){.fate = SURVIVED};
    for (struct sim_site *s = __start_sim_sites; s < __stop_sim_sites; s++)
        if (s->number == number) {
            s->mutation = mutation;
            s->hits = 0;
        }
    const double begin = seconds();
    at_random(number, &hunt->runs, begin + 0.2 * hunt->seconds, out);
    by_schedules(number, &hunt->runs, 1, begin + 0.5 * hunt->seconds, out);
    struct choice later = hunt->runs;
    later.first_seed += 1000; /* others than before */
    at_random(number, &later, begin + 0.8 * hunt->seconds, out);
    by_schedules(number, &hunt->runs, 2, begin + hunt->seconds, out);
    for (struct sim_site *s = __start_sim_sites; s < __stop_sim_sites; s++)
        if (s->number == number)
            out->hits += s->hits;
}

/* ---- all of them ------------------------------------------------------------------------------------------ */

struct job {
    pid_t child;
    const struct sim_site *site;
    enum sim_mutation mutation;
};

static struct job jobs[JOBS];
static struct pollfd ends[JOBS]; /* of the pipes on which the children say what became of theirs */
static uint32_t at_work, fates[4];

static void say(const struct sim_site *site, enum sim_mutation mutation, const struct verdict *v) {
    static const char *const names[] = {
        [SURVIVED] = "SURVIVED ", [CAUGHT] = "caught   ", [UNREACHED] = "UNREACHED", [SAME] = "same     "};
    fates[v->fate]++;
    printf("%s %4u %s:%u %s: %s", names[v->fate], site->number, mutant_file(site), site->line, site->function,
           mutant_name(mutation));
    if (v->fate == CAUGHT)
        printf("  [%s: %s]\n", v->by, v->what);
    else if (v->fate == SURVIVED)
        printf("  [%llu runs, %llu hits]\n", (unsigned long long)v->runs, (unsigned long long)v->hits);
    else
        printf("%s\n", v->fate == SAME ? "  [one line: as delete]" : "");
    fflush(stdout);
}

static void wait_for_one(void) {
    while (poll(ends, at_work, -1) < 0)
        if (errno != EINTR)
            exit(3);
    for (uint32_t i = 0; i < at_work; i++) {
        if (ends[i].revents == 0)
            continue;
        struct verdict verdict;
        ssize_t got = read(ends[i].fd, &verdict, sizeof verdict);
        close(ends[i].fd);
        int status = 0;
        waitpid(jobs[i].child, &status, 0);
        if (got != (ssize_t)sizeof verdict) {
            verdict = (struct verdict){.fate = CAUGHT, .by = "?"};
            snprintf(verdict.what, sizeof verdict.what, "the simulator ended by signal %d", WTERMSIG(status));
        }
        say(jobs[i].site, jobs[i].mutation, &verdict);
        jobs[i] = jobs[--at_work];
        ends[i] = ends[at_work];
        return;
    }
}

static void begin(const struct sim_site *site, enum sim_mutation mutation, const struct hunt *hunt) {
    int pipes[2];
    if (pipe(pipes) != 0)
        exit(3);
    pid_t child = fork();
    if (child < 0) {
        perror("gismo-sim: fork");
        exit(3);
    }
    if (child == 0) {
        struct verdict verdict;
        close(pipes[0]);
        stage_make_folder();
        alarm((unsigned)hunt->seconds + 60); /* one that never ends leaves its folder, too: on_end in stage.c */
        live(site->number, mutation, hunt, &verdict);
        stage_remove_folder();
        _exit(write(pipes[1], &verdict, sizeof verdict) == (ssize_t)sizeof verdict ? 0 : 3);
    }
    close(pipes[1]);
    jobs[at_work] = (struct job){child, site, mutation};
    ends[at_work++] = (struct pollfd){.fd = pipes[0], .events = POLLIN};
}

int hunt_mutants(const struct hunt *hunt) {
    uint32_t last = 0, total = 0;
    look_around();
    for (const struct sim_site *site = __start_sim_sites; site < __stop_sim_sites; site++) {
        if (site->number <= last)
            continue;
        last = site->number;
        for (int i = 1; i < MUTANT_OPERATORS; i++) {
            const enum sim_mutation mutation = (enum sim_mutation)i;
            if (!is_chosen(site, mutation, hunt->in, hunt->operation) || (hunt->site && hunt->site != site->number))
                continue;
            total++;
            bool part = mutation == MUTANT_DROP_FIRST || mutation == MUTANT_DROP_LAST;
            if (!is_reached(site->number)) {
                say(site, mutation, &(struct verdict){.fate = UNREACHED});
                continue;
            }
            if (part && most_lines[site->number] <= 1) {
                say(site, mutation, &(struct verdict){.fate = SAME});
                continue;
            }
            begin(site, mutation, hunt);
            if (at_work == hunt->jobs)
                wait_for_one();
        }
    }
    while (at_work)
        wait_for_one();
    if (total == 0) {
        fprintf(stderr, "gismo-sim: there is no such mutant; `gismo-sim sites` lists the places\n");
        return 2;
    }
    total -= fates[SAME];
    printf("%u of %u mutants caught, %u at sites that no scenario reaches\n", fates[CAUGHT], total, fates[UNREACHED]);
    return fates[CAUGHT] == total ? 0 : 1;
}
