/*
 * name.c - names: per lane up to eight tables, each four times the one before, of one-word entries. See FORMAT.md.
 *
 * Tables never move and are never rehashed, so a reader on another host needs no lock and no version: it probes two lines in
 * each table and lets the object's own name decide. Within a host an entry belongs to the slot named in its owner
 * word (state directory), and is written only by the process that claims that slot's chunk.
 */
#include "internal.h"

#include "crc32c.h"

#include <string.h>

#define BUCKET 8u
#define PROBES 2u

static uint64_t hash_name(const void *name, uint32_t bytes) {
    uint64_t h = (uint64_t)crc32c(0x9e3779b9u, name, bytes) << 32 | crc32c(0x85ebca6bu, name, bytes);
    h ^= bytes;
    h ^= h >> 33; /* the finaliser of MurmurHash3 (public domain): spreads what CRCs leave linear */
    h *= 0xff51afd7ed558ccdull;
    h ^= h >> 33;
    h *= 0xc4ceb9fe1a85ec53ull;
    h ^= h >> 33;
    return h;
}

static uint64_t *table_at(struct gismo_store *s, uint32_t lane, uint32_t level) {
    uint64_t offset = prim_load64(&s->lanes[lane].name_table[level]), bytes = fmt_name_entries(level) * 8;
    uint64_t begin = s->sb.data_offset, end = begin + s->sb.data_bytes;
    if (offset < begin || offset >= end || offset % FMT_LINE || bytes > end - offset)
        return NULL;
    return (uint64_t *)(void *)(s->base + offset);
}

/* By the pointer that was checked: what the root says may be something else by now. */
static int ensure_table_writable(struct gismo_store *s, const uint64_t *table, uint32_t level) {
    return page_ensure_writable(s, (uint64_t)((const uint8_t *)table - s->base), fmt_name_entries(level) * 8);
}

static uint64_t bucket_of(uint64_t hash, uint32_t level, uint32_t probe) {
    uint64_t buckets = fmt_name_entries(level) / BUCKET;
    return ((hash + probe) & (buckets - 1)) * BUCKET;
}

/* Does the object in this slot have that state and the name? Then its handle. No pin: the word is looked at again. */
static bool slot_has_name(struct gismo_store *s, uint32_t slot, uint32_t state, const void *name, uint32_t bytes,
                          gismo_handle *out) {
    if (slot >= s->slots)
        return false;
    struct fmt_slot *record = &s->slot[slot];
    prim_refresh(s->software, record, sizeof *record);
    uint64_t word = prim_load64(&record->word);
    if (FMT_STATE(word) != state)
        return false;
    struct fmt_slot copy;
    slot_read(record, &copy);
    if (copy.name_bytes != bytes || !slot_extent_ok(s, &copy))
        return false;
    uint64_t at = copy.offset + slot_extent_bytes(&copy) - bytes;
    prim_refresh(s->software, s->base + at, bytes);
    if (!prim_equal(s->base + at, name, bytes))
        return false;
    prim_fence_load();
    prim_refresh(s->software, record, 8);
    if (prim_load64(&record->word) != word)
        return false;
    struct host_chunk *control = &s->host.chunk[slot / FMT_CHUNK_SLOTS];
    if (s->state_mapping && loc_load(&control->pending) >> (slot % FMT_CHUNK_SLOTS) & 1 &&
        loc_load(&s->host.pending_generation[slot]) >= FMT_GENERATION(word))
        return false;
    memcpy(out->store_uuid, s->sb.uuid, 16);
    out->generation = FMT_GENERATION(word);
    out->offset = copy.offset;
    out->length = copy.length;
    out->slot = slot;
    out->lane = copy.creator_lane;
    return true;
}

static bool lookup_lane(struct gismo_store *s, uint32_t lane, uint64_t hash, const void *name, uint32_t bytes,
                        gismo_handle *out) {
    if (lane != s->lane)
        prim_refresh(s->software, s->lanes[lane].name_table, FMT_LINE);
    for (uint32_t level = 0; level < FMT_NAME_LEVELS; level++) {
        uint64_t *table = table_at(s, lane, level);
        if (table == NULL)
            break;
        for (uint32_t probe = 0; probe < PROBES; probe++) {
            uint64_t *bucket = table + bucket_of(hash, level, probe);
            prim_refresh(s->software, bucket, FMT_LINE);
            for (uint32_t i = 0; i < BUCKET; i++) {
                uint64_t entry = prim_load64(&bucket[i]);
                if (entry >> 32 == hash >> 32 && (uint32_t)entry != 0 &&
                    slot_has_name(s, (uint32_t)entry - 1, GISMO_SEALED, name, bytes, out))
                    return true;
            }
        }
    }
    return false;
}

int name_lookup(struct gismo_store *s, const void *name, uint32_t bytes, gismo_handle *out) {
    uint64_t hash = hash_name(name, bytes);
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++)
        if (FMT_STATE(lane_state_word(s, lane)) != GISMO_LANE_FREE && lookup_lane(s, lane, hash, name, bytes, out))
            return GISMO_OK;
    return GISMO_ENOTFOUND;
}

