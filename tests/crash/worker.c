/*
 * worker.c - runs crash cases: a victim process is killed or stopped at a numbered site (sites.h) in the middle of a scenario,
 * and then everything that FORMAT.md promises is looked at from the processes that live on.
 *
 * Built by conftest.py with all of gismo_core/native and -DGISMO_SITES. One case = one fresh store of 8 MiB, two hosts:
 *   V  the victim, of host A         N  a neighbour of host A, open before    B  a process of host B
 *   F  of host A, opened afterwards  S, T  of hosts A and B: what goes on while V is stopped
 * N, B, F, S, T are servers that do one request at a time, so a scenario is a script and its interleaving is fixed.
 *
 * Every object has an entry in shared memory, changed before and after each operation. After a death the entries say
 * what must be readable, what must not be, and what may be either.
 */
#include "internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

uint32_t gismo_sites_count(void);
int gismo_sites_info(uint32_t index, const char **file, const char **function, uint32_t *line, uint32_t *kind,
                     uint64_t *hits);
void gismo_sites_arm(int32_t index, uint64_t nth, int signal_number);

#define ENTRIES 8192u
#define SITES 1024u
#define TAG_BASE 0x6372617368000000ull
#define MS 1000000ull
#define STORE_BYTES (8ull << 20)
#define LIMIT_NS (20000 * MS)

enum state { NONE, PUTTING, CREATED, SEALING, SEALED, DELETING, DELETED };
enum who { N, B, F, S, T, SERVERS };
enum command {
    OPEN,
    CLOSE,
    PUT,
    GET,
    RELEASE,
    RELEASE_ALL,
    DELETE,
    TICK,
    AUTOTICK,
    CHECK,
    DELETE_ALL,
    CLEAN,
    AUDIT,
    STRESS,
    QUIT,
    LIE,
    EVICT
};

struct entry {
    uint32_t state;
    uint32_t buffers;
    uint64_t length;
    gismo_handle handle;
    char name[32];
    uint32_t offered; /* left alone by the victim, for the stressers to delete */
    uint32_t pad;
};

struct channel {
    uint32_t request, done;
    uint32_t command, pad;
    uint64_t argument[4];
    int64_t result;
};

struct shared {
    uint32_t used;
    int32_t failed;
    int32_t child; /* of the victim's fork */
    uint32_t fencing; /* host A is fenced in this case: its calls say so, and then its process ends */
    uint32_t fenced;  /* so many of its processes were told */
    uint32_t completed;
    struct channel channel[SERVERS];
    struct entry entry[ENTRIES];
    uint64_t hits[SITES];
    uint64_t longest_ns[2], operations[2];
    char longest_what[2][32];
    char full[200];
    char error[8192];
};

static struct shared *sh;
static char folder[512], pool[600];
static pid_t servers[SERVERS];
static uint64_t file_leaks;

/* ---- complaining ------------------------------------------------------------------------------ */

__attribute__((format(printf, 1, 2))) static void bad(const char *format, ...) {
    char text[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t used = strlen(sh->error);
    if (used + strlen(text) + 4 < sizeof sh->error)
        snprintf(sh->error + used, sizeof sh->error - used, "%s%s", used ? "; " : "", text);
    __atomic_store_n(&sh->failed, 1, __ATOMIC_SEQ_CST);
}

static void fenced_out(void);

static void must(int status, const char *what) {
    if (status == GISMO_OK)
        return;
    if (status == GISMO_EFENCED && __atomic_load_n(&sh->fencing, __ATOMIC_SEQ_CST))
        fenced_out();
    bad("%s: %s (%s)", what, gismo_status_name(status), gismo_error_message());
    _exit(3);
}

/* ---- objects ---------------------------------------------------------------------------------- */

static uint8_t scratch[2 << 20];

/* Bytes [from, from + bytes) of an object's content, in which each word of eight is another. */
static void fill(uint8_t *to, uint64_t id, uint64_t from, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes;) {
        uint64_t at = from + done, skipped = at % 8, left = bytes - done, count = left < 8 - skipped ? left : 8 - skipped;
        uint64_t word = (at / 8 + 1) * 0x9e3779b97f4a7c15ull ^ id * 0xd1342543de82ef95ull;
        if (count == 8)
            memcpy(to + done, &word, 8);
        else
            memcpy(to + done, (const uint8_t *)&word + skipped, count);
        done += count;
    }
}

static struct entry *entry_of(uint32_t id) { return &sh->entry[id - 1]; }
static void set(uint32_t id, enum state state) { __atomic_store_n(&entry_of(id)->state, state, __ATOMIC_SEQ_CST); }
static enum state state_of(uint32_t id) { return __atomic_load_n(&entry_of(id)->state, __ATOMIC_SEQ_CST); }

static uint32_t new_entry(enum state state, uint64_t length, const char *name, uint32_t buffers) {
    uint32_t id = __atomic_add_fetch(&sh->used, 1, __ATOMIC_SEQ_CST);
    if (id > ENTRIES) {
        bad("too many objects");
        _exit(3);
    }
    struct entry *e = entry_of(id);
    e->length = length;
    e->buffers = buffers;
    if (name)
        snprintf(e->name, sizeof e->name, "%s", name);
    set(id, state);
    return id;
}

static uint64_t part(const struct entry *e, uint32_t i) {
    uint64_t each = e->length / e->buffers;
    return i + 1 == e->buffers ? e->length - each * (e->buffers - 1) : each;
}

static gismo_create_options options_of(uint32_t id) {
    struct entry *e = entry_of(id);
    gismo_create_options o = {0};
    if (e->name[0]) {
        o.name = e->name;
        o.name_bytes = (uint32_t)strlen(e->name);
    }
    o.tag = TAG_BASE | id;
    return o;
}

/* 0 = full. */
static uint32_t put_entry(gismo_store *s, uint64_t length, const char *name, uint32_t buffers) {
    uint32_t id = new_entry(PUTTING, length, name, buffers);
    struct entry *e = entry_of(id);
    gismo_buffer parts[16];
    fill(scratch, id, 0, length);
    uint64_t at = 0;
    for (uint32_t i = 0; i < buffers; i++) {
        parts[i] = (gismo_buffer){scratch + at, part(e, i)};
        at += parts[i].length;
    }
    gismo_create_options o = options_of(id);
    int status = gismo_put(s, parts, buffers, &o, &e->handle);
    if (status == GISMO_EFULL) {
        set(id, DELETED);
        snprintf(sh->full, sizeof sh->full, "%s", gismo_error_message());
        return 0;
    }
    must(status, "put");
    set(id, SEALED);
    return id;
}

static uint32_t put_name(gismo_store *s, uint64_t length) {
    char name[32];
    snprintf(name, sizeof name, "name-%u", sh->used);
    return put_entry(s, length, name, 1);
}

static uint32_t put(gismo_store *s, uint64_t length) { return put_entry(s, length, NULL, 1); }

static bool dies_first; /* one of those that kill_some makes */

static uint32_t create(gismo_store *s, uint64_t length, gismo_object *object) {
    uint32_t id = new_entry(CREATED, length, NULL, 1);
    gismo_create_options o = options_of(id);
    int status = gismo_create(s, length, &o, object);
    if (status == GISMO_EFULL && dies_first) { /* those before it left the store full: then it dies here */
        set(id, DELETED);
        _exit(0);
    }
    must(status, "create");
    entry_of(id)->handle = object->handle;
    fill(object->data, id, 0, length);
    return id;
}

static void seal(gismo_store *s, uint32_t id, gismo_object *object) {
    set(id, SEALING);
    must(gismo_seal(s, object, id % 2), "seal");
    set(id, SEALED);
}

static void drop(gismo_store *s, uint32_t id, gismo_object *object) {
    must(gismo_abort(s, object), "abort");
    set(id, DELETED);
}

/* Is what the view shows what was put? */
static bool right(gismo_store *s, uint32_t id, const gismo_view *view) {
    static uint8_t expected[2 << 20];
    struct entry *e = entry_of(id);
    uint64_t lengths[16], at = 0, from = 0;
    if (view->tag != (TAG_BASE | id) || view->buffers != e->buffers || e->buffers > 16)
        return false;
    if (gismo_view_buffers(s, view, lengths) != GISMO_OK)
        return false;
    for (uint32_t i = 0; i < e->buffers; i++) {
        at = (at + 63) & ~63ull;
        if (lengths[i] != part(e, i) || at + lengths[i] > view->length)
            return false;
        fill(expected, id, from, lengths[i]);
        if (memcmp(expected, (const uint8_t *)view->data + at, lengths[i]) != 0)
            return false;
        at += lengths[i];
        from += lengths[i];
    }
    return at == view->length && (!view->has_crc || gismo_view_verify(s, view) == GISMO_OK);
}

static uint32_t pinned[32], pins; /* by this process */
static gismo_view pinned_view[32];
static gismo_store *of_this_process;
static struct channel *served_by_this_process;

/* We were told. What we had mapped is ours still; nothing more is written by us. Then we leave in order, or at once. */
static void fenced_out(void) {
    static uint8_t expected[2 << 20];
    uint64_t fencing = sh->fencing;
    for (uint32_t i = 0; i < 32; i++) {
        if (pinned[i] == 0 || entry_of(pinned[i])->buffers != 1)
            continue;
        fill(expected, pinned[i], 0, entry_of(pinned[i])->length);
        if (memcmp(expected, pinned_view[i].data, entry_of(pinned[i])->length) != 0)
            bad("object %u, which a fenced process reads, has changed", pinned[i]);
    }
    __atomic_add_fetch(&sh->fenced, 1, __ATOMIC_SEQ_CST);
    if (fencing == 2 && of_this_process) {
        for (uint32_t i = 0; i < 32; i++)
            if (pinned[i] && gismo_release(of_this_process, pinned_view[i].slot) != GISMO_OK)
                bad("a fenced process cannot give a view back: %s", gismo_error_message());
        if (gismo_close(of_this_process) != GISMO_OK)
            bad("a fenced process cannot close: %s", gismo_error_message());
    }
    struct channel *c = served_by_this_process;
    if (c) { /* who waits for the answer is told as much */
        c->result = -GISMO_EFENCED;
        __atomic_store_n(&c->done, c->request, __ATOMIC_SEQ_CST);
        futex_wake(&c->done, 1);
    }
    _exit(42);
}

