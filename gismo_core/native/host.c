/*
 * host.c - the state directory: making, finding and mapping it; registration, liveness, claims. See host.h.
 */
#include "internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef F_OFD_SETLK
#define F_OFD_GETLK 36
#define F_OFD_SETLK 37
#endif

/* ---- where the tables lie ------------------------------------------------------------------- */

static void *place(uint8_t *base, uint64_t *at, uint64_t bytes) {
    void *result = base ? base + *at : NULL;
    *at = (*at + bytes + 4095) & ~4095ull;
    return result;
}

void host_layout(const struct fmt_superblock *sb, void *mapping, struct host_tables *t) {
    uint8_t *base = mapping;
    uint64_t at = 0, slots = sb->chunks * FMT_CHUNK_SLOTS;
    t->words = (sb->chunks + 63) / 64;
    t->pages = sb->data_bytes / FMT_PAGE;
    t->page_words = (t->pages + 63) / 64;
    t->header = place(base, &at, sizeof *t->header);
    t->process = place(base, &at, HOST_PROCESSES * sizeof *t->process);
    t->chunk = place(base, &at, sb->chunks * sizeof *t->chunk);
    t->arena = place(base, &at, sb->arenas * sizeof *t->arena);
    t->group = place(base, &at, sb->groups * sizeof *t->group);
    t->lane_claim = place(base, &at, sb->max_lanes * sizeof(uint64_t));
    t->silence = place(base, &at, sb->max_lanes * sizeof *t->silence);
    t->ring_send = place(base, &at, sb->max_lanes * sizeof(uint64_t));
    t->ring_receive = place(base, &at, sb->max_lanes * sizeof(uint64_t));
    t->page_bits = place(base, &at, t->page_words * 8);
    t->pending_generation = place(base, &at, slots * 8);
    t->asked = place(base, &at, sb->max_lanes * sb->chunks * 8);
    t->free_chunks = place(base, &at, t->words * 8);
    t->partial = place(base, &at, (FMT_CLASSES + 1) * t->words * 8);
    t->retire = place(base, &at, t->words * 8);
    t->outbound = place(base, &at, t->words * 8);
    for (uint32_t level = 0; level < FMT_NAME_LEVELS; level++) {
        bool useful = level == 0 || fmt_name_entries(level) <= slots * 8;
        t->name_owner[level] = useful ? place(base, &at, fmt_name_entries(level) * 4) : NULL;
    }
    t->naming = place(base, &at, slots);
    t->fresh = sb->coherence == GISMO_COHERENCE_SOFTWARE ? place(base, &at, slots * 8) : NULL;
    t->bytes = at;
}

/* ---- the directory -------------------------------------------------------------------------- */

static int usable_directory(const char *path, uint32_t mode, int want_tmpfs, int *fd_out) {
    int made = mkdir(path, mode) == 0;
    if (made)
        (void)chmod(path, mode); /* whatever the umask: who may use the store may use its state directory */
    else if (errno != EEXIST)
        return 0;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    struct statfs fs;
    if (want_tmpfs && (fstatfs(fd, &fs) != 0 || (fs.f_type != TMPFS_MAGIC && fs.f_type != RAMFS_MAGIC))) {
        close(fd);
        if (made)
            (void)rmdir(path);
        return 0;
    }
    if (faccessat(fd, ".", R_OK | W_OK | X_OK, 0) != 0) {
        close(fd);
        return 0;
    }
    *fd_out = fd;
    return 1;
}

static uint32_t directory_mode(const struct gismo_store *s) {
    uint32_t m = (uint32_t)s->mode;
    return m | (m & 0444) >> 2;
}

void host_directory_name(const struct gismo_store *s, char name[HOST_NAME_BYTES]) {
    for (int i = 0; i < 16; i++)
        snprintf(name + 2 * i, 3, "%02x", s->sb.uuid[i]);
}

