/* copy.h - the payload copy of the store: memory to medium, with the CRC32C on the way. */
#ifndef GISMO_COPY_H
#define GISMO_COPY_H

#include <stddef.h>
#include <stdint.h>

enum copy_mode {
    COPY_AUTO,   /* whichever is faster at this size */
    COPY_CACHED, /* all stores cached */
    /*
     * Every whole 64-byte line of the destination by non-temporal stores, at any size, fenced by the time the copy
     * returns. Its first and last line, where the destination covers them only in part, are cached stores: a caller
     * without hardware coherence flushes these two lines.
     */
    COPY_STREAM,
};

struct copy_options {
    enum copy_mode mode;
    int threads;          /* at most so many, the caller's included; 0 = as many as pay */
    uint32_t *crc;        /* NULL = none; else in: CRC32C so far (0 to begin), out: with the source bytes added */
    void **fault_address; /* may be NULL; on -1: where the medium failed, NULL if unknown */
};

/*
 * Copies n bytes that do not overlap. Returns 0, or -1 when an access raised SIGBUS in this or a helping thread: the
 * destination is then undefined, *crc is unchanged, and no thread touches either side any more. Never jumps to an
 * outer guard. Any thread, any alignment. Installs the SIGBUS handler if need be.
 */
int copy_payload(void *dst, const void *src, size_t n, struct copy_options options);

/* Copies one range in this thread, no guard: what copy_pool.c runs per slice. */
void copy_range(void *dst, const void *src, size_t n, enum copy_mode mode, uint32_t *crc);

#endif
