/*
 * sites.h - numbered places at which a test may kill or stop the process (build with -DGISMO_SITES).
 *
 * Each use of GISMO_SITE puts a record into the linker section gismo_sites; its address is its identity and the section's
 * length is the number of sites. So the build counts them, not a person. Without GISMO_SITES nothing is left of it.
 * SHARED: the next instruction stores to the medium. LOCAL: it changes the host's state directory. READ: what was read
 * before and what is read next need not be of one moment.
 */
#ifndef GISMO_SITES_H
#define GISMO_SITES_H

#include <stdint.h>

#ifdef GISMO_SITES

enum gismo_site_kind { GISMO_SITE_SHARED = 1, GISMO_SITE_LOCAL = 2, GISMO_SITE_READ = 3 };

struct gismo_site {
    const char *file;
    const char *function;
    uint32_t line;
    uint32_t kind;
    uint64_t hits; /* of this process */
};

void gismo_site_hit(struct gismo_site *site);

#define GISMO_SITE(KIND)                                                                                               \
    __extension__({                                                                                                    \
        static struct gismo_site site_ __attribute__((section("gismo_sites"), used, aligned(8))) = {                   \
            __FILE__, __func__, __LINE__, GISMO_SITE_##KIND, 0};                                                       \
        gismo_site_hit(&site_);                                                                                        \
    })

#else
#define GISMO_SITE(KIND) ((void)0)
#endif

#endif