int host_open_directory(struct gismo_store *s, const char *wanted) {
    char chosen[3072] = "", fallback[64];
    struct statx st;
    if (statx(s->fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) != 0)
        return fail_errno(GISMO_ESYS, "cannot look at %s", s->path);
    s->mode = (st.stx_mode & 0666) | 0600; /* who may use the store may use its state directory */
    if (s->is_dax)
        s->mode = 0600 | (st.stx_mode & 0066);
    uint32_t mode = directory_mode(s);
    int base = -1;
    if (wanted == NULL || wanted[0] == 0)
        wanted = getenv("GISMO_STATE_DIR");
    if (wanted && wanted[0]) {
        if (strlen(wanted) >= sizeof chosen)
            return fail(GISMO_EINVAL, "the name of the state directory is too long");
        snprintf(chosen, sizeof chosen, "%s", wanted);
        if (!usable_directory(chosen, mode, 0, &base))
            return fail_errno(GISMO_EPERM,
                              "the state directory %s cannot be made or written: set GISMO_STATE_DIR to a directory on "
                              "tmpfs that every process of this host can write",
                              chosen);
    } else {
        const char *runtime = getenv("XDG_RUNTIME_DIR");
        snprintf(fallback, sizeof fallback, "/dev/shm/gismo-%u", (unsigned)geteuid());
        snprintf(chosen, sizeof chosen, "/run/gismo");
        if (!usable_directory(chosen, mode, 1, &base)) {
            if (runtime && runtime[0] && strlen(runtime) < sizeof chosen - 8) {
                snprintf(chosen, sizeof chosen, "%s/gismo", runtime);
                (void)usable_directory(chosen, mode, 1, &base);
            }
            if (base < 0) {
                snprintf(chosen, sizeof chosen, "%s", fallback);
                if (!usable_directory(chosen, mode, 0, &base))
                    return fail_errno(GISMO_EPERM,
                                      "no state directory can be made (/run/gismo, $XDG_RUNTIME_DIR/gismo, %s): set "
                                      "GISMO_STATE_DIR to a writable directory on tmpfs",
                                      chosen);
            }
        }
    }
    char name[HOST_NAME_BYTES];
    host_directory_name(s, name);
    int made = mkdirat(base, name, mode) == 0;
    int fd = openat(base, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        int status = fail_errno(GISMO_EPERM, "cannot open the state directory %s/%s", chosen, name);
        close(base);
        return status;
    }
    close(base);
    if (made)
        (void)fchmod(fd, mode);
    struct statx dir;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &dir) != 0 ||
        (dir.stx_uid != geteuid() && dir.stx_uid != 0 && dir.stx_uid != st.stx_uid)) {
        close(fd);
        return fail(
            GISMO_EPERM,
            "the state directory %s/%s belongs to user %u, neither you nor the store's owner: remove it, or set "
            "GISMO_STATE_DIR",
            chosen, name, dir.stx_uid);
    }
    s->state_dir_fd = fd;
    if (snprintf(s->state_path, sizeof s->state_path, "%s/%s", chosen, name) >= (int)sizeof s->state_path)
        return fail(GISMO_EINVAL, "the name of the state directory is too long");
    return GISMO_OK;
}

