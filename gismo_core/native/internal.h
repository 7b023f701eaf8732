/*
 * internal.h - one open store in one process, and what the core's files offer each other.
 *
 * Locking: `lock` is the process's own (futex) lock. It guards the allocator caches (struct local_chunk, open_chunk), and nothing
 * that another process would ever wait for. get, release and seal take it only when they meet work.
 * Functions named *_locked are called with it held.
 */
#ifndef GISMO_INTERNAL_H
#define GISMO_INTERNAL_H

#include "format.h"
#include "gismo.h"
#include "guard.h"
#include "host.h"
#include "prim.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define NO_CHUNK UINT32_MAX

/* What this process knows of a chunk that it has claimed. The masks are of slots. */
struct local_chunk {
    uint64_t free;
    uint64_t deleted;
    uint64_t writing;     /* cleared by seal without the lock: atomic */
    uint8_t mine;         /* claimed by this process */
    uint8_t open;         /* it is open_chunk[size_class] */
    uint8_t size_class;
    uint8_t cells;
    uint32_t cell_bytes;
    uint64_t base;
    uint64_t header_word; /* the header that all this was read from, and its checksum: not checked again */
    uint32_t header_crc;
    uint64_t retry_unix_ns; /* retire: not before, after pins were met */
    uint64_t sent; /* another host's chunk: requests that its host was sent, not to be sent again before the above */
};

struct gismo_store {
    /* the medium */
    uint8_t *base; /* mapping of the whole store, PROT_READ but for metadata and own arenas */
    uint64_t mapped_bytes;
    uint64_t protect_bytes; /* what can be made writable at once: a page of the medium */
    int fd;
    int is_dax;
    int sparse; /* a file with holes: pages of the data area may not be there yet */
    int read_only;
    int software;
    uint64_t chunks, slots;
    struct fmt_superblock sb;
    struct fmt_identity *identities;
    struct fmt_lane *lanes;
    struct fmt_register_line *registers;
    struct fmt_chunk *chunk_headers;
    struct fmt_slot *slot;
    uint8_t *pins;
    struct fmt_ring *rings;
    char path[4096];

    /* this host and process */
    struct host_tables host;
    void *state_mapping;
    int state_dir_fd;
    int lock_fd;  /* our OFD lock */
    int probe_fd; /* looks at those of others */
    char state_path[4096];
    uint32_t lane;
    bool takes_over; /* the lane was another machine's before: while its tables are made */
    uint64_t granted; /* P10: this store is opened to take over a lane whose register has this incarnation for us ... */
    uint32_t taker; /* ... us being this lane + 1; else 0 */
    uint32_t index; /* of this process */
    uint64_t epoch;
    uint64_t claim; /* our claim word */
    uint32_t *pin_counts; /* own pins file: one count a slot, then the bitmap of claimed chunks */
    uint64_t *claimed; /* that bitmap */
    uint64_t pins_bytes;
    struct {
        uint64_t epoch;
        uint32_t *counts;
    } peer[HOST_PROCESSES];

    /* allocator caches, under lock */
    uint32_t lock;
    uint32_t lock_owner; /* tid, to find out that a fault left it held */
    struct local_chunk *local;
    uint32_t open_chunk[FMT_CLASSES + 1];
    uint64_t writable_arenas[FMT_MAX_ARENAS / 64];
    uint8_t empty_classes[8]; /* ring of classes + 1 whose open chunk lately became empty: the oldest is closed */
    uint32_t empty_next;
    atomic_int work_left; /* the last tick found something that can only be done later */
    uint64_t wishes_seen, wishes_since_ns; /* of our lane, as the last tick saw them */
    uint64_t idle_operations; /* as the last tick saw them: nothing happened since, so empty chunks can go */

    uint64_t serve_after_ns; /* not before */
    uint64_t serve_cost_ns; /* of opening what was taken over lately */
    uint32_t serve_tries; /* how often in a row something of a lane was left */
    atomic_int evicting; /* one thread at a time: a claim names the process */
    atomic_int failed; /* a GISMO_E* code: the medium failed while we held the lock */
    atomic_int closed;
    atomic_uint_fast64_t views; /* pins of this process */

