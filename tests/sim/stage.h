/* stage.h - one run of one scenario, and which runs there are: stage.c. */
#ifndef GISMO_SIM_STAGE_H
#define GISMO_SIM_STAGE_H

#include "scenario.h"

#define SCENARIOS 18u
#define RUN_NAME 128u

struct run {
    const struct scenario *scenario;
    enum sim_adversary adversary;
    uint64_t seed;
    uint32_t number;                /* of the scenario */
    struct sim_schedule *schedule; /* NULL: at random */
};

/* Which runs: seeds from the first on, each with every scenario and adversary that is chosen. */
struct choice {
    const struct scenario *scenario; /* NULL = all */
    enum sim_adversary adversary;    /* SIM_ADVERSARIES = all */
    uint64_t first_seed, runs;
};

const struct scenario *scenario_number(uint32_t number); /* NULL: no more */
const struct scenario *scenario_named(const char *name); /* ends the program if there is none */
enum sim_adversary adversary_named(const char *name);    /* likewise */
bool next_run(const struct choice *choice, struct run *run); /* begin with {0}; false: that were all */

void stage_make_folder(void); /* where stores and state directories lie; one for each process of the simulator */
void stage_remove_folder(void);
void stage_run(const struct run *run, bool verbose, struct sim_result *result);
void stage_report(const struct run *run, const struct sim_result *result);
/* SCENARIO/ADVERSARY/SEED, and /STEP:PROCESS,... of a schedule. */
const char *run_name(const struct run *run, char *text, size_t n);
bool run_named(const char *name, struct run *run, struct sim_schedule *schedule); /* false: it is no such name */

double seconds(void);

#endif
