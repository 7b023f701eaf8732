/*
 * memory.c - what lies between a program's loads and stores and a device that several hosts share without coherence.
 *
 *     process ──▶ store buffer ──▶ cache of its host ──▶ device
 *                 (in order)        (lines of 64 bytes)
 *
 * The model is x86-TSO inside a host, and nothing at all between hosts:
 *
 * - A store waits in its process's buffer until the cache takes it, in program order. The process itself sees it at once.
 * - A flush or an invalidation waits there, too, but later stores and all loads may pass it, and it passes what concerns other
 *   lines. A store fence parts what came before from what comes after; a full fence waits until all of it is done.
 *   A locked instruction waits for the stores; flushes may outlast it (some processors promise more, none less).
 * - A non-temporal store goes to the device, in pieces of 8 bytes, in any order until a fence.
 * - The cache fetches a line when it is touched, or when it likes (prefetch); drops a clean one and writes a dirty one back when it
 *   likes. It writes back whole lines, and never one that this host did not dirty (A2).
 * - An invalidation is not ordered after earlier loads: it may have been done as early as the process's last load fence, and the
 *   line fetched again since. So what is in the cache afterwards may be any content that the device had since then.
 *   (This is why P3.4 has a load fence. A device's past is kept for it.)
 *
 * When those things happen that need not, the adversary decides (sim.h): at random; never (lazy); or, for lines that are fetched again,
 * as early as can be (eager). With hardware coherence (coherent) there is one cache for all, and the store buffers are what is left. Two oracles need no knowledge of the store: a cached store into a line that is not what the device has
 * (it would write 56 wrong bytes back), and a write-back over what another host wrote meanwhile.
 *
 * Sources: Intel SDM vol. 3A 11.2.2 and vol. 2A (CLFLUSHOPT, CLWB, SFENCE, MFENCE); Sewell et al., x86-TSO (CACM 2010).
 */
#include "sim.h"

#include "prim_sim.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum kind { STORE, LOCAL, STREAM, FLUSH, DROP, FENCE };

struct entry {
    uint8_t kind;
    uint8_t bytes;  /* STORE, LOCAL, STREAM */
    bool note;      /* STORE: need not be flushed by the call */
    uint32_t lines; /* FLUSH, DROP */
    uint64_t at;    /* offset on the medium; LOCAL: an address */
    uint64_t value;
};

#define BUFFER 64u

/* MUTANT_SWAP: a primitive that takes effect only after the next one of its process. */
struct postponed {
    struct sim_site *site;
    const void *p;
    size_t n;
    uint64_t value;
};

struct core {
    struct entry buffer[BUFFER];
    uint32_t count, locals, mediums, host;
    uint64_t load_fence; /* when it last waited for its loads */
    struct postponed late;
    struct call {
        uint32_t depth;
        uint64_t since; /* nothing that it loads may be older */
        struct stored {
            uint32_t line;
            const struct sim_site *site;
        } *stored;
        uint32_t count, room;
    } call;
};

enum line_state { ABSENT, CLEAN, DIRTY };

struct cached {
    uint32_t epoch; /* of the run, else as if never touched */
    uint32_t state;
    uint32_t version; /* of the device when it was fetched or written back */
    uint32_t writer;  /* the process that last stored there */
    bool owes;        /* something that this host's calls have to flush */
    uint64_t written; /* when this host last stored there */
    uint64_t dropped; /* when it last left the cache because somebody asked */
    uint8_t data[SIM_LINE];
};

/* The device's past: each change of a line. */
struct change {
    uint64_t time;
    uint32_t line, before; /* before + 1 is the one before of this line, 0 = none */
    uint8_t data[SIM_LINE];
};

static struct {
    const struct sim_options *options;
    const uint8_t *image;
    uint64_t bytes, lines;
    uint32_t hosts, epoch;
    uint8_t *device;
    uint32_t *version; /* how often each line changed; per line: valid if last[line] is */
    uint32_t *last;    /* change + 1 */
    struct change *changes;
    uint32_t change_count, change_room;
    struct cached *cache[SIM_HOSTS];
    uint32_t *touched[SIM_HOSTS]; /* lines that this host has touched in this run */
    uint32_t touched_count[SIM_HOSTS];
    struct core core[SIM_PROCESSES];
    uint8_t *addresses;
    uint64_t mapped;
    bool stale; /* the device still has another image */
} m;

#define MAP_STRIDE (64ull << 20)
#define MAP_PLACES 64u

/* ---- device --------------------------------------------------------------------------------------- */