static int map_state(struct gismo_store *s, int fd) {
    host_layout(&s->sb, NULL, &s->host);
    void *p = mmap(NULL, s->host.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return fail_errno(GISMO_ESYS, "cannot map the state directory %s", s->state_path);
    (void)madvise(p, s->host.bytes, MADV_DONTDUMP);
    s->state_mapping = p;
    host_layout(&s->sb, p, &s->host);
    return GISMO_OK;
}

static int open_locks(struct gismo_store *s) {
    for (int which = 0; which < 2; which++) {
        int fd = openat(s->state_dir_fd, "locks", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, (mode_t)s->mode);
        if (fd < 0)
            return fail_errno(GISMO_EPERM, "cannot open %s/locks", s->state_path);
        if (which == 0)
            s->lock_fd = fd;
        else
            s->probe_fd = fd;
    }
    (void)fchmod(s->lock_fd, (mode_t)s->mode); /* umask aside; fails harmlessly for who is not the owner */
    return GISMO_OK;
}

int host_attach(struct gismo_store *s) {
    int fd = openat(s->state_dir_fd, "state", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        if (errno == ENOENT)
            return GISMO_ENOTFOUND;
        return fail_errno(GISMO_EPERM, "cannot open %s/state", s->state_path);
    }
    struct statx st;
    host_layout(&s->sb, NULL, &s->host);
    uint8_t boot[16];
    host_read_boot_id(boot);
    struct host_header header;
    ssize_t got = pread(fd, &header, sizeof header, 0);
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) != 0 || got != (ssize_t)sizeof header ||
        header.magic != HOST_MAGIC || memcmp(header.store_uuid, s->sb.uuid, 16) != 0 ||
        header.lane >= s->sb.max_lanes) {
        close(fd);
        return fail(GISMO_ECORRUPT,
                    "%s/state is not a state directory of this store: when no process uses it, remove the directory",
                    s->state_path);
    }
    if (header.layout != HOST_LAYOUT || header.bytes != s->host.bytes || st.stx_size != s->host.bytes) {
        close(fd);
        return fail(GISMO_EINCOMPAT, "%s/state was made by another version of gismo that may still be in use",
                    s->state_path);
    }
    if (memcmp(header.boot_id, boot, 16) != 0) {
        /* It survived a reboot (not on tmpfs): its claims and pins mean nothing any more. */
        close(fd);
        if (unlinkat(s->state_dir_fd, "state", 0) != 0 && errno != ENOENT)
            return fail_errno(GISMO_EPERM, "cannot remove the state of an earlier boot in %s", s->state_path);
        return GISMO_ENOTFOUND;
    }
    int status = map_state(s, fd);
    close(fd);
    if (status == GISMO_OK)
        status = open_locks(s);
    if (status != GISMO_OK)
        return status;
    s->lane = s->host.header->lane;
    return GISMO_OK;
}

int host_create(struct gismo_store *s, uint32_t lane, uint64_t incarnation, const uint8_t uuid[16],
                int (*fill)(struct gismo_store *s)) {
    /* One name for all: the lock on joining is held, so what lies there is of a joiner that died. */
    static const char name[] = "state.new";
    unlinkat(s->state_dir_fd, name, 0);
    int fd = openat(s->state_dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)s->mode);
    if (fd < 0)
        return fail_errno(GISMO_EPERM, "cannot make %s/%s", s->state_path, name);
    (void)fchmod(fd, (mode_t)s->mode);
    host_layout(&s->sb, NULL, &s->host);
    int status = GISMO_OK;
    if (ftruncate(fd, (off_t)s->host.bytes) != 0)
        status = fail_errno(GISMO_ESYS, "cannot make %s/%s", s->state_path, name);
    if (status == GISMO_OK)
        status = map_state(s, fd);
    close(fd);
    if (status == GISMO_OK) {
        struct host_header *h = s->host.header;
        h->magic = HOST_MAGIC;
        h->layout = HOST_LAYOUT;
        h->lane = lane;
        h->incarnation = incarnation;
        h->bytes = s->host.bytes;
        memcpy(h->uuid, uuid, 16);
        host_read_boot_id(h->boot_id);
        memcpy(h->store_uuid, s->sb.uuid, 16);
        s->lane = lane;
        memset(s->host.page_bits, 0xff, s->host.page_words * 8); /* nothing is ours until it is leased */
        status = fill(s);
    }
    if (status == GISMO_OK && linkat(s->state_dir_fd, name, s->state_dir_fd, "state", 0) != 0)
        status = errno == EEXIST ? GISMO_EEXIST : fail_errno(GISMO_ESYS, "cannot make %s/state", s->state_path);
    unlinkat(s->state_dir_fd, name, 0);
    if (status == GISMO_OK)
        status = open_locks(s);
    if (status != GISMO_OK && s->state_mapping) {
        munmap(s->state_mapping, s->host.bytes);
        s->state_mapping = NULL;
    }
    return status;
}

