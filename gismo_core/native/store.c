/*
 * store.c - opening and closing a store; reading, deleting and finding objects. P3, P4 and P9 of FORMAT.md.
 */
#include "internal.h"

#include "copy.h"
#include "crc32c.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int recover_some(struct gismo_store *s) {
    store_lock(s);
    if (recover_step(s) == 0)
        (void)recover_find_dead(s); /* puts a hint right that is out of date */
    store_unlock(s);
    return GISMO_OK;
}

int store_enter(struct gismo_store *s) {
    if (UNLIKELY(s == NULL))
        return fail(GISMO_EINVAL, "no store");
    if (UNLIKELY(atomic_load_explicit(&s->closed, memory_order_relaxed)))
        return fail(GISMO_ECLOSED, "the store %s is closed: open it again", s->path);
    if (UNLIKELY(atomic_load_explicit(&s->failed, memory_order_relaxed)))
        return fail(GISMO_EMEDIA,
                    "the medium of %s failed earlier: close the store, look at `gismo fsck`, open it again", s->path);
    if (UNLIKELY(s->read_only))
        return fail(GISMO_EPERM, "the store %s was opened read-only: it can be looked at, not used", s->path);
    if (UNLIKELY(atomic_load_explicit(&s->thread_state, memory_order_relaxed) == 0 && !s->no_thread))
        (void)thread_start(s); /* after a fork; a thread that cannot be had is no failure: gismo_tick does its work */
    if (UNLIKELY(loc_load(&s->host.header->standing) != HOST_IN_PLACE || silence_must_look(s))) {
        int status = GUARDED(s, silence_look(s));
        if (status)
            return status;
    }
    if (UNLIKELY(loc_load(&s->host.header->reaping) != 0))
        return GUARDED(s, recover_some(s));
    return GISMO_OK;
}

/* ---- open, close ----------------------------------------------------------------------------- */

static void set_regions(struct gismo_store *s) {
    s->identities = (void *)(s->base + s->sb.lanes_offset);
    s->lanes = (void *)(s->base + s->sb.lanes_offset + s->sb.max_lanes * sizeof(struct fmt_identity));
    s->registers = (void *)(s->base + s->sb.registers_offset);
    s->chunk_headers = (void *)(s->base + s->sb.chunks_offset);
    s->slot = (void *)(s->base + s->sb.slots_offset);
    s->pins = s->base + s->sb.pins_offset;
    s->rings = (void *)(s->base + s->sb.rings_offset);
    s->chunks = s->sb.chunks;
    s->slots = s->sb.chunks * FMT_CHUNK_SLOTS;
    s->software = s->sb.coherence == GISMO_COHERENCE_SOFTWARE;
}

static int open_medium(struct gismo_store *s, const char *path) {
    if (path == NULL)
        path = getenv("GISMO_STORE");
    int status = medium_open(s, path, s->read_only);
    if (status)
        return status;
    status = medium_lock(s->fd, MEDIUM_LOCK_USE, 0, 2000000000ull);
    if (status == GISMO_EBUSY)
        return fail(GISMO_EBUSY, "%s is being formatted", s->path);
    if (status != GISMO_OK && !s->read_only)
        return status;
    status = medium_map(s);
    if (status)
        return status;
    const void *last = s->mapped_bytes >= 2 * FMT_SUPERBLOCK_BYTES
                           ? s->base + s->mapped_bytes / FMT_PAGE * FMT_PAGE - FMT_SUPERBLOCK_BYTES
                           : NULL;
    status = GUARDED(NULL, superblock_read(s->base, last, s->mapped_bytes, &s->sb));
    if (status)
        return status;
    set_regions(s);
    stray_watch(s);
    s->local = mmap(NULL, s->chunks * sizeof *s->local, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->local == MAP_FAILED) {
        s->local = NULL;
        return fail_errno(GISMO_ESYS, "out of memory");
    }
    for (uint32_t k = 0; k <= FMT_CLASSES; k++)
        s->open_chunk[k] = NO_CHUNK;
    if (s->read_only)
        return GISMO_OK;
    if (s->sb.feature_ro_compat & ~FMT_KNOWN_RO_COMPAT)
        return fail(GISMO_EINCOMPAT,
                    "the store can only be read by this build (feature bits 0x%llx): use a newer gismo",
                    (unsigned long long)(s->sb.feature_ro_compat & ~FMT_KNOWN_RO_COMPAT));
    return medium_make_writable(s, s->sb.lanes_offset, s->sb.data_offset - s->sb.lanes_offset);
}