static void device_change(uint32_t line, const uint8_t *data) {
    if (m.change_count == m.change_room) {
        m.change_room = m.change_room ? 2 * m.change_room : 4096;
        m.changes = realloc(m.changes, m.change_room * sizeof *m.changes);
        if (m.changes == NULL)
            abort();
    }
    struct change *c = &m.changes[m.change_count++];
    c->time = sim_steps();
    c->line = line;
    c->before = m.last[line];
    memcpy(c->data, data, SIM_LINE);
    m.last[line] = m.change_count;
    m.version[line]++;
    memcpy(m.device + (uint64_t)line * SIM_LINE, data, SIM_LINE);
}

/* What the device had at that time. */
static const uint8_t *device_at(uint32_t line, uint64_t time, uint32_t *version) {
    uint32_t at = m.last[line];
    *version = m.version[line];
    while (at && m.changes[at - 1].time > time) {
        at = m.changes[at - 1].before;
        --*version;
    }
    return at ? m.changes[at - 1].data : m.image + (uint64_t)line * SIM_LINE;
}

/* ---- cache ---------------------------------------------------------------------------------------- */

static struct cached *line_of(uint32_t host, uint32_t line) {
    struct cached *c = &m.cache[host][line];
    if (c->epoch != m.epoch) {
        c->epoch = m.epoch;
        c->version = 0;
        c->owes = false;
        c->written = c->dropped = 0;
        /* Lazy: each host has had all of it in its cache since before the beginning. */
        c->state = m.options->adversary == SIM_RANDOM ? ABSENT : CLEAN;
        memcpy(c->data, m.image + (uint64_t)line * SIM_LINE, SIM_LINE);
        m.touched[host][m.touched_count[host]++] = line;
    }
    return c;
}

static struct cached *fetched(uint32_t host, uint32_t line) {
    struct cached *c = line_of(host, line);
    if (c->state == ABSENT) {
        memcpy(c->data, m.device + (uint64_t)line * SIM_LINE, SIM_LINE);
        c->version = m.version[line];
        c->state = CLEAN;
    }
    return c;
}

static void write_back(uint32_t host, uint32_t line) {
    struct cached *c = line_of(host, line);
    if (c->state != DIRTY)
        return;
    if (c->version != m.version[line]) {
        char name[96];
        sim_violation("host %u writes a line back that another host has written meanwhile: %s", host,
                      oracle_name((uint64_t)line * SIM_LINE, name, sizeof name));
    }
    device_change(line, c->data);
    c->version = m.version[line];
    c->written = sim_steps();
    c->state = CLEAN;
    c->owes = false;
}

static void cached_store(const struct core *core, uint64_t offset, uint64_t value, uint32_t bytes, bool note) {
    const uint32_t host = core->host;
    uint32_t line = (uint32_t)(offset / SIM_LINE);
    struct cached *c = fetched(host, line);
    if (c->state == CLEAN && memcmp(c->data, m.device + (uint64_t)line * SIM_LINE, SIM_LINE) != 0) {
        char name[96];
        sim_violation("host %u stores into a line of which its cache has an old copy: %s", host,
                      oracle_name(offset, name, sizeof name));
    }
    memcpy(c->data + offset % SIM_LINE, &value, bytes);
    c->state = DIRTY;
    c->written = sim_steps();
    c->writer = (uint32_t)(core - m.core);
    c->owes |= !note;
}

static void drop(uint32_t host, uint32_t line, uint64_t since) {
    struct cached *c = line_of(host, line);
    write_back(host, line); /* clflushopt writes back what is dirty */
    uint64_t earliest = c->written > since ? c->written : since;
    if (earliest < c->dropped)
        earliest = c->dropped; /* what was fetched before that is gone */
    const uint32_t state = c->state;
    c->state = ABSENT;
    bool again = m.options->adversary == SIM_RANDOM ? sim_random(4) == 0 : m.options->adversary == SIM_EAGER;
    if (!again) {
        c->dropped = sim_steps();
        return;
    }
    uint64_t when = m.options->adversary == SIM_RANDOM && earliest < sim_steps()
                        ? earliest + sim_random(sim_steps() - earliest + 1)
                        : earliest;
    uint32_t version;
    const uint8_t *data = device_at(line, when, &version);
    if (version < c->version) { /* then it was dropped before another process of this host fetched what it has now */
        c->state = state;
        return;
    }
    memcpy(c->data, data, SIM_LINE);
    c->version = version;
    c->dropped = when;
    c->state = CLEAN;
}