void host_detach(struct gismo_store *s) {
    for (uint32_t i = 0; i < HOST_PROCESSES; i++)
        if (s->peer[i].counts)
            munmap(s->peer[i].counts, s->pins_bytes);
    memset(s->peer, 0, sizeof s->peer);
    if (s->state_mapping)
        munmap(s->state_mapping, s->host.bytes);
    s->state_mapping = NULL;
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    if (s->probe_fd >= 0)
        close(s->probe_fd);
    if (s->state_dir_fd >= 0)
        close(s->state_dir_fd);
    s->lock_fd = s->probe_fd = s->state_dir_fd = -1;
}

void host_forget(struct gismo_store *s) {
    int keep = s->state_dir_fd;
    s->state_dir_fd = -1;
    host_detach(s);
    s->state_dir_fd = keep;
}

/* ---- processes ------------------------------------------------------------------------------ */

static void pins_name(char *out, size_t n, uint32_t index, uint64_t epoch) {
    snprintf(out, n, "pins.%u.%llu", index, (unsigned long long)epoch);
}

static int lock_byte(int fd, uint32_t index, short type) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = index, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &lock);
}

static void read_command(char out[64]) {
    memset(out, 0, 64);
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, out, 63);
    close(fd);
    for (ssize_t i = 0; i + 1 < n; i++)
        if (out[i] == 0)
            out[i] = ' ';
}

int host_register(struct gismo_store *s) {
    s->pins_bytes = (s->slots * 4 + (s->chunks + 63) / 64 * 8 + 4095) & ~4095ull;
    for (uint32_t index = 0; index < HOST_PROCESSES; index++) {
        struct host_process *p = &s->host.process[index];
        if ((loc_load(&p->word) & 0xff) != HOST_PROCESS_FREE || lock_byte(s->lock_fd, index, F_WRLCK) != 0)
            continue;
        if ((loc_load(&p->word) & 0xff) != HOST_PROCESS_FREE) {
            lock_byte(s->lock_fd, index, F_UNLCK);
            continue;
        }
        uint64_t epoch = loc_add(&s->host.header->epoch, 1) + 1;
        char name[64];
        if (loc_load(&p->pins_epoch)) { /* gone, unless somebody died while he registered */
            pins_name(name, sizeof name, index, loc_load(&p->pins_epoch));
            unlinkat(s->state_dir_fd, name, 0);
        }
        loc_store(&p->pins_epoch, epoch);
        pins_name(name, sizeof name, index, epoch);
        /* Of a process that used an earlier `state` here, void since, and died: we hold the lock, so it is nobody's. */
        unlinkat(s->state_dir_fd, name, 0);
        int fd = openat(s->state_dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)s->mode);
        if (fd < 0)
            return fail_errno(GISMO_EPERM, "cannot make %s/%s", s->state_path, name);
        (void)fchmod(fd, (mode_t)s->mode);
        void *counts = MAP_FAILED;
        if (ftruncate(fd, (off_t)s->pins_bytes) == 0)
            counts = mmap(NULL, s->pins_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (counts == MAP_FAILED) {
            int status = fail_errno(GISMO_ESYS, "cannot map %s/%s", s->state_path, name);
            unlinkat(s->state_dir_fd, name, 0);
            return status;
        }
        (void)madvise(counts, s->pins_bytes, MADV_DONTDUMP);
        s->pin_counts = counts;
        s->claimed = host_marks(counts, s->slots);
        s->index = index;
        s->epoch = epoch;
        s->claim = host_claim_word(index, epoch);
        p->pid = getpid();
        p->joined_unix_ns = now_coarse_unix_ns();
        /* The sequence in intent_kind goes on: a slow survivor's CAS on the last owner's intent must not hit ours. */
        loc_store(&p->intent_kind, (loc_load(&p->intent_kind) >> 8) << 8 | HOST_INTENT_NONE);
        p->puts = p->gets = p->deletes = p->put_bytes = p->get_bytes = 0;
        p->chunks = 0;
        loc_store(&p->leaving, (uint64_t)0);
        read_command(p->command);
        loc_store(&p->word, epoch << 8 | HOST_PROCESS_LIVE);
        prim_fence_full();
        return GISMO_OK;
    }
    return fail(GISMO_EFULL, "%u processes of this host have the store open already", HOST_PROCESSES);
}

