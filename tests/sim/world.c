/*
 * world.c - what the core asks of a system, answered by the simulator: mappings, waiting, copies, and the end of a process.
 *
 * State directories, locks and descriptors are real ones, of this one process: an OFD lock belongs to its descriptor, so the simulated
 * processes' locks keep each other out as those of real ones do.
 */
#include "sim.h"

#include "copy.h"
#include "prim_sim.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- mapping.c -------------------------------------------------------------------------------------- */

static struct gismo_store *opened[256];
static uint32_t opened_by[256]; /* process */
static uint32_t opened_count;
static uint8_t boots[SIM_HOSTS];

static void forget(const struct gismo_store *s) {
    for (uint32_t i = 0; i < opened_count; i++)
        if (opened[i] == s)
            opened[i] = opened[--opened_count], opened_by[i] = opened_by[opened_count];
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
    out[2] = sim_self() ? boots[sim_self()->host] : 0;
}

void world_booted(uint32_t host) { boots[host]++; }

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
    if ((command != F_OFD_SETLK && command != F_OFD_GETLK) || sim_self() == NULL)
        return __real_fcntl(fd, command, argument);
    /* A lock keeps out who shares the kernel: each machine has a range of its own. */
    struct flock lock = *(struct flock *)argument;
    const off_t from = (off_t)sim_self()->host << 40;
    lock.l_start += from;
    int result = __real_fcntl(fd, command, &lock);
    lock.l_start -= from;
    *(struct flock *)argument = lock;
    return result;
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
    opened_by[opened_count] = sim_self()->index;
    opened[opened_count++] = s;
}

static void close_all(struct gismo_store *s) {
    int *all[] = {&s->lock_fd, &s->probe_fd, &s->fd, &s->state_dir_fd, &s->wake_fd, &s->inotify_fd};
    for (uint32_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (*all[i] >= 0)
            close(*all[i]);
        *all[i] = -1;
    }
}

void world_died(uint32_t process) {
    for (uint32_t i = 0; i < opened_count; i++)
        if (opened_by[i] == process)
            close_all(opened[i]);
}

static void give_back(struct gismo_store *s) {
    close_all(s);
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

/* Whoever has found a state directory that is void since still has to find that out. */
static bool is_void(const struct gismo_store *s) {
    uint8_t uuid[16];
    memory_truth(s->sb.lanes_offset + s->lane * sizeof(struct fmt_identity) +
                     offsetof(struct fmt_identity, state_dir_uuid),
                 uuid, sizeof uuid);
    return memcmp(uuid, s->host.header->uuid, sizeof uuid) != 0;
}

struct gismo_store *world_store_of(uint32_t lane) {
    struct gismo_store *newest = NULL;
    for (uint32_t i = 0; i < opened_count; i++)
        if (!sim_ended_number(opened_by[i]) && opened[i]->state_mapping && opened[i]->lane == lane &&
            !is_void(opened[i]) &&
            (newest == NULL || opened[i]->host.header->incarnation > newest->host.header->incarnation))
            newest = opened[i];
    return newest;
}

bool world_machine_has_store(uint32_t host) {
    for (uint32_t i = 0; i < opened_count; i++)
        if (sim_host_of(opened_by[i]) == host && !sim_ended_number(opened_by[i]) && opened[i]->state_mapping)
            return true;
    return false;
}

struct gismo_store *world_own_store(const struct sim_process *self, uint32_t lane) {
    for (uint32_t i = 0; i < opened_count; i++)
        if (opened_by[i] == self->index && opened[i]->lane == lane)
            return opened[i];
    return NULL;
}

void world_end(void) {
    while (opened_count > 0)
        give_back(opened[--opened_count]);
    memset(boots, 0, sizeof boots);
}