static void stream(uint32_t host, uint64_t offset, uint64_t value, uint32_t bytes) {
    uint32_t line = (uint32_t)(offset / SIM_LINE);
    uint8_t now[SIM_LINE];
    struct cached *c = line_of(host, line);
    write_back(host, line);
    c->state = ABSENT;
    c->written = sim_steps();
    memcpy(now, m.device + (uint64_t)line * SIM_LINE, SIM_LINE);
    memcpy(now + offset % SIM_LINE, &value, bytes);
    device_change(line, now);
}

/* ---- store buffers ---------------------------------------------------------------------------------- */

static void execute(struct core *core, const struct entry *e) {
    uint32_t line = (uint32_t)(e->at / SIM_LINE);
    switch (e->kind) {
    case STORE:
        cached_store(core, e->at, e->value, e->bytes, e->note);
        break;
    case LOCAL:
        memcpy((void *)(uintptr_t)e->at, &e->value, e->bytes);
        break;
    case STREAM:
        stream(core->host, e->at, e->value, e->bytes);
        break;
    case FLUSH:
        for (uint32_t i = 0; i < e->lines; i++)
            write_back(core->host, line + i);
        break;
    case DROP:
        for (uint32_t i = 0; i < e->lines; i++)
            drop(core->host, line + i, core->load_fence);
        break;
    default:
        break;
    }
}

static void take_out(struct core *core, uint32_t i) {
    struct entry e = core->buffer[i];
    core->locals -= e.kind == LOCAL;
    core->mediums -= e.kind == STORE || e.kind == STREAM;
    memmove(&core->buffer[i], &core->buffer[i + 1], (--core->count - i) * sizeof e);
    execute(core, &e);
}

static void execute_first(struct core *core, uint32_t n) {
    while (n-- > 0)
        take_out(core, 0);
}

static bool is_store(const struct entry *e) { return e->kind == STORE || e->kind == LOCAL; }

/* All stores, and what a later store would have to wait for: everything before the last fence. */
static void settle_stores(struct core *core) {
    uint32_t fence = 0;
    for (uint32_t i = core->count; i > 0 && fence == 0; i--)
        if (core->buffer[i - 1].kind == FENCE)
            fence = i;
    execute_first(core, fence);
    for (uint32_t i = 0; i < core->count;) {
        if (is_store(&core->buffer[i]))
            take_out(core, i);
        else
            i++;
    }
}

static bool touches(const struct entry *e, uint32_t line, uint32_t lines) {
    if (e->kind != STORE && e->kind != STREAM)
        return false;
    uint32_t at = (uint32_t)(e->at / SIM_LINE);
    return at >= line && at < line + lines;
}

static bool may_go(const struct core *core, uint32_t i) {
    const struct entry *e = &core->buffer[i];
    uint32_t line = (uint32_t)(e->at / SIM_LINE);
    if (e->kind == FENCE)
        return i == 0;
    for (uint32_t k = 0; k < i; k++) {
        const struct entry *before = &core->buffer[k];
        if (before->kind == FENCE || (is_store(e) && is_store(before)))
            return false;
        if ((e->kind == FLUSH || e->kind == DROP) && touches(before, line, e->lines))
            return false;
        if (e->kind == STREAM && touches(before, line, 1))
            return false;
        if (e->kind == STORE && before->kind == STREAM && touches(before, line, 1))
            return false;
    }
    return true;
}

static void push(struct core *core, struct entry e) {
    if (core->count == BUFFER)
        take_out(core, 0);
    core->buffer[core->count++] = e;
    core->locals += e.kind == LOCAL;
    core->mediums += e.kind == STORE || e.kind == STREAM;
}

static struct core *own_core(void) { return &m.core[sim_self()->index]; }

/* ---- addresses --------------------------------------------------------------------------------------- */

bool sim_is_medium(const void *p, uint64_t *offset) {
    uint64_t at = (uint64_t)((const uint8_t *)p - m.addresses);
    if (m.addresses == NULL || at >= MAP_STRIDE * MAP_PLACES)
        return false;
    *offset = at % MAP_STRIDE;
    return true;
}

void *sim_map(uint64_t bytes) {
    if (bytes > MAP_STRIDE || bytes != m.bytes)
        sim_violation("a medium of %llu bytes is mapped, not of %llu", (unsigned long long)bytes,
                      (unsigned long long)m.bytes);
    return m.addresses + MAP_STRIDE * (m.mapped++ % MAP_PLACES);
}

/* ---- swapped neighbours ---------------------------------------------------------------------------------- */

