/*
 * inspect.c - looking at a store: objects, hosts, processes, totals. Changes nothing, and believes nothing it reads.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

static uint32_t owner_lane(struct gismo_store *s, uint32_t chunk) {
    prim_refresh(s->software, &s->chunk_headers[chunk], FMT_LINE);
    uint64_t hint = prim_load64(&s->chunk_headers[chunk].lane_plus_1);
    return hint == 0 || hint > s->sb.max_lanes ? FMT_MAX_LANES : (uint32_t)hint - 1;
}

static uint64_t pinned_lanes(struct gismo_store *s, uint32_t slot) {
    uint64_t lanes = 0;
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++) {
        const uint8_t *line = s->pins + (lane * s->chunks + slot / FMT_CHUNK_SLOTS) * FMT_LINE;
        prim_refresh(s->software, line, FMT_LINE);
        if (prim_load8(line + slot % FMT_CHUNK_SLOTS))
            lanes |= 1ull << lane;
    }
    return lanes;
}

static uint64_t occupied(const struct fmt_chunk *h, const struct fmt_slot *slot) {
    if ((h->word & 0xff) == FMT_CHUNK_SMALL)
        return h->word >> 32;
    uint64_t bytes = (slot_extent_bytes(slot) + FMT_PAGE - 1) / FMT_PAGE * FMT_PAGE;
    return bytes ? bytes : FMT_PAGE;
}

static void fill_handle(struct gismo_store *s, uint32_t slot, uint64_t word, const struct fmt_slot *copy,
                        gismo_handle *out) {
    memcpy(out->store_uuid, s->sb.uuid, 16);
    out->generation = FMT_GENERATION(word);
    out->offset = copy->offset;
    out->length = copy->length;
    out->slot = slot;
    out->lane = copy->creator_lane;
}

/* Deleted as far as this host is concerned, though its owner may not have heard of it. */
static bool deleted_here(struct gismo_store *s, uint32_t slot, uint64_t generation) {
    return s->state_mapping &&
           loc_load(&s->host.chunk[slot / FMT_CHUNK_SLOTS].pending) >> (slot % FMT_CHUNK_SLOTS) & 1 &&
           loc_load(&s->host.pending_generation[slot]) >= generation;
}

static int next_object(struct gismo_store *s, uint64_t *cursor, gismo_object_info *out) {
    for (uint64_t slot = *cursor; slot < s->slots; slot++) {
        uint32_t chunk = (uint32_t)(slot / FMT_CHUNK_SLOTS);
        if (slot % FMT_CHUNK_SLOTS == 0 && (chunk_word(s, chunk) & 0xff) == FMT_CHUNK_NONE) {
            slot += FMT_CHUNK_SLOTS - 1;
            continue;
        }
        struct fmt_slot *record = &s->slot[slot];
        prim_refresh(s->software, record, sizeof *record);
        uint64_t word = prim_load64(&record->word);
        if (FMT_STATE(word) == GISMO_FREE || FMT_STATE(word) > GISMO_DELETED)
            continue;
        struct fmt_slot copy;
        slot_read(record, &copy);
        struct fmt_chunk header;
        if (prim_load64(&record->word) != word || (copy.flags & FMT_SLOT_INTERNAL) || !slot_extent_ok(s, &copy) ||
            !chunk_header_read(s, chunk, &header))
            continue; /* changing under us, a table of the store, or damaged: fsck looks at those */
        memset(out, 0, sizeof *out);
        fill_handle(s, (uint32_t)slot, word, &copy, &out->handle);
        out->tag = copy.tag;
        out->created_unix_ns = copy.created_unix_ns;
        out->extent_bytes = occupied(&header, &copy);
        out->state = FMT_STATE(word);
        out->payload_crc = copy.payload_crc;
        out->has_crc = copy.flags & FMT_SLOT_HAS_CRC;
        out->creator = copy.creator;
        out->owner_lane = owner_lane(s, chunk);
        out->buffers = copy.buffers;
        out->pinned_lanes = pinned_lanes(s, (uint32_t)slot);
        if (s->state_mapping) {
            store_lock(s);
            out->pins_here = (uint32_t)host_pins(s, (uint32_t)slot);
            store_unlock(s);
            if (out->pins_here)
                out->pinned_lanes |= 1ull << s->lane;
            if (out->state == GISMO_SEALED && deleted_here(s, (uint32_t)slot, out->handle.generation))
                out->state = GISMO_DELETED;
        }
        if (copy.name_bytes && out->state == GISMO_SEALED) {
            uint64_t at = copy.offset + slot_extent_bytes(&copy) - copy.name_bytes;
            prim_refresh(s->software, s->base + at, copy.name_bytes);
            prim_read(out->name, s->base + at, copy.name_bytes);
            out->name_bytes = copy.name_bytes;
            if (prim_load64(&record->word) != word)
                continue;
        }
        *cursor = slot + 1;
        return GISMO_OK;
    }
    *cursor = s->slots;
    return GISMO_ENOTFOUND;
}

