/*
 * crc32c.h - CRC-32C (Castagnoli), alone or fused with a copy.
 *
 * Convention of iSCSI and zlib: begin with 0, pass the last result to go on; crc32c(0, "123456789") = 0xE3069283.
 */
#ifndef GISMO_CRC32C_H
#define GISMO_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t crc, const void *data, size_t n);

enum crc32c_store {
    CRC32C_STORE_NONE,   /* only the CRC; dst is not touched */
    CRC32C_STORE_CACHED, /* any alignment, any length */
    CRC32C_STORE_STREAM, /* non-temporal: dst 64-byte aligned, n a multiple of 64; the caller owes an sfence */
};

/* Copies n bytes that do not overlap and returns the CRC of the source, which is read once. */
uint32_t crc32c_copy(uint32_t crc, void *dst, const void *src, size_t n, enum crc32c_store store);

/* CRC of A followed by B, from crc_a = crc32c(x, A), crc_b = crc32c(0, B). About 0.5 us. */
uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t length_b);

/* The same in two steps, for many B of one length. About 50 ns each. */
uint32_t crc32c_combine_operator(uint64_t length_b);
uint32_t crc32c_combine_with(uint32_t operator_b, uint32_t crc_a, uint32_t crc_b);

/* For tests and benchmarks: one implementation by name. */
enum crc32c_implementation {
    CRC32C_TABLE,
    CRC32C_SSE42,
    CRC32C_AVX2,
    CRC32C_AVX512,
    CRC32C_IMPLEMENTATIONS,
};
bool crc32c_is_usable(enum crc32c_implementation implementation);
uint32_t crc32c_copy_by(enum crc32c_implementation implementation, uint32_t crc, void *dst, const void *src, size_t n,
                        enum crc32c_store store);

#endif