static bool postpone(struct sim_site *site, const void *p, size_t n, uint64_t value) {
    if (site->mutation != MUTANT_SWAP || sim_self() == NULL || own_core()->late.site)
        return false;
    own_core()->late = (struct postponed){site, p, n, value};
    return true;
}

static void perform(struct sim_site *site, const void *p, size_t n, uint64_t value);

static void catch_up(const struct sim_site *site) {
    if (sim_self() == NULL)
        return;
    struct postponed late = own_core()->late;
    if (late.site == NULL || late.site == site)
        return;
    own_core()->late.site = NULL;
    perform(late.site, late.p, late.n, late.value);
}

/* ---- what a call owes ----------------------------------------------------------------------------------- */

void sim_call_begins(void) {
    struct core *core = own_core();
    if (core->call.depth++ > 0)
        return;
    core->call.since = core->load_fence;
    core->call.count = 0;
}

static void note_store(struct core *core, const struct sim_site *site, uint64_t offset, size_t n) {
    struct call *call = &core->call;
    if (call->depth == 0 || site->primitive == SIM_NOTE)
        return;
    for (uint32_t line = (uint32_t)(offset / SIM_LINE); line <= (offset + n - 1) / SIM_LINE; line++) {
        if (call->count && call->stored[call->count - 1].line == line)
            continue;
        if (call->count == call->room) {
            call->room = call->room ? 2 * call->room : 256;
            call->stored = realloc(call->stored, call->room * sizeof *call->stored);
            if (call->stored == NULL)
                abort();
        }
        call->stored[call->count++] = (struct stored){line, site};
    }
}

/* What of that line waits in the buffer, and whether a fence parts it from all that comes later. */
enum waiting { NOTHING, FENCED, UNFENCED };
static enum waiting waits(const struct core *core, uint32_t line) {
    bool fence = false;
    for (uint32_t i = core->count; i > 0; i--) {
        const struct entry *e = &core->buffer[i - 1];
        const uint32_t at = (uint32_t)(e->at / SIM_LINE);
        fence |= e->kind == FENCE;
        if (touches(e, line, 1) && !e->note)
            return e->kind == STREAM && fence ? FENCED : UNFENCED;
        if ((e->kind == FLUSH || e->kind == DROP) && line >= at && line < at + e->lines)
            return fence ? FENCED : UNFENCED;
    }
    return NOTHING;
}

/* What it stored is on the device: no other host would come to know of it else. */
void sim_call_ends(void) {
    struct core *core = own_core();
    if (--core->call.depth > 0 || m.options->adversary == SIM_COHERENT)
        return;
    for (uint32_t i = 0; i < core->call.count; i++) {
        const uint32_t line = core->call.stored[i].line;
        const struct sim_site *site = core->call.stored[i].site;
        const struct cached *c = &m.cache[core->host][line];
        const enum waiting waiting = waits(core, line);
        const bool dirty =
            waiting == NOTHING && c->epoch == m.epoch && c->owes && c->writer == (uint32_t)(core - m.core);
        if (!dirty && waiting != UNFENCED)
            continue;
        char name[96];
        sim_violation("a call of host %u ends, and what it stored is still %s: %s, %s:%u %s", core->host,
                      dirty ? "in its cache" : "on its way", oracle_name((uint64_t)line * SIM_LINE, name, sizeof name),
                      mutant_file(site), site->line, site->function);
    }
}

void sim_left(void) {
    const uint32_t host = own_core()->host;
    memory_drain_all(sim_self()->index);
    for (uint32_t i = 0; i < m.touched_count[host] && m.options->adversary != SIM_COHERENT; i++) {
        const uint32_t line = m.touched[host][i];
        char name[96];
        if (line_of(host, line)->state == DIRTY)
            sim_violation("host %u has left, and in its cache is still what it stored: %s", host,
                          oracle_name((uint64_t)line * SIM_LINE, name, sizeof name));
    }
}

/* What is loaded in a call is no older than the call: what its cache has from before must have been dropped. */
static void check_fresh(const struct core *core, const struct sim_site *site, const struct cached *c, uint64_t offset,
                        uint32_t bytes) {
    const uint32_t line = (uint32_t)(offset / SIM_LINE);
    if (core->call.depth == 0 || site->primitive == SIM_HINT || c->state != CLEAN || c->version == m.version[line])
        return;
    uint32_t version;
    const uint8_t *then = device_at(line, core->call.since, &version);
    if (c->version >= version || memcmp(then + offset % SIM_LINE, c->data + offset % SIM_LINE, bytes) == 0)
        return;
    char name[96];
    sim_violation("host %u loads what was old already when its call began: %s", core->host,
                  oracle_name(offset, name, sizeof name));
}

