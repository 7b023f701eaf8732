/* crc32c_table.c - slicing-by-8: eight table look-ups per 8 bytes. Any processor. See crc32c.c. */
#include <stdatomic.h>

#include "crc32c_ways.h"

/*
 * table[k][b] = state after byte b followed by k zero bytes, from state 0. Filled at first use without a lock (a fork
 * could leave one held): every thread that comes too early computes all of it and stores the same values.
 */
static _Atomic uint32_t table[8][256];
static _Atomic int table_ready;

#define TABLE(k, b) atomic_load_explicit(&table[k][b], memory_order_relaxed)

static void table_fill(void) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t c = b;
        for (int bit = 0; bit < 8; bit++)
            c = (c >> 1) ^ (CRC32C_POLYNOMIAL_REFLECTED & -(c & 1));
        atomic_store_explicit(&table[0][b], c, memory_order_relaxed);
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t b = 0; b < 256; b++) {
            uint32_t c = TABLE(k - 1, b);
            atomic_store_explicit(&table[k][b], (c >> 8) ^ TABLE(0, c & 0xFF), memory_order_relaxed);
        }
    atomic_store_explicit(&table_ready, 1, memory_order_release);
}

static uint32_t table_state(uint32_t c, const uint8_t *src, size_t n) {
    for (; n >= 8; n -= 8, src += 8) {
        uint64_t v = load64(src) ^ c;
        c = TABLE(7, v & 0xFF) ^ TABLE(6, (v >> 8) & 0xFF) ^ TABLE(5, (v >> 16) & 0xFF) ^ TABLE(4, (v >> 24) & 0xFF) ^
            TABLE(3, (v >> 32) & 0xFF) ^ TABLE(2, (v >> 40) & 0xFF) ^ TABLE(1, (v >> 48) & 0xFF) ^ TABLE(0, v >> 56);
    }
    for (; n > 0; n--, src++)
        c = (c >> 8) ^ TABLE(0, (c ^ *src) & 0xFF);
    return c;
}

uint32_t crc32c_copy_table(uint32_t crc, void *dst_, const void *src_, size_t n, enum crc32c_store store) {
    enum { BLOCK_BYTES = 4096 }; /* stays in the first-level cache between its CRC and its copy */
    uint8_t *dst = dst_;
    const uint8_t *src = src_;
    if (!atomic_load_explicit(&table_ready, memory_order_acquire))
        table_fill();
    uint32_t c = ~crc;
    while (n > 0) {
        size_t block = n < BLOCK_BYTES ? n : BLOCK_BYTES;
        c = table_state(c, src, block);
        if (store == CRC32C_STORE_CACHED)
            memcpy(dst, src, block);
        else if (store == CRC32C_STORE_STREAM)
            for (size_t i = 0; i < block; i += 64)
                stream_line_sse2(dst + i, src + i);
        if (store != CRC32C_STORE_NONE)
            dst += block;
        src += block;
        n -= block;
    }
    return ~c;
}
