/*
 * gismo.h - the public C API of libgismo.so, the Gismo object store.
 *
 * One object, one copy, every host. The format and the protocols are in gismo_core/FORMAT.md;
 * the words used here (pool, store, host, lane, object, extent, handle, pin) are explained there.
 *
 * Rules that hold for every function:
 *  - Returns GISMO_OK (0) or a negative GISMO_E* code. gismo_error_message() of the same thread says
 *    what happened and what to do next; gismo_error_detail() holds the numbers of a GISMO_EFULL.
 *  - Any thread may call any function, except that nothing may be called on a store after
 *    gismo_close() returned, but gismo_release() for views that are still held, and gismo_free() once.
 *  - Sizes are bytes, times are nanoseconds (wall-clock where named _unix_ns), offsets are bytes from
 *    the start of the medium.
 */
#ifndef GISMO_H
#define GISMO_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GISMO_API __attribute__((visibility("default")))

/* Changes whenever a struct or a signature below changes; the binding refuses another one. */
#define GISMO_ABI_VERSION 7u

enum gismo_status {
    GISMO_OK = 0,
    GISMO_EFULL = -1,       /* no room (or no slot, or no lane); detail tells which */
    GISMO_EGONE = -2,       /* the handle names an object that is no more */
    GISMO_ENOTSTORE = -3,   /* the medium holds no Gismo store */
    GISMO_EINCOMPAT = -4,   /* a store of a format or feature this build does not know */
    GISMO_ECORRUPT = -5,    /* a field read from shared memory failed its check */
    GISMO_EFENCED = -6,     /* this host was fenced: its lane has a newer incarnation */
    GISMO_EHOSTINUSE = -7,  /* another living host has this host id */
    GISMO_EMEDIA = -8,      /* the medium failed under us: truncated, unbound, poisoned, no space */
    GISMO_ECLOSED = -9,     /* the store (or this object) is closed */
    GISMO_EINVAL = -10,     /* an argument makes no sense; the message says which */
    GISMO_ESYS = -11,       /* a system call failed; gismo_error_detail().sys_errno */
    GISMO_EEXIST = -12,     /* a store is already there, or a sealed object of some host has that name */
    GISMO_ENOTFOUND = -13,  /* no object has that name */
    GISMO_EPERM = -14,      /* not allowed: another user's store, a symbolic link, not your object */
    GISMO_EBUSY = -15,      /* in use: views or processes hold it */
    GISMO_EUNSUPPORTED = -16 /* this machine cannot do it (not x86-64, no clflushopt, ...) */
};

typedef struct gismo_store gismo_store;

typedef struct gismo_detail {
    uint64_t asked_bytes;        /* GISMO_EFULL: what was asked for */
    uint64_t free_bytes;         /* GISMO_EFULL: what is free, on this host and unleased */
    uint64_t largest_free_bytes; /* GISMO_EFULL: the largest hole */
    uint64_t free_objects;       /* GISMO_EFULL: slots left */
    int32_t sys_errno;           /* GISMO_ESYS and GISMO_EMEDIA: errno, else 0 */
    int32_t reserved;
} gismo_detail;

GISMO_API uint32_t gismo_abi_version(void);
GISMO_API const char *gismo_version(void);
GISMO_API const char *gismo_status_name(int status);
GISMO_API const char *gismo_error_message(void); /* of this thread's last failed call; never NULL */
GISMO_API void gismo_error_detail(gismo_detail *out);

/* ---- medium -------------------------------------------------------------------------------- */

enum gismo_coherence { GISMO_COHERENCE_HARDWARE = 0, GISMO_COHERENCE_SOFTWARE = 1 };

typedef struct gismo_format_options {
    uint64_t size_bytes;   /* file: the size it is given, 0 = the size it has; dax: 0 or at most its size */
    uint64_t max_objects;  /* 0 = a default from the size */
    uint32_t max_hosts;    /* 1..64; 0 = a default from the size */
    uint32_t coherence;    /* enum gismo_coherence */
    uint32_t mode;         /* permission bits of a file it makes; 0 = 0600 */
    uint32_t force;        /* overwrite what is there even if it is not a store, or is one */
    uint32_t populate;     /* touch every page of a file now, so that no later put can meet a full tmpfs */
    uint32_t reserved;
    uint8_t store_uuid[16]; /* all zero = a random one */
} gismo_format_options;