/* ---- loads and stores ---------------------------------------------------------------------------------- */

static void load(struct core *core, const struct sim_site *site, uint64_t offset, void *value, uint32_t bytes) {
    const struct cached *c = fetched(core->host, (uint32_t)(offset / SIM_LINE));
    check_fresh(core, site, c, offset, bytes);
    memcpy(value, c->data + offset % SIM_LINE, bytes);
    for (uint32_t i = 0; core->mediums && i < core->count; i++) { /* its own stores that still wait */
        const struct entry *e = &core->buffer[i];
        if (e->kind != STORE && e->kind != STREAM)
            continue;
        for (uint32_t b = 0; b < e->bytes; b++)
            if (e->at + b >= offset && e->at + b < offset + bytes)
                ((uint8_t *)value)[e->at + b - offset] = (uint8_t)(e->value >> (8 * b));
    }
}

uint64_t sim_load(struct sim_site *site, const void *p, uint32_t bytes) {
    uint64_t offset, value = 0;
    if (!sim_is_medium(p, &offset)) {
        memcpy(&value, p, bytes);
        return value;
    }
    sim_step(site, "load", offset, bytes);
    load(own_core(), site, offset, &value, bytes);
    catch_up(site);
    return value;
}

static void do_store(struct sim_site *site, uint64_t offset, uint64_t value, uint32_t bytes) {
    sim_step(site, "store", offset, value);
    oracle_store(sim_self(), offset, bytes);
    note_store(own_core(), site, offset, bytes);
    push(
        own_core(),
        (struct entry){
            .kind = STORE, .bytes = (uint8_t)bytes, .note = site->primitive == SIM_NOTE, .at = offset, .value = value});
}

void sim_store(struct sim_site *site, void *p, uint64_t value, uint32_t bytes) {
    uint64_t offset;
    if (!sim_is_medium(p, &offset)) {
        memcpy(p, &value, bytes);
        return;
    }
    if (postpone(site, p, bytes, value))
        return;
    do_store(site, offset, value, bytes);
    catch_up(site);
}

/* By pieces that do not cross 8 bytes of the medium. */
static uint32_t piece(uint64_t offset, size_t left) {
    uint64_t n = 8 - offset % 8;
    return (uint32_t)(n < left ? n : left);
}

static void read_pieces(struct sim_site *site, void *copy, uint64_t offset, size_t n) {
    for (size_t at = 0; at < n;) {
        uint32_t bytes = piece(offset + at, n - at);
        sim_step(site, "read", offset + at, bytes);
        load(own_core(), site, offset + at, (uint8_t *)copy + at, bytes);
        at += bytes;
    }
}

#define LONG 2048u /* more is moved without a step for each piece: tables, arenas */

static void step_range(struct sim_site *site, uint64_t offset, const void *from, size_t n, enum kind kind);

static void write_pieces(struct sim_site *site, uint64_t offset, const void *from, size_t n, enum kind kind) {
    oracle_store(sim_self(), offset, n);
    note_store(own_core(), site, offset, n);
    if (n > LONG) {
        step_range(site, offset, from, n, kind);
        return;
    }
    for (size_t at = 0; at < n;) {
        uint32_t bytes = piece(offset + at, n - at);
        uint64_t value = 0;
        memcpy(&value, from ? (const uint8_t *)from + at : (const uint8_t *)&value, from ? bytes : 0);
        sim_step(site, kind == STREAM ? "stream" : "write", offset + at, value);
        push(own_core(),
             (struct entry){.kind = (uint8_t)kind, .bytes = (uint8_t)bytes, .at = offset + at, .value = value});
        at += bytes;
    }
}

/* The ends of a long range as pieces, so that fences matter to them; what lies between at once, as it may be. */
static void step_range(struct sim_site *site, uint64_t offset, const void *from, size_t n, enum kind kind) {
    struct core *core = own_core();
    uint64_t first = (offset + 2 * SIM_LINE - 1) / SIM_LINE, end = (offset + n) / SIM_LINE - 1;
    write_pieces(site, offset, from, first * SIM_LINE - offset, kind);
    settle_stores(core);
    sim_step(site, "many", first * SIM_LINE, end - first);
    for (uint64_t line = first; line < end; line++) {
        uint8_t now[SIM_LINE] = {0};
        if (from)
            memcpy(now, (const uint8_t *)from + line * SIM_LINE - offset, SIM_LINE);
        if (kind == STREAM) {
            struct cached *c = line_of(core->host, (uint32_t)line);
            c->state = ABSENT;
            c->written = sim_steps();
            device_change((uint32_t)line, now);
        } else {
            for (uint32_t at = 0; at < SIM_LINE; at += 8) {
                uint64_t value;
                memcpy(&value, now + at, 8);
                cached_store(core, line * SIM_LINE + at, value, 8, false);
            }
        }
    }
    uint64_t done = end * SIM_LINE - offset;
    write_pieces(site, offset + done, from ? (const uint8_t *)from + done : NULL, n - done, kind);
}