static void pin(gismo_store *s, uint32_t id) {
    gismo_view view;
    must(gismo_get(s, &entry_of(id)->handle, &view), "get");
    pinned_view[pins % 32] = view;
    pinned[pins++ % 32] = id;
    if (!right(s, id, &view))
        bad("object %u has wrong content", id);
}

static void unpin(gismo_store *s, uint32_t id) {
    for (uint32_t i = 0; i < 32; i++)
        if (pinned[i] == id)
            pinned[i] = 0;
    must(gismo_release(s, entry_of(id)->handle.slot), "release");
}

static void unpin_all(gismo_store *s) {
    for (uint32_t i = 0; i < 32; i++)
        if (pinned[i])
            unpin(s, pinned[i]);
}

static void erase(gismo_store *s, uint32_t id) {
    set(id, DELETING);
    must(gismo_delete(s, &entry_of(id)->handle), "delete");
    set(id, DELETED);
}

static void tick(gismo_store *s, int times) {
    for (int i = 0; i < times; i++) {
        int status = gismo_tick(s);
        if (status < 0)
            must(status, "tick");
    }
}

/* ---- servers ---------------------------------------------------------------------------------- */

static void wait_idle(enum who who) {
    struct channel *c = &sh->channel[who];
    uint64_t end = now_ns() + LIMIT_NS;
    for (;;) {
        uint32_t done = __atomic_load_n(&c->done, __ATOMIC_SEQ_CST);
        if (done == __atomic_load_n(&c->request, __ATOMIC_SEQ_CST))
            return;
        if (now_ns() > end || __atomic_load_n(&sh->failed, __ATOMIC_SEQ_CST) > 1) {
            bad("server %d hangs in command %u", who, c->command);
            _exit(4);
        }
        futex_wait(&c->done, done, 50 * MS, 1);
    }
}

static void begin(enum who who, enum command command, uint64_t a, uint64_t b, uint64_t d) {
    if (who == B && of_this_process && served_by_this_process == NULL && sh->fencing)
        fenced_out(); /* the victim: what the other host does now, it does not do for it */
    struct channel *c = &sh->channel[who];
    wait_idle(who);
    c->command = command;
    c->argument[0] = a;
    c->argument[1] = b;
    c->argument[2] = d;
    __atomic_add_fetch(&c->request, 1, __ATOMIC_SEQ_CST);
    futex_wake(&c->request, 1);
}

static int64_t finish(enum who who) {
    wait_idle(who);
    if (sh->fencing && sh->channel[who].result == -GISMO_EFENCED && of_this_process)
        fenced_out(); /* the victim asked a neighbour, which is gone now */
    return sh->channel[who].result;
}

static int64_t call(enum who who, enum command command, uint64_t a, uint64_t b, uint64_t d) {
    begin(who, command, a, b, d);
    return finish(who);
}

static gismo_store *open_host(int host, int with_thread) {
    char state[700];
    snprintf(state, sizeof state, "%s/state-%c", folder, 'a' + host);
    gismo_open_options o = {.state_dir = state, .host_id = -1, .no_thread = !with_thread};
    gismo_store *s;
    must(gismo_open(pool, &o, &s), "open");
    of_this_process = s;
    return s;
}

static void fsck_report(uint32_t severity, const char *code, const char *message, uint64_t slot, void *ctx) {
    (void)slot;
    (void)ctx;
    if (severity == GISMO_FSCK_WARNING || severity == GISMO_FSCK_ERROR)
        bad("fsck %s: %s", code, message);
}

/* Chunks that nobody claims: are they where an allocator and a sweeper look? */
static void check_maps(gismo_store *s) {
    for (uint32_t c = 0; c < s->chunks; c++) {
        if (!unit_is_mine(s, AGREE_GROUP, chunk_group(s, c)) || loc_load(&s->host.chunk[c].claim) != 0)
            continue;
        struct fmt_chunk h;
        if (!chunk_header_read(s, c, &h)) {
            bad("chunk %u: bad header", c);
            continue;
        }
        if ((h.word & 0xff) == FMT_CHUNK_NONE) {
            if (!bit_get(s->host.free_chunks, c))
                bad("chunk %u is free, and lost", c);
            continue;
        }
        if (loc_load(&s->host.chunk[c].free) && !bit_get(s->host.partial + (h.word >> 8 & 0xff) * s->host.words, c))
            bad("chunk %u has free slots that no allocator finds", c);
        if (loc_load(&s->host.chunk[c].deleted) && !bit_get(s->host.retire, c))
            bad("chunk %u has deleted slots that no sweep finds", c);
    }
}

/* All that must hold after a death, as seen by this process. `processes` = how many of this host live. */
/* A verdict that was half written is none. */
static void check_verdicts(gismo_store *s) {
    gismo_host_info info;
    for (uint32_t host = 0; gismo_host(s, host, &info) == GISMO_OK; host++) {
        const gismo_litmus_verdict *v = &info.litmus;
        bool same = v->partner_boot_id[0] == v->tested_unix_ns && v->partner_boot_id[15] == v->tested_unix_ns;
        for (int i = 0; i < 4; i++)
            same &= v->rounds[i] == v->tested_unix_ns && v->violations[i] == v->tested_unix_ns;
        if (!same)
            bad("the verdict of host %u is a mixture", host);
    }
}

static void check(gismo_store *s, uint64_t processes, bool others_pin) {
    check_verdicts(s);
    gismo_stats st;
    must(gismo_get_stats(s, &st), "stats");
    if (st.writing_objects != 0)
        bad("%llu objects are being written by nobody", (unsigned long long)st.writing_objects);
    if (processes && st.processes != processes)
        bad("%u processes are said to live, not %llu", st.processes, (unsigned long long)processes);
    static uint8_t seen[ENTRIES + 1];
    memset(seen, 0, sizeof seen);
    uint64_t cursor = 0;
    gismo_object_info info;
    while (gismo_next(s, &cursor, &info) == GISMO_OK) {
        uint32_t id = (uint32_t)(info.tag & 0xffffff);
        if (info.state != GISMO_SEALED) {
            if (info.state == GISMO_DELETED && others_pin)
                continue;
            bad("slot %u is in state %u (tag %llx, pinned lanes %llx, owner %u)", info.handle.slot, info.state,
                (unsigned long long)info.tag, (unsigned long long)info.pinned_lanes, info.owner_lane);
            continue;
        }
        if ((info.tag & ~0xffffffull) != TAG_BASE || id == 0 || id > sh->used) {
            bad("slot %u holds an object that nobody made", info.handle.slot);
            continue;
        }
        enum state state = state_of(id);
        if (seen[id]++)
            bad("object %u is there twice", id);
        if (state == DELETED || state == CREATED || state == NONE)
            bad("object %u is there although it was %s", id, state == DELETED ? "deleted" : "never sealed");
        gismo_view view;
        int status = gismo_get(s, &info.handle, &view);
        if (status != GISMO_OK) {
            bad("object %u: get says %s", id, gismo_status_name(status));
            continue;
        }
        if (!right(s, id, &view))
            bad("object %u (slot %u, length %llu) has wrong content", id, info.handle.slot,
                (unsigned long long)info.handle.length);
        must(gismo_release(s, view.slot), "release");
        entry_of(id)->handle = info.handle;
        gismo_handle found;
        if (entry_of(id)->name[0] &&
            (gismo_lookup(s, entry_of(id)->name, (uint32_t)strlen(entry_of(id)->name), 0, &found) != GISMO_OK ||
             found.slot != info.handle.slot || found.generation != info.handle.generation))
            bad("object %u is not found by its name", id);
    }
    for (uint32_t id = 1; id <= sh->used; id++) {
        struct entry *e = entry_of(id);
        enum state state = state_of(id);
        if (state == SEALED && !seen[id])
            bad("object %u (slot %u, length %llu) is lost", id, e->handle.slot, (unsigned long long)e->length);
        gismo_view view;
        if (state == DELETED && e->handle.length && gismo_get(s, &e->handle, &view) == GISMO_OK) {
            bad("object %u (slot %u, length %llu, of lane %u) can be read after its delete by lane %u", id,
                e->handle.slot, (unsigned long long)e->handle.length, e->handle.lane, s->lane);
            gismo_release(s, view.slot);
        }
    }
    gismo_fsck_result result;
    gismo_fsck(s, GISMO_FSCK_VERIFY, fsck_report, NULL, &result);
    if (result.errors || result.leaked_bytes || result.warnings)
        bad("fsck: %llu errors, %llu warnings, %llu bytes leaked", (unsigned long long)result.errors,
            (unsigned long long)result.warnings, (unsigned long long)result.leaked_bytes);
    check_maps(s);
}

static uint64_t delete_all(gismo_store *s) {
    uint64_t cursor = 0, left = 0;
    gismo_object_info info;
    while (gismo_next(s, &cursor, &info) == GISMO_OK) {
        uint32_t id = (uint32_t)(info.tag & 0xffffff);
        if (info.state == GISMO_SEALED) {
            int status = gismo_delete(s, &info.handle);
            if (status != GISMO_OK && status != GISMO_EGONE)
                must(status, "delete");
            if (id && id <= sh->used)
                set(id, DELETED);
        }
        left++;
    }
    return left;
}

