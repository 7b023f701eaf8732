/*
 * object.c - making objects: create, seal, abort, put. P1 and P2 of FORMAT.md.
 */
#include "internal.h"

#include "copy.h"
#include "crc32c.h"

#include <string.h>

static uint64_t aligned(uint64_t n) { return (n + FMT_LINE - 1) & ~(uint64_t)(FMT_LINE - 1); }

static uint64_t *word_of(struct fmt_slot *slot, uint32_t i) { return (uint64_t *)(void *)slot + i; }

static int full(struct gismo_store *s, uint64_t asked) {
    uint64_t pages, largest, slots = chunk_free_slots(s);
    page_free_stats(s, &pages, &largest);
    int status = fail(GISMO_EFULL,
                      slots == 0 ? "no slot is left for another object (%llu bytes asked, %llu free): delete objects, "
                                   "or format with a larger "
                                   "--max-objects"
                                 : "no room for %llu bytes: %llu are free, %llu in one piece. Delete objects, wait "
                                   "(wait_s), or format a larger "
                                   "store; `gismo top` shows who holds what",
                      (unsigned long long)asked, (unsigned long long)(pages * FMT_PAGE),
                      (unsigned long long)(largest * FMT_PAGE));
    fail_detail(asked, pages * FMT_PAGE, largest * FMT_PAGE, slots);
    return status;
}

/* The buffers' lengths and the name stand behind the payload. */
static void write_trailer(uint8_t *extent, const struct fmt_slot *record, const gismo_create_options *o) {
    uint64_t at = record->length;
    if (record->buffers > 1) {
        at = (at + 7) & ~7ull;
        prim_write(extent + at, o->buffer_bytes, 8ull * record->buffers);
        at += 8ull * record->buffers;
    }
    if (record->name_bytes)
        prim_write(extent + at, o->name, record->name_bytes);
}

static int payload_length(const gismo_create_options *o, uint64_t *length) {
    if (o == NULL || o->buffers == 0)
        return GISMO_OK;
    if (o->buffers > GISMO_BUFFERS_MAX || o->buffer_bytes == NULL)
        return fail(GISMO_EINVAL, "an object has at most %u buffers", GISMO_BUFFERS_MAX);
    uint64_t at = 0;
    for (uint32_t i = 0; i < o->buffers; i++) {
        at = aligned(at);
        if (o->buffer_bytes[i] > (1ull << 48) || at > (1ull << 48))
            return fail(GISMO_EINVAL, "buffer %u is larger than any store", i);
        at += o->buffer_bytes[i];
    }
    *length = at;
    return GISMO_OK;
}

/* Of a draft, by what its maker knows. */
static uint64_t draft_extent(const gismo_object *object) { return object->private_[1] & ((1ull << 56) - 1); }
static uint32_t draft_name_bytes(const gismo_object *object) { return (uint32_t)(object->private_[1] >> 56); }

