/*
 * sync.c - this host's caches and a shared medium, for those who use its bytes without a store: pool labels, zeroing.
 */
#include "internal.h"

void gismo_sync(const void *p, uint64_t bytes) {
    /* clflush and clflushopt write a dirty line back before they drop it, so this is both in one. */
    prim_invalidate_lines(p, bytes);
    prim_fence_full();
}
