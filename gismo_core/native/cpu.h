/* cpu.h - which optional instructions this processor has and this kernel lets us use. */
#ifndef GISMO_CPU_H
#define GISMO_CPU_H

#include <stdint.h>

enum cpu_feature {
    /* The low bits are those of gismo_cpu_features() in gismo.h. */
    CPU_CLWB = 1u << 0,
    CPU_CLFLUSHOPT = 1u << 1,
    CPU_AVX512F = 1u << 2, /* and the kernel saves the zmm and mask registers */
    CPU_VPCLMULQDQ = 1u << 3,
    CPU_SSE42 = 1u << 4,
    CPU_MOVDIR64B = 1u << 5,
    CPU_PUBLIC_MASK = (1u << 6) - 1,
    /* Only for use inside the core. */
    CPU_PCLMULQDQ = 1u << 8,
    CPU_AVX2 = 1u << 9, /* and the kernel saves the ymm registers */
    CPU_INTEL = 1u << 10,
};

/* Any thread, any time; cheap after the first call. */
uint32_t cpu_features(void);

#endif