int object_begin_locked(struct gismo_store *s, uint64_t length, const gismo_create_options *o, uint32_t flags,
                        gismo_object *out) {
    struct fmt_slot record;
    memset(&record, 0, sizeof record);
    int status = payload_length(o, &length);
    if (status)
        return status;
    record.length = length;
    record.buffers = o && o->buffers ? o->buffers : 1;
    record.name_bytes = o && o->name ? (uint8_t)o->name_bytes : 0;
    if (length > s->sb.data_bytes || slot_extent_bytes(&record) > s->sb.data_bytes)
        return full(s, length);
    uint64_t extent = slot_extent_bytes(&record);
    /* Tables of names are LARGE whatever their size: recovery looks for lost ones there. */
    bool small = extent <= FMT_SMALL_MAX && !(flags & FMT_SLOT_INTERNAL);
    uint32_t size_class = small ? fmt_class_of(extent) : FMT_CLASS_LARGE, slot;
    status = chunk_slot_locked(s, size_class, &slot);
    if (status)
        return status == GISMO_EFULL ? full(s, extent) : status;
    struct local_chunk *l = &s->local[slot / FMT_CHUNK_SLOTS];
    uint32_t i = slot % FMT_CHUNK_SLOTS;
    if (size_class == FMT_CLASS_LARGE) {
        uint64_t first = 0;
        /* Name tables stay for ever: out of the way of large objects. */
        int from_top = (flags & FMT_SLOT_INTERNAL) != 0;
        status = page_take_locked(s, (extent + FMT_PAGE - 1) / FMT_PAGE, from_top, &first);
        if (status) {
            l->free |= 1ull << i;
            __atomic_fetch_and(&l->writing, ~(1ull << i), __ATOMIC_RELEASE);
            return status == GISMO_EFULL ? full(s, extent) : status;
        }
        record.offset = s->sb.data_offset + first * FMT_PAGE;
    } else {
        record.offset = l->base + (uint64_t)i * l->cell_bytes;
    }
    struct fmt_slot *shared = &s->slot[slot];
    uint64_t generation = FMT_GENERATION(prim_load64(&shared->word));
    record.tag = o ? o->tag : 0;
    record.created_unix_ns = now_coarse_unix_ns();
    record.creator = (uint16_t)s->index;
    record.creator_lane = (uint8_t)s->lane;
    record.flags = flags;
    for (uint32_t w = 1; w < 8; w++) {
        uint64_t value;
        memcpy(&value, (const uint8_t *)&record + 8 * w, 8);
        prim_store64(word_of(shared, w), value);
    }
    if (UNLIKELY(record.name_bytes))
        loc_store(&s->host.naming[slot], (uint8_t)HOST_NAMING_NONE);
    prim_store64(&shared->word, FMT_WORD(generation, GISMO_WRITING));
    prim_publish(s->software, shared, sizeof *shared);
    if (size_class == FMT_CLASS_LARGE)
        page_intent_done(s);
    status = page_ensure_writable(s, record.offset, extent ? extent : 1);
    if (status == GISMO_OK && size_class == FMT_CLASS_LARGE)
        status = medium_reserve(s, record.offset, extent);
    if (status == GISMO_OK && (record.name_bytes || record.buffers > 1))
        write_trailer(s->base + record.offset, &record, o);
    if (status == GISMO_OK && record.name_bytes) {
        gismo_handle other;
        if (name_lookup(s, o->name, o->name_bytes, &other) == GISMO_OK)
            status = name_taken(o->name, o->name_bytes, &other);
        else
            status = name_insert_locked(s, slot, o->name, o->name_bytes);
    }
    if (status) {
        object_abort_locked(s, slot);
        return status;
    }
    memset(out, 0, sizeof *out);
    memcpy(out->handle.store_uuid, s->sb.uuid, 16);
    out->handle.generation = generation;
    out->handle.offset = record.offset;
    out->handle.length = length;
    out->handle.slot = slot;
    out->handle.lane = s->lane;
    out->data = s->base + record.offset;
    out->private_[0] = s->claim; /* this process's, until sealed: a fork's child has another claim */
    out->private_[1] = extent | (uint64_t)record.name_bytes
                                    << 56; /* not read back from the medium: it may be damaged */
    return GISMO_OK;
}

/* WRITING and ours: as if it had been deleted. */
void object_abort_locked(struct gismo_store *s, uint32_t slot) {
    uint32_t chunk = slot / FMT_CHUNK_SLOTS;
    struct local_chunk *l = &s->local[chunk];
    chunk_draft_to_deleted(s, slot);
    name_remove(s, slot);
    l->deleted |= 1ull << (slot % FMT_CHUNK_SLOTS);
    __atomic_fetch_and(&l->writing, ~(1ull << (slot % FMT_CHUNK_SLOTS)), __ATOMIC_RELEASE);
    if (l->open && l->size_class != FMT_CLASS_LARGE)
        return;
    chunk_settle_locked(s, chunk);
}