/* After the store was emptied, closed by all and opened again: is the whole capacity there? */
static void audit(gismo_store *s) {
    uint64_t tables = 0, foreign = 0, taken = 0;
    for (uint32_t c = 0; c < s->chunks; c++) {
        struct fmt_chunk h;
        if (!chunk_header_read(s, c, &h)) {
            bad("chunk %u: bad header at the end", c);
            continue;
        }
        uint32_t kind = h.word & 0xff;
        if (kind == FMT_CHUNK_SMALL)
            bad("chunk %u of class %u is left although all is deleted", c, (uint32_t)(h.word >> 8 & 0xff));
        for (uint32_t i = 0; kind == FMT_CHUNK_LARGE && i < FMT_CHUNK_SLOTS; i++) {
            struct fmt_slot slot = s->slot[c * FMT_CHUNK_SLOTS + i];
            if (FMT_STATE(slot.word) == GISMO_FREE)
                continue;
            bool root = false;
            for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++)
                for (uint32_t level = 0; level < FMT_NAME_LEVELS; level++)
                    root |= s->lanes[lane].name_table[level] == slot.offset;
            /* Made, and its maker died before the root was written: the next name writes it. */
            bool own = unit_is_mine(s, AGREE_GROUP, chunk_group(s, c));
            for (uint32_t level = 0; level < FMT_NAME_LEVELS; level++)
                root |= !own || s->host.header->name_table_slot[level] == c * FMT_CHUNK_SLOTS + i + 1;
            if (FMT_STATE(slot.word) != GISMO_SEALED || !(slot.flags & FMT_SLOT_INTERNAL) || !root)
                bad("slot %u is left in state %u (flags %u, length %llu)", c * FMT_CHUNK_SLOTS + i,
                    FMT_STATE(slot.word), slot.flags, (unsigned long long)slot.length);
            if (unit_is_mine(s, AGREE_GROUP, chunk_group(s, c)))
                tables += (slot_extent_bytes(&slot) + FMT_PAGE - 1) / FMT_PAGE;
        }
        if (loc_load(&s->host.chunk[c].pending))
            bad("chunk %u has requests left", c);
    }
    for (uint32_t a = 0; a < s->sb.arenas; a++) {
        uint64_t first = a * arena_pages(s), end = first + arena_pages(s);
        if (end > s->host.pages)
            end = s->host.pages;
        uint32_t owner = agree_owner(agree_peek(s, agree_register_of(s, AGREE_ARENA, a)));
        bool mine = unit_is_mine(s, AGREE_ARENA, a);
        if (mine != (owner == s->lane + 1))
            bad("arena %u: the register says lane %d, the state directory says %s", a, (int)owner - 1,
                mine ? "ours" : "not ours");
        for (uint64_t page = first; page < end; page++) {
            if (mine)
                taken += bit_get(s->host.page_bits, page);
            else if (!bit_get(s->host.page_bits, page))
                bad("page %llu of arena %u, which is not ours, is marked free", (unsigned long long)page, a);
        }
        if (!mine && owner)
            foreign += end - first;
    }
    if (taken != tables)
        bad("%llu pages are taken, the tables of names have %llu", (unsigned long long)taken,
            (unsigned long long)tables);
    for (uint32_t g = 0; g < s->sb.groups; g++) {
        uint32_t owner = agree_owner(agree_peek(s, agree_register_of(s, AGREE_GROUP, g)));
        if (unit_is_mine(s, AGREE_GROUP, g) != (owner == s->lane + 1))
            bad("group %u: register and state directory disagree", g);
    }
    check_maps(s);
    gismo_stats st;
    must(gismo_get_stats(s, &st), "stats");
    if (st.free_bytes != (s->host.pages - foreign - tables) * FMT_PAGE)
        bad("%llu bytes are free, not %llu", (unsigned long long)st.free_bytes,
            (unsigned long long)(s->host.pages - foreign - tables) * FMT_PAGE);
    /* And it can be had: as one object that takes the longest run. */
    gismo_object object;
    int status = st.largest_free_bytes ? gismo_create(s, st.largest_free_bytes, NULL, &object) : GISMO_EFULL;
    if (st.largest_free_bytes == 0)
        return; /* the other host has it all: looked at there */
    if (status != GISMO_OK)
        bad("the largest free run (%llu bytes) cannot be had: %s", (unsigned long long)st.largest_free_bytes,
            gismo_error_message());
    else
        must(gismo_abort(s, &object), "abort");
}

static void stress(gismo_store *s, int host, uint64_t wanted) {
    static uint32_t ring[2][16];
    uint64_t longest = 0;
    char what[32] = "";
    uint32_t *mine = ring[host];
    for (uint64_t op = 0; op < wanted;) {
        uint32_t k = (uint32_t)(op / 3 % 16);
        const char *name = "put";
        uint64_t start = now_ns();
#define DONE(NAME)                                                                                                     \
    do {                                                                                                               \
        name = NAME;                                                                                                   \
        uint64_t took = now_ns() - start;                                                                              \
        op++;                                                                                                          \
        if (took > longest) {                                                                                          \
            longest = took;                                                                                            \
            snprintf(what, sizeof what, "%s", name);                                                                   \
        }                                                                                                              \
        start = now_ns();                                                                                              \
    } while (0)
        if (mine[k]) {
            erase(s, mine[k]);
            DONE("delete");
            set(mine[k], NONE); /* its entry is used again */
        }
        /* The same entries over and over: 1,000 operations times all sites would need too many. */
        if (mine[k] == 0)
            mine[k] = new_entry(PUTTING, op % 7 == 0 ? 9000 : 64 + op % 300, NULL, 1);
        else
            set(mine[k], PUTTING);
        struct entry *e = entry_of(mine[k]);
        fill(scratch, mine[k], 0, e->length);
        gismo_buffer buffer = {scratch, e->length};
        gismo_create_options o = options_of(mine[k]);
        start = now_ns();
        int status = gismo_put(s, &buffer, 1, &o, &e->handle);
        DONE("put");
        if (status == GISMO_EFULL) {
            set(mine[k], DELETED);
            mine[k] = 0;
        } else {
            must(status, "put");
            set(mine[k], SEALED);
            gismo_view view;
            start = now_ns();
            must(gismo_get(s, &e->handle, &view), "get");
            DONE("get");
            if (!right(s, mine[k], &view))
                bad("object %u has wrong content under stress", mine[k]);
            start = now_ns();
            must(gismo_release(s, view.slot), "release");
        }
        if (op / 50 != (op + 3) / 50) {
            start = now_ns();
            tick(s, 1);
            DONE("tick");
        }
        /* What the stopped one made and left alone: one of ours, one of the other stresser. */
        for (uint32_t id = 1; id <= sh->used && op % 5 == 0; id++) {
            uint32_t offered = 1u + (uint32_t)host;
            if (state_of(id) == SEALED && entry_of(id)->offered == offered) {
                start = now_ns();
                erase(s, id);
                DONE("delete-foreign");
                break;
            }
        }
    }
    for (uint32_t k = 0; k < 16; k++)
        if (mine[k]) {
            erase(s, mine[k]);
            mine[k] = 0;
        }
    if (longest > sh->longest_ns[host]) {
        sh->longest_ns[host] = longest;
        memcpy(sh->longest_what[host], what, sizeof what);
    }
    sh->operations[host] += wanted;
}

/* For the self-tests: spoils the store, or the books, so that the check must complain. */
static void lie(gismo_store *s, uint64_t kind, uint64_t id) {
    switch (kind) {
    case 1: /* an object that never was */
        new_entry(SEALED, 64, NULL, 1);
        break;
    case 2: /* one that should be gone */
        set((uint32_t)id, DELETED);
        break;
    case 3: { /* other content */
        uint64_t at = entry_of((uint32_t)id)->handle.offset;
        must(page_ensure_writable(s, at, 1), "writable");
        s->base[at] ^= 1;
        break;
    }
    case 4: /* a page that is nobody's */
        for (uint64_t page = 0; page < s->host.pages; page++)
            if (unit_is_mine(s, AGREE_ARENA, (uint32_t)(page / arena_pages(s))) && !bit_get(s->host.page_bits, page)) {
                bit_set(s->host.page_bits, page);
                break;
            }
        break;
    case 5: /* a page that is somebody's and marked free */
        bit_clear(s->host.page_bits, (entry_of((uint32_t)id)->handle.offset - s->sb.data_offset) / FMT_PAGE);
        break;
    case 6: /* a chunk that no allocator finds */
        for (uint32_t c = 0; c < s->chunks; c++)
            if (bit_get(s->host.free_chunks, c)) {
                bit_clear(s->host.free_chunks, c);
                break;
            }
        break;
    case 7: /* a name that leads nowhere */
        for (uint32_t i = 0; i < 4096; i++)
            ((uint64_t *)(void *)(s->base + s->lanes[s->lane].name_table[0]))[i] = 0;
        break;
    case 8: { /* an arena that nobody gives back: leased in the register, unknown to the state directory */
        for (uint32_t a = 0; a < s->sb.arenas; a++)
            if (unit_is_mine(s, AGREE_ARENA, a)) {
                __atomic_store_n(&s->host.arena[a].state, (uint32_t)HOST_UNIT_NONE, __ATOMIC_SEQ_CST); /* no site */
                break;
            }
        break;
    }
    default:
        bad("no lie %llu", (unsigned long long)kind);
    }
}

static int64_t evict_until(gismo_store *s, uint32_t host, uint32_t flags, uint32_t wanted) {
    gismo_evict_result result = {0};
    for (uint64_t end = now_ns() + LIMIT_NS / 2; now_ns() < end; sleep_ns(MS)) {
        int status = gismo_evict_host(s, host, NULL, flags, &result);
        if (status != GISMO_OK && status != GISMO_EBUSY)
            must(status, "evict");
        if (result.state == wanted)
            break;
    }
    if (result.state != wanted)
        bad("host %u is in state %u, not %u: %s", host, result.state, wanted, gismo_error_message());
    return result.state;
}