void sim_read(struct sim_site *site, void *copy, const void *medium, size_t n) {
    uint64_t offset;
    if (!sim_is_medium(medium, &offset)) {
        memcpy(copy, medium, n);
        return;
    }
    read_pieces(site, copy, offset, n);
    catch_up(site);
}

void sim_write(struct sim_site *site, void *medium, const void *from, size_t n) {
    uint64_t offset;
    if (!sim_is_medium(medium, &offset))
        memcpy(medium, from, n);
    else
        write_pieces(site, offset, from, n, STORE);
}

void sim_zero(struct sim_site *site, void *medium, size_t n) {
    uint64_t offset;
    if (!sim_is_medium(medium, &offset))
        memset(medium, 0, n);
    else
        write_pieces(site, offset, NULL, n, STORE);
}

int sim_equal(struct sim_site *site, const void *medium, const void *what, size_t n) {
    uint8_t copy[256];
    for (size_t at = 0; at < n; at += sizeof copy) {
        size_t bytes = n - at < sizeof copy ? n - at : sizeof copy;
        sim_read(site, copy, (const uint8_t *)medium + at, bytes);
        if (memcmp(copy, (const uint8_t *)what + at, bytes) != 0)
            return 0;
    }
    return 1;
}

uint32_t sim_crc32c(struct sim_site *site, uint32_t crc, const void *medium, size_t n) {
    uint8_t copy[256];
    for (size_t at = 0; at < n; at += sizeof copy) {
        size_t bytes = n - at < sizeof copy ? n - at : sizeof copy;
        sim_read(site, copy, (const uint8_t *)medium + at, bytes);
        crc = crc32c(crc, copy, bytes);
    }
    return crc;
}

void sim_user_read(void *copy, const void *medium, size_t n) { sim_read(SIM_SITE(READ), copy, medium, n); }
void sim_user_write(void *medium, const void *from, size_t n) { sim_write(SIM_SITE(WRITE), medium, from, n); }

void sim_stream(struct sim_site *site, void *medium, const void *from, size_t n) {
    uint64_t offset;
    if (!sim_is_medium(medium, &offset))
        memcpy(medium, from, n);
    else
        write_pieces(site, offset, from, n, site->mutation == MUTANT_CACHED ? STORE : STREAM);
}

/* ---- the state directory --------------------------------------------------------------------------------- */

void sim_local_forward(const void *p, void *value, uint32_t bytes) {
    if (sim_self() == NULL)
        return;
    struct core *core = own_core();
    for (uint32_t i = 0; core->locals && i < core->count; i++) {
        const struct entry *e = &core->buffer[i];
        if (e->kind == LOCAL && e->at == (uint64_t)(uintptr_t)p)
            memcpy(value, &e->value, bytes);
    }
}

void sim_local_store(void *p, uint64_t value, uint32_t bytes) {
    if (sim_self() == NULL) {
        memcpy(p, &value, bytes);
        return;
    }
    sim_step(NULL, "local", 0, value);
    push(own_core(),
         (struct entry){.kind = LOCAL, .bytes = (uint8_t)bytes, .at = (uint64_t)(uintptr_t)p, .value = value});
}

void sim_locked(void) {
    if (sim_self() == NULL)
        return;
    sim_step(NULL, "locked", 0, 0);
    settle_stores(own_core());
}

/* ---- flushes and fences ------------------------------------------------------------------------------------ */

static void push_lines(struct sim_site *site, enum kind kind, uint64_t offset, size_t n) {
    if (n == 0)
        return;
    uint64_t first = offset / SIM_LINE, last = (offset + n - 1) / SIM_LINE;
    if (last >= m.lines)
        last = m.lines - 1;
    if (last - first + 1 > site->most_lines)
        site->most_lines = (uint32_t)(last - first + 1);
    first += site->mutation == MUTANT_DROP_FIRST;
    last -= site->mutation == MUTANT_DROP_LAST;
    if (first > last)
        return;
    sim_step(site, kind == FLUSH ? "flush" : "invalidate", offset, last - first + 1);
    push(own_core(),
         (struct entry){.kind = (uint8_t)kind, .lines = (uint32_t)(last - first + 1), .at = first * SIM_LINE});
}