static void dispose(struct gismo_store *s) {
    if (s->local)
        munmap(s->local, s->chunks * sizeof *s->local);
    s->local = NULL;
    stray_forget(s);
    medium_unmap(s);
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static int open_store(const char *path, const gismo_open_options *o, uint64_t granted, uint32_t taker,
                      struct gismo_store **out) {
    *out = NULL;
    if (guard_install() != 0)
        return fail_errno(GISMO_ESYS, "cannot install a handler for SIGBUS");
    struct gismo_store *s = calloc(1, sizeof *s);
    if (s == NULL)
        return fail(GISMO_ESYS, "out of memory");
    s->granted = granted;
    s->taker = taker;
    s->fd = s->lock_fd = s->probe_fd = s->state_dir_fd = s->inotify_fd = s->wake_fd = -1;
    s->views = 1; /* until closed */
    s->read_only = o && o->read_only;
    s->no_thread = o && o->no_thread;
    s->restarted = o && o->restarted;
    int status = open_medium(s, path);
    int32_t host_id = o ? o->host_id : -1;
    if (status == GISMO_OK && !s->read_only && host_id < 0) {
        const char *text = getenv("GISMO_HOST_ID");
        if (text && text[0]) {
            char *end;
            long value = strtol(text, &end, 10);
            if (*end || value < 0 || value > 63)
                status = fail(GISMO_EINVAL, "GISMO_HOST_ID is \"%s\": it must be a number from 0 to 63", text);
            host_id = (int32_t)value;
        }
    }
    if (status == GISMO_OK && !s->read_only)
        status = GUARDED(s, lane_join(s, o ? o->state_dir : NULL, host_id));
    if (status == GISMO_OK && !s->read_only) {
        fork_watch(s);
        if (!s->no_thread)
            status = thread_start(s);
        if (status != GISMO_OK)
            fork_forget(s);
    }
    if (status != GISMO_OK) {
        if (s->claim)
            host_unregister(s);
        host_detach(s);
        dispose(s);
        free(s);
        return status;
    }
    *out = s;
    return GISMO_OK;
}

int gismo_open(const char *path, const gismo_open_options *o, struct gismo_store **out) {
    return open_store(path, o, 0, 0, out);
}

int store_open_lane(struct gismo_store *s, const char *state_dir, uint32_t lane, uint64_t granted,
                    struct gismo_store **out) {
    gismo_open_options o = {.state_dir = state_dir, .host_id = (int32_t)lane, .no_thread = 1};
    return open_store(s->path, &o, granted, s->lane + 1, out);
}

static int leave(struct gismo_store *s) {
    if (lane_standing(s) == HOST_LOST)
        return GISMO_OK; /* released on a wrong word: what was ours is another's now */
    recover_all(s);
    (void)ring_send_outbound(s);
    lane_leave(s);
    return GISMO_OK;
}

/* Only leaving touches the medium; should that fail, all else is given back, and the others see a death. */
void store_release_host(struct gismo_store *s) {
    if (s->state_mapping) {
        if (!s->failed && GUARDED(s, leave(s)) != GISMO_OK)
            s->failed = GISMO_EMEDIA;
        host_unregister(s);
    }
    host_detach(s);
    dispose(s);
}

static int close_chunks(struct gismo_store *s) {
    for (uint64_t w = 0; w < s->host.words; w++) {
        for (uint64_t bits = loc_load(&s->claimed[w]); bits; bits &= bits - 1) {
            uint32_t c = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits);
            struct local_chunk *l = &s->local[c];
            for (uint64_t writing = l->mine ? l->writing : 0; writing; writing &= writing - 1)
                object_abort_locked(s, c * FMT_CHUNK_SLOTS + (uint32_t)__builtin_ctzll(writing));
        }
    }
    chunk_close_all_locked(s);
    return GISMO_OK;
}

