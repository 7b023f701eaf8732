/*
 * mapping.c - a medium in this process's address space.
 *
 * The payload is mapped read-only; metadata, and arenas of our own, are made writable on demand. So a stray store through a
 * view ends in SIGSEGV at the culprit, not in somebody's object.
 */
#include "internal.h"

#include <fcntl.h>
#include <sys/mman.h>

int medium_make_writable(struct gismo_store *s, uint64_t offset, uint64_t bytes) {
    uint64_t grain = s->protect_bytes;
    uint64_t from = offset / grain * grain, to = (offset + bytes + grain - 1) / grain * grain;
    if (to > s->mapped_bytes)
        to = s->mapped_bytes;
    if (mprotect(s->base + from, to - from, PROT_READ | PROT_WRITE) != 0)
        return fail_errno(GISMO_ESYS, "cannot make a part of %s writable", s->path);
    return GISMO_OK;
}

int medium_map(struct gismo_store *s) {
    void *base = mmap(NULL, s->mapped_bytes, PROT_READ, MAP_SHARED | (s->is_dax ? 0 : MAP_NORESERVE), s->fd, 0);
    if (base == MAP_FAILED)
        return fail_errno(GISMO_ESYS, "cannot map %s", s->path);
    s->base = base;
    if (!s->is_dax) /* huge pages where the medium has them; a refusal is no failure */
        (void)madvise(base, s->mapped_bytes, MADV_HUGEPAGE);
    (void)madvise(base, s->mapped_bytes, MADV_DONTDUMP);
    return GISMO_OK;
}

int medium_reserve(struct gismo_store *s, uint64_t offset, uint64_t bytes) {
    if (LIKELY(!s->sparse))
        return GISMO_OK;
    const uint64_t step = 64u << 20; /* a signal throws away what one call has done so far */
    for (uint64_t at = 0; at < bytes; at += step) {
        uint64_t n = bytes - at < step ? bytes - at : step;
        while (fallocate(s->fd, FALLOC_FL_KEEP_SIZE, (off_t)(offset + at), (off_t)n) != 0) {
            if (errno == EINTR)
                continue;
            if (errno == EOPNOTSUPP || errno == ENOSYS) {
                s->sparse = 0;
                return GISMO_OK;
            }
            return fail_errno(GISMO_EMEDIA,
                              "the file system of %s has no room for %llu bytes more of the store: make room there "
                              "(`gismo format` takes all of it beforehand, without --no-populate)",
                              s->path, (unsigned long long)(bytes - at));
        }
    }
    return GISMO_OK;
}

void medium_unmap(struct gismo_store *s) {
    if (s->base)
        munmap(s->base, s->mapped_bytes);
    s->base = NULL;
}
