/*
 * sites.c - arming of crash sites, in the test build only (see sites.h).
 *
 * gismo_sites_arm(i, n, signal): at the n-th hit of site i from now on the process sends itself the signal (SIGKILL or
 * SIGSTOP) with raise-like immediacy: kill(2) to itself does not return for SIGKILL, and for SIGSTOP the
 * process is stopped before the next instruction of any of its threads is of interest to the test.
 */
#include "sites.h"

#ifdef GISMO_SITES

#include "gismo.h"

#include <signal.h>
#include <unistd.h>

extern struct gismo_site __start_gismo_sites[], __stop_gismo_sites[];

static struct gismo_site *armed_site;
static uint64_t armed_at;
static int armed_signal;

GISMO_API uint32_t gismo_sites_count(void);
GISMO_API int gismo_sites_info(uint32_t index, const char **file, const char **function, uint32_t *line, uint32_t *kind,
                               uint64_t *hits);
GISMO_API void gismo_sites_arm(int32_t index, uint64_t nth, int signal_number);

void gismo_site_hit(struct gismo_site *site) {
    uint64_t hit = __atomic_add_fetch(&site->hits, 1, __ATOMIC_RELAXED);
    if (__builtin_expect(__atomic_load_n(&armed_site, __ATOMIC_RELAXED) == site, 0) && hit == armed_at)
        kill(getpid(), armed_signal);
}

uint32_t gismo_sites_count(void) { return (uint32_t)(__stop_gismo_sites - __start_gismo_sites); }

int gismo_sites_info(uint32_t index, const char **file, const char **function, uint32_t *line, uint32_t *kind,
                     uint64_t *hits) {
    if (index >= gismo_sites_count())
        return GISMO_ENOTFOUND;
    struct gismo_site *site = &__start_gismo_sites[index];
    *file = site->file;
    *function = site->function;
    *line = site->line;
    *kind = site->kind;
    *hits = __atomic_load_n(&site->hits, __ATOMIC_RELAXED);
    return GISMO_OK;
}

/* index -1 disarms. */
void gismo_sites_arm(int32_t index, uint64_t nth, int signal_number) {
    __atomic_store_n(&armed_site, NULL, __ATOMIC_SEQ_CST);
    if (index < 0 || (uint32_t)index >= gismo_sites_count())
        return;
    struct gismo_site *site = &__start_gismo_sites[index];
    armed_at = __atomic_load_n(&site->hits, __ATOMIC_RELAXED) + nth;
    armed_signal = signal_number;
    __atomic_store_n(&armed_site, site, __ATOMIC_SEQ_CST);
}

#endif