/* progress(done, total, ctx) is called at least every 256 MiB; non-zero stops with GISMO_EINVAL. */
typedef int (*gismo_progress)(uint64_t done_bytes, uint64_t total_bytes, void *ctx);

/* path is "file:PATH", "dax:PATH" or a bare path (dax for a character device, else file). */
GISMO_API int gismo_format(const char *path, const gismo_format_options *options, gismo_progress progress, void *ctx,
                           uint8_t uuid_out[16]);

typedef struct gismo_open_options {
    const char *state_dir; /* NULL = $GISMO_STATE_DIR, /run/gismo, $XDG_RUNTIME_DIR/gismo, /dev/shm/gismo-UID */
    int32_t host_id;       /* -1 = $GISMO_HOST_ID, else own lane, else the lowest free one */
    uint32_t read_only;    /* 1 = join no lane, write nothing: info, ls, fsck only */
    uint32_t no_thread;    /* 1 = start no background thread (the caller calls gismo_tick) */
    uint32_t restarted;    /* 1 = whoever had this host id in this boot, its state directory lost, has ended */
} gismo_open_options;

GISMO_API int gismo_open(const char *path, const gismo_open_options *options, gismo_store **out);
/* Aborts what is unsealed, leaves the lane when it is the last. Views stay valid until released. */
GISMO_API int gismo_close(gismo_store *store);
/* Gives the memory of a closed store back; what is still pinned stays mapped until it is released. */
GISMO_API void gismo_free(gismo_store *store);

/* Read the identity of a medium without opening it (no lane, no state directory). */
typedef struct gismo_info {
    uint8_t store_uuid[16];
    uint64_t size_bytes;       /* of the store on the medium */
    uint64_t data_bytes;       /* what objects can use in all */
    uint64_t max_objects;
    uint64_t created_unix_ns;
    uint64_t arena_bytes;
    uint32_t arenas;
    uint32_t slot_groups;
    uint32_t max_hosts;
    uint32_t coherence;
    uint32_t format_version;
    uint32_t is_dax;
    uint64_t feature_compat, feature_ro_compat, feature_incompat;
} gismo_info;
GISMO_API int gismo_probe(const char *path, gismo_info *out);
GISMO_API int gismo_get_info(gismo_store *store, gismo_info *out);
/* Where the processes of this host meet over this store; "" when it was opened read-only. Lives as long as the store. */
GISMO_API const char *gismo_state_dir(gismo_store *store);

/* ---- objects -------------------------------------------------------------------------------- */

/* Names one object for ever. Plain data: may be copied, stored, sent. 48 bytes, little-endian. */
typedef struct gismo_handle {
    uint8_t store_uuid[16];
    uint64_t generation; /* 56 bits */
    uint64_t offset;     /* of the payload, from the start of the medium */
    uint64_t length;     /* payload bytes */
    uint32_t slot;
    uint32_t lane;       /* the creator's */
} gismo_handle;

#define GISMO_NAME_MAX 255u
#define GISMO_WAIT_NEVER (-2)
#define GISMO_BUFFERS_MAX 1048576u

typedef struct gismo_create_options {
    const void *name;            /* not NUL-terminated; NULL = none */
    uint32_t name_bytes;         /* 0..GISMO_NAME_MAX */
    uint32_t buffers;            /* number of entries of buffer_bytes; 0 = one buffer of the whole length */
    const uint64_t *buffer_bytes; /* lengths; each buffer starts 64-byte aligned in the payload */
    uint64_t tag;                /* user tag, for accounting (a job) */
    int64_t wait_ns;             /* when full: wait as long for room; 0 = only for what is coming back anyway
                                    (at most 60 ms); -1 = for ever; GISMO_WAIT_NEVER = not a moment */
} gismo_create_options;

/* A payload being written by this process. Buffer i starts at the aligned sum of those before it. */
typedef struct gismo_object {
    gismo_handle handle;
    void *data;          /* length bytes, writable until sealed, 64-byte aligned */
    uint64_t private_[2];
} gismo_object;

