/*
 * world.c - what the core asks of a system, answered by the simulator: mappings, waiting, copies, and the end of a process.
 *
 * State directories, locks and descriptors are real ones, of this one process: an OFD lock belongs to its descriptor, so the simulated
 * processes' locks keep each other out as those of real ones do.
 */
#include "sim.h"

#include "copy.h"
#include "prim_sim.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- mapping.c -------------------------------------------------------------------------------------- */

static struct gismo_store *opened[256];
static uint32_t opened_count;

static void forget(const struct gismo_store *s) {
    for (uint32_t i = 0; i < opened_count; i++)
        if (opened[i] == s)
            opened[i] = opened[--opened_count];
}

/* Closed, or not opened after all: the core gives the rest back itself. */
void medium_unmap(struct gismo_store *s) {
    forget(s);
    s->base = NULL;
}

int medium_map(struct gismo_store *s) {
    if (sim_self() == NULL)
        return fail(GISMO_EUNSUPPORTED, "no run");
    s->base = sim_map(s->mapped_bytes);
    world_opened(s);
    return GISMO_OK;
}

int medium_make_writable(struct gismo_store *s, uint64_t offset, uint64_t bytes) {
    (void)s, (void)offset, (void)bytes;
    return GISMO_OK;
}

int medium_reserve(struct gismo_store *s, uint64_t offset, uint64_t bytes) {
    (void)s, (void)offset, (void)bytes;
    return GISMO_OK;
}

/* ---- boot.c: each simulated cache is a machine --------------------------------------------------------- */

void host_read_boot_id(uint8_t out[16]) {
    memset(out, 0, 16);
    out[0] = 1;
    out[1] = (uint8_t)(sim_self() ? sim_self()->host : 255);
}

int host_random(void *out, uint64_t bytes) {
    for (uint64_t i = 0; i < bytes; i++)
        ((uint8_t *)out)[i] = (uint8_t)sim_random(256);
    return GISMO_OK;
}

/* ---- wait.c ------------------------------------------------------------------------------------------ */

int futex_wait(uint32_t *word, uint32_t expected, uint64_t timeout_ns, int shared) {
    (void)shared;
    if (__atomic_load_n(word, __ATOMIC_ACQUIRE) == expected)
        sleep_ns(timeout_ns < 1000000 ? timeout_ns : 1000000);
    return 0;
}

void futex_wake(uint32_t *word, int shared) { (void)word, (void)shared; }

void yield_cpu(void) { sim_pause(); }

/* ---- copy.c -------------------------------------------------------------------------------------------- */

int copy_payload(void *dst, const void *src, size_t n, struct copy_options options) {
    size_t head = -(uintptr_t)dst % SIM_LINE;
    if (options.mode == COPY_CACHED || head > n)
        head = n;
    size_t lines = (n - head) / SIM_LINE * SIM_LINE;
    if (head)
        prim_write(dst, src, head);
    if (lines)
        sim_stream(SIM_SITE(STREAM), (uint8_t *)dst + head, (const uint8_t *)src + head, lines);
    if (head + lines < n)
        prim_write((uint8_t *)dst + head + lines, (const uint8_t *)src + head + lines, n - head - lines);
    if (lines)
        prim_fence_store();
    if (options.crc)
        *options.crc = crc32c(*options.crc, src, n);
    return 0;
}

/* ---- the kernel ------------------------------------------------------------------------------------------ */

/* A call into the kernel executes locked instructions: stores are out of the buffer before it does anything. */
static void enter_kernel(void) {
    if (sim_self())
        memory_drain_stores(sim_self()->index);
}

int __real_munmap(void *p, size_t n);
int __wrap_munmap(void *p, size_t n);
int __wrap_munmap(void *p, size_t n) {
    enter_kernel();
    return __real_munmap(p, n);
}

int __real_fcntl(int fd, int command, void *argument);
int __wrap_fcntl(int fd, int command, void *argument);
int __wrap_fcntl(int fd, int command, void *argument) {
    enter_kernel();
    return __real_fcntl(fd, command, argument);
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd) {
    enter_kernel();
    return __real_close(fd);
}

int __real_unlinkat(int fd, const char *path, int flags);
int __wrap_unlinkat(int fd, const char *path, int flags);
int __wrap_unlinkat(int fd, const char *path, int flags) {
    enter_kernel();
    return __real_unlinkat(fd, path, flags);
}

int __real_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags);
int __wrap_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags);
int __wrap_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    enter_kernel();
    return __real_linkat(from_fd, from, to_fd, to, flags);
}

/* ---- the end of processes ---------------------------------------------------------------------------------- */

void world_opened(struct gismo_store *s) {
    if (opened_count == 256)
        sim_violation("more stores are opened in a run than this is made for");
    opened[opened_count++] = s;
}

void world_died(struct gismo_store *s) {
    if (s == NULL)
        return;
    int *all[] = {&s->lock_fd, &s->probe_fd, &s->fd, &s->state_dir_fd, &s->wake_fd, &s->inotify_fd};
    for (uint32_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (*all[i] >= 0)
            close(*all[i]);
        *all[i] = -1;
    }
}

static void give_back(struct gismo_store *s) {
    world_died(s);
    for (uint32_t i = 0; i < HOST_PROCESSES; i++)
        if (s->peer[i].counts)
            munmap(s->peer[i].counts, s->pins_bytes);
    if (s->pin_counts)
        munmap(s->pin_counts, s->pins_bytes);
    if (s->state_mapping)
        munmap(s->state_mapping, s->host.bytes);
    if (s->local)
        munmap(s->local, s->chunks * sizeof *s->local);
    fork_forget(s);
    free(s);
}

struct gismo_store *world_store_of(uint32_t lane) {
    for (uint32_t i = 0; i < opened_count; i++)
        if (opened[i]->state_mapping && opened[i]->lane == lane)
            return opened[i];
    return NULL;
}

void world_end(void) {
    while (opened_count > 0)
        give_back(opened[--opened_count]);
}