    /* the background thread */
    int wake_fd; /* eventfd: ends the leader's poll; all else is woken by host.process[].kick */
    atomic_int thread_state;
    int no_thread;
    bool restarted; /* see gismo_open_options */
    int inotify_fd;
    int64_t mode; /* permission bits of state files */
    struct gismo_store *next_open; /* list for fork handlers */
    struct runner *runner; /* of the thread, while there is one */
};

/* error.c: every failure goes through here, so that each has a message that says what to do. */
int fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
int fail_errno(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
void fail_detail(uint64_t asked, uint64_t free_bytes, uint64_t largest, uint64_t free_objects);

#define SILENCE_LOOK_NS 1000000000ull

/* Clocks. coarse: a few ns, 1-4 ms resolution, enough for creation times. */
#ifdef GISMO_SIM
uint64_t now_coarse_unix_ns(void);
uint64_t now_coarse_ns(void);
uint64_t now_ns(void);
#else
static inline uint64_t now_coarse_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static inline uint64_t now_coarse_unix_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
#endif

/* wait.c */
void sleep_ns(uint64_t ns);
void yield_cpu(void); /* others of this core may run first */
int futex_wait(uint32_t *word, uint32_t expected, uint64_t timeout_ns, int shared);
void futex_wake(uint32_t *word, int shared);

/* lock.c: a futex lock of one process; remade by fork in the child. */
void store_lock(struct gismo_store *s);
bool store_trylock(struct gismo_store *s);
bool store_unlock(struct gismo_store *s); /* true: somebody was waiting for it */

/* mapping.c */
int medium_map(struct gismo_store *s);
void medium_unmap(struct gismo_store *s);
int medium_make_writable(struct gismo_store *s, uint64_t offset, uint64_t bytes);
/* Pages for an extent that is to be written, so that writing it cannot meet a full file system. */
int medium_reserve(struct gismo_store *s, uint64_t offset, uint64_t bytes);

/* stray.c: a SIGBUS outside the core, in the mapping of this store, is told on standard error */
void stray_watch(struct gismo_store *s);
void stray_forget(struct gismo_store *s);

/* medium.c */
int above_stdio(int fd); /* the same file under a number that no stray print can reach; -1 stays -1 */
int medium_open(struct gismo_store *s, const char *path, int read_only);
int medium_parse(const char *path, const char **bare, int *kind); /* kind: 0 unknown, 1 file, 2 dax */
int medium_bytes(int fd, const char *bare, uint64_t *bytes, uint64_t *align, int *is_dax);
int medium_lock(int fd, int64_t byte, int exclusive, uint64_t wait_ns); /* OFD lock on one byte of the medium */
void medium_unlock(int fd, int64_t byte);
int64_t medium_first_lock(int fd, int64_t byte, int64_t bytes); /* the first of these that another has locked, or -1 */
int medium_write_superblock(struct gismo_store *s, uint64_t offset); /* the one in use, over a damaged one */
void info_fill(const struct fmt_superblock *sb, int is_dax, gismo_info *out);
int superblock_read(const void *first, const void *last, uint64_t medium_size, struct fmt_superblock *out);
#define MEDIUM_LOCK_JOIN 0
#define MEDIUM_LOCK_USE 1
#define MEDIUM_LOCK_JOINER 16 /* + pid */

/* agree.c: protocol R */
enum agree_unit { AGREE_ARENA, AGREE_GROUP, AGREE_LANE };
uint32_t agree_register_of(const struct gismo_store *s, enum agree_unit kind, uint32_t index);
/* decide(old, ctx, &new): 1 = propose new (may equal old), 0 = refuse. Result: GISMO_OK and *agreed, GISMO_EBUSY if refused. */
typedef int (*agree_decide)(uint64_t old_value, void *ctx, uint64_t *new_value);
int agree_change(struct gismo_store *s, uint32_t reg, agree_decide decide, void *ctx, uint64_t *agreed);
bool agree_is_stuck(struct gismo_store *s, uint32_t reg,
                    uint32_t *host); /* by damage: no ballot can pass that host's */
uint64_t agree_peek(struct gismo_store *s, uint32_t reg); /* last accepted value seen; may be in flux */
static inline uint32_t agree_owner(uint64_t value) { return (uint32_t)(value & 0xff); } /* lane + 1 */

/*
 * lane.c: P9. What a lane's register says: incarnation, which lane + 1 made it ACTIVE or takes it over (0: whoever joins), and
 * enum gismo_lane_state, or LANE_JOINING: it is somebody's who has not come so far as to be ACTIVE. The identity may still say
 * anything then.
 */
#define LANE_JOINING 5u
#define LANE_VALUE(incarnation, taker, state)                                                                          \
    ((uint64_t)(incarnation) << 16 | (uint64_t)(taker) << 8 | (uint64_t)(state))
static inline uint64_t lane_incarnation(uint64_t value) { return value >> 16; }
static inline uint32_t lane_taker(uint64_t value) { return (uint32_t)(value >> 8) & 0xff; }
uint64_t lane_register(struct gismo_store *s, uint32_t lane);
enum host_standing lane_standing(struct gismo_store *s); /* of our own lane, now */
/* From exactly this to exactly that, or GISMO_EBUSY. The caller has this host's claim of the register. */
int lane_agree(struct gismo_store *s, uint32_t lane, uint64_t from, uint64_t to);
extern uint64_t lane_join_wait_ns;
int lane_join(struct gismo_store *s, const char *state_dir, int32_t host_id);
void lane_leave(struct gismo_store *s);
static inline uint64_t lane_state_word(struct gismo_store *s, uint32_t lane) {
    prim_refresh(s->software, &s->identities[lane], FMT_LINE);
    return prim_load64(&s->identities[lane].state_word);
}
void lane_heartbeat(struct gismo_store *s);
void lane_flush(struct gismo_store *s);

/* evict.c: what waits for a QUIET lane, of which nobody else will do it. By the elected process, without the lock. */
int evict_serve(struct gismo_store *s);
void evict_remember(struct gismo_store *s);
void evict_finish(struct gismo_store *s);

/* silence.c: P10, the silent and the fenced. */
void silence_watch(struct gismo_store *s); /* by the elected process: the heartbeats of others */
bool silence_suspect(struct gismo_store *s, uint32_t lane);
int silence_look(struct gismo_store *s); /* at the register of our own lane: GISMO_OK or GISMO_EFENCED */
static inline bool silence_must_look(struct gismo_store *s) {
    return (int64_t)(now_coarse_ns() - loc_load(&s->host.header->fence_seen_ns)) > (int64_t)SILENCE_LOOK_NS;
}
/* verdict.c. The lane's lines have been invalidated; boot_id is that of its identity. */
void verdict_read(struct gismo_store *s, uint32_t lane, const uint8_t boot_id[16], gismo_litmus_verdict *out);

/* unit.c: P7, leasing of arenas and slot groups */
int unit_lease(struct gismo_store *s, enum agree_unit kind, uint32_t index);
int unit_lease_some(struct gismo_store *s, enum agree_unit kind, int from_top); /* GISMO_EFULL: none to be had */
int unit_return_empty(struct gismo_store *s);
void unit_settle(struct gismo_store *s, enum agree_unit kind, uint32_t index, uint64_t dead_claim);
bool unit_leasable(struct gismo_store *s, enum agree_unit kind, uint32_t index, const uint64_t *leased);
bool unit_is_mine(struct gismo_store *s, enum agree_unit kind, uint32_t index);
void unit_leased_map(struct gismo_store *s, enum agree_unit kind, uint64_t *map); /* OR of all lanes' maps */
void unit_publish_maps(struct gismo_store *s);
static inline uint64_t arena_pages(const struct gismo_store *s) { return 1ull << (s->sb.arena_shift - FMT_PAGE_SHIFT); }

/* quota.c: fair shares of arenas and slot groups while another lane wishes for room. */
bool quota_tick(struct gismo_store *s); /* by the elected process; true: somebody wishes now */
bool quota_draining_(struct gismo_store *s, enum agree_unit kind, uint32_t index);
bool quota_reached_(struct gismo_store *s, enum agree_unit kind);
static inline bool quota_draining(struct gismo_store *s, enum agree_unit kind, uint32_t index) {
    return UNLIKELY(loc_load(&s->host.header->wish_until_ns) != 0) && quota_draining_(s, kind, index);
}
static inline bool quota_reached(struct gismo_store *s, enum agree_unit kind) {
    return UNLIKELY(loc_load(&s->host.header->wish_until_ns) != 0) && quota_reached_(s, kind);
}

/*
 * page.c: P6. Runs of pages of the data area, by page number. The bits of an arena are changed only under its claim.
 * take: finds a run, writes the intent, sets the bits. The caller then writes the slot or header that names it and calls
 * page_intent_done. give: page_give_begin claims the arenas (0 = busy, later) and writes the intent; the caller stores the
 * FREE or NONE word; page_give_end clears the bits.
 */
int page_take_locked(struct gismo_store *s, uint64_t pages, int from_top, uint64_t *first);
void page_intent_done(struct gismo_store *s);
int page_give_begin(struct gismo_store *s, uint64_t first, uint64_t pages);
void page_give_end(struct gismo_store *s, uint64_t first, uint64_t pages);
void page_mark(struct gismo_store *s, uint64_t first, uint64_t pages); /* rebuild: alone, no claims */
void page_recount(struct gismo_store *s, uint32_t arena);
void page_free_stats(struct gismo_store *s, uint64_t *free_pages, uint64_t *largest_pages);
int arena_claim(struct gismo_store *s, uint32_t arena); /* settles what a dead claimer left; 0 = busy */
/* Pages of the range that are taken but that nobody has, of arenas claimed one by one: given back. Returns how many. */
uint64_t page_settle(struct gismo_store *s, uint64_t first, uint64_t pages, int repair, bool *complete);
int page_ensure_writable(struct gismo_store *s, uint64_t offset, uint64_t bytes);

/* chunk.c: chunks and slots */
int chunk_slot_locked(struct gismo_store *s, uint32_t size_class, uint32_t *slot); /* a FREE slot, taken in the masks */
int chunk_claim_locked(struct gismo_store *s, uint32_t chunk); /* 1 = claimed now or before; masks loaded */
void chunk_unclaim_locked(struct gismo_store *s, uint32_t chunk);
void chunk_settle_locked(struct gismo_store *s, uint32_t chunk); /* retire, free it if empty, unclaim unless needed */
uint64_t chunk_retire_locked(struct gismo_store *s, uint32_t chunk); /* returns mask freed */
void retire_later(struct gismo_store *s, uint32_t chunk);
void chunk_mark(struct gismo_store *s, uint32_t chunk); /* in our bitmap: should we die, look at its requests */
void chunk_unmark(struct gismo_store *s, uint32_t chunk); /* unless we claim it */
void chunk_restore_requests(struct gismo_store *s,
                            uint32_t chunk); /* whose pending bit a dead process cleared too early */
void chunk_close_draining_locked(struct gismo_store *s); /* open chunks that lie where nothing new is to be put */
void chunk_close_if_empty_locked(struct gismo_store *s, uint32_t size_class);
int chunk_sweep_locked(struct gismo_store *s, int everywhere); /* slots freed */
void chunk_pending_locked(struct gismo_store *s, uint32_t chunk); /* carry out what was asked */
void chunk_close_all_locked(struct gismo_store *s);
void chunk_masks_from_slots(struct gismo_store *s, uint32_t chunk, uint64_t *free_out, uint64_t *deleted_out,
                            uint64_t *writing_out);
/* WRITING, of a dead process or to be aborted: nobody could ever pin it, so DELETED, and retired as every other. */
void chunk_draft_to_deleted(struct gismo_store *s, uint32_t slot);
void chunk_recover_locked(struct gismo_store *s, uint32_t chunk); /* claimed from the dead: free what is WRITING */
int chunk_delete_locked(struct gismo_store *s, uint32_t slot, uint64_t generation);
int chunk_request_delete(struct gismo_store *s, uint32_t slot, uint64_t generation, bool foreign);
uint64_t chunk_free_slots(struct gismo_store *s);
int chunk_rebuild(struct gismo_store *s); /* tables of a new state directory from headers and slots */
bool chunk_header_read(struct gismo_store *s, uint32_t chunk, struct fmt_chunk *out); /* range-checked */
bool slot_extent_ok(const struct gismo_store *s, const struct fmt_slot *slot);
uint64_t slot_extent_bytes(const struct fmt_slot *slot); /* payload + trailer */
/* What another host wrote there, for those who look at chunks that are not this host's. */
static inline uint64_t chunk_word(struct gismo_store *s, uint32_t chunk) {
    prim_refresh(s->software, &s->chunk_headers[chunk], FMT_LINE);
    return prim_load64(&s->chunk_headers[chunk].word);
}
static inline void chunk_refresh_slots(struct gismo_store *s, uint32_t chunk) {
    prim_refresh(s->software, &s->slot[(uint64_t)chunk * FMT_CHUNK_SLOTS], FMT_CHUNK_SLOTS * FMT_LINE);
}
static inline void slot_read(const struct fmt_slot *shared, struct fmt_slot *copy) {
    prim_read(copy, shared, sizeof *copy);
}
static inline bool bit_get(const uint64_t *map, uint64_t i) { return loc_load(&map[i / 64]) >> (i % 64) & 1; }
void bit_set(uint64_t *map, uint64_t i);
void bit_clear(uint64_t *map, uint64_t i);

/* ring.c */
/* GISMO_EBUSY: full, or another process is at it. *asked (may be NULL) := position + 1 before the message can be seen. */
int ring_send(struct gismo_store *s, uint32_t to, uint32_t op, uint32_t what, uint64_t value, uint64_t *asked);
uint64_t ring_head(struct gismo_store *s, uint32_t to); /* of the ring from us to that lane */
int ring_receive_all(struct gismo_store *s);
int ring_send_outbound(struct gismo_store *s);
static inline uint32_t chunk_group(const struct gismo_store *s, uint32_t chunk) { return chunk / s->sb.group_chunks; }

/* name.c */
int name_insert_locked(struct gismo_store *s, uint32_t slot, const void *name, uint32_t bytes);
/* P2: makes this draft the one of its name that may be sealed, or GISMO_EEXIST. Takes no lock, waits for nobody. */
int name_win(struct gismo_store *s, uint32_t slot, const void *name, uint32_t bytes);
int name_taken(const void *name, uint32_t bytes, const gismo_handle *by);
void name_remove(struct gismo_store *s, uint32_t slot);
int name_lookup(struct gismo_store *s, const void *name, uint32_t bytes, gismo_handle *out);
void name_rebuild(struct gismo_store *s);

/* recover.c: P8 */
int recover_find_dead(struct gismo_store *s); /* marks dead processes REAPING; returns how many are to do */
int recover_step(struct gismo_store *s); /* at most one chunk; returns 1 if it did something */
void recover_all(struct gismo_store *s);

/* thread.c */
int thread_start(struct gismo_store *s);
void thread_stop(struct gismo_store *s);
void thread_kick(struct gismo_store *s);
void thread_kick_process(struct gismo_store *s, uint32_t index);
int thread_tick(struct gismo_store *s, int leader);
void fork_watch(struct gismo_store *s);
void fork_forget(struct gismo_store *s);

/* object.c: P1 and P2. flags: enum fmt_slot_flags. */
int object_begin_locked(struct gismo_store *s, uint64_t length, const gismo_create_options *options, uint32_t flags,
                        gismo_object *out);
int object_publish(struct gismo_store *s, gismo_object *object, uint32_t flags, uint32_t payload_crc, bool locked);
void object_abort_locked(struct gismo_store *s, uint32_t slot);

/* store.c: what every call begins with. 0, or why it cannot be. */
int store_enter(struct gismo_store *s);
/* Opens the store as the given lane, whose register has that incarnation for us (P10), with that state directory. */
int store_open_lane(struct gismo_store *s, const char *state_dir, uint32_t lane, uint64_t granted,
                    struct gismo_store **out);
void store_release_host(struct gismo_store *s); /* leave lane and registration, unmap: no pins are left */

/* What a get or delete of this slot will touch, at once: on random slots the cache misses then overlap. */
static inline void slot_prefetch(struct gismo_store *s, uint32_t slot) {
    uint32_t chunk = slot / FMT_CHUNK_SLOTS;
    struct host_chunk *control = &s->host.chunk[chunk];
    __builtin_prefetch(&s->slot[slot], 1);
    __builtin_prefetch(control, 1);
    __builtin_prefetch(&s->chunk_headers[chunk]);
    __builtin_prefetch(&s->local[chunk], 1);
}

/* Runs a call with SIGBUS turned into GISMO_EMEDIA. */
int media_failed(struct gismo_store *s);
#define GUARDED(store, call)                                                                                           \
    __extension__({                                                                                                    \
        struct gismo_guard guard_;                                                                                     \
        int result_;                                                                                                   \
        if (GUARD_TRY(guard_)) {                                                                                       \
            result_ = (call);                                                                                          \
            GUARD_END(guard_);                                                                                         \
        } else {                                                                                                       \
            result_ = media_failed(store);                                                                             \
        }                                                                                                              \
        result_;                                                                                                       \
    })

#endif
