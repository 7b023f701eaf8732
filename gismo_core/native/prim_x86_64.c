/*
 * prim_x86_64.c - cache line write-back and invalidation by compiler intrinsics, never by hand-written asm.
 *
 * clwb keeps the line, clflushopt drops it; both are weakly ordered, so the caller's fence orders them. The oldest
 * processors have clflush only (strongly ordered, slow, right all the same).
 */
#include "prim.h"

#include "cpu.h"
#include "format.h"

#include <immintrin.h>

__attribute__((target("clwb"))) static void clwb_range(uintptr_t from, uintptr_t to) {
    for (; from < to; from += FMT_LINE)
        _mm_clwb((void *)from);
}

__attribute__((target("clflushopt"))) static void clflushopt_range(uintptr_t from, uintptr_t to) {
    for (; from < to; from += FMT_LINE)
        _mm_clflushopt((void *)from);
}

static void clflush_range(uintptr_t from, uintptr_t to) {
    for (; from < to; from += FMT_LINE)
        _mm_clflush((const void *)from);
}

void prim_flush_lines(const void *p, size_t n) {
    if (n == 0)
        return;
    uintptr_t from = (uintptr_t)p & ~(uintptr_t)(FMT_LINE - 1), to = (uintptr_t)p + n;
    uint32_t features = cpu_features();
    if (features & CPU_CLWB)
        clwb_range(from, to);
    else if (features & CPU_CLFLUSHOPT)
        clflushopt_range(from, to);
    else
        clflush_range(from, to);
}

void prim_invalidate_lines(const void *p, size_t n) {
    if (n == 0)
        return;
    uintptr_t from = (uintptr_t)p & ~(uintptr_t)(FMT_LINE - 1), to = (uintptr_t)p + n;
    if (cpu_features() & CPU_CLFLUSHOPT)
        clflushopt_range(from, to);
    else
        clflush_range(from, to);
}
