/*
 * prim_sim.h - the primitives of prim.h, answered by the simulator (build with -DGISMO_SIM). Included by prim.h alone.
 *
 * Each place in the core that uses a primitive is a site: a record in the linker section sim_sites. So the build counts them, and a
 * mutant is a site and what is done to it (mutant.c), chosen when the simulator runs: nothing is built anew.
 */
#ifndef GISMO_PRIM_SIM_H
#define GISMO_PRIM_SIM_H

#include <stddef.h>
#include <stdint.h>

enum sim_primitive {
    SIM_LOAD,
    SIM_HINT, /* a load that may be old */
    SIM_STORE,
    SIM_NOTE, /* a store that no other host looks for */
    SIM_READ,
    SIM_WRITE,
    SIM_STREAM, /* copy_payload with non-temporal stores */
    SIM_FLUSH,
    SIM_REFRESH,
    SIM_PUBLISH,
    SIM_FENCE_STORE,
    SIM_FENCE_FULL,
    SIM_FENCE_LOAD,
};

struct sim_site {
    const char *file;
    const char *function;
    uint32_t line;
    uint32_t primitive;
    uint32_t number; /* sites of one line of a header that many files include have one number */
    uint32_t mutation; /* enum sim_mutation, 0 = none */
    uint64_t hits;
    uint32_t most_lines; /* of one flush or invalidation */
};

#define SIM_SITE(PRIMITIVE)                                                                                            \
    __extension__({                                                                                                    \
        static struct sim_site site_ __attribute__((section("sim_sites"), used, aligned(8))) = {                       \
            __FILE__, __func__, __LINE__, SIM_##PRIMITIVE, 0, 0, 0, 0};                                                \
        &site_;                                                                                                        \
    })

uint64_t sim_load(struct sim_site *site, const void *p, uint32_t bytes);
void sim_store(struct sim_site *site, void *p, uint64_t value, uint32_t bytes);
void sim_read(struct sim_site *site, void *copy, const void *medium, size_t n);
void sim_write(struct sim_site *site, void *medium, const void *from, size_t n);
void sim_zero(struct sim_site *site, void *medium, size_t n);
int sim_equal(struct sim_site *site, const void *medium, const void *what, size_t n);
uint32_t sim_crc32c(struct sim_site *site, uint32_t crc, const void *medium, size_t n);
void sim_flush(struct sim_site *site, const void *p, size_t n);
void sim_refresh(struct sim_site *site, const void *p, size_t n);
void sim_publish(struct sim_site *site, const void *p, size_t n);
void sim_fence(struct sim_site *site);

#define prim_load64(p) sim_load(SIM_SITE(LOAD), (const uint64_t *)(p), 8)
#define prim_hint64(p) sim_load(SIM_SITE(HINT), (const uint64_t *)(p), 8)
#define prim_load32(p) ((uint32_t)sim_load(SIM_SITE(LOAD), (const uint32_t *)(p), 4))
#define prim_load8(p) ((uint8_t)sim_load(SIM_SITE(LOAD), (const uint8_t *)(p), 1))
#define prim_store64(p, v) sim_store(SIM_SITE(STORE), (uint64_t *)(p), (uint64_t)(v), 8)
#define prim_store32(p, v) sim_store(SIM_SITE(STORE), (uint32_t *)(p), (uint32_t)(v), 4)
#define prim_note32(p, v) sim_store(SIM_SITE(NOTE), (uint32_t *)(p), (uint64_t)(v), 4)
#define prim_store8(p, v) sim_store(SIM_SITE(STORE), (uint8_t *)(p), (uint8_t)(v), 1)
#define prim_read(copy, medium, n) sim_read(SIM_SITE(READ), copy, medium, n)
#define prim_write(medium, from, n) sim_write(SIM_SITE(WRITE), medium, from, n)
#define prim_zero(medium, n) sim_zero(SIM_SITE(WRITE), medium, n)
#define prim_equal(medium, what, n) sim_equal(SIM_SITE(READ), medium, what, n)
#define prim_crc32c(crc, medium, n) sim_crc32c(SIM_SITE(READ), crc, medium, n)
#define prim_flush(software, p, n) ((software) ? sim_flush(SIM_SITE(FLUSH), p, n) : (void)0)
#define prim_refresh(software, p, n) ((software) ? sim_refresh(SIM_SITE(REFRESH), p, n) : (void)0)
#define prim_publish(software, p, n) ((software) ? sim_publish(SIM_SITE(PUBLISH), p, n) : (void)0)
#define prim_fence_store() sim_fence(SIM_SITE(FENCE_STORE))
#define prim_fence_full() sim_fence(SIM_SITE(FENCE_FULL))
#define prim_fence_load() sim_fence(SIM_SITE(FENCE_LOAD))

void prim_flush_lines(const void *p, size_t n);
void prim_invalidate_lines(const void *p, size_t n);

/* The state directory is coherent memory, but its stores wait in the same store buffer as those to the medium. */
void sim_local_forward(const void *p, void *value,
                       uint32_t bytes); /* own stores that still wait, over what was loaded */
void sim_local_store(void *p, uint64_t value, uint32_t bytes);
void sim_locked(void); /* a locked instruction: the store buffer is empty afterwards */

#endif