int object_publish(struct gismo_store *s, gismo_object *object, uint32_t flags, uint32_t payload_crc, bool locked) {
    uint32_t slot = object->handle.slot, chunk = slot / FMT_CHUNK_SLOTS;
    struct fmt_slot *shared = &s->slot[slot];
    struct local_chunk *l = &s->local[chunk];
    struct fmt_slot copy;
    for (uint32_t w = 0; w < 8;
         w++) { /* word by word, as they were stored a moment ago: wider loads would wait for the stores */
        uint64_t value = prim_load64(word_of(shared, w));
        memcpy((uint8_t *)&copy + 8 * w, &value, 8);
    }
    if (UNLIKELY(copy.offset != object->handle.offset || copy.length != object->handle.length ||
                 slot_extent_bytes(&copy) != draft_extent(object)))
        return fail(GISMO_ECORRUPT,
                    "the record of slot %u was damaged while the object was being written: abort it, run `gismo fsck`",
                    slot);
    uint32_t name_bytes = draft_name_bytes(object);
    if (UNLIKELY(name_bytes)) {
        uint8_t name[GISMO_NAME_MAX];
        prim_read(name, s->base + object->handle.offset + draft_extent(object) - name_bytes, name_bytes);
        int status = name_win(s, slot, name, name_bytes);
        if (status)
            return status;
    }
    copy.payload_crc = payload_crc;
    copy.flags = flags;
    if (flags & FMT_SLOT_HAS_CRC)
        prim_store32(&shared->payload_crc, payload_crc);
    if (flags)
        prim_store32(&shared->flags, flags);
    prim_store32(&shared->crc, fmt_slot_crc(&copy, object->handle.generation));
    prim_flush(s->software, shared, sizeof *shared);
    prim_fence_store(); /* P2: payload (also non-temporal) and fields before the word */
    if (s->software) /* what this host wrote itself is right in its cache */
        loc_store(&s->host.fresh[slot], object->handle.generation + 1);
    prim_store64(&shared->word, FMT_WORD(object->handle.generation, GISMO_SEALED));
    prim_publish(s->software, shared, 8);
    object->private_[0] = 0;
    uint64_t bit = 1ull << (slot % FMT_CHUNK_SLOTS);
    uint64_t before = __atomic_fetch_and(&l->writing, ~bit, __ATOMIC_ACQ_REL);
    if (UNLIKELY(before == bit && !__atomic_load_n(&l->open, __ATOMIC_ACQUIRE))) { /* the chunk was kept for us alone */
        if (!locked)
            store_lock(s);
        if (l->mine && !l->open && l->writing == 0)
            chunk_settle_locked(s, chunk);
        if (!locked)
            store_unlock(s);
    }
    return GISMO_OK;
}

/* ---- the public calls ------------------------------------------------------------------------ */

static int begin_once(struct gismo_store *s, uint64_t length, const gismo_create_options *o, gismo_object *out) {
    store_lock(s);
    int status = object_begin_locked(s, length, o, 0, out);
    store_unlock(s);
    return status;
}

/* When nothing fits: the dead, what waits to be retired, empty chunks, empty arenas of other hosts. */
static int make_room(struct gismo_store *s) {
    store_lock(s);
    recover_all(s);
    int freed = chunk_sweep_locked(s, 1);
    store_unlock(s);
    return freed;
}

static void wish(struct gismo_store *s, uint64_t pages) {
    struct fmt_lane *lane = &s->lanes[s->lane];
    uint64_t groups = 0;
    if (pages) {
        store_lock(s);
        groups = chunk_free_slots(s) == 0;
        store_unlock(s);
    }
    if (prim_load64(&lane->pages_wanted) == pages && prim_load64(&lane->groups_wanted) == groups)
        return;
    prim_store64(&lane->pages_wanted, pages);
    prim_store64(&lane->groups_wanted, groups);
    prim_store64(&lane->wishes, prim_load64(&lane->wishes) + 1);
    prim_publish(s->software, &lane->pages_wanted, FMT_LINE);
}

static bool others_have_room(struct gismo_store *s) {
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++)
        if (lane != s->lane && FMT_STATE(lane_state_word(s, lane)) == GISMO_LANE_ACTIVE)
            return true;
    return false;
}

/* Room is there, but its arena was just being changed by another process: a moment later it can be had. */
static bool pages_are_there(struct gismo_store *s, uint64_t length) {
    uint64_t pages, largest;
    store_lock(s);
    page_free_stats(s, &pages, &largest);
    store_unlock(s);
    return largest * FMT_PAGE >= length;
}

#define GRACE_NS 60000000ull