static void fence(struct sim_site *site, uint32_t primitive) {
    struct core *core = own_core();
    switch (primitive) {
    case SIM_FENCE_STORE:
        sim_step(site, "sfence", 0, 0);
        if (core->count)
            push(core, (struct entry){.kind = FENCE});
        break;
    case SIM_FENCE_LOAD:
        sim_step(site, "lfence", 0, 0);
        core->load_fence = sim_steps();
        break;
    default:
        sim_step(site, "mfence", 0, 0);
        execute_first(core, core->count);
        core->load_fence = sim_steps();
    }
}

static void do_flush(struct sim_site *site, uint64_t offset, size_t n) {
    if (site->mutation != MUTANT_DELETE)
        push_lines(site, FLUSH, offset, n);
}

static void do_refresh(struct sim_site *site, uint64_t offset, size_t n) {
    if (site->mutation != MUTANT_DELETE)
        push_lines(site, DROP, offset, n);
    if (site->mutation != MUTANT_DELETE_FENCE)
        fence(site, site->mutation == MUTANT_WEAKEN ? SIM_FENCE_STORE : SIM_FENCE_FULL);
}

static void do_publish(struct sim_site *site, uint64_t offset, size_t n) {
    if (site->mutation != MUTANT_DELETE)
        push_lines(site, FLUSH, offset, n);
    if (site->mutation != MUTANT_DELETE_FENCE)
        fence(site, SIM_FENCE_STORE);
}

static void do_fence(struct sim_site *site) {
    if (site->mutation != MUTANT_DELETE)
        fence(site, site->mutation == MUTANT_WEAKEN ? SIM_FENCE_STORE : site->primitive);
}

static void perform(struct sim_site *site, const void *p, size_t n, uint64_t value) {
    uint64_t offset = 0;
    if (p && !sim_is_medium(p, &offset))
        return;
    switch (site->primitive) {
    case SIM_STORE:
        do_store(site, offset, value, (uint32_t)n);
        break;
    case SIM_FLUSH:
        do_flush(site, offset, n);
        break;
    case SIM_REFRESH:
        do_refresh(site, offset, n);
        break;
    case SIM_PUBLISH:
        do_publish(site, offset, n);
        break;
    default:
        do_fence(site);
    }
}

static void lines_of(struct sim_site *site, const void *p, size_t n) {
    uint64_t offset;
    if (!sim_is_medium(p, &offset) || postpone(site, p, n, 0))
        return;
    perform(site, p, n, 0);
    catch_up(site);
}

void sim_flush(struct sim_site *site, const void *p, size_t n) { lines_of(site, p, n); }
void sim_refresh(struct sim_site *site, const void *p, size_t n) { lines_of(site, p, n); }
void sim_publish(struct sim_site *site, const void *p, size_t n) { lines_of(site, p, n); }

void sim_fence(struct sim_site *site) {
    if (sim_self() == NULL || postpone(site, NULL, 0, 0))
        return;
    do_fence(site);
    catch_up(site);
}

/* Of format and gismo_sync, on memory that is no medium here. */
void prim_flush_lines(const void *p, size_t n) { (void)p, (void)n; }
void prim_invalidate_lines(const void *p, size_t n) { (void)p, (void)n; }

/* A word to another process by other means (a socket, Ray): it comes after all that a store would come after. */
void sim_send(void) {
    sim_step(NULL, "send", 0, 0);
    settle_stores(own_core());
}
void sim_receive(void) { own_core()->load_fence = sim_steps(); }

/* ---- what run.c asks for ------------------------------------------------------------------------------------- */

void memory_drain_stores(uint32_t process) { settle_stores(&m.core[process]); }

void memory_drain_all(uint32_t process) {
    struct core *core = &m.core[process];
    execute_first(core, core->count);
}

void memory_truth(uint64_t offset, void *out, size_t n) {
    uint32_t line = (uint32_t)(offset / SIM_LINE);
    const struct cached *c = &m.cache[0][line];
    bool cached = m.options->adversary == SIM_COHERENT && c->epoch == m.epoch && c->state != ABSENT;
    memcpy(out, (cached ? c->data : m.device + (uint64_t)line * SIM_LINE) + offset % SIM_LINE, n);
}

void memory_resumed(uint32_t process) { m.core[process].load_fence = sim_steps(); }