/* `views` counts pins, plus one until the store is closed: who brings it to 0 gives everything back. */
static void drop_view(struct gismo_store *s) {
    if (atomic_fetch_sub(&s->views, 1) == 1)
        store_release_host(s);
}

int gismo_close(struct gismo_store *s) {
    if (s == NULL)
        return fail(GISMO_EINVAL, "no store");
    int expected = 0;
    if (!atomic_compare_exchange_strong(&s->closed, &expected, 1))
        return GISMO_OK;
    int status = GISMO_OK;
    if (!s->read_only) {
        thread_stop(s);
        if (!s->failed && GUARDED(s, (int)lane_standing(s)) != HOST_LOST) {
            store_lock(s);
            status = GUARDED(s, close_chunks(s));
            if (status == GISMO_OK)
                store_unlock(s);
        }
        /* Still in the list of fork handlers while views are out: a child needs pins of its own. */
    }
    if (atomic_load(&s->views) == 1)
        fork_forget(s);
    drop_view(s);
    return status;
}

void gismo_free(struct gismo_store *s) {
    if (s == NULL)
        return;
    (void)gismo_close(s);
    if (s->base == NULL) {
        fork_forget(s);
        free(s);
    }
    /* else: views are out. The struct (a few KiB) stays; the last release gives mapping and registration back. */
}

int gismo_get_info(struct gismo_store *s, gismo_info *out) {
    info_fill(&s->sb, s->is_dax, out);
    return GISMO_OK;
}

/* ---- reading --------------------------------------------------------------------------------- */

static int gone(const gismo_handle *h) {
    return fail(GISMO_EGONE, "the object (slot %u, generation %llu) was deleted, or never was", h->slot,
                (unsigned long long)h->generation);
}

static bool delete_is_pending(struct gismo_store *s, uint32_t slot, uint64_t generation) {
    uint64_t pending = loc_load(&s->host.chunk[slot / FMT_CHUNK_SLOTS].pending);
    return UNLIKELY(pending >> (slot % FMT_CHUNK_SLOTS) & 1) &&
           loc_load(&s->host.pending_generation[slot]) >= generation;
}

static inline int unpin(struct gismo_store *s, uint32_t slot) {
    loc_sub(&s->pin_counts[slot], 1u);
    if (UNLIKELY(FMT_STATE(prim_hint64(&s->slot[slot].word)) == GISMO_DELETED)) {
        uint32_t chunk = slot / FMT_CHUNK_SLOTS;
        bit_set(unit_is_mine(s, AGREE_GROUP, chunk_group(s, chunk)) ? s->host.retire : s->host.outbound, chunk);
        loc_store(&s->host.header->retire_hint, (uint64_t)1);
    }
    return GISMO_OK;
}

static inline void pin(struct gismo_store *s, uint32_t slot) {
    uint32_t chunk = slot / FMT_CHUNK_SLOTS;
    host_mark_pinner(&s->host.chunk[chunk], s->index);
    loc_add(&s->pin_counts[slot], 1u);
    /* A host needs no byte for slots of its own groups: their claimer looks at the counts. */
    if (!unit_is_mine(s, AGREE_GROUP, chunk_group(s, chunk))) {
        uint8_t *byte = s->pins + (s->lane * s->chunks + chunk) * FMT_LINE + slot % FMT_CHUNK_SLOTS;
        if (prim_load8(byte) != 1)
            prim_store8(byte, 1);
        prim_flush(s->software, byte, 1); /* also one that was 1: whoever stored it may have frozen before its flush */
    }
    prim_fence_full(); /* P3.2: pin before the second look */
}

static bool fits(const struct fmt_slot *record, const gismo_handle *h) {
    return record->offset == h->offset && record->length == h->length && record->creator_lane == h->lane;
}

static int damaged_handle(const gismo_handle *h) {
    return fail(GISMO_EINVAL, "the handle is damaged: it does not fit the object in slot %u", h->slot);
}

