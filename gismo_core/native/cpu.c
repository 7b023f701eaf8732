/*
 * cpu.c - processor features by cpuid.
 *
 * The library is built for x86-64-v1 and chooses better code when it runs. Two traps: cpuid says what the processor
 * can do, not what the kernel saves on a context switch (XCR0 says that, and zmm state not saved means corrupted
 * registers, not a crash); and cpuid traps to the hypervisor in a virtual machine (microseconds), so it is asked once.
 *
 * The cache is filled without a lock: racing threads compute the same word, and a fork can never find it half done.
 */
#include "cpu.h"

#include <cpuid.h>
#include <stdatomic.h>

#include "gismo.h"

#define FEATURES_KNOWN (1u << 31)
#define XCR0_YMM_STATE 0x06u /* sse, avx */
#define XCR0_ZMM_STATE 0xE6u /* sse, avx, opmask, upper halves of zmm0-15, zmm16-31 */

static uint32_t read_xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static uint32_t detect(void) {
    uint32_t features = 0, a, b, c, d;
    if (__get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx)
        features |= CPU_INTEL;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    if (c & bit_SSE4_2)
        features |= CPU_SSE42;
    if (c & bit_PCLMUL)
        features |= CPU_PCLMULQDQ;
    const uint32_t saved = c & bit_OSXSAVE ? read_xcr0() : 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return features;
    if (b & bit_CLWB)
        features |= CPU_CLWB;
    if (b & bit_CLFLUSHOPT)
        features |= CPU_CLFLUSHOPT;
    if (c & (1u << 28))
        features |= CPU_MOVDIR64B;
    if ((b & bit_AVX2) && (saved & XCR0_YMM_STATE) == XCR0_YMM_STATE)
        features |= CPU_AVX2;
    if ((b & bit_AVX512F) && (saved & XCR0_ZMM_STATE) == XCR0_ZMM_STATE)
        features |= CPU_AVX512F;
    if (c & bit_VPCLMULQDQ)
        features |= CPU_VPCLMULQDQ;
    return features;
}

uint32_t cpu_features(void) {
    static _Atomic uint32_t known;
    uint32_t features = atomic_load_explicit(&known, memory_order_relaxed);
    if (!(features & FEATURES_KNOWN)) {
        features = detect() | FEATURES_KNOWN;
        atomic_store_explicit(&known, features, memory_order_relaxed);
    }
    return features & ~FEATURES_KNOWN;
}

uint32_t gismo_cpu_features(void) { return cpu_features() & CPU_PUBLIC_MASK; }