static int64_t serve_one(gismo_store **s, struct channel *c, enum who who, int *autotick) {
    uint64_t a = c->argument[0], b = c->argument[1], d = c->argument[2];
    int host = who == B || who == T;
    switch ((enum command)c->command) {
    case OPEN:
        *s = open_host(host, (int)a);
        return 0;
    case CLOSE:
        must(gismo_close(*s), "close");
        gismo_free(*s);
        *s = NULL;
        return 0;
    case PUT:
        if (b == 1)
            return put_name(*s, a);
        return put_entry(*s, a, NULL, b ? (uint32_t)b : 1);
    case GET:
        pin(*s, (uint32_t)a);
        return 0;
    case RELEASE:
        unpin(*s, (uint32_t)a);
        return 0;
    case RELEASE_ALL:
        unpin_all(*s);
        return 0;
    case DELETE:
        erase(*s, (uint32_t)a);
        return 0;
    case TICK:
        tick(*s, a ? (int)a : 1);
        return 0;
    case AUTOTICK:
        *autotick = (int)a;
        return 0;
    case CHECK:
        check(*s, a, b != 0);
        return 0;
    case DELETE_ALL:
        return (int64_t)delete_all(*s);
    case CLEAN: { /* nothing that is not free, but tables? */
        gismo_stats st;
        must(gismo_get_stats(*s, &st), "stats");
        return (int64_t)(st.sealed_objects + st.writing_objects + st.deleted_objects);
    }
    case AUDIT:
        audit(*s);
        return 0;
    case STRESS:
        stress(*s, host, a);
        return 0;
    case LIE:
        lie(*s, a, b);
        return 0;
    case EVICT: /* until the host stands there; the result is where it stands */
        return evict_until(*s, (uint32_t)a, (uint32_t)b, (uint32_t)d);
    case QUIT:
        break;
    }
    (void)d;
    _exit(0);
}

static void serve(enum who who) {
    struct channel *c = &sh->channel[who];
    gismo_store *s = NULL;
    int autotick = 0;
    uint32_t served = 0;
    served_by_this_process = c;
    for (;;) {
        uint32_t request = __atomic_load_n(&c->request, __ATOMIC_SEQ_CST);
        if (request == served) {
            if (autotick && s)
                tick(s, 1);
            futex_wait(&c->request, request, autotick ? 1 * MS : 1000 * MS, 1);
            if (getppid() == 1)
                _exit(0);
            continue;
        }
        c->result = serve_one(&s, c, who, &autotick);
        served = request;
        __atomic_store_n(&c->done, request, __ATOMIC_SEQ_CST);
        futex_wake(&c->done, 1);
    }
}

static void start_server(enum who who) {
    memset(&sh->channel[who], 0, sizeof sh->channel[who]);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        serve(who);
    }
    servers[who] = pid;
}

/* ---- scenarios: what the victim does ------------------------------------------------------------- */

static int32_t arm_site = -1;
static uint64_t arm_nth;
static int arm_signal;

static void offer(gismo_store *s) {
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t id = put(s, i % 4 == 3 ? 34000 : 64 + 16 * i);
        if (id) /* nested deaths may have left the store full of what is rightly sealed */
            entry_of(id)->offered = 1 + i % 2;
    }
}

static void close_store(gismo_store *s) {
    must(gismo_close(s), "close");
    gismo_free(s);
}

static void scenario_own(void) {
    static const uint64_t sizes[] = {1, 64, 100, 600, 4000, 33000, 70000, 300000};
    gismo_store *s = open_host(0, 0);
    uint32_t ids[32], n = 0, run[140];
    offer(s);
    for (uint32_t i = 0; i < 8; i++)
        ids[n++] = put(s, sizes[i]);
    ids[n++] = put_name(s, 200);
    ids[n++] = put_name(s, 40000);
    ids[n++] = put_entry(s, 500, NULL, 3);
    char many[32];
    snprintf(many, sizeof many, "many-%u", sh->used);
    ids[n++] = put_entry(s, 60000, many, 5);
    gismo_object object, other;
    ids[n] = create(s, 64, &object);
    uint32_t twin = create(s, 64, &other);
    seal(s, ids[n++], &object);
    ids[n] = create(s, 90000, &object);
    seal(s, ids[n++], &object);
    drop(s, twin, &other);
    uint32_t gone = create(s, 90000, &object);
    drop(s, gone, &object);
    for (uint32_t i = 0; i < n; i++)
        pin(s, ids[i]);
    must(gismo_retain(s, entry_of(ids[0])->handle.slot), "retain");
    unpin(s, ids[0]);
    for (uint32_t i = 1; i < n; i++)
        unpin(s, ids[i]);
    erase(s, ids[0]); /* pinned by us */
    tick(s, 1);
    unpin(s, ids[0]);
    pin(s, ids[6]);
    erase(s, ids[6]); /* large, pinned */
    unpin(s, ids[6]);
    for (uint32_t i = 1; i < n; i += 2)
        erase(s, ids[i]);
    for (uint32_t i = 0; i < 140; i++)
        run[i] = put(s, 700);
    for (uint32_t i = 0; i < 140; i++)
        erase(s, run[i]);
    tick(s, 1);
    put_name(s, 70);
    gismo_stats st;
    must(gismo_get_stats(s, &st), "stats");
    (void)create(s, 1000, &object); /* aborted by close */
    set(sh->used, DELETED);
    close_store(s);
}

static void scenario_neighbour(void) {
    gismo_store *s = open_host(0, 0);
    uint32_t a[8], v[10];
    offer(s);
    for (uint32_t i = 0; i < 6; i++)
        a[i] = (uint32_t)call(N, PUT, i < 4 ? 64 : 40000, i == 3, 0);
    pin(s, a[0]);
    erase(s, a[1]);
    erase(s, a[3]);
    erase(s, a[4]);
    erase(s, a[5]);
    call(N, TICK, 2, 0, 0);
    erase(s, (uint32_t)call(N, PUT, 40000, 0, 0)); /* a slot used again: its generation is not 0 */
    call(N, TICK, 1, 0, 0);
    unpin(s, a[0]);
    for (uint32_t i = 0; i < 10; i++)
        v[i] = i % 3 == 2 ? put_name(s, 80) : put(s, i % 3 == 1 ? 45000 : 80);
    for (uint32_t i = 0; i < 2; i++)
        call(N, GET, v[i], 0, 0);
    erase(s, v[0]);
    erase(s, v[1]);
    tick(s, 2);
    call(N, RELEASE, v[0], 0, 0);
    call(N, RELEASE, v[1], 0, 0);
    tick(s, 2);
    call(N, DELETE, v[2], 0, 0);
    call(N, DELETE, v[3], 0, 0);
    call(N, DELETE, v[4], 0, 0);
    tick(s, 1);
    call(N, DELETE, v[5], 0, 0);
    for (uint32_t i = 0; i < 70; i++) /* the open chunk's slots run out: it looks at requests and deleted slots */
        put(s, 80);
    gismo_object object;
    uint32_t id = create(s, 80, &object);
    call(N, DELETE, v[6], 0, 0);
    seal(s, id, &object);
    call(N, TICK, 1, 0, 0);
    call(N, DELETE, v[7], 0, 0);
    call(N, DELETE, v[8], 0, 0);
    close_store(s);
}

static void scenario_foreign(void) {
    gismo_store *s = open_host(0, 0);
    uint32_t f[8], g[8];
    offer(s);
    for (uint32_t i = 0; i < 6; i++)
        f[i] = (uint32_t)call(B, PUT, i == 4 ? 50000 : 64, i == 5, 0);
    pin(s, f[0]);
    erase(s, f[1]);
    call(B, TICK, 1, 0, 0);
    tick(s, 1);
    pin(s, f[2]);
    call(B, DELETE, f[2], 0, 0);
    call(B, TICK, 1, 0, 0);
    tick(s, 1);
    unpin(s, f[2]);
    sleep_ns(6 * MS);
    for (int i = 0; i < 2; i++) {
        call(B, TICK, 1, 0, 0);
        tick(s, 1);
    }
    unpin(s, f[0]);
    for (uint32_t i = 0; i < 6; i++)
        g[i] = put(s, i == 2 ? 50000 : 64);
    call(B, GET, g[0], 0, 0);
    erase(s, g[0]);
    tick(s, 1);
    call(B, TICK, 1, 0, 0);
    tick(s, 1);
    call(B, RELEASE, g[0], 0, 0);
    sleep_ns(6 * MS);
    for (int i = 0; i < 2; i++) {
        tick(s, 1);
        call(B, TICK, 1, 0, 0);
    }
    call(B, DELETE, g[1], 0, 0);
    call(B, DELETE, g[2], 0, 0);
    tick(s, 2);
    erase(s, f[4]);
    erase(s, f[5]);
    call(B, TICK, 1, 0, 0);
    call(B, GET, g[3], 0, 0);
    call(B, RELEASE, g[3], 0, 0);
    erase(s, g[3]);
    pin(s, f[3]);
    tick(s, 1);
    unpin(s, f[3]);
    close_store(s);
}

/* Arenas come, go and are wished for. */
static void scenario_lease(void) {
    gismo_store *s = open_host(0, 0);
    uint32_t ids[16], n = 0;
    offer(s);
    uint32_t b = (uint32_t)call(B, PUT, 900000, 0, 0), b2 = (uint32_t)call(B, PUT, 900000, 0, 0);
    if (b)
        call(B, DELETE, b, 0, 0);
    if (b2)
        call(B, DELETE, b2, 0, 0);
    call(B, AUTOTICK, 1, 0, 0);
    while (n < 16 && (ids[n] = put(s, 900000)) != 0)
        n++;
    for (uint32_t i = 0; i < n; i++)
        erase(s, ids[i]);
    call(B, AUTOTICK, 0, 0, 0);
    for (n = 0; n < 12; n++) /* a chunk each, so that slot groups become empty, too */
        ids[n] = put(s, 64 << (n % 6) << (n / 6 * 3));
    for (uint32_t i = 0; i < n; i++)
        if (ids[i])
            erase(s, ids[i]);
    begin(B, PUT, 1900000, 0, 0); /* B wishes, we return */
    for (int i = 0; i < 6; i++) {
        sleep_ns(MS);
        tick(s, 1);
    }
    uint32_t got = (uint32_t)finish(B);
    if (got)
        call(B, DELETE, got, 0, 0);
    put(s, 70000);
    close_store(s);
}