/* The power fails: of what waits in the buffer any part that may go first has gone. */
void memory_lose(uint32_t process) {
    struct core *core = &m.core[process];
    for (uint32_t n = (uint32_t)sim_random(core->count + 1); n > 0 && core->count > 0; n--) {
        uint32_t i = (uint32_t)sim_random(core->count);
        if (may_go(core, i))
            take_out(core, i);
    }
    core->count = core->locals = core->mediums = 0;
    core->late.site = NULL;
}

void memory_power_off(uint32_t host) {
    if (m.options->adversary == SIM_COHERENT)
        return; /* one cache for all, which has power */
    bool all_lost = sim_random(2);
    for (uint32_t i = 0; i < m.touched_count[host]; i++) {
        uint32_t line = m.touched[host][i];
        if (!all_lost && sim_random(2))
            write_back(host, line);
        line_of(host, line)->state = ABSENT;
    }
}

void memory_join(uint32_t process, uint32_t host) {
    if (m.options->adversary == SIM_COHERENT)
        host = 0;
    const struct call call = m.core[process].call;
    m.core[process] =
        (struct core){.host = host, .load_fence = sim_steps(), .call = {.stored = call.stored, .room = call.room}};
}

static void move_line(uint32_t host) {
    if (m.touched_count[host] == 0)
        return;
    uint32_t line = m.touched[host][sim_random(m.touched_count[host])];
    struct cached *c = line_of(host, line);
    if (c->state == DIRTY)
        write_back(host, line);
    else if (c->state == CLEAN)
        c->state = ABSENT;
    else
        fetched(host, line);
}

void memory_move(void) {
    uint32_t process = (uint32_t)sim_random(SIM_PROCESSES);
    struct core *core = &m.core[process];
    if (core->count == 0) {
        move_line((uint32_t)sim_random(m.hosts));
        return;
    }
    uint32_t i = (uint32_t)sim_random(core->count);
    struct entry *e = &core->buffer[i];
    if (!may_go(core, i))
        return;
    if ((e->kind == FLUSH || e->kind == DROP) && e->lines > 1 && core->count < BUFFER) { /* a part of it */
        uint32_t first = 1 + (uint32_t)sim_random(e->lines - 1);
        struct entry rest = *e;
        rest.at += (uint64_t)first * SIM_LINE;
        rest.lines -= first;
        e->lines = first;
        memmove(&core->buffer[i + 2], &core->buffer[i + 1], (core->count++ - i - 1) * sizeof rest);
        core->buffer[i + 1] = rest;
        if (sim_random(2))
            i++;
    }
    take_out(core, i);
}

void memory_new_image(void) { m.stale = true; }

void memory_begin(const void *image, uint64_t bytes, uint32_t hosts, const struct sim_options *options) {
    if (m.device == NULL || m.bytes != bytes || m.stale) {
        m.lines = bytes / SIM_LINE;
        m.device = realloc(m.device, bytes);
        m.version = realloc(m.version, m.lines * sizeof *m.version);
        m.last = realloc(m.last, m.lines * sizeof *m.last);
        memset(m.version, 0, m.lines * sizeof *m.version);
        memset(m.last, 0, m.lines * sizeof *m.last);
        for (uint32_t h = 0; h < SIM_HOSTS; h++) {
            free(m.cache[h]);
            m.cache[h] = calloc(m.lines, sizeof *m.cache[h]);
            m.touched[h] = realloc(m.touched[h], m.lines * sizeof *m.touched[h]);
        }
        memcpy(m.device, image, bytes);
        m.change_count = 0;
        m.stale = false;
    }
    if (m.addresses == NULL) {
        void *p = mmap(NULL, MAP_STRIDE * MAP_PLACES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
            abort();
        m.addresses = p;
    }
    /* Of the run before only what changed is put back. */
    for (uint32_t i = 0; i < m.change_count; i++) {
        uint32_t line = m.changes[i].line;
        m.last[line] = m.version[line] = 0;
        memcpy(m.device + (uint64_t)line * SIM_LINE, (const uint8_t *)image + (uint64_t)line * SIM_LINE, SIM_LINE);
    }
    m.change_count = 0;
    m.options = options;
    m.image = image;
    m.bytes = bytes;
    m.hosts = hosts;
    m.epoch++;
    m.mapped = 0;
    memset(m.touched_count, 0, sizeof m.touched_count);
    for (uint32_t i = 0; i < SIM_PROCESSES; i++)
        m.core[i].count = m.core[i].locals = m.core[i].mediums = 0;
}