/* *pinned: the pin is counted and, unless all goes well, still to be given back, whichever way this ends. */
static int get(struct gismo_store *s, const gismo_handle *h, gismo_view *out, volatile int *pinned) {
    if (UNLIKELY(memcmp(h->store_uuid, s->sb.uuid, 16) != 0))
        return fail(GISMO_EGONE, "the handle belongs to another store");
    if (UNLIKELY(h->slot >= s->slots || h->generation > FMT_GENERATION_MASK))
        return fail(GISMO_EINVAL, "the handle is damaged: slot %u of %llu", h->slot, (unsigned long long)s->slots);
    slot_prefetch(s, h->slot);
    __builtin_prefetch(&s->host.chunk[h->slot / FMT_CHUNK_SLOTS].pinners[s->index / 64], 1);
    __builtin_prefetch(&s->pin_counts[h->slot], 1);
    struct fmt_slot *record = &s->slot[h->slot];
    uint64_t want = FMT_WORD(h->generation, GISMO_SEALED);
    prim_refresh(s->software, record, sizeof *record);
    if (UNLIKELY(prim_load64(&record->word) != want || delete_is_pending(s, h->slot, h->generation)))
        return gone(h);
    atomic_fetch_add_explicit(&s->views, 1, memory_order_relaxed);
    *pinned = 1;
    pin(s, h->slot); /* counts before it touches the medium */
    prim_refresh(s->software, record, sizeof *record);
    if (UNLIKELY(prim_load64(&record->word) != want))
        return gone(h);
    struct fmt_slot copy;
    copy.word = want; /* that alone may change under a pin, to DELETED */
    prim_read((uint8_t *)&copy + 8, (const uint8_t *)record + 8, sizeof copy - 8);
    if (UNLIKELY(!slot_extent_ok(s, &copy) || fmt_slot_crc(&copy, h->generation) != copy.crc ||
                 (copy.flags & FMT_SLOT_INTERNAL) || !fits(&copy, h))) {
        if (prim_load64(&record->word) != want) /* deleted just now: its name entry goes first of all */
            return gone(h);
        bool damaged = !slot_extent_ok(s, &copy) || fmt_slot_crc(&copy, h->generation) != copy.crc;
        return damaged ? fail(GISMO_ECORRUPT, "the record of slot %u is damaged: run `gismo fsck`", h->slot)
                       : damaged_handle(h);
    }
    if (s->software && loc_load(&s->host.fresh[h->slot]) != h->generation + 1) {
        /* Not done before the full fence of pin(), and the first look at the word, which saw SEALED, came before that. */
        prim_refresh(1, s->base + copy.offset, slot_extent_bytes(&copy));
        loc_store(&s->host.fresh[h->slot], h->generation + 1);
    }
    out->data = s->base + copy.offset;
    out->length = copy.length;
    out->generation = h->generation;
    out->tag = copy.tag;
    out->created_unix_ns = copy.created_unix_ns;
    out->slot = h->slot;
    out->buffers = copy.buffers;
    out->name_bytes = copy.name_bytes;
    out->payload_crc = copy.payload_crc;
    out->has_crc = copy.flags & FMT_SLOT_HAS_CRC;
    out->lane = copy.creator_lane;
    struct host_process *p = &s->host.process[s->index];
    loc_count(&p->gets, 1);
    loc_count(&p->get_bytes, copy.length);
    return GISMO_OK;
}

/* The pin goes even where the medium has failed. */
static void give_back(struct gismo_store *s, uint32_t slot) {
    (void)GUARDED(NULL, unpin(s, slot));
    drop_view(s);
}

int gismo_get(struct gismo_store *s, const gismo_handle *h, gismo_view *out) {
    volatile int pinned = 0;
    int status = store_enter(s);
    if (LIKELY(status == GISMO_OK))
        status = GUARDED(s, get(s, h, out, &pinned));
    if (UNLIKELY(status != GISMO_OK && pinned))
        give_back(s, h->slot);
    return status;
}