static void scenario_fork(void) {
    gismo_store *s = open_host(0, 0);
    uint32_t ids[6];
    offer(s);
    for (uint32_t i = 0; i < 6; i++)
        ids[i] = put(s, i == 5 ? 50000 : 128);
    pin(s, ids[0]);
    pin(s, ids[5]);
    gismo_object object;
    uint32_t writing = create(s, 128, &object);
    pid_t child = fork();
    if (child == 0) {
        if (arm_signal == SIGSTOP)
            gismo_sites_arm(-1, 0, 0); /* nobody would thaw it */
        unpin(s, ids[0]);
        pin(s, ids[1]);
        put(s, 128);
        put_name(s, 50000);
        erase(s, ids[5]);
        erase(s, ids[2]);
        unpin(s, ids[5]);
        unpin(s, ids[1]);
        tick(s, 1);
        close_store(s);
        _exit(0);
    }
    sh->child = child;
    int status;
    waitpid(child, &status, 0);
    sh->child = 0;
    unpin(s, ids[0]);
    unpin(s, ids[5]);
    seal(s, writing, &object);
    put(s, 128);
    tick(s, 1);
    close_store(s);
}

static void scenario_thread(void) {
    gismo_store *s = open_host(0, 1);
    offer(s);
    uint32_t v[4], a = (uint32_t)call(N, PUT, 64, 0, 0);
    for (int i = 0; i < 100 && loc_load(&s->host.header->leader) != s->claim; i++)
        sleep_ns(MS);
    for (uint32_t i = 0; i < 4; i++)
        v[i] = i == 3 ? put_name(s, 41000) : put(s, 90);
    erase(s, a);
    call(N, DELETE, v[0], 0, 0);
    call(N, DELETE, v[3], 0, 0);
    sleep_ns(14 * MS);
    uint32_t f = (uint32_t)call(B, PUT, 64, 0, 0);
    erase(s, f);
    call(B, DELETE, v[1], 0, 0);
    call(B, TICK, 1, 0, 0);
    sleep_ns(14 * MS);
    close_store(s);
}

/* The first process of the host: makes the state directory, takes the lane. */
static void scenario_join(void) {
    gismo_store *s = open_host(0, 0);
    offer(s);
    put_name(s, 64);
    put(s, 500000);
    tick(s, 1);
    close_store(s);
}

static void remove_tree(const char *path) {
    DIR *dir = opendir(path);
    if (dir == NULL)
        return;
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        char child[1200];
        struct stat st;
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        snprintf(child, sizeof child, "%s/%s", path, d->d_name);
        if (lstat(child, &st) == 0 && S_ISDIR(st.st_mode))
            remove_tree(child);
        else
            unlink(child);
    }
    closedir(dir);
    rmdir(path);
}

/* This host has begun to take the lane of a third one that left, and a process of it died over it: its state directory says nothing of it. */
static void begin_to_tidy(void) {
    gismo_store *s = open_host(0, 0), *left = open_host(2, 0);
    uint32_t lane = left->lane;
    close_store(left);
    uint64_t value = lane_register(s, lane);
    if (!host_claim(s, &s->host.lane_claim[lane]))
        bad("host c's lane is claimed by somebody");
    must(lane_agree(s, lane, value, LANE_VALUE(lane_incarnation(value) + 1, s->lane + 1, LANE_JOINING)), "agree");
    host_unclaim(s, &s->host.lane_claim[lane]);
    close_store(s);
}

/* The state directory is lost in between: all is rebuilt from the medium. */
static void scenario_rejoin(void) {
    call(N, OPEN, 0, 0, 0);
    begin_to_tidy();
    uint32_t a[12];
    for (uint32_t i = 0; i < 12; i++)
        a[i] = (uint32_t)call(N, PUT, i % 3 == 2 ? 40000 : 100 * (i + 1), i % 4 == 1, 0);
    call(B, GET, a[3], 0, 0);
    call(N, DELETE, a[3], 0, 0); /* stays DELETED */
    call(N, CLOSE, 0, 0, 0);
    char state[700];
    snprintf(state, sizeof state, "%s/state-a", folder);
    remove_tree(state);
    gismo_sites_arm(arm_site, arm_nth, arm_signal);
    gismo_store *s = open_host(0, 0);
    offer(s);
    call(B, RELEASE, a[3], 0, 0);
    erase(s, a[0]);
    erase(s, a[1]);
    erase(s, a[2]);
    put_name(s, 100);
    sleep_ns(6 * MS);
    tick(s, 1);
    call(B, TICK, 1, 0, 0);
    tick(s, 1);
    close_store(s);
}

/* What another host left in order is deleted: its lane is taken over for that, by the background work. */
static void scenario_serve(void) {
    uint32_t a[6];
    gismo_store *s = open_host(0, 0); /* before the other is QUIET, or its lane would be this host's */
    gismo_store *left = open_host(2, 0);
    for (uint32_t i = 0; i < 6; i++)
        a[i] = i % 2 ? put_name(left, 100 * (i + 1)) : put(left, i % 3 == 2 ? 40000 : 100);
    close_store(left);
    gismo_sites_arm(arm_site, arm_nth, arm_signal);
    offer(s);
    pin(s, a[5]);
    for (uint32_t i = 0; i < 6; i++)
        erase(s, a[i]);
    tick(s, 2);
    unpin(s, a[5]);
    s->serve_after_ns = 0; /* a test does not want to wait */
    tick(s, 2);
    close_store(s);
}

/* Verdicts of gismo litmus, of which each number says which it is. */
static void record(gismo_store *s, uint32_t n) {
    gismo_litmus_verdict v = {.tested_unix_ns = n, .partner_host = 1, .outcome = GISMO_LITMUS_VIOLATED};
    for (int i = 0; i < 4; i++)
        v.rounds[i] = v.violations[i] = n;
    memset(v.partner_boot_id, (int)n, sizeof v.partner_boot_id);
    must(gismo_litmus_record(s, &v), "record");
}

static void scenario_litmus(void) {
    gismo_store *s = open_host(0, 0);
    offer(s);
    gismo_object object;
    uint32_t area = create(s, GISMO_LITMUS_BYTES, &object);
    must(gismo_litmus_begin(object.data), "begin");
    drop(s, area, &object);
    record(s, 1);
    record(s, 2);
    close_store(s);
}

static void run_scenario(const char *name);

/* wspec: "scenario:site:nth,..." - those die first, one after another. */
static char wspec[512];

static void kill_some(void) {
    char copy[512], *save = NULL;
    snprintf(copy, sizeof copy, "%s", wspec);
    for (char *item = strtok_r(copy, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        char name[32];
        int site;
        unsigned long long nth;
        if (sscanf(item, "%31[^:]:%d:%llu", name, &site, &nth) != 3)
            continue;
        pid_t pid = fork();
        if (pid == 0) {
            wspec[0] = 0; /* no deaths before these deaths */
            dies_first = true;
            arm_site = site;
            arm_nth = nth;
            arm_signal = SIGKILL;
            gismo_sites_arm(site, nth, SIGKILL);
            run_scenario(name);
            _exit(0);
        }
        int status;
        waitpid(pid, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
            _exit(WEXITSTATUS(status));
    }
}

/* The victim recovers others. */
static void scenario_recover(void) {
    kill_some();
    gismo_sites_arm(arm_site, arm_nth, arm_signal);
    gismo_store *s = open_host(0, 0);
    put(s, 64);
    put(s, 40000);
    put_name(s, 700);
    tick(s, 2);
    gismo_stats st;
    must(gismo_get_stats(s, &st), "stats");
    tick(s, 1);
    gismo_fsck_result result;
    gismo_fsck(s, GISMO_FSCK_REPAIR, NULL, NULL, &result);
    offer(s);
    close_store(s);
}

static const struct {
    const char *name;
    void (*run)(void);
    int arms_itself, no_neighbour;
    uint64_t bytes;
} scenarios[] = {
    {"own", scenario_own, 0, 0, 0},
    {"neighbour", scenario_neighbour, 0, 0, 0},
    {"foreign", scenario_foreign, 0, 0, 0},
    {"lease", scenario_lease, 0, 0, 0},
    {"fork", scenario_fork, 0, 0, 0},
    {"thread", scenario_thread, 0, 0, 0},
    {"recover", scenario_recover, 1, 0, 0},
    {"join", scenario_join, 0, 1, 0},
    {"rejoin", scenario_rejoin, 1, 1, 0},
    {"serve", scenario_serve, 1, 1, 0},
    {"litmus", scenario_litmus, 0, 0, 0},
    {"large", scenario_join, 0, 1, 64ull << 20}, /* arenas of more than 64 pages */
};
#define SCENARIOS (sizeof scenarios / sizeof scenarios[0])

static size_t scenario_index(const char *name) {
    for (size_t i = 0; i < SCENARIOS; i++)
        if (strcmp(scenarios[i].name, name) == 0)
            return i;
    fprintf(stderr, "no scenario %s\n", name);
    exit(2);
}

static void run_scenario(const char *name) { scenarios[scenario_index(name)].run(); }

/* ---- one case --------------------------------------------------------------------------------- */

/* The file of the case before is formatted again: fresh pages would be a quarter of the time of all cases. */
static void fresh_store(uint64_t bytes) {
    for (char host = 'a'; host <= 'c'; host++) {
        char state[700];
        snprintf(state, sizeof state, "%s/state-%c", folder, host);
        remove_tree(state);
    }
    mkdir(folder, 0700);
    /* Software coherence, for it has the more places, though nothing is flushed here (no_flush.h). */
    gismo_format_options o = {
        .size_bytes = bytes ? bytes : STORE_BYTES, .max_hosts = 4, .coherence = 1, .force = 1};
    uint8_t uuid[16];
    int status = gismo_format(pool, &o, NULL, NULL, uuid);
    if (status == GISMO_EBUSY) { /* one whose case failed has not ended yet */
        unlink(pool);
        status = gismo_format(pool, &o, NULL, NULL, uuid);
    }
    must(status, "format");
}

static void settle(const enum who *who, int n) {
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < n; i++)
            call(who[i], TICK, 2, 0, 0);
}

/* Everybody deletes what is left, closes; opened again, all must be free. */
static void end_case(const enum who *who, int n) {
    settle(who, n);
    const uint64_t end = now_ns() + LIMIT_NS / 2; /* what does not go away is there for ever; how soon is not asked here */
    for (int round = 0;; round++) {
        call(who[0], DELETE_ALL, 0, 0, 0);
        for (int i = 0; i < n; i++)
            call(who[i], TICK, 1, 0, 0);
        if (call(who[0], CLEAN, 0, 0, 0) == 0)
            break;
        if (now_ns() > end) {
            bad("%lld objects do not go away", (long long)call(who[0], CLEAN, 0, 0, 0));
            call(who[0], CHECK, 0, 0, 0);
            break;
        }
        if (round > 1)
            sleep_ns(2 * MS);
    }
    settle(who, n);
    for (int i = 0; i < n; i++)
        call(who[i], CLOSE, 0, 0, 0);
    gismo_open_options look = {.read_only = 1};
    gismo_store *s;
    must(gismo_open(pool, &look, &s), "open read-only");
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++) {
        uint32_t state = FMT_STATE(lane_state_word(s, lane));
        if (state != GISMO_LANE_QUIET && state != GISMO_LANE_FREE)
            bad("lane %u is left in state %u", lane, state);
    }
    gismo_free(s);
    for (int host = 0; host < 2; host++) {
        enum who again = who[host == 0 ? 0 : n - 1]; /* the last one is of host B */
        call(again, OPEN, 0, 0, 0);
        call(again, TICK, 1, 0, 0);
        call(again, AUDIT, 0, 0, 0);
        call(again, CLOSE, 0, 0, 0);
    }
    /* A third host that left can return: nobody keeps its lane. */
    char third[700];
    struct stat st;
    snprintf(third, sizeof third, "%s/state-c", folder);
    if (lstat(third, &st) == 0) {
        lane_join_wait_ns = 2000 * (uint64_t)MS;
        close_store(open_host(2, 0));
    }
    /* Files of the dead in the state directories. */
    for (int host = 0; host < 2; host++) {
        char state[700];
        snprintf(state, sizeof state, "%s/state-%c", folder, 'a' + host);
        DIR *dir = opendir(state);
        for (struct dirent *d; dir && (d = readdir(dir)) != NULL;) {
            if (d->d_name[0] == '.')
                continue;
            char inner[1200];
            snprintf(inner, sizeof inner, "%s/%s", state, d->d_name);
            DIR *files = opendir(inner);
            for (struct dirent *f; files && (f = readdir(files)) != NULL;)
                if (f->d_name[0] != '.' && strcmp(f->d_name, "state") != 0 && strcmp(f->d_name, "locks") != 0)
                    file_leaks++;
            if (files)
                closedir(files);
        }
        if (dir)
            closedir(dir);
    }
}