static int enter_to_look(struct gismo_store *s) {
    if (s && s->read_only && !s->closed)
        return GISMO_OK;
    return store_enter(s);
}

int gismo_next(struct gismo_store *s, uint64_t *cursor, gismo_object_info *out) {
    int status = enter_to_look(s);
    return status ? status : GUARDED(s, next_object(s, cursor, out));
}

/* Is a sealed object of that tag in the slot? `copy` is filled in if so. */
static bool sealed_there(struct gismo_store *s, uint32_t slot, uint64_t mask, uint64_t tag, struct fmt_slot *copy) {
    struct fmt_slot *record = &s->slot[slot];
    prim_refresh(s->software, record, sizeof *record);
    uint64_t word = prim_load64(&record->word);
    if (FMT_STATE(word) != GISMO_SEALED || (prim_load64(&record->tag) & mask) != tag)
        return false;
    slot_read(record, copy);
    /* If not: deleted meanwhile, a table of the store, or damaged: fsck looks at those. */
    return prim_load64(&record->word) == word && !(copy->flags & FMT_SLOT_INTERNAL) && (copy->tag & mask) == tag &&
           slot_extent_ok(s, copy) && !deleted_here(s, slot, FMT_GENERATION(word));
}

/* Nothing ever lay in the chunk, or nothing does any more. */
static bool chunk_is_unused(struct gismo_store *s, uint64_t slot) {
    return (chunk_word(s, (uint32_t)(slot / FMT_CHUNK_SLOTS)) & 0xff) == FMT_CHUNK_NONE;
}

static void fill_brief(struct gismo_store *s, uint64_t slot, const struct fmt_slot *copy, gismo_brief *out) {
    memset(out, 0, sizeof *out);
    fill_handle(s, (uint32_t)slot, copy->word, copy, &out->handle);
    out->tag = copy->tag;
}

static int list(struct gismo_store *s, uint64_t *cursor, uint64_t mask, uint64_t tag, gismo_brief *out, uint32_t max) {
    uint32_t found = 0;
    uint64_t slot = *cursor;
    for (; slot < s->slots && found < max; slot++) {
        struct fmt_slot copy;
        if (slot % FMT_CHUNK_SLOTS == 0 && chunk_is_unused(s, slot)) {
            slot += FMT_CHUNK_SLOTS - 1;
            continue;
        }
        if (!sealed_there(s, (uint32_t)slot, mask, tag, &copy))
            continue;
        gismo_brief *one = &out[found++];
        fill_brief(s, slot, &copy, one);
        if (s->state_mapping) {
            store_lock(s);
            one->pins_here = (uint32_t)host_pins(s, (uint32_t)slot);
            store_unlock(s);
        }
    }
    *cursor = slot;
    return (int)found;
}

