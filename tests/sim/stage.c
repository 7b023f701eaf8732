/*
 * stage.c - one run: its store on the disk, its image, its options; and which runs there are.
 */
#include "stage.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const struct scenario *const scenarios[SCENARIOS] = {
    &scenario_race,   &scenario_move,     &scenario_share, &scenario_reuse,   &scenario_pressure, &scenario_names,
    &scenario_deaths, &scenario_restarts, &scenario_look,  &scenario_silence, &scenario_litmus,   &scenario_told,
    &scenario_pin,    &scenario_clear,    &scenario_ask,   &scenario_name,    &scenario_lease,    &scenario_leave};
static const char *const adversaries[] = {
    [SIM_RANDOM] = "random", [SIM_LAZY] = "lazy", [SIM_EAGER] = "eager", [SIM_COHERENT] = "coherent"};
#define COUNT(a) (sizeof(a) / sizeof *(a))

const struct scenario *scenario_number(uint32_t number) { return number < SCENARIOS ? scenarios[number] : NULL; }

/* ---- the place of a run ------------------------------------------------------------------------- */

static char folder[64], store_path[96];
static void *image;
static uint64_t image_bytes;
static const struct scenario *image_of;
static bool image_coherent;

static uint64_t seed_now;

uint64_t scene_seed(void) { return seed_now; }
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

void stage_remove_folder(void) {
    if (folder[0] == 0)
        return;
    nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    rmdir(folder);
    folder[0] = 0;
}

/* Interrupted: leave nothing behind. What is called is not meant for a handler; but all that can go wrong is that something stays. */
static void on_end(int signal_number) {
    stage_remove_folder();
    _exit(128 + signal_number);
}

void stage_make_folder(void) {
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

void stage_run(const struct run *run, bool verbose, struct sim_result *result) {
    make_image(run->scenario, run->adversary == SIM_COHERENT);
    struct sim_options o = options_of(run->adversary, run->seed);
    o.schedule = run->schedule;
    seed_now = run->seed;
    o.verbose = verbose;
    sim_run(&o, image, image_bytes, run->scenario->hosts, run->scenario->body, NULL, result);
    remove_states();
}

const char *run_name(const struct run *run, char *text, size_t n) {
    snprintf(text, n, "%s/%s/%llu", run->scenario->name, adversaries[run->adversary], (unsigned long long)run->seed);
    if (run->schedule)
        snprintf(text + strlen(text), n - strlen(text), "/");
    for (uint32_t i = 0; run->schedule && i < run->schedule->count; i++)
        snprintf(text + strlen(text), n - strlen(text),
                 run->schedule->at[i].process == SIM_KILLED ? "%s%u:killed" : "%s%u:%u", i ? "," : "",
                 run->schedule->at[i].step, run->schedule->at[i].process);
    return text;
}

bool run_named(const char *name, struct run *run, struct sim_schedule *schedule) {
    char scenario[64], adversary[64];
    unsigned long long seed;
    int read = 0;
    if (sscanf(name, "%63[^/]/%63[^/]/%llu%n", scenario, adversary, &seed, &read) != 3)
        return false;
    *run = (struct run){.scenario = scenario_named(scenario), .adversary = adversary_named(adversary), .seed = seed};
    const char *rest = name + read;
    if (*rest == 0)
        return true;
    run->schedule = schedule;
    schedule->count = 0;
    rest++;
    for (int more; *rest && schedule->count < SIM_PREEMPTIONS; rest += more + (rest[more] == ',')) {
        uint32_t n = schedule->count++;
        more = 0;
        if (sscanf(rest, "%u:killed%n", &schedule->at[n].step, &more) == 1 && more)
            schedule->at[n].process = SIM_KILLED;
        else if (sscanf(rest, "%u:%u%n", &schedule->at[n].step, &schedule->at[n].process, &more) != 2)
            return false;
    }
    return *rest == 0;
}

void stage_report(const struct run *run, const struct sim_result *result) {
    char name[RUN_NAME];
    run_name(run, name, sizeof name);
    fprintf(stderr, "VIOLATION in %s after %llu steps: %s\n", name, (unsigned long long)result->steps, result->what);
    sim_print_trace(30);
    fprintf(stderr, "again, step by step: gismo-sim replay %s\n", name);
}

/* ---- which runs ------------------------------------------------------------------------------------- */

double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

const struct scenario *scenario_named(const char *name) {
    for (uint32_t i = 0; i < COUNT(scenarios); i++)
        if (strcmp(scenarios[i]->name, name) == 0)
            return scenarios[i];
    fprintf(stderr, "gismo-sim: there is no scenario %s\n", name);
    exit(2);
}

enum sim_adversary adversary_named(const char *name) {
    for (uint32_t i = 0; i < COUNT(adversaries); i++)
        if (strcmp(adversaries[i], name) == 0)
            return (enum sim_adversary)i;
    fprintf(stderr, "gismo-sim: there is no adversary %s\n", name);
    exit(2);
}

static bool wanted(const struct choice *choice, const struct run *run) {
    return (choice->scenario == NULL || choice->scenario == run->scenario) &&
           (choice->adversary == SIM_ADVERSARIES || choice->adversary == run->adversary);
}

bool next_run(const struct choice *choice, struct run *run) {
    do {
        if (run->scenario == NULL)
            *run = (struct run){.scenario = scenarios[0], .seed = choice->first_seed};
        else if (run->adversary + 1 < SIM_ADVERSARIES)
            run->adversary++;
        else {
            run->adversary = SIM_RANDOM;
            run->number = (run->number + 1) % COUNT(scenarios);
            run->scenario = scenarios[run->number];
            run->seed += run->number == 0;
        }
        if (run->seed >= choice->first_seed + choice->runs)
            return false;
    } while (!wanted(choice, run));
    return true;
}
