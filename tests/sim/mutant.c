/*
 * mutant.c - the sites of the core, and what can be done to each: see prim_sim.h.
 */
#include "sim.h"

#include "prim_sim.h"

#include <string.h>

static const char *const names[MUTANT_OPERATORS] = {
    [MUTANT_NONE] = "none",
    [MUTANT_DELETE] = "delete",           /* it is not there */
    [MUTANT_DELETE_FENCE] = "delete-fence", /* of a refresh or a publish: the lines yes, the fence no */
    [MUTANT_WEAKEN] = "weaken",           /* a store fence in the place of a full one */
    [MUTANT_DROP_FIRST] = "drop-first",   /* of a range the first line is left out */
    [MUTANT_DROP_LAST] = "drop-last",
    [MUTANT_CACHED] = "cached",           /* cached stores in the place of non-temporal ones */
    [MUTANT_SWAP] = "swap",               /* it takes effect after the next primitive */
};

const char *mutant_file(const struct sim_site *site) {
    const char *slash = strrchr(site->file, '/');
    return slash ? slash + 1 : site->file;
}

const char *mutant_name(enum sim_mutation mutation) { return names[mutation]; }

/* A site in a header is compiled into each file that includes it, and a macro may be expanded more than once. */
static bool same(const struct sim_site *a, const struct sim_site *b) {
    return a->line == b->line && a->primitive == b->primitive && strcmp(a->file, b->file) == 0 &&
           strcmp(a->function, b->function) == 0;
}

uint32_t mutant_number_sites(void) {
    uint32_t count = 0;
    for (struct sim_site *site = __start_sim_sites; site < __stop_sim_sites; site++) {
        site->number = 0;
        for (struct sim_site *before = __start_sim_sites; before < site && site->number == 0; before++)
            if (same(before, site))
                site->number = before->number;
        if (site->number == 0)
            site->number = ++count;
    }
    return count;
}

bool mutant_applies(const struct sim_site *site, enum sim_mutation mutation) {
    if (strstr(site->file, "/tests/") != NULL && site->primitive != SIM_STREAM)
        return false;
    uint32_t p = site->primitive;
    switch (mutation) {
    case MUTANT_DELETE:
        return p == SIM_FLUSH || p == SIM_REFRESH || p == SIM_PUBLISH || p == SIM_FENCE_STORE || p == SIM_FENCE_FULL ||
               p == SIM_FENCE_LOAD;
    case MUTANT_DELETE_FENCE:
        return p == SIM_REFRESH || p == SIM_PUBLISH;
    case MUTANT_WEAKEN:
        return p == SIM_REFRESH || p == SIM_FENCE_FULL;
    case MUTANT_DROP_FIRST:
    case MUTANT_DROP_LAST:
        return p == SIM_FLUSH || p == SIM_REFRESH || p == SIM_PUBLISH;
    case MUTANT_CACHED:
        return p == SIM_STREAM;
    case MUTANT_SWAP:
        return p == SIM_STORE || p == SIM_FLUSH || p == SIM_REFRESH || p == SIM_PUBLISH || p == SIM_FENCE_STORE ||
               p == SIM_FENCE_FULL;
    default:
        return false;
    }
}