int gismo_list(struct gismo_store *s, uint64_t *cursor, uint64_t mask, uint64_t tag, gismo_brief *out, uint32_t max) {
    int status = enter_to_look(s);
    return status ? status : GUARDED(s, list(s, cursor, mask, tag, out, max > INT32_MAX ? INT32_MAX : max));
}

/* One pass over the slots that does next to nothing for an object that is where it was. */
static int follow(struct gismo_store *s, uint64_t *cursor, uint64_t mask, uint64_t tag, uint64_t *seen,
                  gismo_brief *out, uint32_t max) {
    uint32_t found = 0;
    uint64_t slot = *cursor, pinned = 0;
    bool unused = false, entered = false;
    for (; slot < s->slots && found + 2 <= max; slot++) {
        if (slot % FMT_CHUNK_SLOTS == 0 || !entered) {
            uint32_t chunk = (uint32_t)(slot / FMT_CHUNK_SLOTS);
            entered = true;
            unused = chunk_is_unused(s, slot);
            pinned = 0;
            if (!unused && s->state_mapping) {
                store_lock(s);
                pinned = host_pinned_mask(s, chunk, ~0ull);
                store_unlock(s);
            }
        }
        struct fmt_slot copy;
        bool is_there = !unused && sealed_there(s, (uint32_t)slot, mask, tag, &copy);
        uint64_t mark = is_there ? FMT_GENERATION(copy.word) + 1 : 0; /* generations begin with 0 */
        bool is_new = is_there && mark != seen[slot];
        if (seen[slot] && mark != seen[slot]) {
            gismo_brief *gone = &out[found++];
            memset(gone, 0, sizeof *gone);
            gone->handle.generation = seen[slot] - 1;
            gone->handle.slot = (uint32_t)slot;
            gone->change = GISMO_GONE;
        }
        bool is_pinned = is_there && pinned >> (slot % FMT_CHUNK_SLOTS) & 1;
        if (is_new || is_pinned) {
            gismo_brief *one = &out[found++];
            fill_brief(s, slot, &copy, one);
            one->pins_here = is_pinned;
            one->change = is_new ? GISMO_NEW : GISMO_UNCHANGED;
        }
        seen[slot] = mark;
    }
    *cursor = slot;
    return (int)found;
}

int gismo_follow(struct gismo_store *s, uint64_t *cursor, uint64_t mask, uint64_t tag, uint64_t *seen, gismo_brief *out,
                 uint32_t max) {
    int status = enter_to_look(s);
    if (status)
        return status;
    if (max < 2)
        return fail(GISMO_EINVAL, "what changed in one slot may take two entries, and there is room for %u", max);
    return GUARDED(s, follow(s, cursor, mask, tag, seen, out, max > INT32_MAX ? INT32_MAX : max));
}

static int peek(struct gismo_store *s, const gismo_handle *h, uint64_t offset, uint64_t bytes, void *out) {
    if (memcmp(h->store_uuid, s->sb.uuid, 16) != 0 || h->slot >= s->slots)
        return fail(GISMO_EINVAL, "the handle is of another store");
    struct fmt_slot *record = &s->slot[h->slot];
    prim_refresh(s->software, record, sizeof *record);
    uint64_t word = prim_load64(&record->word);
    struct fmt_slot copy;
    slot_read(record, &copy);
    if (word != FMT_WORD(h->generation, GISMO_SEALED) || deleted_here(s, h->slot, h->generation))
        return fail(GISMO_EGONE, "the object was deleted");
    if (!slot_extent_ok(s, &copy) || copy.offset != h->offset || copy.length != h->length)
        return fail(GISMO_EINVAL, "the handle does not fit its object: it is forged, or the store is damaged");
    if (offset > copy.length || bytes > copy.length - offset)
        return fail(GISMO_EINVAL, "the payload has %llu bytes only", (unsigned long long)copy.length);
    prim_refresh(s->software, s->base + copy.offset + offset, bytes);
    prim_read(out, s->base + copy.offset + offset, bytes);
    /* The bytes are reused only after the word says DELETED, and a load is not moved before an earlier one. */
    prim_fence_load();
    prim_refresh(s->software, record, sizeof *record);
    if (prim_load64(&record->word) != word)
        return fail(GISMO_EGONE, "the object was deleted");
    return GISMO_OK;
}

