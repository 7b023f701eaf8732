/* explore.h - all schedules of a small scenario with few preemptions: explore.c. */
#ifndef GISMO_SIM_EXPLORE_H
#define GISMO_SIM_EXPLORE_H

#include "stage.h"

struct exploration {
    uint32_t preemptions; /* at most SIM_PREEMPTIONS */
    bool kills;           /* one of them may be a death, of the one that runs */
    double until;         /* seconds(): it ends then, unfinished; 0 = never */
    uint64_t runs, steps; /* out */
    bool unfinished;      /* out */
};

/* Runs them, the fewest preemptions first. False: there is a violation, and `run` is the one, with its schedule. */
bool explore(struct run *run, struct exploration *exploration, struct sim_result *result);

#endif