static void fold_counters(struct gismo_store *s, struct host_process *p) {
    struct host_header *h = s->host.header;
    loc_add(&h->retired_puts, loc_load(&p->puts));
    loc_add(&h->retired_gets, loc_load(&p->gets));
    loc_add(&h->retired_deletes, loc_load(&p->deletes));
    loc_add(&h->retired_put_bytes, loc_load(&p->put_bytes));
    loc_add(&h->retired_get_bytes, loc_load(&p->get_bytes));
}

void host_unregister(struct gismo_store *s) {
    char name[64];
    if (s->claim == 0)
        return;
    if (!s->failed) {
        pins_name(name, sizeof name, s->index, s->epoch);
        unlinkat(s->state_dir_fd, name, 0);
        fold_counters(s, &s->host.process[s->index]);
        loc_store(&s->host.process[s->index].word, s->epoch << 8 | HOST_PROCESS_FREE);
    } /* else it may have claims and an intent: left LIVE without its lock, it is recovered like the dead */
    lock_byte(s->lock_fd, s->index, F_UNLCK);
    if (s->pin_counts)
        munmap(s->pin_counts, s->pins_bytes);
    s->pin_counts = NULL;
    s->claimed = NULL;
    s->claim = s->epoch = 0;
}

int host_alive(struct gismo_store *s, uint32_t index, uint64_t epoch) {
    if (index >= HOST_PROCESSES)
        return 0;
    if (index == s->index && epoch == s->epoch)
        return 1;
    uint64_t word = loc_load(&s->host.process[index].word);
    if (word >> 8 != epoch || (word & 0xff) != HOST_PROCESS_LIVE)
        return 0;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = index, .l_len = 1};
    if (fcntl(s->probe_fd, F_OFD_GETLK, &lock) != 0)
        return 1; /* not proven dead */
    return lock.l_type != F_UNLCK;
}

int host_claim(struct gismo_store *s, uint64_t *claim) {
    uint64_t seen = 0;
    for (;;) {
        if (loc_cas(claim, &seen, s->claim))
            return 1;
        if (seen == s->claim)
            return 1;
        if (seen == 0)
            continue;
        if (host_alive(s, host_claim_index(seen), host_claim_epoch(seen)))
            return 0;
        /* of the dead: `seen` is what we replace, so two survivors cannot both have it */
    }
}

void host_unclaim(struct gismo_store *s, uint64_t *claim) {
    uint64_t mine = s->claim;
    (void)loc_cas(claim, &mine, (uint64_t)0);
}