static int retain(struct gismo_store *s, uint32_t slot) {
    if (slot >= s->slots || loc_load(&s->pin_counts[slot]) == 0)
        return fail(GISMO_EINVAL, "this process does not pin slot %u", slot);
    atomic_fetch_add_explicit(&s->views, 1, memory_order_relaxed);
    loc_add(&s->pin_counts[slot], 1u);
    return GISMO_OK;
}

int gismo_retain(struct gismo_store *s, uint32_t slot) {
    if (s == NULL || s->base == NULL)
        return fail(GISMO_ECLOSED, "the store is closed");
    return GUARDED(NULL, retain(s, slot)); /* a page of the counts that was never touched may not be to be had */
}

int gismo_release(struct gismo_store *s, uint32_t slot) {
    if (UNLIKELY(s == NULL || s->base == NULL || s->pin_counts == NULL))
        return fail(GISMO_ECLOSED, "the store is closed and has no views");
    if (UNLIKELY(slot >= s->slots || loc_load(&s->pin_counts[slot]) == 0))
        return fail(GISMO_EINVAL, "this process does not pin slot %u", slot);
    give_back(s, slot);
    return GISMO_OK;
}

static int view_buffers(struct gismo_store *s, const gismo_view *view, uint64_t *out) {
    if (view->buffers <= 1) {
        out[0] = view->length;
        return GISMO_OK;
    }
    const uint8_t *table = (const uint8_t *)view->data + ((view->length + 7) & ~7ull);
    prim_read(out, table, 8ull * view->buffers);
    uint64_t at = 0;
    for (uint32_t i = 0; i < view->buffers; i++) { /* hostile until checked */
        at = (at + FMT_LINE - 1) & ~(uint64_t)(FMT_LINE - 1);
        if (out[i] > view->length || at > view->length - out[i])
            return fail(GISMO_ECORRUPT, "the table of buffers of slot %u is damaged", view->slot);
        at += out[i];
    }
    (void)s;
    return GISMO_OK;
}

int gismo_view_buffers(struct gismo_store *s, const gismo_view *view, uint64_t *out) {
    return GUARDED(NULL, view_buffers(s, view, out));
}

static int view_name(const gismo_view *view, void *out) {
    struct fmt_slot shape = {.length = view->length, .buffers = view->buffers, .name_bytes = (uint8_t)view->name_bytes};
    prim_read(out, (const uint8_t *)view->data + slot_extent_bytes(&shape) - view->name_bytes, view->name_bytes);
    return (int)view->name_bytes;
}

int gismo_view_name(struct gismo_store *s, const gismo_view *view, void *out) {
    (void)s;
    return GUARDED(NULL, view_name(view, out));
}

static int view_verify(const gismo_view *view) {
    if (!view->has_crc)
        return fail(GISMO_EUNSUPPORTED,
                    "the object in slot %u has no checksum: seal(crc=True) gives a created one its own", view->slot);
    if (prim_crc32c(0, view->data, view->length) != view->payload_crc)
        return fail(GISMO_ECORRUPT, "the payload of slot %u is not what was put there", view->slot);
    return GISMO_OK;
}

int gismo_view_verify(struct gismo_store *s, const gismo_view *view) {
    (void)s;
    return GUARDED(NULL, view_verify(view));
}

/* ---- deleting, finding ------------------------------------------------------------------------ */