/* length = payload bytes when options->buffers is 0; otherwise ignored. options may be NULL. */
GISMO_API int gismo_create(gismo_store *store, uint64_t length, const gismo_create_options *options, gismo_object *out);
/* Copies into the payload, at `offset`, as put does. GISMO_EINVAL if it does not fit; GISMO_EMEDIA if the medium fails
 * meanwhile, where a store of the caller's own to object->data would end in SIGBUS. */
GISMO_API int gismo_write(gismo_store *store, const gismo_object *object, uint64_t offset, const void *data,
                          uint64_t length);
enum gismo_seal_flags { GISMO_SEAL_CRC = 1 /* compute the payload CRC32C now */ };
/* After an error the draft is still there, to be aborted, or sealed later. GISMO_EEXIST: another object got the name since
 * create. GISMO_ECORRUPT: its record was damaged meanwhile. */
GISMO_API int gismo_seal(gismo_store *store, gismo_object *object, uint32_t flags);
GISMO_API int gismo_abort(gismo_store *store, gismo_object *object);

typedef struct gismo_buffer {
    const void *data;
    uint64_t length;
} gismo_buffer;

/* create + copy (CRC32C fused in) + seal. options->buffers and ->buffer_bytes are ignored. */
GISMO_API int gismo_put(gismo_store *store, const gismo_buffer *buffers, uint32_t count,
                        const gismo_create_options *options, gismo_handle *out);
/* The same for one short buffer: a binding has less to convert. */
GISMO_API int gismo_put_one(gismo_store *store, const void *data, uint32_t length, const gismo_create_options *options,
                            gismo_handle *out);

typedef struct gismo_view {
    const void *data;      /* read-only mapping */
    uint64_t length;       /* payload bytes */
    uint64_t generation;
    uint64_t tag;
    uint64_t created_unix_ns;
    uint32_t slot;
    uint32_t buffers;      /* >= 1 */
    uint32_t name_bytes;
    uint32_t payload_crc;  /* CRC32C, when has_crc */
    uint32_t has_crc;
    uint32_t lane;
} gismo_view;

/* Pins the object for this process. Each success needs one gismo_release of its slot. */
GISMO_API int gismo_get(gismo_store *store, const gismo_handle *handle, gismo_view *out);
GISMO_API int gismo_release(gismo_store *store, uint32_t slot);
/* One more pin on an object that this process already pins. */
GISMO_API int gismo_retain(gismo_store *store, uint32_t slot);
/* The lengths of the view's buffers, out[0..view->buffers). */
GISMO_API int gismo_view_buffers(gismo_store *store, const gismo_view *view, uint64_t *out);
/* The view's name into out (GISMO_NAME_MAX bytes at most); returns its length. */
GISMO_API int gismo_view_name(gismo_store *store, const gismo_view *view, void *out);
/* Checks the payload against its CRC32C: GISMO_OK, GISMO_ECORRUPT, or GISMO_EUNSUPPORTED if it has none. */
GISMO_API int gismo_view_verify(gismo_store *store, const gismo_view *view);

/* After it no get on this host succeeds; on other hosts within 10 ms (until then it dies with this host). Room comes back when
 * no pin is left. */
GISMO_API int gismo_delete(gismo_store *store, const gismo_handle *handle);
GISMO_API int gismo_lookup(gismo_store *store, const void *name, uint32_t name_bytes, int64_t wait_ns,
                           gismo_handle *out);
/* Is this address inside the store's data? Fills the handle of the sealed object that this process pins there. */
GISMO_API int gismo_find_pinned(gismo_store *store, const void *address, gismo_handle *out);

/* ---- seeing --------------------------------------------------------------------------------- */

enum gismo_object_state { GISMO_FREE = 0, GISMO_WRITING = 1, GISMO_SEALED = 2, GISMO_DELETED = 3 };

typedef struct gismo_object_info {
    gismo_handle handle;
    uint64_t tag;
    uint64_t created_unix_ns;
    uint64_t extent_bytes;   /* what it occupies */
    uint64_t pinned_lanes;   /* bit i = host i holds (or lately held) it */
    uint32_t state;          /* enum gismo_object_state */
    uint32_t payload_crc, has_crc;
    uint32_t creator;        /* process index on its host */
    uint32_t owner_lane;     /* whose arenas it lies in */
    uint32_t pins_here;      /* pins of this host's processes */
    uint32_t buffers;
    uint32_t name_bytes;
    char name[256];
} gismo_object_info;