static void kill_server(enum who who) {
    if (servers[who] <= 0)
        return;
    kill(servers[who], SIGKILL);
    waitpid(servers[who], NULL, 0);
    servers[who] = 0;
}

static void count_hits(uint64_t *hits) {
    const char *file, *function;
    uint32_t line, kind;
    for (uint32_t i = 0; i < gismo_sites_count() && i < SITES; i++)
        gismo_sites_info(i, &file, &function, &line, &kind, &hits[i]);
}

static pid_t start_victim(size_t scenario) {
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    static uint64_t before[SITES]; /* of the one who forked us and made the store */
    count_hits(before);
    if (!scenarios[scenario].arms_itself)
        gismo_sites_arm(arm_site, arm_nth, arm_signal);
    scenarios[scenario].run();
    gismo_sites_arm(-1, 0, 0);
    count_hits(sh->hits);
    for (uint32_t i = 0; i < SITES; i++)
        sh->hits[i] -= before[i];
    sh->completed = 1;
    _exit(0);
}

/* waitpid with a limit; the victim is not ours to kill, so what hangs is a finding. */
static int wait_victim(pid_t pid, int flags, int *status) {
    uint64_t end = now_ns() + LIMIT_NS;
    for (uint64_t step = 20000; waitpid(pid, status, WNOHANG | flags) == 0; step = step < MS ? step * 2 : step) {
        if (now_ns() > end) {
            kill(pid, SIGKILL);
            waitpid(pid, status, 0);
            bad("the victim hangs");
            return 0;
        }
        sleep_ns(step);
    }
    return 1;
}

/* ---- a whole host stands still, is fenced, goes on, and is released ------------------------------------------ */

/* Whose line it is: lanes, register lines, pin lines and rings by their place, the rest by the leases as they are agreed. -1 = nobody's. */
static int owner_of_line(gismo_store *look, uint64_t offset) {
    const struct fmt_superblock *sb = &look->sb;
    uint64_t identities = sb->max_lanes * sizeof(struct fmt_identity), at = offset - sb->lanes_offset;
    if (offset < sb->lanes_offset)
        return -1;
    if (offset < sb->registers_offset)
        return (int)(at < identities ? at / FMT_LINE : (at - identities) / sizeof(struct fmt_lane));
    if (offset < sb->chunks_offset)
        return (int)((offset - sb->registers_offset) / FMT_LINE % sb->max_lanes);
    if (offset >= sb->pins_offset && offset < sb->rings_offset)
        return (int)((offset - sb->pins_offset) / FMT_LINE / look->chunks);
    if (offset >= sb->rings_offset && offset < sb->data_offset) {
        uint64_t pair = (offset - sb->rings_offset) / FMT_RING_BYTES;
        bool head = (offset - sb->rings_offset) % FMT_RING_BYTES / FMT_LINE == 1;
        return (int)(head ? pair % sb->max_lanes : pair / sb->max_lanes);
    }
    enum agree_unit kind = offset >= sb->data_offset ? AGREE_ARENA : AGREE_GROUP;
    uint64_t chunk = offset < sb->slots_offset ? (offset - sb->chunks_offset) / FMT_LINE
                                               : (offset - sb->slots_offset) / FMT_LINE / FMT_CHUNK_SLOTS;
    uint32_t unit = kind == AGREE_ARENA ? (uint32_t)((offset - sb->data_offset) >> sb->arena_shift)
                                        : (uint32_t)(chunk / sb->group_chunks);
    return (int)agree_owner(agree_peek(look, agree_register_of(look, kind, unit))) - 1;
}

/* Of the whole medium, and of who had which line then. */
static uint8_t *snapshot(gismo_store *look, int8_t *owner) {
    uint8_t *copy = malloc(look->sb.size);
    if (copy == NULL)
        exit(4);
    memcpy(copy, look->base, look->sb.size);
    for (uint64_t line = 0; line < look->sb.size / FMT_LINE; line++)
        owner[line] = (int8_t)owner_of_line(look, line * FMT_LINE);
    return copy;
}

static uint64_t quarantined_changes;

static void compare(gismo_store *look, const uint8_t *before, const int8_t *owner, uint32_t host) {
    for (uint64_t line = 0; line < look->sb.size / FMT_LINE; line++) {
        if (memcmp(before + line * FMT_LINE, look->base + line * FMT_LINE, FMT_LINE) == 0)
            continue;
        /* A free arena or slot group, of which it was just asking all hosts: it has it now, or gave it back when it left. */
        int now = owner[line] == -1 ? owner_of_line(look, line * FMT_LINE) : owner[line];
        if (owner[line] == (int)host || (owner[line] == -1 && (now == -1 || now == (int)host)))
            quarantined_changes++;
        else
            bad("a fenced host that went on wrote at %#llx, which is of host %d", (unsigned long long)(line * FMT_LINE),
                owner[line]);
    }
}

/*
 * The victim is stopped, and so is its neighbour: all of host 0. It is fenced by host 1, which works on; then both go on, and each
 * next call is Fenced. mode: the proof that it stopped: 0 both close in order, 1 a new process of the host finds them dead, 2 the
 * operator's word.
 */
static void fence_case(pid_t victim, int *status, bool lonely, int mode) {
    const uint32_t host = 0;
    if (!lonely)
        kill(servers[N], SIGSTOP);
    __atomic_store_n(&sh->fencing, mode == 0 ? 2 : 1, __ATOMIC_SEQ_CST);
    call(B, AUTOTICK, 0, 0, 0); /* from the snapshot on only the fenced host does anything */
    call(B, EVICT, host, GISMO_EVICT_FORCE, GISMO_LANE_FENCED);
    call(T, STRESS, 200, 0, 0);
    gismo_open_options read_only = {.read_only = 1};
    gismo_store *look;
    must(gismo_open(pool, &read_only, &look), "open read-only");
    int8_t *owner = malloc(look->sb.size / FMT_LINE);
    uint8_t *before = snapshot(look, owner);
    if (!lonely)
        kill(servers[N], SIGCONT);
    kill(victim, SIGCONT);
    wait_victim(victim, 0, status);
    if (!lonely && servers[N] > 0) {
        int ended = 0;
        if (sh->channel[N].result != -GISMO_EFENCED) { /* the victim has not asked it since */
            call(N, TICK, 1, 0, 0);
            begin(N, PUT, 64, 0, 0);
        }
        (void)wait_victim(servers[N], 0, &ended);
        if (!WIFEXITED(ended) || WEXITSTATUS(ended) != 42)
            bad("the neighbour was not told that its host is fenced: status %x", ended);
        servers[N] = 0;
    }
    if (!WIFEXITED(*status) || (WEXITSTATUS(*status) != 42 && WEXITSTATUS(*status) != 0))
        bad("the victim ended with status %x", *status);
    if (sh->fenced == 0 && !lonely)
        bad("no process of the fenced host was told");
    compare(look, before, owner, host);
    gismo_free(look);
    free(before);
    free(owner);
    __atomic_store_n(&sh->fencing, 0, __ATOMIC_SEQ_CST);
    *status = 0;
    /* A delete that was asked of a process of the host, in its state directory, and not done yet, ends with the host: no more is promised. */
    for (uint32_t id = 1; id <= sh->used && mode != 0; id++)
        if (state_of(id) == DELETED)
            set(id, DELETING);
    if (mode != 1)
        call(B, EVICT, host, mode == 2 ? GISMO_EVICT_CONFIRMED_OFF : 0, GISMO_LANE_QUIET);
}

