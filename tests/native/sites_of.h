/*
 * sites_of.h - for tests built with -DGISMO_SITES: runs a step in a child that is stopped or killed at a crash site.
 */
#ifndef GISMO_TESTS_SITES_OF_H
#define GISMO_TESTS_SITES_OF_H

#include "check.h"
#include "sites.h"

#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#ifndef GISMO_SITES
#error "a test of crash sites: build it with -DGISMO_SITES"
#endif

uint32_t gismo_sites_count(void);
int gismo_sites_info(uint32_t index, const char **file, const char **function, uint32_t *line, uint32_t *kind,
                     uint64_t *hits);
void gismo_sites_arm(int32_t index, uint64_t nth, int signal_number);

static inline uint64_t site_hits(uint32_t site) {
    const char *file, *function;
    uint32_t line, kind;
    uint64_t hits;
    CHECK(gismo_sites_info(site, &file, &function, &line, &kind, &hits) == GISMO_OK, "no site %u", site);
    return hits;
}

static inline const char *site_function(uint32_t site) {
    const char *file, *function;
    uint32_t line, kind;
    uint64_t hits;
    CHECK(gismo_sites_info(site, &file, &function, &line, &kind, &hits) == GISMO_OK, "no site %u", site);
    return function;
}

static inline void *shared_memory(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED, "mmap");
    return p;
}

/* How often the step comes by each site when nobody interferes. before is done unarmed, in the same child. */
static inline uint64_t *count_hits(void (*before)(void *), void (*step)(void *), void *ctx) {
    uint32_t sites = gismo_sites_count();
    uint64_t *hits = shared_memory(sites * sizeof *hits);
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (child == 0) {
        if (before)
            before(ctx);
        for (uint32_t i = 0; i < sites; i++)
            hits[i] = site_hits(i);
        step(ctx);
        for (uint32_t i = 0; i < sites; i++)
            hits[i] = site_hits(i) - hits[i];
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0, "the counting child");
    return hits;
}

/* A child that does the step and gets the signal at that hit of that site. *status as of waitpid with WUNTRACED. */
static inline pid_t run_armed(void (*before)(void *), void (*step)(void *), void *ctx, uint32_t site, uint64_t nth,
                              int signal_number, int *status) {
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (child == 0) {
        if (before)
            before(ctx);
        gismo_sites_arm((int32_t)site, nth, signal_number);
        step(ctx);
        _exit(0);
    }
    CHECK(waitpid(child, status, WUNTRACED) == child, "waitpid");
    return child;
}

#endif