int gismo_peek(struct gismo_store *s, const gismo_handle *handle, uint64_t offset, uint64_t bytes, void *out) {
    int status = enter_to_look(s);
    return status ? status : GUARDED(s, peek(s, handle, offset, bytes, out));
}

int gismo_peek_many(struct gismo_store *s, const gismo_handle *handles, uint32_t n, uint64_t bytes, void *out,
                    int *results) {
    int status = enter_to_look(s);
    for (uint32_t i = 0; status == GISMO_OK && i < n; i++)
        results[i] = GUARDED(s, peek(s, &handles[i], 0, bytes, (uint8_t *)out + i * bytes));
    return status;
}

static void cover(struct gismo_store *s, uint64_t *covered, uint64_t offset, uint64_t bytes) {
    uint64_t first = (offset - s->sb.data_offset) / FMT_PAGE, n = bytes ? (bytes + FMT_PAGE - 1) / FMT_PAGE : 1;
    for (uint64_t page = first; page < first + n && page < s->sb.data_bytes / FMT_PAGE; page++)
        covered[page / 64] |= 1ull << (page % 64);
}

/* Opened read-only there is no state directory to ask: what no extent covers is free, to whichever host. */
static int free_by_scan(struct gismo_store *s, gismo_stats *out) {
    uint64_t pages = s->sb.data_bytes / FMT_PAGE, *covered = calloc((pages + 63) / 64, 8), run = 0;
    if (covered == NULL)
        return fail(GISMO_ESYS, "out of memory");
    for (uint32_t c = 0; c < s->chunks; c++) {
        struct fmt_chunk h;
        bool known = chunk_header_read(s, c, &h);
        if (!known || (h.word & 0xff) == FMT_CHUNK_NONE) {
            out->free_objects += known ? FMT_CHUNK_SLOTS : 0;
            continue;
        }
        if ((h.word & 0xff) == FMT_CHUNK_SMALL)
            cover(s, covered, h.base, h.bytes);
        chunk_refresh_slots(s, c);
        for (uint32_t i = 0, cells = h.word >> 16 & 0xff; i < cells; i++) {
            struct fmt_slot copy;
            slot_read(&s->slot[(uint64_t)c * FMT_CHUNK_SLOTS + i], &copy);
            if (FMT_STATE(copy.word) == GISMO_FREE)
                out->free_objects++;
            else if ((h.word & 0xff) == FMT_CHUNK_LARGE && slot_extent_ok(s, &copy))
                cover(s, covered, copy.offset, slot_extent_bytes(&copy));
        }
    }
    for (uint64_t page = 0; page < pages; page++) {
        run = covered[page / 64] >> (page % 64) & 1 ? 0 : run + 1;
        out->free_bytes += run ? FMT_PAGE : 0;
        if (run * FMT_PAGE > out->largest_free_bytes)
            out->largest_free_bytes = run * FMT_PAGE;
    }
    free(covered);
    return GISMO_OK;
}