/* Next object at or after *cursor (0 to begin) that is not FREE; GISMO_ENOTFOUND at the end. */
GISMO_API int gismo_next(gismo_store *store, uint64_t *cursor, gismo_object_info *out);

enum gismo_change { GISMO_UNCHANGED = 0, GISMO_NEW = 1, GISMO_GONE = 2 };

/* What a scan of many objects wants to know of each; 64 bytes. */
typedef struct gismo_brief {
    gismo_handle handle;
    uint64_t tag;
    uint32_t pins_here; /* pins of this host's processes; of gismo_follow: 0 or 1, whether there are any */
    uint32_t change;    /* enum gismo_change, of gismo_follow alone */
} gismo_brief;
/* The sealed objects at or after *cursor whose tag, masked, is `tag`: fills out[0..max), moves *cursor behind the last
 * and returns how many (0 at the end), or an error. An object sealed before the call and not deleted is not missed. */
GISMO_API int gismo_list(gismo_store *store, uint64_t *cursor, uint64_t tag_mask, uint64_t tag, gismo_brief *out,
                         uint32_t max);
/* As gismo_list, for who looks again and again, with max >= 2. `seen` holds a number for each slot of the store
 * (gismo_info.max_objects), all 0 to begin with, and is kept by these calls. Told is which objects are GISMO_NEW and
 * which are GISMO_GONE since (of those, only handle.generation and handle.slot), and which are pinned on this host. A
 * look is over when *cursor is max_objects. 0 in `seen`: as if what is in that slot was never seen. After an error, which
 * may have come when some of it was done, begin with zeros again. */
GISMO_API int gismo_follow(gismo_store *store, uint64_t *cursor, uint64_t tag_mask, uint64_t tag, uint64_t *seen,
                           gismo_brief *out, uint32_t max);
/* Copies `bytes` of a sealed object's payload from `offset` on without pinning it: GISMO_EGONE if it was deleted before
 * the copy was complete (what out holds then means nothing), GISMO_EINVAL if the payload is shorter. */
GISMO_API int gismo_peek(gismo_store *store, const gismo_handle *handle, uint64_t offset, uint64_t bytes, void *out);
/* gismo_peek of the first bytes of n objects, end to end in out; results[i]: what it returned for handles[i]. */
GISMO_API int gismo_peek_many(gismo_store *store, const gismo_handle *handles, uint32_t n, uint64_t bytes, void *out,
                              int *results);

typedef struct gismo_stats {
    uint64_t data_bytes;         /* of the pool */
    uint64_t used_bytes;         /* extents of all lanes, by a scan */
    uint64_t free_bytes;         /* for this host: in its arenas and unleased */
    uint64_t largest_free_bytes; /* likewise */
    uint64_t sealed_objects, writing_objects, deleted_objects;
    uint64_t free_objects;
    uint64_t pins_here;          /* pins of this process */
    uint64_t puts, gets, deletes, put_bytes, get_bytes; /* of this host since it joined */
    uint64_t recovered_processes, recovered_objects;
    uint32_t lane, processes;    /* living processes of this host */
    uint32_t arenas_owned, groups_owned;
} gismo_stats;
GISMO_API int gismo_get_stats(gismo_store *store, gismo_stats *out);

