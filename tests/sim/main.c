/*
 * main.c - the command gismo-sim: runs scenarios under an adversary, shows a failing run again, hunts mutants.
 */
#include "scenario.h"

#include "prim_sim.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct scenario *const scenarios[] = {
    &scenario_race,   &scenario_move,     &scenario_share, &scenario_reuse,   &scenario_pressure, &scenario_names,
    &scenario_deaths, &scenario_restarts, &scenario_look,  &scenario_silence, &scenario_litmus};
static const char *const adversaries[] = {
    [SIM_RANDOM] = "random", [SIM_LAZY] = "lazy", [SIM_EAGER] = "eager", [SIM_COHERENT] = "coherent"};
#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- the place of a run ------------------------------------------------------------------------- */

static char folder[64], store_path[96];
static void *image;
static uint64_t image_bytes;
static const struct scenario *image_of;
static bool image_coherent;

const char *scene_store_path(void) { return store_path; }

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind;
    return at->level == 0 || remove(path) == 0 || errno == ENOENT ? 0 : -1;
}

void remove_state(uint32_t host) {
    char path[128];
    snprintf(path, sizeof path, "%s.h%u", store_path, host);
    nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void remove_states(void) {
    for (uint32_t host = 0; host < SIM_HOSTS; host++)
        remove_state(host);
}

static void remove_folder(void) {
    if (folder[0] == 0)
        return;
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    rmdir(folder);
    folder[0] = 0;
}

/* Interrupted: leave nothing behind. What is called is not meant for a handler; but all that can go wrong is that something stays. */
static void on_end(int signal_number) {
    remove_folder();
    _exit(128 + signal_number);
}

static void make_folder(void) {
    snprintf(folder, sizeof folder, "/dev/shm/gismo-sim.%d", (int)getpid());
    if (mkdir(folder, 0700) != 0) {
        perror(folder);
        exit(3);
    }
    image_of = NULL;
    signal(SIGINT, on_end);
    signal(SIGTERM, on_end);
    signal(SIGALRM, on_end);
}

static void make_image(const struct scenario *scenario, bool coherent) {
    if (image_of == scenario && image_coherent == coherent)
        return;
    if (folder[0] == 0)
        abort();
    snprintf(store_path, sizeof store_path, "%s/%s%s", folder, scenario->name, coherent ? ".coherent" : "");
    gismo_format_options o = {.size_bytes = scenario->size_bytes,
                              .max_hosts = scenario->hosts,
                              .coherence = coherent ? GISMO_COHERENCE_HARDWARE : GISMO_COHERENCE_SOFTWARE,
                              .force = 1};
    memset(o.store_uuid, 0x5a,
           sizeof o.store_uuid); /* the same in each run: what a run does depends on its seed alone */
    if (gismo_format(store_path, &o, NULL, NULL, NULL) != GISMO_OK) {
        fprintf(stderr, "gismo-sim: %s\n", gismo_error_message());
        exit(3);
    }
    if (image)
        munmap(image, image_bytes);
    int fd = open(store_path, O_RDONLY | O_CLOEXEC);
    image_bytes = scenario->size_bytes;
    image = mmap(NULL, image_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (image == MAP_FAILED)
        exit(3);
    oracle_begin(image);
    image_of = scenario;
    image_coherent = coherent;
    memory_new_image();
}

/* ---- one run ---------------------------------------------------------------------------------------- */

static struct sim_options options_of(enum sim_adversary adversary, uint64_t seed) {
    struct sim_options o = {.adversary = adversary, .seed = seed * 0x9e3779b97f4a7c15ull + (uint64_t)adversary};
    static const uint32_t rates[] = {1, 4, 16, 64, 256};
    o.switch_per_1024 = rates[seed % COUNT(rates)];
    o.move_per_1024 = rates[seed / COUNT(rates) % COUNT(rates)];
    return o;
}

static void run_once(const struct scenario *scenario, enum sim_adversary adversary, uint64_t seed, bool verbose,
                     struct sim_result *result) {
    make_image(scenario, adversary == SIM_COHERENT);
    struct sim_options o = options_of(adversary, seed);
    o.verbose = verbose;
    sim_run(&o, image, image_bytes, scenario->hosts, scenario->body, NULL, result);
    remove_states();
}

static void report(const struct scenario *scenario, enum sim_adversary adversary, uint64_t seed,
                   const struct sim_result *result) {
    fprintf(stderr, "VIOLATION in %s/%s/%llu after %llu steps: %s\n", scenario->name, adversaries[adversary],
            (unsigned long long)seed, (unsigned long long)result->steps, result->what);
    sim_print_trace(30);
    fprintf(stderr, "again, step by step: gismo-sim replay %s/%s/%llu\n", scenario->name, adversaries[adversary],
            (unsigned long long)seed);
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static const struct scenario *scenario_named(const char *name) {
    for (uint32_t i = 0; i < COUNT(scenarios); i++)
        if (strcmp(scenarios[i]->name, name) == 0)
            return scenarios[i];
    fprintf(stderr, "gismo-sim: there is no scenario %s\n", name);
    exit(2);
}

static int adversary_named(const char *name) {
    for (uint32_t i = 0; i < COUNT(adversaries); i++)
        if (strcmp(adversaries[i], name) == 0)
            return (int)i;
    fprintf(stderr, "gismo-sim: there is no adversary %s\n", name);
    exit(2);
}

struct plan {
    const char *scenario, *adversary;
    uint64_t first_seed, runs;
    double seconds; /* for each mutant */
    uint32_t site;  /* 0 = all */
    const char *in;       /* FILE or FILE:FUNCTION */
    const char *broken;   /* likewise */
    const char *operation; /* NULL = all */
};

static bool is_in(const struct sim_site *site, const char *in) {
    if (in == NULL)
        return true;
    const char *file = mutant_file(site), *colon = strchr(in, ':');
    size_t n = colon ? (size_t)(colon - in) : strlen(in);
    return strncmp(file, in, n) == 0 && file[n] == 0 && (colon == NULL || strcmp(site->function, colon + 1) == 0);
}

/* All places in --break are changed at once, for as long as this program runs: to see what a violation looks like. */
static int break_it(const struct plan *plan) {
    uint32_t count = 0;
    for (struct sim_site *site = __start_sim_sites; site < __stop_sim_sites; site++) {
        for (int mutation = 1; mutation < MUTANT_OPERATORS; mutation++) {
            if (!is_in(site, plan->broken) || !mutant_applies(site, (enum sim_mutation)mutation) ||
                (plan->operation && strcmp(plan->operation, mutant_name((enum sim_mutation)mutation)) != 0))
                continue;
            site->mutation = (uint32_t)mutation;
            count++;
        }
    }
    if (count == 0)
        fprintf(stderr, "gismo-sim: nothing is broken by that; `gismo-sim sites` lists the places\n");
    return count ? 0 : 2;
}

static int run(const struct plan *plan) {
    double start = seconds();
    uint64_t runs = 0, steps = 0;
    for (uint64_t seed = plan->first_seed; seed < plan->first_seed + plan->runs; seed++) {
        for (uint32_t i = 0; i < COUNT(scenarios); i++) {
            if (plan->scenario && strcmp(plan->scenario, scenarios[i]->name) != 0)
                continue;
            for (uint32_t a = 0; a < COUNT(adversaries); a++) {
                if (plan->adversary && strcmp(plan->adversary, adversaries[a]) != 0)
                    continue;
                struct sim_result result;
                run_once(scenarios[i], (enum sim_adversary)a, seed, false, &result);
                runs++;
                steps += result.steps;
                if (result.failed) {
                    report(scenarios[i], (enum sim_adversary)a, seed, &result);
                    return 1;
                }
            }
        }
    }
    double took = seconds() - start;
    printf("%llu runs, %llu steps, %.2f s, %.2f million steps a second\n", (unsigned long long)runs,
           (unsigned long long)steps, took, (double)steps / took / 1e6);
    return 0;
}

static int replay(const char *token) {
    char scenario[64], adversary[64];
    unsigned long long seed;
    char rest;
    if (sscanf(token, "%63[^/]/%63[^/]/%llu%c", scenario, adversary, &seed, &rest) != 3) {
        fprintf(stderr, "gismo-sim: replay SCENARIO/ADVERSARY/SEED, as a failing run prints it\n");
        return 2;
    }
    const struct scenario *s = scenario_named(scenario);
    enum sim_adversary a = (enum sim_adversary)adversary_named(adversary);
    struct sim_result result;
    run_once(s, a, seed, true, &result);
    if (result.failed)
        report(s, a, seed, &result);
    return result.failed;
}

static int sites(void) {
    static const char *const primitives[] = {"load",    "store",   "read",   "write",  "stream", "flush",
                                             "refresh", "publish", "sfence", "mfence", "lfence"};
    uint32_t last = 0;
    for (const struct sim_site *s = __start_sim_sites; s < __stop_sim_sites; s++) {
        if (s->number <= last)
            continue;
        last = s->number;
        printf("%4u  %-8s %s:%u %s\n", s->number, primitives[s->primitive], mutant_file(s), s->line, s->function);
    }
    return 0;
}

/* ---- mutants ------------------------------------------------------------------------------------------- */

static void mutate(uint32_t number, enum sim_mutation mutation) {
    for (struct sim_site *s = __start_sim_sites; s < __stop_sim_sites; s++)
        if (s->number == number)
            s->mutation = mutation;
}

/* Which scenarios come to a site at all: there is no use in running a mutant under the others. */
#define SITES_MAX 1024u
static uint8_t coverage[COUNT(scenarios)][SITES_MAX];

static void cover(void) {
    for (uint32_t i = 0; i < COUNT(scenarios); i++) {
        for (struct sim_site *s = __start_sim_sites; s < __stop_sim_sites; s++)
            s->hits = 0;
        for (uint64_t seed = 1; seed <= 16; seed++) {
            struct sim_result result;
            run_once(scenarios[i], (enum sim_adversary)(seed % COUNT(adversaries)), seed, false, &result);
        }
        for (struct sim_site *s = __start_sim_sites; s < __stop_sim_sites; s++)
            if (s->number < SITES_MAX && s->hits)
                coverage[i][s->number] = 1;
    }
}

/* In a child: 1 = caught, 0 = survived, -1 = no scenario comes there; and by what. */
struct verdict {
    int caught;
    uint64_t runs, hits;
    char by[64], what[256];
};

static void hunt(uint32_t number, enum sim_mutation mutation, const struct plan *plan, struct verdict *out) {
    *out = (struct verdict){0};
    mutate(number, mutation);
    double end = seconds() + plan->seconds;
    for (uint64_t seed = plan->first_seed; seconds() < end; seed++) {
        for (uint32_t i = 0; i < COUNT(scenarios); i++) {
            if (!coverage[i][number] || (plan->scenario && strcmp(plan->scenario, scenarios[i]->name) != 0))
                continue;
            for (uint32_t a = 0; a < COUNT(adversaries); a++) {
                struct sim_result result;
                run_once(scenarios[i], (enum sim_adversary)a, seed, false, &result);
                out->runs++;
                if (!result.failed)
                    continue;
                out->caught = 1;
                snprintf(out->by, sizeof out->by, "%s/%s/%llu", scenarios[i]->name, adversaries[a],
                         (unsigned long long)seed);
                snprintf(out->what, sizeof out->what, "%.255s", result.what);
                return;
            }
        }
        if (out->runs == 0) {
            out->caught = -1;
            return;
        }
    }
    for (struct sim_site *s = __start_sim_sites; s < __stop_sim_sites; s++)
        if (s->number == number)
            out->hits += s->hits;
}

static int mutants(const struct plan *plan) {
    uint32_t caught = 0, total = 0, last = 0, unreached = 0;
    cover();
    for (const struct sim_site *site = __start_sim_sites; site < __stop_sim_sites; site++) {
        if (site->number <= last)
            continue;
        last = site->number;
        for (int mutation = 1; mutation < MUTANT_OPERATORS; mutation++) {
            const char *name = mutant_name((enum sim_mutation)mutation);
            if (!mutant_applies(site, (enum sim_mutation)mutation) || (plan->site && plan->site != site->number) ||
                !is_in(site, plan->in) || (plan->operation && strcmp(plan->operation, name) != 0))
                continue;
            int pipes[2];
            if (pipe(pipes) != 0)
                return 3;
            pid_t child = fork();
            if (child == 0) {
                struct verdict verdict;
                make_folder();
                alarm((unsigned)plan->seconds + 60);
                hunt(site->number, (enum sim_mutation)mutation, plan, &verdict);
                remove_folder();
                _exit(write(pipes[1], &verdict, sizeof verdict) == (ssize_t)sizeof verdict ? 0 : 3);
            }
            close(pipes[1]);
            struct verdict verdict;
            ssize_t got = read(pipes[0], &verdict, sizeof verdict);
            close(pipes[0]);
            int status;
            waitpid(child, &status, 0);
            total++;
            if (got != (ssize_t)sizeof verdict) {
                verdict = (struct verdict){.caught = 1};
                snprintf(verdict.what, sizeof verdict.what, "the simulator ended by signal %d", WTERMSIG(status));
            }
            caught += verdict.caught == 1;
            unreached += verdict.caught == -1;
            printf("%s %4u %s:%u %s: %s",
                   verdict.caught > 0    ? "caught   "
                   : verdict.caught == 0 ? "SURVIVED "
                                         : "UNREACHED",
                   site->number, mutant_file(site), site->line, site->function, name);
            if (verdict.caught > 0)
                printf("  [%s: %s]\n", verdict.by, verdict.what);
            else
                printf("  [%llu runs, %llu hits]\n", (unsigned long long)verdict.runs,
                       (unsigned long long)verdict.hits);
            fflush(stdout);
        }
    }
    if (total == 0) {
        fprintf(stderr, "gismo-sim: there is no such mutant; `gismo-sim sites` lists the places\n");
        return 2;
    }
    printf("%u of %u mutants caught, %u at sites that no scenario reaches\n", caught, total, unreached);
    return caught == total ? 0 : 1;
}

static int usage(int status) {
    fprintf(
        status ? stderr : stdout,
        "gismo-sim run [--scenario NAME] [--adversary random|lazy|eager|coherent] [--seed FIRST] [--runs N]\n"
        "gismo-sim replay SCENARIO/ADVERSARY/SEED    with --break FILE:FUNCTION --operator NAME, of a core so changed\n"
        "gismo-sim mutants [--seconds OF_EACH] [--in FILE[:FUNCTION]] [--site N] [--operator NAME] [--scenario NAME]\n"
        "gismo-sim sites\n\nscenarios:\n");
    for (uint32_t i = 0; i < COUNT(scenarios); i++)
        fprintf(status ? stderr : stdout, "  %-10s %s\n", scenarios[i]->name, scenarios[i]->what);
    return status;
}

int main(int argc, char **argv) {
    static const struct option long_options[] = {{"scenario", required_argument, NULL, 's'},
                                                 {"adversary", required_argument, NULL, 'a'},
                                                 {"seed", required_argument, NULL, 'n'},
                                                 {"runs", required_argument, NULL, 'r'},
                                                 {"seconds", required_argument, NULL, 't'},
                                                 {"site", required_argument, NULL, 'i'},
                                                 {"in", required_argument, NULL, 'f'},
                                                 {"break", required_argument, NULL, 'b'},
                                                 {"operator", required_argument, NULL, 'o'},
                                                 {"help", no_argument, NULL, 'h'},
                                                 {NULL, 0, NULL, 0}};
    struct plan plan = {.first_seed = 1, .runs = 100, .seconds = 4};
    for (int c; (c = getopt_long(argc, argv, "h", long_options, NULL)) != -1;) {
        switch (c) {
        case 's':
            plan.scenario = scenario_named(optarg)->name;
            break;
        case 'a':
            plan.adversary = adversaries[adversary_named(optarg)];
            break;
        case 'n':
            plan.first_seed = strtoull(optarg, NULL, 0);
            break;
        case 'r':
            plan.runs = strtoull(optarg, NULL, 0);
            break;
        case 't':
            plan.seconds = strtod(optarg, NULL);
            break;
        case 'b':
            plan.broken = optarg;
            break;
        case 'f':
            plan.in = optarg;
            break;
        case 'o':
            plan.operation = optarg;
            break;
        case 'i':
            plan.site = (uint32_t)strtoul(optarg, NULL, 0);
            break;
        case 'h':
            return usage(0);
        default:
            return usage(2);
        }
    }
    if (optind >= argc)
        return usage(2);
    const char *command = argv[optind];
    mutant_number_sites();
    if (strcmp(command, "sites") == 0)
        return sites();
    if (plan.broken && break_it(&plan) != 0)
        return 2;
    make_folder();
    int status = 2;
    if (strcmp(command, "run") == 0)
        status = run(&plan);
    else if (strcmp(command, "replay") == 0 && optind + 1 < argc)
        status = replay(argv[optind + 1]);
    else if (strcmp(command, "mutants") == 0)
        status = mutants(&plan);
    else
        usage(2);
    remove_folder();
    return status;
}
