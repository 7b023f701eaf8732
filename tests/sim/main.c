/*
 * main.c - the command gismo-sim: runs scenarios under an adversary, shows a failing run again, hunts mutants.
 */
#include "explore.h"
#include "hunt.h"
#include "stage.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int run(const struct choice *choice) {
    double start = seconds();
    uint64_t runs = 0, steps = 0;
    for (struct run run = {0}; next_run(choice, &run);) {
        struct sim_result result;
        stage_run(&run, false, &result);
        runs++;
        steps += result.steps;
        if (result.failed) {
            stage_report(&run, &result);
            return 1;
        }
    }
    double took = seconds() - start;
    printf("%llu runs, %llu steps, %.2f s, %.2f million steps a second\n", (unsigned long long)runs,
           (unsigned long long)steps, took, (double)steps / took / 1e6);
    return 0;
}

static int replay(const char *name) {
    static struct sim_schedule schedule;
    struct run run;
    struct sim_result result;
    if (!run_named(name, &run, &schedule)) {
        fprintf(stderr, "gismo-sim: replay SCENARIO/ADVERSARY/SEED[/STEP:PROCESS,...], as a failing run prints it\n");
        return 2;
    }
    stage_run(&run, true, &result);
    if (result.failed)
        stage_report(&run, &result);
    return result.failed;
}

/* Both kinds of objects (seeds 0 and 1 choose different ones), and memory as lazy and as eager as it may be, and coherent. */
static int explore_all(const struct choice *choice, uint32_t preemptions, bool kills) {
    uint32_t scenarios = 0;
    struct run run = {0};
    struct choice all = *choice;
    for (all.runs = 2; next_run(&all, &run);) {
        if (!run.scenario->small || run.adversary == SIM_RANDOM)
            continue;
        struct exploration x = {.preemptions = preemptions, .kills = kills};
        struct sim_result result;
        struct run schedules = run;
        double start = seconds();
        if (!explore(&schedules, &x, &result)) {
            stage_report(&schedules, &result);
            return 1;
        }
        char name[RUN_NAME];
        printf("%-18s %9llu schedules with up to %u %s, %11llu steps, %6.1f s\n", run_name(&run, name, sizeof name),
               (unsigned long long)x.runs, preemptions, kills ? "preemptions or a death" : "preemptions",
               (unsigned long long)x.steps, seconds() - start);
        fflush(stdout);
        scenarios++;
    }
    if (scenarios == 0)
        fprintf(stderr, "gismo-sim: there is no small scenario of that name and adversary\n");
    return scenarios ? 0 : 2;
}

static int usage(int status) {
    FILE *to = status ? stderr : stdout;
    fprintf(
        to,
        "gismo-sim run [--scenario NAME] [--adversary random|lazy|eager|coherent] [--seed FIRST] [--runs N]\n"
        "gismo-sim explore [--preemptions 1..3] [--kills] [--scenario NAME] [--adversary lazy|eager|coherent] [--seed "
        "FIRST]\n"
        "    all schedules of small scenarios; --kills: one of the preemptions may be the death of who runs, at each "
        "step\n"
        "gismo-sim replay SCENARIO/ADVERSARY/SEED[/STEP:PROCESS,...]    with --break FILE:FUNCTION --operator NAME, of "
        "a core so changed\n"
        "gismo-sim mutants [--seconds OF_EACH] [--jobs N] [--in FILE[:FUNCTION]] [--site N] [--operator NAME]\n"
        "                  [--scenario NAME] [--adversary NAME]\n"
        "gismo-sim sites\n\nscenarios:\n");
    const struct scenario *s;
    for (uint32_t i = 0; (s = scenario_number(i)) != NULL; i++)
        fprintf(to, "  %-10s %s\n", s->name, s->what);
    return status;
}

int main(int argc, char **argv) {
    static const struct option long_options[] = {{"scenario", required_argument, NULL, 's'},
                                                 {"adversary", required_argument, NULL, 'a'},
                                                 {"seed", required_argument, NULL, 'n'},
                                                 {"runs", required_argument, NULL, 'r'},
                                                 {"seconds", required_argument, NULL, 't'},
                                                 {"jobs", required_argument, NULL, 'j'},
                                                 {"preemptions", required_argument, NULL, 'p'},
                                                 {"kills", no_argument, NULL, 'k'},
                                                 {"site", required_argument, NULL, 'i'},
                                                 {"in", required_argument, NULL, 'f'},
                                                 {"break", required_argument, NULL, 'b'},
                                                 {"operator", required_argument, NULL, 'o'},
                                                 {"help", no_argument, NULL, 'h'},
                                                 {NULL, 0, NULL, 0}};
    struct hunt hunt = {.runs = {NULL, SIM_ADVERSARIES, 1, 100}, .seconds = 4, .jobs = 1};
    const char *broken = NULL;
    uint32_t preemptions = 2;
    bool kills = false;
    for (int c; (c = getopt_long(argc, argv, "h", long_options, NULL)) != -1;) {
        switch (c) {
        case 's':
            hunt.runs.scenario = scenario_named(optarg);
            break;
        case 'a':
            hunt.runs.adversary = adversary_named(optarg);
            break;
        case 'n':
            hunt.runs.first_seed = strtoull(optarg, NULL, 0);
            break;
        case 'r':
            hunt.runs.runs = strtoull(optarg, NULL, 0);
            break;
        case 't':
            hunt.seconds = strtod(optarg, NULL);
            break;
        case 'j':
            hunt.jobs = (uint32_t)strtoul(optarg, NULL, 0);
            break;
        case 'p':
            preemptions = (uint32_t)strtoul(optarg, NULL, 0);
            break;
        case 'k':
            kills = true;
            break;
        case 'b':
            broken = optarg;
            break;
        case 'f':
            hunt.in = optarg;
            break;
        case 'o':
            hunt.operation = optarg;
            break;
        case 'i':
            hunt.site = (uint32_t)strtoul(optarg, NULL, 0);
            break;
        case 'h':
            return usage(0);
        default:
            return usage(2);
        }
    }
    if (optind >= argc || hunt.jobs < 1 || hunt.jobs > 64 || preemptions < 1 || preemptions > SIM_PREEMPTIONS)
        return usage(2);
    const char *command = argv[optind];
    mutant_number_sites();
    if (strcmp(command, "sites") == 0) {
        list_sites();
        return 0;
    }
    if (broken && break_places(broken, hunt.operation) == 0) {
        fprintf(stderr, "gismo-sim: nothing is broken by that; `gismo-sim sites` lists the places\n");
        return 2;
    }
    stage_make_folder();
    int status = 2;
    if (strcmp(command, "run") == 0)
        status = run(&hunt.runs);
    else if (strcmp(command, "explore") == 0)
        status = explore_all(&hunt.runs, preemptions, kills);
    else if (strcmp(command, "replay") == 0 && optind + 1 < argc)
        status = replay(argv[optind + 1]);
    else if (strcmp(command, "mutants") == 0)
        status = hunt_mutants(&hunt);
    else
        usage(2);
    stage_remove_folder();
    return status;
}