static int stats(struct gismo_store *s, gismo_stats *out) {
    memset(out, 0, sizeof *out);
    out->data_bytes = s->sb.data_bytes;
    for (uint32_t c = 0; c < s->chunks; c++) {
        struct fmt_chunk header;
        if (!chunk_header_read(s, c, &header) || (header.word & 0xff) == FMT_CHUNK_NONE)
            continue;
        chunk_refresh_slots(s, c);
        for (uint32_t i = 0, cells = header.word >> 16 & 0xff; i < cells; i++) {
            struct fmt_slot *record = &s->slot[(uint64_t)c * FMT_CHUNK_SLOTS + i];
            uint32_t state = FMT_STATE(prim_load64(&record->word));
            if (state == GISMO_FREE)
                continue;
            struct fmt_slot copy;
            slot_read(record, &copy);
            if (!slot_extent_ok(s, &copy))
                continue;
            out->used_bytes += occupied(&header, &copy);
            if (copy.flags & FMT_SLOT_INTERNAL)
                continue;
            out->sealed_objects += state == GISMO_SEALED;
            out->writing_objects += state == GISMO_WRITING;
            out->deleted_objects += state == GISMO_DELETED;
        }
    }
    if (s->read_only)
        return free_by_scan(s, out);
    store_lock(s);
    while (recover_find_dead(s) > 0 && recover_step(s))
        ;
    uint64_t pages, largest;
    page_free_stats(s, &pages, &largest);
    out->free_bytes = pages * FMT_PAGE;
    out->largest_free_bytes = largest * FMT_PAGE;
    out->free_objects = chunk_free_slots(s);
    store_unlock(s);
    struct host_header *h = s->host.header;
    out->puts = loc_load(&h->retired_puts);
    out->gets = loc_load(&h->retired_gets);
    out->deletes = loc_load(&h->retired_deletes);
    out->put_bytes = loc_load(&h->retired_put_bytes);
    out->get_bytes = loc_load(&h->retired_get_bytes);
    for (uint32_t i = 0; i < HOST_PROCESSES; i++) {
        struct host_process *p = &s->host.process[i];
        if ((loc_load(&p->word) & 0xff) != HOST_PROCESS_LIVE)
            continue;
        out->processes++;
        out->puts += loc_load(&p->puts);
        out->gets += loc_load(&p->gets);
        out->deletes += loc_load(&p->deletes);
        out->put_bytes += loc_load(&p->put_bytes);
        out->get_bytes += loc_load(&p->get_bytes);
    }
    out->pins_here = atomic_load(&s->views) - 1;
    out->recovered_processes = loc_load(&h->recovered_processes);
    out->recovered_objects = loc_load(&h->recovered_objects);
    out->lane = s->lane;
    for (uint32_t a = 0; a < s->sb.arenas; a++)
        out->arenas_owned += unit_is_mine(s, AGREE_ARENA, a);
    for (uint32_t g = 0; g < s->sb.groups; g++)
        out->groups_owned += unit_is_mine(s, AGREE_GROUP, g);
    return GISMO_OK;
}

int gismo_get_stats(struct gismo_store *s, gismo_stats *out) {
    int status = enter_to_look(s);
    return status ? status : GUARDED(s, stats(s, out));
}