static int delete_object(struct gismo_store *s, const gismo_handle *h) {
    if (memcmp(h->store_uuid, s->sb.uuid, 16) != 0)
        return fail(GISMO_EGONE, "the handle belongs to another store");
    if (h->slot >= s->slots || h->generation > FMT_GENERATION_MASK)
        return fail(GISMO_EINVAL, "the handle is damaged: slot %u of %llu", h->slot, (unsigned long long)s->slots);
    if (h->offset < s->sb.size)
        __builtin_prefetch(s->base + h->offset, 1); /* its cell is the next to be written */
    slot_prefetch(s, h->slot);
    struct fmt_slot *record = &s->slot[h->slot];
    prim_refresh(s->software, record, sizeof *record);
    if (prim_load64(&record->word) != FMT_WORD(h->generation, GISMO_SEALED) ||
        delete_is_pending(s, h->slot, h->generation))
        return gone(h);
    GISMO_SITE(READ);
    struct fmt_slot copy;
    slot_read(record, &copy);
    const bool internal = copy.flags & FMT_SLOT_INTERNAL;
    if (internal || !fits(&copy, h)) {
        /* Of a sealed object nothing changes, but another may have deleted it meanwhile, and the slot is another's now. */
        prim_refresh(s->software, record, sizeof *record);
        if (prim_load64(&record->word) != FMT_WORD(h->generation, GISMO_SEALED))
            return gone(h);
        return internal ? fail(GISMO_EINVAL, "slot %u is a table of the store itself", h->slot) : damaged_handle(h);
    }
    uint32_t chunk = h->slot / FMT_CHUNK_SLOTS;
    int status;
    store_lock(s);
    if (unit_is_mine(s, AGREE_GROUP, chunk_group(s, chunk))) {
        status = chunk_delete_locked(s, h->slot, h->generation);
    } else {
        status = chunk_request_delete(s, h->slot, h->generation, true);
        chunk_unmark(s, chunk);
        if (status == GISMO_OK && ring_send_outbound(s) > 0)
            thread_kick(s);
    }
    store_unlock(s);
    if (status == GISMO_OK)
        loc_count(&s->host.process[s->index].deletes, 1);
    return status == GISMO_EGONE ? gone(h) : status;
}

int gismo_delete(struct gismo_store *s, const gismo_handle *h) {
    int status = store_enter(s);
    return status ? status : GUARDED(s, delete_object(s, h));
}

int gismo_lookup(struct gismo_store *s, const void *name, uint32_t bytes, int64_t wait_ns, gismo_handle *out) {
    if (bytes == 0 || bytes > GISMO_NAME_MAX)
        return fail(GISMO_EINVAL, "a name has 1..%u bytes", GISMO_NAME_MAX);
    uint64_t start = now_ns(), step = 20000;
    for (;;) {
        int status = store_enter(s);
        if (status == GISMO_OK)
            status = GUARDED(s, name_lookup(s, name, bytes, out));
        if (status != GISMO_ENOTFOUND)
            return status;
        if (wait_ns >= 0 && now_ns() - start >= (uint64_t)wait_ns)
            return fail(GISMO_ENOTFOUND, "no object is called \"%.*s\"", (int)bytes, (const char *)name);
        sleep_ns(step);
        if (step < 2000000)
            step += step / 2;
    }
}

/* The extent holds the address; which slot that is follows from the chunk headers only by a search, so callers keep their
 * handles where they can. Pinned objects only: what is found cannot go away under the caller. */
static int find_pinned(struct gismo_store *s, uint64_t at, gismo_handle *out) {
    for (uint64_t slot = 0; slot < s->slots; slot++) {
        if (loc_load(&s->pin_counts[slot]) == 0)
            continue;
        struct fmt_slot copy;
        slot_read(&s->slot[slot], &copy);
        uint32_t state = FMT_STATE(copy.word);
        if ((state != GISMO_SEALED && state != GISMO_DELETED) || !slot_extent_ok(s, &copy) || at < copy.offset ||
            at - copy.offset >= (copy.length ? copy.length : 1))
            continue;
        memcpy(out->store_uuid, s->sb.uuid, 16);
        out->generation = FMT_GENERATION(copy.word);
        out->offset = copy.offset;
        out->length = copy.length;
        out->slot = (uint32_t)slot;
        out->lane = copy.creator_lane;
        return GISMO_OK;
    }
    return fail(GISMO_ENOTFOUND, "the address lies in no object that this process reads");
}

int gismo_find_pinned(struct gismo_store *s, const void *address, gismo_handle *out) {
    int status = store_enter(s);
    if (status)
        return status;
    const uint8_t *p = address;
    if (p < s->base + s->sb.data_offset || p >= s->base + s->sb.data_offset + s->sb.data_bytes)
        return fail(GISMO_ENOTFOUND, "the address does not lie in this store");
    return GUARDED(s, find_pinned(s, (uint64_t)(p - s->base), out));
}
