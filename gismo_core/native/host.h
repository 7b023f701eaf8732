/*
 * host.h - the state directory: what the processes of ONE host know of each other.
 *
 * Ordinary coherent memory (tmpfs) of one machine, so atomics are allowed here and nowhere else. One file `state` mapped
 * by all; `locks`, whose byte i is OFD-locked by the process with index i for as long as it lives; `pins.<i>.<epoch>`
 * with the pin counts of one process. All of it but claims and intents can be rebuilt from the medium.
 *
 * Why OFD locks and not pids or robust mutexes: a pid (and a futex's TID) means something only inside its PID
 * namespace, and pods have one each; the kernel drops an OFD lock when the last descriptor goes, whoever looks.
 */
#ifndef GISMO_HOST_H
#define GISMO_HOST_H

#include "format.h"
#include "gismo.h"
#include "sites.h"

#include <stddef.h>
#include <stdint.h>

#define HOST_MAGIC 0x314554415453474Dull
#define HOST_LAYOUT 3u
#ifdef GISMO_SIM
#define HOST_PROCESSES 64u /* it walks over them a thousand times a second */
#else
#define HOST_PROCESSES 1024u
#endif
#define HOST_MASK_WORDS (HOST_PROCESSES / 64)

/* Changes of the state directory are crash sites, too. In the simulator its stores wait in the store buffer like all others. */
#ifdef GISMO_SIM
#include "prim_sim.h"
#define loc_load(p)                                                                                                    \
    __extension__({                                                                                                    \
        __auto_type value_ = __atomic_load_n((p), __ATOMIC_ACQUIRE);                                                   \
        sim_local_forward((p), &value_, sizeof value_);                                                                \
        value_;                                                                                                        \
    })