int name_taken(const void *name, uint32_t bytes, const gismo_handle *by) {
    return fail(GISMO_EEXIST, "an object is already called \"%.*s\" (slot %u): delete it first, or choose another name",
                (int)bytes, (const char *)name, by->slot);
}

/* ---- one sealed object of each name ----------------------------------------------------------- */

/*
 * Drafts of one name may be many; which of them is sealed is settled in the state directory, without a lock. Who seals says
 * SEALING, fences, and looks at all entries of its lane: a draft of the name that WON, or a sealed object: taken. One that is
 * SEALING too: thrown out of the race by CAS to NONE. Then it wins by CAS from SEALING, unless it was itself thrown out:
 * then it begins anew. Two cannot both win: the later of their two SEALINGs comes before that one's look, and this finds the
 * other SEALING (thrown out, if it has not won by then) or WON. A process frozen in SEALING holds nobody up. (P2 of FORMAT.md)
 */
static bool rival_won(struct gismo_store *s, uint32_t slot, uint64_t hash, const void *name, uint32_t bytes,
                      gismo_handle *other) {
    for (uint32_t level = 0; level < FMT_NAME_LEVELS; level++) {
        uint64_t *table = table_at(s, s->lane, level);
        if (table == NULL)
            return false;
        for (uint32_t i = 0; i < PROBES * BUCKET; i++) {
            uint64_t entry = prim_load64(&table[bucket_of(hash, level, i / BUCKET) + i % BUCKET]);
            uint32_t rival = (uint32_t)entry - 1;
            if (entry >> 32 != hash >> 32 || (uint32_t)entry == 0 || rival == slot)
                continue;
            if (slot_has_name(s, rival, GISMO_WRITING, name, bytes, other)) {
                uint8_t *naming = &s->host.naming[rival], seen = HOST_NAMING_SEALING;
                if (loc_cas(naming, &seen, (uint8_t)HOST_NAMING_NONE) || seen != HOST_NAMING_WON)
                    continue;
                if (slot_has_name(s, rival, GISMO_WRITING, name, bytes, other))
                    return true; /* it is about to store SEALED, or its maker died or froze just then */
            }
            if (slot_has_name(s, rival, GISMO_SEALED, name, bytes, other))
                return true;
        }
    }
    return false;
}

int name_win(struct gismo_store *s, uint32_t slot, const void *name, uint32_t bytes) {
    uint64_t hash = hash_name(name, bytes);
    uint8_t *naming = &s->host.naming[slot];
    for (uint32_t attempt = 0; attempt < 1000; attempt++) {
        gismo_handle other;
        loc_store(naming, (uint8_t)HOST_NAMING_SEALING);
        prim_fence_full();
        bool taken = rival_won(s, slot, hash, name, bytes, &other);
        for (uint32_t lane = 0; lane < s->sb.max_lanes && !taken; lane++)
            taken = lane != s->lane && FMT_STATE(lane_state_word(s, lane)) != GISMO_LANE_FREE &&
                    lookup_lane(s, lane, hash, name, bytes, &other);
        if (taken)
            return name_taken(name, bytes, &other);
        uint8_t mine = HOST_NAMING_SEALING;
        if (loc_cas(naming, &mine, (uint8_t)HOST_NAMING_WON))
            return GISMO_OK;
        sleep_ns(1000u * (1 + (slot * 7u + attempt * 13u) % 64u)); /* thrown out: let the other through */
    }
    return fail(GISMO_EBUSY, "others are sealing objects called \"%.*s\" all the time: try again", (int)bytes,
                (const char *)name);
}

/* ---- changing, our lane only ---------------------------------------------------------------- */

static void publish_root(struct gismo_store *s, uint32_t level) {
    uint64_t slot = loc_load(&s->host.header->name_table_slot[level]);
    uint64_t *root = &s->lanes[s->lane].name_table[level];
    if (slot == 0 || slot > s->slots)
        return;
    uint64_t offset = prim_load64(&s->slot[slot - 1].offset);
    if (prim_load64(root) != offset) { /* whoever comes first writes it; all write the same */
        prim_store64(root, offset);
        prim_publish(s->software, root, 8);
    }
}

static int make_table(struct gismo_store *s, uint32_t level) {
    uint64_t bytes = fmt_name_entries(level) * 8;
    gismo_object object;
    int status = object_begin_locked(s, bytes, NULL, FMT_SLOT_INTERNAL, &object);
    if (status)
        return status;
    prim_zero(object.data, bytes);
    prim_flush(s->software, object.data, bytes);
    prim_fence_store();
    uint32_t slot = object.handle.slot;
    uint64_t generation = object.handle.generation;
    status = object_publish(s, &object, FMT_SLOT_INTERNAL, 0, true);
    if (status)
        return status;
    uint64_t none = 0;
    if (!loc_cas(&s->host.header->name_table_slot[level], &none, (uint64_t)slot + 1))
        (void)chunk_delete_locked(s, slot, generation); /* another process was faster */
    publish_root(s, level);
    return GISMO_OK;
}