enum gismo_lane_state {
    GISMO_LANE_FREE = 0,
    GISMO_LANE_ACTIVE = 1,
    GISMO_LANE_QUIET = 2,
    GISMO_LANE_FENCED = 3,
    GISMO_LANE_RELEASED = 4
};
/* What `gismo litmus` tests of A1 to A3 (FORMAT.md), in the order in which all arrays of four have them. */
enum gismo_litmus_test {
    GISMO_LITMUS_DEKKER = 0,        /* A1.dekker */
    GISMO_LITMUS_MESSAGE = 1,       /* A1.message */
    GISMO_LITMUS_NEVER_DIRTIED = 2, /* A2.never_dirtied */
    GISMO_LITMUS_TEARING = 3        /* A3.tearing */
};
enum gismo_litmus_outcome {
    GISMO_LITMUS_NONE = 0, /* never run here in this boot */
    GISMO_LITMUS_HOLDS = 1,
    GISMO_LITMUS_VIOLATED = 2,
    GISMO_LITMUS_NOT_MEANINGFUL = 3
};
enum gismo_litmus_reason { GISMO_LITMUS_FILE = 1, GISMO_LITMUS_ONE_MACHINE = 2 }; /* bits */
typedef struct gismo_litmus_verdict {
    uint64_t tested_unix_ns;
    uint32_t rounds[4];     /* of each side; 0 = not run, UINT32_MAX = as many or more */
    uint32_t violations[4]; /* likewise */
    uint8_t partner_boot_id[16];
    uint32_t partner_host;
    uint32_t outcome; /* enum gismo_litmus_outcome; NONE: nothing else is set */
    uint32_t reasons; /* why it is not meaningful: enum gismo_litmus_reason */
    uint32_t reserved;
} gismo_litmus_verdict;

typedef struct gismo_host_info {
    uint32_t host_id, state; /* enum gismo_lane_state: FENCED and RELEASED as the hosts agreed, else as the host says */
    uint64_t incarnation;
    uint64_t heartbeat;
    uint64_t heartbeat_unix_ns;
    uint64_t joined_unix_ns;
    uint8_t boot_id[16];
    uint8_t state_dir_uuid[16];
    uint64_t used_bytes; /* of its objects */
    uint64_t objects;
    uint32_t arenas, groups;
    uint32_t is_self;
    uint32_t silent_samples; /* looks of this host in a row that found the heartbeat unchanged; read-only opened: 0 */
    gismo_litmus_verdict litmus; /* found by that host */
} gismo_host_info;
/* GISMO_ENOTFOUND past the last host id. */
GISMO_API int gismo_host(gismo_store *store, uint32_t host_id, gismo_host_info *out);

typedef struct gismo_process_info {
    uint32_t index, is_self;
    uint64_t epoch;
    int64_t pid; /* inside its own PID namespace: for people, never for decisions */
    uint64_t joined_unix_ns;
    uint64_t puts, gets, deletes, put_bytes, get_bytes;
    uint64_t pins, writing; /* objects pinned, being written */
    uint32_t alive, chunks; /* slot chunks it has claimed */
    char command[64];
} gismo_process_info;
/* Processes of this host: next at or after *cursor; GISMO_ENOTFOUND at the end. */
GISMO_API int gismo_process(gismo_store *store, uint32_t *cursor, gismo_process_info *out);

/* Looks at a host's heartbeat, one a second, that must find it unchanged before it is suspected to be gone. */
#define GISMO_SILENT_SAMPLES 10u
enum gismo_evict_flags {
    GISMO_EVICT_CONFIRMED_OFF = 1, /* the caller knows that the host does not run and will not go on: else corruption */
    GISMO_EVICT_FORCE = 2 /* fence it although it is not suspected */
};
typedef struct gismo_evict_result {
    uint32_t state; /* enum gismo_lane_state, as far as it has come; QUIET when all is done */
    uint32_t silent_samples; /* of GISMO_SILENT_SAMPLES, while it is ACTIVE */
    uint64_t objects, object_bytes; /* of the host that stay, when all is done */
    uint64_t left; /* 1 = deleted objects of it are still read by other hosts: their room comes back when they let go */
} gismo_evict_result;
/* Takes a host that is gone out of the store: fences it if it is silent, and once it is proven to have stopped frees what it
 * held or had not finished; its sealed objects stay. GISMO_EBUSY: not yet; out says how far it came, call again.
 * boot_id: 16 bytes, only if it is that boot of the host (GISMO_ENOTFOUND: it has been back since); or NULL. */
GISMO_API int gismo_evict_host(gismo_store *store, uint32_t host_id, const uint8_t *boot_id, uint32_t flags,
                               gismo_evict_result *out);