#define loc_store(p, v) sim_local_store((p), (uint64_t)(v), sizeof *(p))
#define LOC_LOCKED_ sim_locked()
#else
#define loc_load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define loc_store(p, v) (GISMO_SITE(LOCAL), __atomic_store_n((p), (v), __ATOMIC_RELEASE))
#define LOC_LOCKED_ GISMO_SITE(LOCAL)
#endif
#define loc_or(p, v) (LOC_LOCKED_, __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST))
#define loc_and(p, v) (LOC_LOCKED_, __atomic_fetch_and((p), (v), __ATOMIC_SEQ_CST))
#define loc_add(p, v) (LOC_LOCKED_, __atomic_fetch_add((p), (v), __ATOMIC_SEQ_CST))
#define loc_sub(p, v) (LOC_LOCKED_, __atomic_fetch_sub((p), (v), __ATOMIC_SEQ_CST))
#define loc_cas(p, expected, v)                                                                                        \
    (LOC_LOCKED_, __atomic_compare_exchange_n((p), (expected), (v), 0, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
/* Statistics, of several threads: one may be lost now and then, which a locked instruction is not worth. */
#define loc_count(p, n) __atomic_store_n((p), __atomic_load_n((p), __ATOMIC_RELAXED) + (n), __ATOMIC_RELAXED)

enum host_process_state { HOST_PROCESS_FREE = 0, HOST_PROCESS_LIVE = 1, HOST_PROCESS_REAPING = 2 };
enum host_intent { HOST_INTENT_NONE = 0, HOST_INTENT_PAGES = 1 };
/* How far a named draft is on its way to being the sealed object of its name: P2. */
enum host_naming { HOST_NAMING_NONE = 0, HOST_NAMING_SEALING = 1, HOST_NAMING_WON = 2 };
enum host_unit_state { HOST_UNIT_NONE = 0, HOST_UNIT_OWNED = 1, HOST_UNIT_RETURNING = 2 };

struct host_process {
    uint64_t word; /* epoch << 8 | enum host_process_state */
    int64_t pid;
    uint64_t joined_unix_ns;
    uint64_t intent_kind; /* sequence << 8 | enum host_intent */
    uint64_t intent_first; /* page */
    uint64_t intent_pages;
    uint64_t puts, gets, deletes, put_bytes, get_bytes;
    uint32_t kick; /* futex: its thread has something to do */
    uint32_t chunks;
    uint64_t pins_epoch; /* of the pins file that was made last: its maker may have died before it was LIVE */
    uint64_t leaving;    /* its epoch, once all is given back and only leaving the lane is left */
    uint64_t pad[2];
    char command[64];
    uint64_t pad2[8];
};
_Static_assert(sizeof(struct host_process) == 256, "process record size");

/* One per chunk of the whole store. free and deleted are true only while claim is 0, or for its holder. */
struct host_chunk {
    uint64_t claim;
    uint64_t pending; /* slots asked to be deleted; see host_tables.pending_generation */
    uint64_t free;
    uint64_t deleted;
    uint64_t pinner_words; /* bit w: pinners[w] may be other than 0. So a chunk never pinned costs this line alone */
    uint64_t pad[3];
    uint64_t pinners[HOST_MASK_WORDS]; /* processes that ever pinned here; never cleared */
    uint64_t pad2[24 - HOST_MASK_WORDS];
};
_Static_assert(sizeof(struct host_chunk) == 256, "chunk control size");

/* Before the first count of this process in the chunk. Atomic: from here on whoever retires here looks at our counts. */
static inline void host_mark_pinner(struct host_chunk *c, uint32_t index) {
    uint64_t *mask = &c->pinners[index / 64], bit = 1ull << (index % 64);
    if (__builtin_expect(loc_load(mask) & bit, 1))
        return;
    loc_or(&c->pinner_words, 1ull << (index / 64));
    loc_or(mask, bit);
}

/* An arena or a slot group, and the claim of its register. */
struct host_unit {
    uint64_t claim;
    uint32_t state;
    uint32_t free_pages;   /* arenas: advisory, as is */
    uint32_t largest_run;  /* pages: no run in it is longer; UINT32_MAX = not known */
    uint32_t draining;     /* nothing new is put here (quota.c); heeded until header.wish_until_ns */
};

/* P10: what its register says of a host's lane. Of one that is lost not even what was ours may be written any more. */
enum host_standing { HOST_IN_PLACE = 0, HOST_FENCED = 1, HOST_LOST = 2 };

/* What this host thinks of another's heartbeat. */
struct host_silence {
    uint64_t heartbeat; /* as it was seen last */
    uint64_t samples;   /* how often in a row it was the same */
    uint64_t wanted;    /* counts what somebody here wants of it while it is QUIET; 0 once that is done */
    uint64_t taking;    /* claim of the process of this host that takes its lane over, or died over it: P10 */
};

struct host_header {
    uint64_t magic;
    uint32_t layout;
    uint32_t lane;
    uint8_t uuid[16]; /* of this state directory */
    uint8_t boot_id[16];
    uint8_t store_uuid[16];
    uint64_t incarnation;
    uint64_t bytes;
    uint64_t leave_claim; /* who may make the lane QUIET: held for that one store, by who leaves last */
    uint64_t leader;     /* claim of the elected process */
    uint64_t leader_beat;
    uint64_t reaping; /* how many entries are REAPING: a hint for every operation */
    uint64_t standing; /* enum host_standing, as found: it only grows */
    uint64_t recovered_processes, recovered_objects;
    uint64_t epoch;   /* last one given out */
    uint64_t retired_puts, retired_gets, retired_deletes, retired_put_bytes, retired_get_bytes;
    uint64_t retire_hint; /* some bit of the retire or outbound bitmaps may be set */
    uint64_t name_table_slot[FMT_NAME_LEVELS]; /* slot + 1 of each level's table */
    uint64_t lowest_arena; /* hint: those below it have no free page */
    uint64_t wish_until_ns; /* quota.c, CLOCK_MONOTONIC: another lane's wish is heeded until then; 0 = none */
    uint64_t wish_pages, wish_groups;
    uint64_t lease_stop; /* bits of enum agree_unit: no more of these for us meanwhile */
    uint64_t fence_seen_ns; /* CLOCK_MONOTONIC, before the last look at that register that found it as it should be */
    uint64_t watched_ns;    /* CLOCK_MONOTONIC, the last look at the heartbeats of others */
    uint8_t pad[4096 - 312];
};
_Static_assert(sizeof(struct host_header) == 4096, "state header size");

/* Where each table lies in the mapping of `state`. Computed from the superblock alone. */
struct host_tables {
    struct host_header *header;
    struct host_process *process;  /* HOST_PROCESSES */
    struct host_chunk *chunk;      /* chunks */
    struct host_unit *arena;       /* arenas */
    struct host_unit *group;       /* groups */
    uint64_t *lane_claim;          /* max_lanes: claim of each lane's register */
    struct host_silence *silence;  /* max_lanes */
    uint64_t *ring_send;           /* max_lanes: claim of the sending side to that lane */
    uint64_t *ring_receive;        /* max_lanes: claim of the receiving side from that lane */
    uint64_t *page_bits;           /* one bit a page, 1 = taken or not ours; written under the arena's claim */
    uint64_t *pending_generation;  /* chunks * 64 */
    uint64_t *asked;               /* max_lanes * chunks: ring position of the last CLEAR + 1 */
    uint64_t *free_chunks;         /* bitmap: kind NONE, in a group of ours */
    uint64_t *partial;             /* (FMT_CLASSES + 1) bitmaps: unclaimed, has a free slot */
    uint64_t *retire;              /* bitmap: has deleted or pending slots */
    uint64_t *outbound;            /* bitmap: has pending slots for another lane */
    uint32_t *name_owner[FMT_NAME_LEVELS];
    uint8_t *naming;               /* chunks * 64: enum host_naming of a named draft */
    uint64_t *
        fresh; /* chunks * 64, with software coherence only: generation + 1 whose payload this host's cache has no old copy of */
    uint64_t words; /* of a chunk bitmap */
    uint64_t pages;
    uint64_t page_words;
    uint64_t bytes; /* of the mapping */
};
void host_layout(const struct fmt_superblock *sb, void *base, struct host_tables *out);

struct gismo_store;

/* Behind the counts of a pins file: the bitmap of chunks that the process has marked. */
static inline uint64_t *host_marks(void *counts, uint64_t slots) {
    return (uint64_t *)(void *)((uint8_t *)counts + (slots * 4 + 7) / 8 * 8);
}

#define HOST_NAME_BYTES 33
/* What this store's directory is called in a state directory: its uuid, 32 hexadecimal digits. */
void host_directory_name(const struct gismo_store *s, char name[HOST_NAME_BYTES]);
/* Finds or makes the directory of this store; fills state_path. Names and modes as FORMAT.md says. */
int host_open_directory(struct gismo_store *s, const char *wanted);
/* Maps `state` if it is there and of this boot; GISMO_ENOTFOUND if it has to be made. */
int host_attach(struct gismo_store *s);
/* Makes `state` for this lane (tables rebuilt by the caller's fill), links it into place, attaches. */
int host_create(struct gismo_store *s, uint32_t lane, uint64_t incarnation, const uint8_t uuid[16],
                int (*fill)(struct gismo_store *s));
int host_register(struct gismo_store *s);
void host_unregister(struct gismo_store *s);
void host_detach(struct gismo_store *s);
void host_forget(struct gismo_store *s); /* the same, but the directory stays open */

/* 1 = the process with this index and epoch may still run; 0 = proven dead (its lock is free, or it is another epoch). */
int host_alive(struct gismo_store *s, uint32_t index, uint64_t epoch);
static inline uint64_t host_claim_word(uint32_t index, uint64_t epoch) { return epoch << 16 | (index + 1); }
static inline uint32_t host_claim_index(uint64_t claim) { return (uint32_t)(claim & 0xffff) - 1; }
static inline uint64_t host_claim_epoch(uint64_t claim) { return claim >> 16; }
/* Take a claim that is free or held by the dead. 1 = ours (also if it was ours before). Never waits. The caller holds the
 * process's lock, for a claim names a process, not a thread. */
int host_claim(struct gismo_store *s, uint64_t *claim);
void host_unclaim(struct gismo_store *s, uint64_t *claim);

/* Pins of slot held by the living processes of this host. */
uint64_t host_pins(struct gismo_store *s, uint32_t slot);
/* Which of these slots of a chunk some living process of this host pins: P5.3. */
uint64_t host_pinned_mask(struct gismo_store *s, uint32_t chunk, uint64_t slots);
uint64_t host_process_pins(struct gismo_store *s, uint32_t index, uint64_t epoch); /* objects it pins */
/* Void the records of a dead process, once its chunks and intent are done. */
void host_bury(struct gismo_store *s, uint32_t index, uint64_t epoch);
void host_read_boot_id(uint8_t out[16]);
int host_random(void *out, uint64_t bytes);

#endif
