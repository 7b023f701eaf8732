/*
 * crc32c.c - CRC-32C: which way is taken, and how two are joined.
 *
 * Polynomial 0x1EDC6F41, reflected (bit 0 of a byte is the highest power), state inverted at both ends. A CRC is the
 * remainder of the message, a polynomial over GF(2), modulo P. Everything here follows from one fact: a piece of the
 * message may be replaced by anything congruent to it modulo P. There are four ways to the same number, each also as a
 * copy that computes it on the way:
 *
 *   table     look-ups (crc32c_table.c). Any processor. About 2 GB/s.
 *   sse4.2    the crc32 instruction in three streams (crc32c_sse42.c).
 *   avx2      folding by VPCLMULQDQ, 32 bytes at a time (crc32c_fold.c): AMD from Zen 3, Intel's clients from Alder Lake.
 *   avx512    the same, 64 bytes at a time: AMD from Zen 4, Intel's servers from Ice Lake. (Gopal et al., "Fast CRC
 *             Computation for Generic Polynomials Using PCLMULQDQ", Intel 2009)
 *
 * Fused: the source is read from memory once. When folding, the very register that is folded is also stored; the
 * others compute the CRC of a cache-hot block and store it, so that there a source changed by another thread during
 * the copy (an error of the caller anyway) may leave a CRC that fits neither version.
 *
 * Each body is one always_inline function with the kind of store as a constant, instantiated once per kind: no branch
 * per block, no three copies of the source text. The choice of implementation is made at the first call and kept in a
 * function pointer; racing first calls store the same pointer.
 */
#include "crc32c.h"

#include <stdatomic.h>

#include "cpu.h"
#include "crc32c_ways.h"
#include "gismo.h"

/* ---- choice ---------------------------------------------------------------------------------- */

typedef uint32_t (*copy_function)(uint32_t, void *, const void *, size_t, enum crc32c_store);

static const copy_function implementations[CRC32C_IMPLEMENTATIONS] = {
    [CRC32C_TABLE] = crc32c_copy_table,
    [CRC32C_SSE42] = crc32c_copy_sse42,
    [CRC32C_AVX2] = crc32c_copy_avx2,
    [CRC32C_AVX512] = crc32c_copy_avx512,
};

bool crc32c_is_usable(enum crc32c_implementation implementation) {
    static const uint32_t needs_of[CRC32C_IMPLEMENTATIONS] = {
        [CRC32C_SSE42] = CPU_SSE42 | CPU_PCLMULQDQ,
        [CRC32C_AVX2] = CPU_SSE42 | CPU_PCLMULQDQ | CPU_AVX2 | CPU_VPCLMULQDQ,
        [CRC32C_AVX512] = CPU_SSE42 | CPU_PCLMULQDQ | CPU_AVX512F | CPU_VPCLMULQDQ,
    };
    const uint32_t needs = needs_of[implementation];
    return (cpu_features() & needs) == needs;
}

static uint32_t copy_first(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store);
static _Atomic(copy_function) chosen = copy_first;

static uint32_t copy_first(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store) {
    int best = CRC32C_IMPLEMENTATIONS - 1;
    while (!crc32c_is_usable((enum crc32c_implementation)best))
        best--;
    atomic_store_explicit(&chosen, implementations[best], memory_order_relaxed);
    return implementations[best](crc, dst, src, n, store);
}

uint32_t crc32c_copy(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store) {
    return atomic_load_explicit(&chosen, memory_order_relaxed)(crc, dst, src, n, store);
}

uint32_t crc32c_copy_by(enum crc32c_implementation implementation, uint32_t crc, void *dst, const void *src, size_t n,
                        enum crc32c_store store) {
    return implementations[implementation](crc, dst, src, n, store);
}

uint32_t crc32c(uint32_t crc, const void *data, size_t n) { return crc32c_copy(crc, NULL, data, n, CRC32C_STORE_NONE); }

uint32_t gismo_crc32c(uint32_t crc, const void *data, uint64_t length) { return crc32c(crc, data, length); }

/* ---- combine --------------------------------------------------------------------------------- */

/* a * b mod P, reflected: bit 31 is x^0. */
static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
        product ^= b & -(uint32_t)((a & bit) != 0);
        b = (b >> 1) ^ (CRC32C_POLYNOMIAL_REFLECTED & -(b & 1));
    }
    return product;
}

/* x^(8 * length_b) mod P by squaring. The inversions of the two CRCs cancel, as in zlib's crc32_combine. */
uint32_t crc32c_combine_operator(uint64_t length_b) {
    uint32_t result = 1u << 31, power = 1u << 23; /* x^0, x^8 */
    for (; length_b != 0; length_b >>= 1) {
        if (length_b & 1)
            result = multiply(result, power);
        power = multiply(power, power);
    }
    return result;
}

uint32_t crc32c_combine_with(uint32_t operator_b, uint32_t crc_a, uint32_t crc_b) {
    return multiply(operator_b, crc_a) ^ crc_b;
}

uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t length_b) {
    return crc32c_combine_with(crc32c_combine_operator(length_b), crc_a, crc_b);
}
