/* hunt.h - the places of the core that a mutant can be made of, and the hunt for mutants that nothing notices: hunt.c. */
#ifndef GISMO_SIM_HUNT_H
#define GISMO_SIM_HUNT_H

#include "stage.h"

/* Which mutants, and how long each may live. */
struct hunt {
    struct choice runs;
    double seconds; /* at most, for each mutant */
    uint32_t jobs; /* so many at a time */
    uint32_t site; /* 0 = all */
    const char *in; /* FILE or FILE:FUNCTION, NULL = all */
    const char *operation; /* NULL = all */
};

void list_sites(void);
/* Changes all of those places at once, for as long as this program runs. Returns how many. */
uint32_t break_places(const char *in, const char *operation);
/* 0: all were caught, 1: some were not, 2: there are none of that kind, 3: something is wrong. */
int hunt_mutants(const struct hunt *hunt);

#endif
