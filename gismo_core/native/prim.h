/*
 * prim.h - the only way in which the core touches shared metadata.
 *
 * The contract of each primitive stands here once; prim_x86_64.c has what is not inline. With hardware coherence
 * (struct prim.software == 0) flush and invalidate do nothing; fences always stay, because the x86 store buffer is there in
 * either case. `software` is a plain argument, not a global: one process may have stores of both kinds open.
 *
 * With -DGISMO_SIM a simulator of memory that is not coherent answers them instead (tests/sim).
 * With -DGISMO_SITES each store to shared memory, and each change of the state directory, is a numbered site at which
 * a test can kill or stop the process (sites.h). The table is made by the linker, so no site can be forgotten.
 */
#ifndef GISMO_PRIM_H
#define GISMO_PRIM_H

#include "crc32c.h"
#include "sites.h"

#include <stddef.h>
#include <stdint.h>

#ifdef GISMO_SIM
#include "prim_sim.h"
#else

/* One aligned 8-byte load, never torn, never cached in a register, in program order with other prim loads. */
static inline uint64_t prim_load64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint32_t prim_load32(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline uint8_t prim_load8(const uint8_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
/*
 * The same where the line was not invalidated in this call and may be as old as this host's cache: what is done upon it is right
 * for whatever stood there once. The simulator takes an old value from any other load for a missing invalidation.
 */
static inline uint64_t prim_hint64(const uint64_t *p) { return prim_load64(p); }

/*
 * n bytes of the medium into private memory, in no order: whether they belong together a later look at the state word, or a
 * checksum, has to say. Read once, checked and used from the copy. The barrier keeps the compiler from reading the medium
 * a second time in place of the copy, when another value may stand there than the one that was checked.
 */
static inline void prim_read(void *copy, const void *medium, size_t n) {
    __builtin_memcpy(copy, medium, n);
    __asm__ volatile("" : : "r"(copy) : "memory");
}
/* Payload and trailers by plain cached stores, in no order. Never for what another may look at before it is sealed. */
static inline void prim_write(void *medium, const void *from, size_t n) { __builtin_memcpy(medium, from, n); }
static inline void prim_zero(void *medium, size_t n) { __builtin_memset(medium, 0, n); }
static inline int prim_equal(const void *medium, const void *what, size_t n) {
    return __builtin_memcmp(medium, what, n) == 0;
}
/* The CRC32C of n bytes of payload, going on from crc. */
static inline uint32_t prim_crc32c(uint32_t crc, const void *medium, size_t n) { return crc32c(crc, medium, n); }

/* One aligned plain store (mov), after all earlier stores of this thread in program order (x86-TSO). */
#define prim_store64(p, v) (GISMO_SITE(SHARED), __atomic_store_n((p), (uint64_t)(v), __ATOMIC_RELEASE))
#define prim_store32(p, v) (GISMO_SITE(SHARED), __atomic_store_n((p), (uint32_t)(v), __ATOMIC_RELEASE))
/* The same where the line need not be flushed by the call: no other host looks at what is stored there before the line is handed over. */
#define prim_note32(p, v) prim_store32(p, v)
#define prim_store8(p, v) (GISMO_SITE(SHARED), __atomic_store_n((p), (uint8_t)(v), __ATOMIC_RELEASE))

/* Earlier stores, NT stores and flushes become visible (reach the device: A1) before any later store. */
static inline void prim_fence_store(void) { __builtin_ia32_sfence(); }
/* The same, and before any later LOAD: the Dekker fence of P3 and P5. sfence would not do. */
static inline void prim_fence_full(void) { __builtin_ia32_mfence(); }
/* Earlier loads before later ones, also where the later data were just invalidated. */
static inline void prim_fence_load(void) { __builtin_ia32_lfence(); }

/* Write the lines of [p, p+n) back to the device. Ordered by the next store or full fence. */
void prim_flush_lines(const void *p, size_t n);
/* Drop this host's copy of the lines of [p, p+n), which it must not have dirtied since it last flushed them. */
void prim_invalidate_lines(const void *p, size_t n);

static inline void prim_flush(int software, const void *p, size_t n) {
    if (__builtin_expect(software, 0))
        prim_flush_lines(p, n);
}
/* Invalidate and wait: the loads that follow see the device. */
static inline void prim_refresh(int software, const void *p, size_t n) {
    if (__builtin_expect(software, 0)) {
        prim_invalidate_lines(p, n);
        prim_fence_full();
    }
}
/* Flush and wait for the device: what was stored is visible to every host before any later store. */
static inline void prim_publish(int software, const void *p, size_t n) {
    if (__builtin_expect(software, 0)) {
        prim_flush_lines(p, n);
        prim_fence_store();
    }
}

#endif
#endif