/* Left by a process that died between taking the entry and making its slot WRITING? */
static bool owner_is_stale(struct gismo_store *s, uint32_t owner_plus_1, uint32_t code) {
    if (owner_plus_1 > s->slots)
        return true;
    struct fmt_slot *record = &s->slot[owner_plus_1 - 1];
    uint32_t state = FMT_STATE(prim_load64(&record->word));
    return state == GISMO_FREE || (state == GISMO_SEALED && prim_load32(&record->name_entry) != code);
}

static bool insert_at(struct gismo_store *s, uint32_t level, uint64_t hash, uint32_t slot) {
    uint64_t *table = table_at(s, s->lane, level);
    uint32_t *owner = s->host.name_owner[level];
    if (table == NULL || owner == NULL)
        return false;
    for (uint32_t probe = 0; probe < PROBES; probe++) {
        uint64_t bucket = bucket_of(hash, level, probe);
        for (uint32_t i = 0; i < BUCKET; i++) {
            uint64_t index = bucket + i;
            uint32_t seen = loc_load(&owner[index]), code = (level << 28 | (uint32_t)index) + 1;
            if (seen != 0 && !owner_is_stale(s, seen, code))
                continue;
            if (!loc_cas(&owner[index], &seen, slot + 1))
                continue;
            prim_store32(&s->slot[slot].name_entry, code);
            if (ensure_table_writable(s, table, level) != GISMO_OK)
                return false;
            prim_store64(&table[index], (hash >> 32) << 32 | (slot + 1));
            prim_publish(s->software, &table[index], 8);
            return true;
        }
    }
    return false;
}

/* The slot is WRITING and ours. */
int name_insert_locked(struct gismo_store *s, uint32_t slot, const void *name, uint32_t bytes) {
    uint64_t hash = hash_name(name, bytes);
    for (uint32_t level = 0; level < FMT_NAME_LEVELS && s->host.name_owner[level]; level++) {
        if (loc_load(&s->host.header->name_table_slot[level]) == 0) {
            int status = make_table(s, level);
            if (status)
                return status;
        }
        publish_root(s, level);
        if (insert_at(s, level, hash, slot))
            return GISMO_OK;
    }
    return fail(GISMO_EFULL,
                "the tables of names are full: delete named objects, or format with a larger --max-objects");
}

/* Once the slot is DELETED, at the latest before it is FREE, by the claimer of its chunk. May be repeated. */
void name_remove(struct gismo_store *s, uint32_t slot) {
    uint32_t entry = prim_load32(&s->slot[slot].name_entry);
    if (LIKELY(entry == 0))
        return;
    uint32_t code = entry - 1, level = code >> 28, index = code & 0x0fffffff;
    if (level >= FMT_NAME_LEVELS || s->host.name_owner[level] == NULL || index >= fmt_name_entries(level))
        return;
    uint32_t *owner = &s->host.name_owner[level][index];
    if (loc_load(owner) != slot + 1)
        return;
    uint64_t *table = table_at(s, s->lane, level);
    if (table && ensure_table_writable(s, table, level) == GISMO_OK) {
        if ((uint32_t)prim_load64(&table[index]) == slot + 1)
            prim_store64(&table[index], 0);
        prim_publish(s->software, &table[index],
                     8); /* also one that is 0: whoever stored that may have died before this */
    }
    prim_note32(&s->slot[slot].name_entry, 0);
    uint32_t mine = slot + 1;
    (void)loc_cas(owner, &mine, 0u);
}

void name_rebuild(struct gismo_store *s) {
    for (uint64_t slot = 0; slot < s->slots; slot++) {
        if (slot % FMT_CHUNK_SLOTS == 0 &&
            (!unit_is_mine(s, AGREE_GROUP, chunk_group(s, (uint32_t)(slot / FMT_CHUNK_SLOTS))) ||
             (prim_load64(&s->chunk_headers[slot / FMT_CHUNK_SLOTS].word) & 0xff) == FMT_CHUNK_NONE)) {
            slot += FMT_CHUNK_SLOTS - 1;
            continue;
        }
        struct fmt_slot record;
        slot_read(&s->slot[slot], &record);
        if (FMT_STATE(record.word) == GISMO_FREE)
            continue;
        if (record.flags & FMT_SLOT_INTERNAL) {
            for (uint32_t level = 0; level < FMT_NAME_LEVELS; level++)
                if (record.offset == prim_load64(&s->lanes[s->lane].name_table[level]) &&
                    record.length == fmt_name_entries(level) * 8)
                    s->host.header->name_table_slot[level] = slot + 1;
        } else if (record.name_entry) {
            uint32_t code = record.name_entry - 1, level = code >> 28, index = code & 0x0fffffff;
            if (level < FMT_NAME_LEVELS && s->host.name_owner[level] && index < fmt_name_entries(level))
                s->host.name_owner[level][index] = (uint32_t)slot + 1;
        }
    }
}