/* Why it may be wished for: the room of other hosts comes back within their tick (10 ms) if they have empty arenas. */
static int begin_waiting(struct gismo_store *s, uint64_t length, const gismo_create_options *o, gismo_object *out) {
    int64_t wait_ns = o ? o->wait_ns : 0;
    int status = begin_once(s, length, o, out);
    if (LIKELY(status != GISMO_EFULL) || wait_ns == GISMO_WAIT_NEVER)
        return status;
    uint64_t start = now_ns(), step = 200000;
    bool grace = others_have_room(s) || pages_are_there(s, length);
    uint64_t limit = wait_ns < 0 ? UINT64_MAX : (uint64_t)wait_ns;
    if (grace && limit < GRACE_NS)
        limit = GRACE_NS;
    for (;;) {
        make_room(s);
        status = begin_once(s, length, o, out);
        if (status != GISMO_EFULL)
            break;
        int entered = store_enter(s);
        if (entered) {
            status = entered;
            break;
        }
        uint64_t passed = now_ns() - start;
        if (passed >= limit || length > s->sb.data_bytes)
            break;
        wish(s, (length + FMT_PAGE - 1) / FMT_PAGE + 1);
        sleep_ns(step);
        if (step < 5000000)
            step *= 2;
    }
    wish(s, 0);
    return status;
}

static int check_options(const gismo_create_options *o) {
    if (o == NULL)
        return GISMO_OK;
    if (o->name == NULL ? o->name_bytes != 0 : o->name_bytes == 0 || o->name_bytes > GISMO_NAME_MAX)
        return fail(GISMO_EINVAL, "a name has 1..%u bytes", GISMO_NAME_MAX);
    return GISMO_OK;
}

int gismo_create(struct gismo_store *s, uint64_t length, const gismo_create_options *o, gismo_object *out) {
    int status = store_enter(s);
    if (status == GISMO_OK)
        status = check_options(o);
    if (status)
        return status;
    return GUARDED(s, begin_waiting(s, length, o, out));
}

static int check_object(struct gismo_store *s, const gismo_object *object) {
    int status = store_enter(s);
    if (status)
        return status;
    if (object->private_[0] == 0)
        return fail(GISMO_ECLOSED, "the object is already sealed or aborted");
    if (object->private_[0] != s->claim)
        return fail(
            GISMO_EPERM,
            "the object is being written by another process (this one was forked from it): only that one can seal it");
    if (object->handle.slot >= s->slots || !s->local[object->handle.slot / FMT_CHUNK_SLOTS].mine ||
        prim_load64(&s->slot[object->handle.slot].word) != FMT_WORD(object->handle.generation, GISMO_WRITING))
        return fail(GISMO_EINVAL, "that is not an object being written");
    return GISMO_OK;
}

int gismo_write(struct gismo_store *s, const gismo_object *object, uint64_t offset, const void *data, uint64_t length) {
    int status = GUARDED(s, check_object(s, object));
    if (status)
        return status;
    if (offset > object->handle.length || length > object->handle.length - offset)
        return fail(GISMO_EINVAL, "%llu bytes at %llu do not fit into an object of %llu bytes",
                    (unsigned long long)length, (unsigned long long)offset, (unsigned long long)object->handle.length);
    struct copy_options options = {COPY_AUTO, 0, NULL, NULL};
    return copy_payload((uint8_t *)object->data + offset, data, length, options) == 0 ? GISMO_OK : media_failed(s);
}

static void count_put(struct gismo_store *s, uint64_t bytes) {
    struct host_process *p = &s->host.process[s->index];
    loc_count(&p->puts, 1);
    loc_count(&p->put_bytes, bytes);
}

static int seal(struct gismo_store *s, gismo_object *object, uint32_t flags) {
    int status = check_object(s, object);
    if (status)
        return status;
    uint32_t crc = 0, slot_flags = 0;
    if (flags & GISMO_SEAL_CRC) {
        crc = prim_crc32c(0, object->data, object->handle.length);
        slot_flags |= FMT_SLOT_HAS_CRC;
    }
    prim_flush(s->software, s->base + object->handle.offset, draft_extent(object));
    status = object_publish(s, object, slot_flags, crc, false);
    if (LIKELY(status == GISMO_OK))
        count_put(s, object->handle.length);
    return status;
}

int gismo_seal(struct gismo_store *s, gismo_object *object, uint32_t flags) {
    return GUARDED(s, seal(s, object, flags));
}

/* A record that was damaged meanwhile must not decide which pages are given back: we know which they are. */
static void restore_extent(struct gismo_store *s, const gismo_object *object) {
    struct fmt_slot *shared = &s->slot[object->handle.slot], copy;
    slot_read(shared, &copy);
    if (LIKELY(copy.offset == object->handle.offset && slot_extent_bytes(&copy) == draft_extent(object)))
        return;
    copy.buffers = 1;
    copy.name_bytes = 0;
    uint64_t shape;
    memcpy(&shape, (const uint8_t *)&copy + offsetof(struct fmt_slot, buffers), 8);
    prim_store64(&shared->offset, object->handle.offset);
    prim_store64(&shared->length, draft_extent(object));
    prim_store64(word_of(shared, offsetof(struct fmt_slot, buffers) / 8), shape);
    prim_publish(s->software, shared, sizeof *shared);
}