static uint32_t *peer_counts(struct gismo_store *s, uint32_t index, uint64_t epoch) {
    if (s->peer[index].counts && s->peer[index].epoch == epoch)
        return s->peer[index].counts;
    if (s->peer[index].counts)
        munmap(s->peer[index].counts, s->pins_bytes);
    s->peer[index].counts = NULL;
    char name[64];
    pins_name(name, sizeof name, index, epoch);
    int fd = openat(s->state_dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return NULL;
    void *p = mmap(NULL, s->pins_bytes, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return NULL;
    s->peer[index].counts = p;
    s->peer[index].epoch = epoch;
    return p;
}

/* counts of a process, or NULL with *unknown set when it lives but cannot be looked at */
static uint32_t *living_counts(struct gismo_store *s, uint32_t index, bool *unknown) {
    uint64_t word = loc_load(&s->host.process[index].word);
    *unknown = false;
    if ((word & 0xff) != HOST_PROCESS_LIVE)
        return NULL; /* gone, or proven dead: its counts are void */
    if (index == s->index && word >> 8 == s->epoch)
        return s->pin_counts;
    uint32_t *counts = peer_counts(s, index, word >> 8);
    if (counts == NULL)
        *unknown = loc_load(&s->host.process[index].word) == word;
    return counts;
}

uint64_t host_pins(struct gismo_store *s, uint32_t slot) {
    struct host_chunk *c = &s->host.chunk[slot / FMT_CHUNK_SLOTS];
    uint64_t total = 0;
    for (uint64_t words = loc_load(&c->pinner_words); words; words &= words - 1) {
        uint32_t w = (uint32_t)__builtin_ctzll(words) % HOST_MASK_WORDS;
        for (uint64_t mask = loc_load(&c->pinners[w]); mask; mask &= mask - 1) {
            bool unknown;
            uint32_t *counts = living_counts(s, w * 64 + (uint32_t)__builtin_ctzll(mask), &unknown);
            total += counts ? loc_load(&counts[slot]) : unknown;
        }
    }
    return total;
}

uint64_t host_pinned_mask(struct gismo_store *s, uint32_t chunk, uint64_t slots) {
    struct host_chunk *c = &s->host.chunk[chunk];
    uint64_t pinned = 0;
    for (uint64_t words = loc_load(&c->pinner_words); words; words &= words - 1) {
        uint32_t w = (uint32_t)__builtin_ctzll(words) % HOST_MASK_WORDS;
        for (uint64_t mask = loc_load(&c->pinners[w]); mask; mask &= mask - 1) {
            bool unknown;
            uint32_t *counts = living_counts(s, w * 64 + (uint32_t)__builtin_ctzll(mask), &unknown);
            if (unknown)
                return slots;
            if (counts == NULL)
                continue;
            for (uint64_t rest = slots & ~pinned; rest; rest &= rest - 1) {
                uint32_t i = (uint32_t)__builtin_ctzll(rest);
                if (loc_load(&counts[chunk * FMT_CHUNK_SLOTS + i]))
                    pinned |= 1ull << i;
            }
        }
    }
    return pinned;
}

uint64_t host_process_pins(struct gismo_store *s, uint32_t index, uint64_t epoch) {
    bool unknown;
    uint32_t *counts = living_counts(s, index, &unknown);
    uint64_t pinned = 0;
    if (counts == NULL || loc_load(&s->host.process[index].word) >> 8 != epoch)
        return 0;
    for (uint32_t c = 0; c < s->chunks; c++) {
        if (!(loc_load(&s->host.chunk[c].pinners[index / 64]) >> (index % 64) & 1))
            continue;
        for (uint32_t i = 0; i < FMT_CHUNK_SLOTS; i++)
            pinned += loc_load(&counts[c * FMT_CHUNK_SLOTS + i]) != 0;
    }
    return pinned;
}

void host_bury(struct gismo_store *s, uint32_t index, uint64_t epoch) {
    struct host_process *p = &s->host.process[index];
    uint64_t word = epoch << 8 | HOST_PROCESS_REAPING;
    if (loc_load(&p->word) != word)
        return;
    char name[64];
    pins_name(name, sizeof name, index, epoch);
    unlinkat(s->state_dir_fd, name, 0);
    if (loc_cas(&p->word, &word, epoch << 8 | HOST_PROCESS_FREE)) {
        fold_counters(s, p);
        loc_add(&s->host.header->recovered_processes, 1);
        loc_sub(&s->host.header->reaping, 1);
    }
}