/* "killed", "stopped", "fenced", "unreached": what became of the victim. */
static const char *run_case(const char *action, const char *name, int mode) {
    size_t scenario = scenario_index(name);
    const char *outcome = "unreached";
    bool fence = strcmp(action, "fence") == 0, stop = fence || strcmp(action, "stop") == 0;
    bool lonely = scenarios[scenario].no_neighbour;
    memset(sh, 0, offsetof(struct shared, hits));
    memset(sh->error, 0, sizeof sh->error);
    memset(sh->longest_ns, 0, sizeof sh->longest_ns);
    fresh_store(scenarios[scenario].bytes);
    arm_signal = stop ? SIGSTOP : SIGKILL;
    start_server(N);
    start_server(B);
    if (!lonely)
        call(N, OPEN, 0, 0, 0);
    call(B, OPEN, 0, 0, 0);
    if (stop) {
        if (!lonely && !fence) {
            start_server(S);
            call(S, OPEN, 0, 0, 0);
            call(S, STRESS, 60, 0, 0);
        }
        start_server(T);
        call(T, OPEN, 0, 0, 0);
        call(T, STRESS, 60, 0, 0);
        sh->longest_ns[0] = sh->longest_ns[1] = sh->operations[0] = sh->operations[1] = 0;
    }
    pid_t victim = start_victim(scenario);
    int status = 0;
    wait_victim(victim, WUNTRACED, &status);
    if (WIFSTOPPED(status) && fence) {
        outcome = "fenced";
        fence_case(victim, &status, lonely, mode);
    } else if (WIFSTOPPED(status)) {
        outcome = "stopped";
        if (!lonely)
            begin(S, STRESS, 1000, 0, 0);
        begin(T, STRESS, 1000, 0, 0);
        if (!lonely)
            finish(S);
        finish(T);
        kill(victim, SIGCONT);
        wait_victim(victim, 0, &status);
    }
    if (sh->child) { /* the victim's child lives on: its end first */
        kill(sh->child, SIGCONT);
        for (int i = 0; i < 2000 && waitpid(sh->child, NULL, WNOHANG) == 0; i++)
            sleep_ns(MS);
    }
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && !stop)
        outcome = "killed";
    else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        bad("the victim ended with status %x", status);
    for (enum who who = S; who <= T; who++) {
        if (servers[who] > 0) {
            call(who, CLOSE, 0, 0, 0);
            kill_server(who);
        }
    }
    enum who all[4];
    int n = 0;
    bool fresh = lonely || mode >= 1 || strcmp(outcome, "fenced") == 0;
    if (mode == 2)
        kill_server(N);
    if (fresh) {
        start_server(F);
        call(F, OPEN, 0, 0, 0);
        all[n++] = F;
    }
    if (servers[N] > 0) {
        wait_idle(N);
        if (!lonely)
            all[n++] = N;
    }
    all[n++] = B;
    call(B, AUTOTICK, 0, 0, 0);
    /* The first operations after the death, then the rest of the recovery. */
    uint32_t first = (uint32_t)call(all[0], PUT, 64, 0, 0), large = (uint32_t)call(all[0], PUT, 40000, 0, 0);
    for (int i = 0; i < 2; i++) {
        uint32_t id = i ? large : first;
        if (id) {
            call(all[0], GET, id, 0, 0);
            call(all[0], RELEASE, id, 0, 0);
            call(all[0], DELETE, id, 0, 0);
        } else if (strcmp(name, "lease") != 0 && strstr(wspec, "lease") == NULL) {
            bad("the survivor finds no room for %s: %s", i ? "40,000 bytes" : "64 bytes", sh->full);
        }
    }
    settle(all, n);
    call(all[0], CHECK, (uint64_t)(n - 1), 1, 0);
    call(B, CHECK, 1, 1, 0);
    /* What the servers still pin is let go: N in order, B by its death. */
    if (n == 3 || all[0] == N)
        call(N, RELEASE_ALL, 0, 0, 0);
    kill_server(B);
    start_server(B);
    call(B, OPEN, 0, 0, 0);
    settle(all, n);
    end_case(all, n);
    for (enum who who = 0; who < SERVERS; who++)
        kill_server(who);
    return outcome;
}

static void sigpipe(int signal_number) {
    (void)signal_number;
    _exit(1);
}

static int run_cases(void) {
    char line[1024];
    while (fgets(line, sizeof line, stdin)) {
        char action[16], name[32], w[512] = "";
        int number, mode;
        unsigned long long nth;
        if (sscanf(line, "%d %15s %31s %d %llu %d %511s", &number, action, name, &arm_site, &nth, &mode, w) < 6)
            continue;
        arm_nth = nth;
        snprintf(wspec, sizeof wspec, "%s", strcmp(w, "-") == 0 ? "" : w);
        uint64_t start = now_ns();
        file_leaks = 0;
        /* In a process of its own: what hangs or dies there is one case. */
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_CHILD_SUBREAPER, 1);
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            const char *outcome = run_case(action, name, mode);
            printf("%d %s %llu %llu %llu %llu %s %s %llu %s\n", number, sh->failed ? "FAILED" : outcome,
                   (unsigned long long)(now_ns() - start), (unsigned long long)file_leaks,
                   (unsigned long long)sh->longest_ns[0], (unsigned long long)sh->longest_ns[1],
                   sh->longest_what[0][0] ? sh->longest_what[0] : "-",
                   sh->longest_what[1][0] ? sh->longest_what[1] : "-",
                   (unsigned long long)(sh->operations[0] + sh->operations[1]), sh->error[0] ? sh->error : "-");
            if (sh->completed && strcmp(action, "count") == 0)
                for (uint32_t i = 0; i < gismo_sites_count(); i++)
                    if (sh->hits[i])
                        printf("hits %s %u %llu\n", name, i, (unsigned long long)sh->hits[i]);
            fflush(stdout);
            _exit(0);
        }
        int status;
        waitpid(pid, &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            printf("%d FAILED %llu 0 0 0 - - 0 the case ended with status %x: %s\n", number,
                   (unsigned long long)(now_ns() - start), status, sh->error);
            fflush(stdout);
        }
    }
    remove_tree(folder);
    return 0;
}

/* ---- can the checks fail? ------------------------------------------------------------------------ */

static int selftest(uint64_t kind) {
    memset(sh, 0, sizeof *sh);
    fresh_store(0);
    start_server(N);
    start_server(B);
    call(N, OPEN, 0, 0, 0);
    call(B, OPEN, 0, 0, 0);
    uint32_t small = (uint32_t)call(N, PUT, 100, 0, 0), large = (uint32_t)call(N, PUT, 40000, 0, 0);
    (void)call(N, PUT, 100, 1, 0);
    (void)call(N, PUT, 5000, 0, 0); /* a third chunk, so that the second group has a free one */
    call(N, TICK, 1, 0, 0);
    enum who all[] = {N, B};
    if (kind == 9) { /* a process that is dead and that nobody recovers: a read-only look does not */
        pid_t pid = fork();
        if (pid == 0) {
            gismo_store *s = open_host(0, 0);
            gismo_object object;
            (void)create(s, 64, &object);
            kill(getpid(), SIGKILL);
        }
        waitpid(pid, NULL, 0);
        gismo_open_options look = {.read_only = 1};
        gismo_store *s;
        gismo_stats st;
        must(gismo_open(pool, &look, &s), "open read-only");
        must(gismo_get_stats(s, &st), "stats");
        if (st.writing_objects)
            bad("%llu objects are being written by nobody", (unsigned long long)st.writing_objects);
        gismo_free(s);
    } else if (kind == 10) { /* a pin that is never given back */
        call(B, GET, small, 0, 0);
        end_case(all, 2);
    } else if (kind) {
        call(N, LIE, kind, kind == 2 ? small : large, 0);
        call(N, CHECK, 1, 1, 0);
        if (kind == 6 || kind == 8)
            end_case(all, 2);
    } else {
        call(N, CHECK, 1, 1, 0);
        end_case(all, 2);
    }
    for (enum who who = 0; who < SERVERS; who++)
        kill_server(who);
    remove_tree(folder);
    printf("%s\n", sh->failed ? sh->error : "nothing found");
    return 0;
}

/* ---- two PID namespaces ------------------------------------------------------------------------- */

#define WORKERS 4
#define BOX 64 /* objects of one incarnation of a worker */

struct boxed {
    uint32_t state;
    uint32_t pad;
    uint64_t writer; /* space << 56 | worker << 48 | incarnation << 16 | number */
    gismo_handle handle;
};

struct spaces {
    uint32_t stop, failed;
    uint64_t operations, kills, incarnations[2][WORKERS];
    int32_t pid[2][WORKERS], tid[2][WORKERS], background[2][WORKERS];
    struct boxed box[2][WORKERS][BOX];
    char error[4096];
};

static struct spaces *sp;

__attribute__((format(printf, 1, 2))) static void wrong(const char *format, ...) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    size_t used = strlen(sp->error);
    if (used + strlen(text) + 4 < sizeof sp->error)
        snprintf(sp->error + used, sizeof sp->error - used, "%s; ", text);
    __atomic_store_n(&sp->failed, 1, __ATOMIC_SEQ_CST);
}

static void stamp(uint8_t *to, uint64_t bytes, uint64_t writer) {
    for (uint64_t i = 0; i + 8 <= bytes; i += 8)
        memcpy(to + i, &writer, 8);
}

static bool stamped(const uint8_t *from, uint64_t bytes, uint64_t writer) {
    for (uint64_t i = 0; i + 8 <= bytes; i += 8)
        if (memcmp(from + i, &writer, 8) != 0)
            return false;
    return true;
}

static uint64_t boxed_bytes(uint64_t writer) {
    uint64_t n = writer * 0x9e3779b97f4a7c15ull >> 40;
    return n % 16 == 0 ? 40000 + n % 1000 * 8 : 64 + n % 200 * 8;
}

static int thread_of(int32_t *out) {
    DIR *dir = opendir("/proc/self/task");
    *out = 0;
    for (struct dirent *d; dir && (d = readdir(dir)) != NULL;)
        if (atoi(d->d_name) > *out)
            *out = atoi(d->d_name);
    if (dir)
        closedir(dir);
    return *out;
}