static int abort_object(struct gismo_store *s, gismo_object *object) {
    int status = check_object(s, object);
    if (status)
        return status;
    object->private_[0] = 0;
    store_lock(s);
    restore_extent(s, object);
    object_abort_locked(s, object->handle.slot);
    store_unlock(s);
    return GISMO_OK;
}

int gismo_abort(struct gismo_store *s, gismo_object *object) { return GUARDED(s, abort_object(s, object)); }

/* Buffers end to end, each on a line border; what lies between is zeroed, so that the CRC is of known bytes. */
static int copy_in(struct gismo_store *s, gismo_object *object, const gismo_buffer *buffers, uint32_t count,
                   uint32_t *crc) {
    static const uint8_t zeros[FMT_LINE];
    uint8_t *to = object->data;
    uint64_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t gap = aligned(at) - at;
        if (gap) {
            prim_zero(to + at, gap);
            *crc = crc32c(*crc, zeros, gap);
            at += gap;
        }
        /* With software coherence the lines must not stay in our cache: stream at every size, flush the ragged ends. */
        struct copy_options options = {s->software ? COPY_STREAM : COPY_AUTO, 0, crc, NULL};
        if (copy_payload(to + at, buffers[i].data, buffers[i].length, options) != 0)
            return GISMO_EMEDIA;
        at += buffers[i].length;
    }
    if (UNLIKELY(s->software)) {
        for (uint64_t b = 0, start = 0; b < count; start = aligned(start + buffers[b].length), b++) {
            prim_flush(1, to + start, 1);
            prim_flush(1, to + start + buffers[b].length - (buffers[b].length ? 1 : 0), FMT_LINE);
        }
        prim_flush(1, to + at, draft_extent(object) - at + 1);
    }
    return GISMO_OK;
}

static int put(struct gismo_store *s, const gismo_buffer *buffers, uint32_t count, const gismo_create_options *o,
               gismo_handle *out) {
    gismo_create_options mine = {0};
    uint64_t few[64];
    uint64_t *lengths = few;
    if (o)
        mine = *o;
    mine.buffers = 0;
    mine.buffer_bytes = NULL;
    if (count > 1) {
        if (count > GISMO_BUFFERS_MAX)
            return fail(GISMO_EINVAL, "an object has at most %u buffers", GISMO_BUFFERS_MAX);
        if (count > 64 && (lengths = __builtin_malloc(8ull * count)) == NULL)
            return fail(GISMO_ESYS, "out of memory");
        for (uint32_t i = 0; i < count; i++)
            lengths[i] = buffers[i].length;
        mine.buffers = count;
        mine.buffer_bytes = lengths;
    }
    gismo_object object;
    int status = begin_waiting(s, count ? buffers[0].length : 0, &mine, &object);
    if (lengths != few)
        __builtin_free(lengths);
    if (status)
        return status;
    uint32_t crc = 0;
    if (copy_in(s, &object, buffers, count, &crc) != GISMO_OK) {
        (void)abort_object(s, &object);
        return media_failed(s);
    }
    status = object_publish(s, &object, FMT_SLOT_HAS_CRC, crc, false);
    if (UNLIKELY(status)) {
        (void)abort_object(s, &object);
        return status;
    }
    *out = object.handle;
    count_put(s, object.handle.length);
    return GISMO_OK;
}

int gismo_put(struct gismo_store *s, const gismo_buffer *buffers, uint32_t count, const gismo_create_options *o,
              gismo_handle *out) {
    int status = store_enter(s);
    if (status == GISMO_OK)
        status = check_options(o);
    if (status)
        return status;
    return GUARDED(s, put(s, buffers, count, o, out));
}

int gismo_put_one(struct gismo_store *s, const void *data, uint32_t length, const gismo_create_options *o,
                  gismo_handle *out) {
    const gismo_buffer buffer = {data, length};
    return gismo_put(s, &buffer, 1, o, out);
}