enum gismo_fsck_flags {
    GISMO_FSCK_VERIFY = 1, /* payload CRCs */
    GISMO_FSCK_REPAIR = 2,
    GISMO_FSCK_TELL = 4 /* report GISMO_FSCK_PROGRESS, too */
};
enum gismo_fsck_severity {
    GISMO_FSCK_NOTE = 0,
    GISMO_FSCK_WARNING = 1,
    GISMO_FSCK_ERROR = 2,
    GISMO_FSCK_REPAIRED = 3,
    GISMO_FSCK_PROGRESS = 4 /* no finding: `slot` is how many bytes of payloads have been verified so far */
};
typedef void (*gismo_fsck_report)(uint32_t severity, const char *code, const char *message, uint64_t slot, void *ctx);
typedef struct gismo_fsck_result {
    uint64_t objects, payloads_verified, notes, warnings, errors, repaired;
    uint64_t leaked_bytes; /* neither free nor any object's, on this host's arenas */
} gismo_fsck_result;
/* GISMO_OK when no error is left, GISMO_ECORRUPT otherwise. */
GISMO_API int gismo_fsck(gismo_store *store, uint32_t flags, gismo_fsck_report report, void *ctx,
                         gismo_fsck_result *out);

/* One round of the background work (elected per host); reaps the dead. Returns units of work done or an error. */
GISMO_API int gismo_tick(gismo_store *store);

/* ---- litmus: is this hardware as A1 to A3 of FORMAT.md say? ---------------------------------------- */

/* Two sides, on two hosts or not, have an area each that they alone write, and see the other's. Each calls gismo_litmus_run for
 * the same test until it says that it is over. What goes through the areas needs nothing of the hardware but what is tested. */
#define GISMO_LITMUS_BYTES 4096u
#define GISMO_LITMUS_WORDS 24u

typedef struct gismo_litmus {
    void *own; /* GISMO_LITMUS_BYTES, aligned to 64; gismo_litmus_begin was called before the other could see it */
    const void *other; /* the partner's area, as this side sees it */
    uint64_t rounds; /* to do */
    uint64_t limit_ns; /* end after as long, with fewer; 0 = no limit */
    uint32_t test; /* enum gismo_litmus_test */
    uint32_t flawed; /* to test the test: this side does what the assumption says that hardware does not do */
    /* Zero to begin with. */
    uint64_t done; /* rounds in which something was checked */
    uint64_t violations; /* rounds in which it was not as it must be */
    uint64_t contended; /* rounds in which the two came so close that only the assumption kept them right */
    uint64_t idle_ns; /* how long nothing has come from the partner */
    uint64_t private_[8];
} gismo_litmus;

/* Makes an area of zeros. */
GISMO_API int gismo_litmus_begin(void *own);
/* Words by which whoever runs the tests agrees with the partner on what is run: one's own, and the other's. */
GISMO_API int gismo_litmus_say(void *own, uint32_t word, uint64_t value);
GISMO_API int gismo_litmus_hear(const void *other, uint32_t word, uint64_t *value);
/* About slice_ns of the test: 0 = call again, 1 = it is over. GISMO_ECORRUPT: what the partner wrote makes no sense. */
GISMO_API int gismo_litmus_run(gismo_litmus *run, uint64_t slice_ns);
/* Writes this host's verdict into its lane, where gismo_host finds it. */
GISMO_API int gismo_litmus_record(gismo_store *store, const gismo_litmus_verdict *verdict);

/* ---- primitives, for bench and doctor -------------------------------------------------------- */

/* memcpy as put does it. mode: 0 as put would, 1 cached, 2 non-temporal; threads 0 = as put would. crc may be NULL. */
GISMO_API void gismo_copy(void *dst, const void *src, uint64_t length, int mode, int threads, uint32_t *crc);
/* Write this host's cached lines of [p, p+bytes) back to the medium and drop them: later loads see the medium. */
GISMO_API void gismo_sync(const void *p, uint64_t bytes);
GISMO_API uint32_t gismo_crc32c(uint32_t crc, const void *data, uint64_t length);
/* bit 0 clwb, 1 clflushopt, 2 avx512f, 3 vpclmulqdq, 4 sse4.2, 5 movdir64b */
GISMO_API uint32_t gismo_cpu_features(void);

#ifdef __cplusplus
}
#endif
#endif