static void namespace_worker(uint32_t space, uint32_t worker) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    uint64_t incarnation = __atomic_add_fetch(&sp->incarnations[space][worker], 1, __ATOMIC_SEQ_CST);
    uint64_t random = (space << 8 | worker) * 77777 + incarnation * 0x9e3779b97f4a7c15ull + 1;
    sp->pid[space][worker] = (int32_t)getpid();
    sp->tid[space][worker] = (int32_t)syscall(SYS_gettid);
    gismo_store *s = open_host(0, 1);
    thread_of(&sp->background[space][worker]);
    struct boxed *box = sp->box[space][worker];
    for (uint64_t number = 0; !__atomic_load_n(&sp->stop, __ATOMIC_SEQ_CST); number++) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        struct boxed *b = &box[random >> 33 & (BOX - 1)];
        uint32_t state = __atomic_load_n(&b->state, __ATOMIC_SEQ_CST);
        gismo_view view;
        if (state == NONE || state == DELETED || state == PUTTING) {
            /* PUTTING: a life before died in between; whether it is there is known by its tag only, see the end. */
            gismo_object object;
            uint64_t writer =
                (uint64_t)space << 56 | (uint64_t)worker << 48 | (incarnation & 0xffffffff) << 16 | (number & 0xffff);
            gismo_create_options o = {.tag = writer};
            uint64_t bytes = boxed_bytes(writer);
            int status = gismo_create(s, bytes, &o, &object);
            if (status == GISMO_EFULL)
                continue;
            must(status, "create");
            stamp(object.data, bytes, writer);
            if (random >> 60 == 0)
                sched_yield();
            if (!stamped(object.data, bytes, writer))
                wrong("another process writes into an object of worker %u/%u", space, worker);
            b->writer = writer;
            b->handle = object.handle;
            __atomic_store_n(&b->state, PUTTING, __ATOMIC_SEQ_CST);
            must(gismo_seal(s, &object, 0), "seal");
            __atomic_store_n(&b->state, SEALED, __ATOMIC_SEQ_CST);
        } else if (state == SEALED && random >> 61) {
            int status = gismo_get(s, &b->handle, &view);
            if (status != GISMO_OK) {
                wrong("an object of worker %u/%u is lost: %s", space, worker, gismo_status_name(status));
                b->state = DELETED;
                continue;
            }
            if (!stamped(view.data, view.length, b->writer))
                wrong("an object of worker %u/%u has another's content", space, worker);
            must(gismo_release(s, view.slot), "release");
        } else {
            __atomic_store_n(&b->state, DELETING, __ATOMIC_SEQ_CST);
            int status = gismo_delete(s, &b->handle);
            if (status != GISMO_OK && !(status == GISMO_EGONE && state == DELETING))
                wrong("delete by worker %u/%u: %s", space, worker, gismo_status_name(status));
            __atomic_store_n(&b->state, DELETED, __ATOMIC_SEQ_CST);
        }
        /* And one of anybody, which may go away meanwhile, but never be another. */
        struct boxed other = sp->box[random >> 20 & 1][random >> 22 & (WORKERS - 1)][random >> 24 & (BOX - 1)];
        if (other.state == SEALED && gismo_get(s, &other.handle, &view) == GISMO_OK) {
            uint64_t writer;
            memcpy(&writer, view.data, 8);
            if (writer != view.tag || !stamped(view.data, view.length, writer))
                wrong("the object in slot %u is written by two", view.slot);
            must(gismo_release(s, view.slot), "release");
        }
        __atomic_add_fetch(&sp->operations, 1, __ATOMIC_RELAXED);
    }
    close_store(s);
    _exit(0);
}

/* With the wished pid, so that both namespaces have the same ones, also after kills. */
static pid_t start_as(pid_t wished, uint32_t space, uint32_t worker) {
    struct clone_args arguments = {.exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&wished, .set_tid_size = 1};
    pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0)
        namespace_worker(space, worker);
    return pid;
}

static int namespace_supervisor(uint32_t space, uint64_t ms) {
    pid_t pids[WORKERS] = {0};
    uint64_t end = now_ns() + ms * MS, random = space + 12345;
    while (now_ns() < end && !sp->failed) {
        for (uint32_t w = 0; w < WORKERS; w++) {
            for (int attempt = 0; pids[w] <= 0 && attempt < 100; attempt++) {
                pids[w] = start_as((pid_t)(1000 + 100 * w), space, w);
                if (pids[w] < 0)
                    sleep_ns(MS); /* the thread of the one before is not gone yet */
            }
            if (pids[w] < 0) {
                wrong("clone3 with a wished pid: %s", strerror(errno));
                return 1;
            }
        }
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        sleep_ns((random >> 40) % 30 * MS);
        uint32_t victim = random >> 60 & (WORKERS - 1);
        kill(pids[victim], SIGKILL);
        int status;
        waitpid(pids[victim], &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) != 0) /* 0: the other namespace's time was up */
            wrong("worker %u/%u ended by itself (%d): %s", space, victim, WEXITSTATUS(status), sh->error);
        pids[victim] = 0;
        __atomic_add_fetch(&sp->kills, 1, __ATOMIC_SEQ_CST);
    }
    __atomic_store_n(&sp->stop, 1, __ATOMIC_SEQ_CST);
    for (uint32_t w = 0; w < WORKERS; w++)
        if (pids[w] > 0) {
            int status;
            waitpid(pids[w], &status, 0);
            if (!WIFEXITED(status) || WEXITSTATUS(status))
                wrong("worker %u/%u did not close in order: %s", space, w, sh->error);
        }
    return 0;
}

static int share_namespaces(uint64_t ms) {
    sp = mmap(NULL, sizeof *sp, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sp == MAP_FAILED)
        return 2;
    fresh_store(32ull << 20);
    pid_t spaces[2];
    for (uint32_t space = 0; space < 2; space++) {
        spaces[space] = fork();
        if (spaces[space] == 0) {
            if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) {
                printf("not permitted: unshare: %s\n", strerror(errno));
                _exit(77);
            }
            pid_t init = fork(); /* pid 1 of the new namespace */
            if (init == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)
                    (void)mount("proc", "/proc", "proc", 0, NULL);
                _exit(getpid() == 1 ? namespace_supervisor(space, ms) : 3);
            }
            int status;
            waitpid(init, &status, 0);
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 4);
        }
    }
    int result = 0;
    for (uint32_t space = 0; space < 2; space++) {
        int status;
        waitpid(spaces[space], &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status))
            result = WIFEXITED(status) ? WEXITSTATUS(status) : 5;
    }
    if (result == 77)
        return 77;
    uint32_t same = 0, same_background = 0;
    for (uint32_t w = 0; w < WORKERS; w++) {
        same += sp->pid[0][w] && sp->pid[0][w] == sp->pid[1][w] && sp->tid[0][w] == sp->tid[1][w];
        same_background += sp->background[0][w] && sp->background[0][w] == sp->background[1][w];
    }
    gismo_store *s = open_host(0, 0);
    tick(s, 3);
    gismo_stats st;
    must(gismo_get_stats(s, &st), "stats");
    if (st.writing_objects || st.processes != 1)
        wrong("%llu objects are being written, %u processes live", (unsigned long long)st.writing_objects,
              st.processes);
    uint64_t sealed = 0, cursor = 0;
    for (uint32_t i = 0; i < 2 * WORKERS * BOX; i++) {
        struct boxed *b = &sp->box[i / (WORKERS * BOX)][i / BOX % WORKERS][i % BOX];
        gismo_view view;
        if (b->state != SEALED)
            continue;
        sealed++;
        if (gismo_get(s, &b->handle, &view) != GISMO_OK)
            wrong("an object is lost at the end");
        else if (!stamped(view.data, view.length, b->writer) || view.tag != b->writer)
            wrong("an object has wrong content at the end");
        else
            gismo_release(s, view.slot);
    }
    gismo_fsck_result result_of;
    gismo_fsck(s, GISMO_FSCK_VERIFY, fsck_report, NULL, &result_of);
    gismo_object_info info;
    while (gismo_next(s, &cursor, &info) == GISMO_OK)
        if (info.state == GISMO_SEALED)
            must(gismo_delete(s, &info.handle), "delete");
    tick(s, 3);
    close_store(s);
    s = open_host(0, 0);
    audit(s);
    close_store(s);
    remove_tree(folder);
    printf("kills %llu operations %llu same %u background %u sealed %llu recovered %llu\n%s%s\n",
           (unsigned long long)sp->kills, (unsigned long long)sp->operations, same, same_background,
           (unsigned long long)sealed, (unsigned long long)st.recovered_processes, sp->error, sh->error);
    return sp->failed || sh->failed || result ? 1 : 0;
}

int main(int argc, char **argv) {
    signal(SIGPIPE, sigpipe);
    if (argc >= 2 && strcmp(argv[1], "list") == 0) {
        for (uint32_t i = 0; i < gismo_sites_count(); i++) {
            const char *file, *function;
            uint32_t line, kind;
            uint64_t hits;
            gismo_sites_info(i, &file, &function, &line, &kind, &hits);
            const char *base = strrchr(file, '/');
            const char *const kinds[] = {"", "shared", "local", "read"};
            printf("%u %s %s %u %s\n", i, kinds[kind], base ? base + 1 : file, line, function);
        }
        return 0;
    }
    sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (argc < 3 || sh == MAP_FAILED || gismo_sites_count() > SITES)
        return 2;
    snprintf(folder, sizeof folder, "%s", argv[2]);
    snprintf(pool, sizeof pool, "%s/pool", folder);
    if (strcmp(argv[1], "cases") == 0)
        return run_cases();
    if (argc == 4 && strcmp(argv[1], "selftest") == 0)
        return selftest(strtoull(argv[3], NULL, 10));
    if (argc == 4 && strcmp(argv[1], "namespaces") == 0)
        return share_namespaces(strtoull(argv[3], NULL, 10));
    return 2;
}