static int host_info(struct gismo_store *s, uint32_t host_id, gismo_host_info *out) {
    memset(out, 0, sizeof *out);
    struct fmt_lane *lane = &s->lanes[host_id];
    uint64_t word = lane_state_word(s, host_id);
    prim_refresh(s->software, lane, sizeof *lane);
    uint32_t decided = FMT_STATE(lane_register(s, host_id));
    out->host_id = host_id;
    out->state = FMT_STATE(word);
    if (out->state == GISMO_LANE_ACTIVE && (decided == GISMO_LANE_FENCED || decided == GISMO_LANE_RELEASED))
        out->state = decided;
    if (!s->read_only)
        out->silent_samples = (uint32_t)loc_load(&s->host.silence[host_id].samples);
    out->incarnation = FMT_GENERATION(word);
    out->heartbeat = prim_load64(&lane->heartbeat);
    out->heartbeat_unix_ns = prim_load64(&lane->heartbeat_unix_ns);
    out->joined_unix_ns = prim_load64(&s->identities[host_id].joined_unix_ns);
    prim_read(out->boot_id, s->identities[host_id].boot_id, 16);
    prim_read(out->state_dir_uuid, s->identities[host_id].state_dir_uuid, 16);
    verdict_read(s, host_id, out->boot_id, &out->litmus);
    out->is_self = !s->read_only && host_id == s->lane;
    for (uint32_t w = 0; w < FMT_MAX_ARENAS / 64; w++)
        out->arenas += (uint32_t)__builtin_popcountll(prim_load64(&lane->arena_map[w]));
    for (uint32_t w = 0; w < FMT_MAX_GROUPS / 64; w++)
        out->groups += (uint32_t)__builtin_popcountll(prim_load64(&lane->group_map[w]));
    for (uint32_t c = 0; c < s->chunks; c++) {
        struct fmt_chunk header;
        if (!chunk_header_read(s, c, &header) || (header.word & 0xff) == FMT_CHUNK_NONE || owner_lane(s, c) != host_id)
            continue;
        chunk_refresh_slots(s, c);
        for (uint32_t i = 0, cells = header.word >> 16 & 0xff; i < cells; i++) {
            struct fmt_slot copy;
            slot_read(&s->slot[(uint64_t)c * FMT_CHUNK_SLOTS + i], &copy);
            if (FMT_STATE(copy.word) == GISMO_FREE || !slot_extent_ok(s, &copy))
                continue;
            out->used_bytes += occupied(&header, &copy);
            out->objects += FMT_STATE(copy.word) == GISMO_SEALED && !(copy.flags & FMT_SLOT_INTERNAL);
        }
    }
    return GISMO_OK;
}

int gismo_host(struct gismo_store *s, uint32_t host_id, gismo_host_info *out) {
    int status = enter_to_look(s);
    if (status)
        return status;
    return host_id >= s->sb.max_lanes ? GISMO_ENOTFOUND : GUARDED(s, host_info(s, host_id, out));
}

static int next_process(struct gismo_store *s, uint32_t *cursor, gismo_process_info *out) {
    for (uint32_t i = *cursor; i < HOST_PROCESSES; i++) {
        struct host_process *p = &s->host.process[i];
        uint64_t word = loc_load(&p->word);
        if ((word & 0xff) == HOST_PROCESS_FREE)
            continue;
        memset(out, 0, sizeof *out);
        out->index = i;
        out->epoch = word >> 8;
        out->is_self = i == s->index && out->epoch == s->epoch;
        out->pid = p->pid;
        out->joined_unix_ns = p->joined_unix_ns;
        out->puts = loc_load(&p->puts);
        out->gets = loc_load(&p->gets);
        out->deletes = loc_load(&p->deletes);
        out->put_bytes = loc_load(&p->put_bytes);
        out->get_bytes = loc_load(&p->get_bytes);
        memcpy(out->command, p->command, sizeof out->command);
        out->command[sizeof out->command - 1] = 0;
        store_lock(s);
        out->alive = (uint32_t)host_alive(s, i, out->epoch);
        uint64_t claim = host_claim_word(i, out->epoch);
        for (uint32_t c = 0; c < s->chunks; c++) {
            if (loc_load(&s->host.chunk[c].claim) != claim)
                continue;
            out->chunks++;
            for (uint32_t k = 0; k < FMT_CHUNK_SLOTS; k++)
                out->writing +=
                    FMT_STATE(prim_load64(&s->slot[(uint64_t)c * FMT_CHUNK_SLOTS + k].word)) == GISMO_WRITING;
        }
        out->pins = host_process_pins(s, i, out->epoch);
        store_unlock(s);
        *cursor = i + 1;
        return GISMO_OK;
    }
    *cursor = HOST_PROCESSES;
    return GISMO_ENOTFOUND;
}

int gismo_process(struct gismo_store *s, uint32_t *cursor, gismo_process_info *out) {
    int status = store_enter(s);
    return status ? status : GUARDED(s, next_process(s, cursor, out));
}

const char *gismo_state_dir(struct gismo_store *s) { return s->state_path; }
