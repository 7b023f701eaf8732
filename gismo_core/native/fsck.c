/*
 * fsck.c - is everything as FORMAT.md says? Reads what every other file believes, and compares.
 *
 * Runs on a store in use: what is only changing (a slot being written, a delete under way) is no error. Repair touches only
 * what belongs to this host: pages that are taken and nobody's, records whose checksum does not hold (their objects cannot be
 * read by anyone, so they are deleted).
 */
#include "internal.h"

#include "crc32c.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
    struct gismo_store *s;
    uint32_t flags;
    gismo_fsck_report report;
    void *ctx;
    gismo_fsck_result result;
    uint64_t verified_bytes;
    uint64_t *covered; /* one bit a page: some extent lies there */
};

__attribute__((format(printf, 5, 6))) static void say(struct check *c, uint32_t severity, const char *code,
                                                      uint64_t slot, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    uint64_t *counts[] = {&c->result.notes, &c->result.warnings, &c->result.errors, &c->result.repaired};
    (*counts[severity])++;
    if (c->report)
        c->report(severity, code, text, slot, c->ctx);
}

static void cover(struct check *c, uint64_t offset, uint64_t bytes, uint64_t slot, bool certain) {
    uint64_t first = (offset - c->s->sb.data_offset) / FMT_PAGE,
             last = (offset - c->s->sb.data_offset + (bytes ? bytes : 1) - 1) / FMT_PAGE;
    bool twice = false;
    for (uint64_t page = first; page <= last && page < c->s->sb.data_bytes / FMT_PAGE; page++) {
        twice |= c->covered[page / 64] >> (page % 64) & 1;
        c->covered[page / 64] |= 1ull << (page % 64);
    }
    if (twice && certain)
        say(c, GISMO_FSCK_ERROR, "overlap", slot, "the extent at %llu (%llu bytes) overlaps another one",
            (unsigned long long)offset, (unsigned long long)bytes);
}

static void check_copy(struct check *c) {
    struct gismo_store *s = c->s;
    const uint8_t *last = s->base + s->sb.size - FMT_SUPERBLOCK_BYTES;
    struct fmt_superblock first_copy, last_copy;
    prim_read(&first_copy, s->base, sizeof first_copy);
    prim_read(&last_copy, last, sizeof last_copy);
    bool first_ok = first_copy.magic == FMT_MAGIC && fmt_superblock_crc(&first_copy) == first_copy.crc;
    bool last_ok = last_copy.magic == FMT_MAGIC && fmt_superblock_crc(&last_copy) == last_copy.crc;
    first_ok = first_ok && memcmp(&first_copy, &s->sb, sizeof first_copy) == 0;
    last_ok = last_ok && memcmp(&last_copy, &s->sb, sizeof last_copy) == 0;
    if (first_ok && last_ok)
        return;
    /* What is written is the same whoever does it: format alone writes another, and nobody may have the store open then. */
    bool repaired = c->flags & GISMO_FSCK_REPAIR && !s->read_only &&
                    medium_write_superblock(s, first_ok ? s->sb.size - FMT_SUPERBLOCK_BYTES : 0) == GISMO_OK;
    say(c, repaired ? GISMO_FSCK_REPAIRED : GISMO_FSCK_ERROR, "superblock", UINT64_MAX,
        repaired ? "the %s superblock was damaged: written anew from the other one"
                 : "the %s superblock is damaged; the other one is in use (--repair writes it anew)",
        first_ok ? "second" : "first");
}

static bool delete_damaged(struct check *c, uint32_t slot) {
    struct gismo_store *s = c->s;
    uint32_t chunk = slot / FMT_CHUNK_SLOTS;
    if (!(c->flags & GISMO_FSCK_REPAIR) || s->read_only || !unit_is_mine(s, AGREE_GROUP, chunk_group(s, chunk)))
        return false;
    store_lock(s);
    bool done = chunk_delete_locked(s, slot, FMT_GENERATION(prim_load64(&s->slot[slot].word))) == GISMO_OK;
    store_unlock(s);
    return done;
}

/* In pieces, so that somebody who waits sees that it goes on. */
static uint32_t payload_crc(struct check *c, const uint8_t *payload, uint64_t length) {
    const uint64_t piece = 64u << 20;
    uint32_t crc = 0;
    for (uint64_t at = 0; at < length; at += piece) {
        uint64_t n = length - at < piece ? length - at : piece;
        crc = prim_crc32c(crc, payload + at, n);
        uint64_t before = c->verified_bytes / piece;
        c->verified_bytes += n;
        if (c->flags & GISMO_FSCK_TELL && c->report && c->verified_bytes / piece != before)
            c->report(GISMO_FSCK_PROGRESS, "progress", "", c->verified_bytes, c->ctx);
    }
    return crc;
}

static void check_payload(struct check *c, uint32_t slot, const struct fmt_slot *copy) {
    struct gismo_store *s = c->s;
    if (s->read_only) { /* no pin: what is deleted meanwhile is no finding */
        uint32_t crc = payload_crc(c, s->base + copy->offset, copy->length);
        if (prim_load64(&s->slot[slot].word) != copy->word)
            return;
        c->result.payloads_verified++;
        if ((copy->flags & FMT_SLOT_HAS_CRC) && crc != copy->payload_crc &&
            prim_load64(&s->slot[slot].word) == copy->word)
            say(c, GISMO_FSCK_ERROR, "payload", slot,
                "the payload of slot %u (%llu bytes at %llu) is not what was put there", slot,
                (unsigned long long)copy->length, (unsigned long long)copy->offset);
        return;
    }
    gismo_handle h;
    memcpy(h.store_uuid, s->sb.uuid, 16);
    h.generation = FMT_GENERATION(copy->word);
    h.offset = copy->offset;
    h.length = copy->length;
    h.slot = slot;
    h.lane = copy->creator_lane;
    gismo_view view;
    if (gismo_get(s, &h, &view) != GISMO_OK)
        return; /* deleted meanwhile */
    c->result.payloads_verified++;
    if (view.has_crc && payload_crc(c, view.data, view.length) != view.payload_crc)
        say(c, GISMO_FSCK_ERROR, "payload", slot,
            "the payload of slot %u (%llu bytes at %llu) is not what was put there", slot,
            (unsigned long long)view.length, (unsigned long long)copy->offset);
    gismo_release(s, slot);
}

static void check_slot(struct check *c, const struct fmt_chunk *header, uint32_t slot) {
    struct gismo_store *s = c->s;
    struct fmt_slot *record = &s->slot[slot];
    uint64_t word = prim_load64(&record->word);
    struct fmt_slot copy;
    slot_read(record, &copy);
    uint32_t state = FMT_STATE(word), i = slot % FMT_CHUNK_SLOTS;
    if (prim_load64(&record->word) != word || state == GISMO_FREE)
        return; /* changing: somebody is at work, or nothing is there */
    copy.word = word;
    bool small = (header->word & 0xff) == FMT_CHUNK_SMALL;
    if (state > GISMO_DELETED) {
        say(c, GISMO_FSCK_ERROR, "state", slot, "slot %u is in no known state (%u)", slot, state);
        return;
    }
    bool extent = slot_extent_ok(s, &copy);
    if (extent && small)
        extent =
            copy.offset == header->base + i * (header->word >> 32) && slot_extent_bytes(&copy) <= header->word >> 32;
    if (extent && !small)
        extent = copy.offset % FMT_PAGE == 0;
    if (state == GISMO_SEALED) {
        bool crc = fmt_slot_crc(&copy, FMT_GENERATION(word)) == copy.crc;
        if (!crc || !extent) {
            if (prim_load64(&record->word) != word)
                return;
            bool repaired = delete_damaged(c, slot);
            say(c, repaired ? GISMO_FSCK_REPAIRED : GISMO_FSCK_ERROR, "record", slot,
                "the record of slot %u is damaged (%s)%s", slot, crc ? "its extent is impossible" : "checksum",
                repaired ? ": deleted" : "");
            return;
        }
        c->result.objects += !(copy.flags & FMT_SLOT_INTERNAL);
        if ((c->flags & GISMO_FSCK_VERIFY) && !(copy.flags & FMT_SLOT_INTERNAL))
            check_payload(c, slot, &copy);
    } else if (state == GISMO_WRITING) {
        say(c, GISMO_FSCK_NOTE, "writing", slot, "slot %u is being written by process %u of host %u since %llu", slot,
            copy.creator, copy.creator_lane, (unsigned long long)copy.created_unix_ns);
    } else {
        say(c, GISMO_FSCK_NOTE, "deleted", slot, "slot %u (%llu bytes) is deleted and waits for its readers", slot,
            (unsigned long long)copy.length);
    }
    if (!small && extent)
        cover(c, copy.offset, slot_extent_bytes(&copy), slot, prim_load64(&record->word) == word);
}

static void check_chunks(struct check *c) {
    struct gismo_store *s = c->s;
    for (uint32_t chunk = 0; chunk < s->chunks; chunk++) {
        struct fmt_chunk header;
        if (!chunk_header_read(s, chunk, &header)) {
            /* The header may have been half written when we read it: look twice. */
            sleep_ns(1000000);
            if (!chunk_header_read(s, chunk, &header)) {
                say(c, GISMO_FSCK_ERROR, "chunk", (uint64_t)chunk * FMT_CHUNK_SLOTS,
                    "the header of chunk %u is damaged: its objects cannot be "
                    "deleted any more, and cells cannot be given out",
                    chunk);
                continue;
            }
        }
        uint32_t kind = header.word & 0xff;
        if (kind == FMT_CHUNK_NONE)
            continue;
        if (kind == FMT_CHUNK_SMALL)
            cover(c, header.base, header.bytes, (uint64_t)chunk * FMT_CHUNK_SLOTS, chunk_word(s, chunk) == header.word);
        chunk_refresh_slots(s, chunk);
        for (uint32_t i = 0; i < (header.word >> 16 & 0xff); i++)
            check_slot(c, &header, chunk * FMT_CHUNK_SLOTS + i);
    }
}

/* Of this host only: what its page bits say against what lies there. */
static void check_pages(struct check *c) {
    struct gismo_store *s = c->s;
    uint64_t per = arena_pages(s), leaked = 0, lost = 0;
    store_lock(s);
    recover_all(s);
    for (uint32_t a = 0; a < s->sb.arenas; a++) {
        if (!unit_is_mine(s, AGREE_ARENA, a))
            continue;
        uint64_t first = a * per, last = first + per > s->host.pages ? s->host.pages : first + per;
        bool complete;
        leaked += page_settle(s, first, last - first, c->flags & GISMO_FSCK_REPAIR, &complete);
        for (uint64_t page = first; page < last; page++)
            lost += !bit_get(s->host.page_bits, page) && (c->covered[page / 64] >> (page % 64) & 1);
    }
    store_unlock(s);
    if (leaked) {
        bool repaired = c->flags & GISMO_FSCK_REPAIR;
        if (!repaired)
            c->result.leaked_bytes = leaked * FMT_PAGE;
        say(c, repaired ? GISMO_FSCK_REPAIRED : GISMO_FSCK_ERROR, "leak", UINT64_MAX,
            "%llu bytes of this host's arenas are nobody's%s", (unsigned long long)(leaked * FMT_PAGE),
            repaired ? ": freed" : " (--repair frees them)");
    }
    if (lost) /* an object made or freed while we looked gives the same picture */
        say(c, GISMO_FSCK_WARNING, "unclaimed", UINT64_MAX,
            "%llu pages hold objects but are marked free: run it again when the store is idle; if "
            "it stays, close all processes of this host and remove its state directory",
            (unsigned long long)lost);
}

struct mask_finding {
    uint64_t is_free, free, is_deleted, deleted, writing;
};

/* True if what is recorded of an unclaimed chunk is not what its slots say. */
static bool compare_masks(struct check *c, uint32_t chunk, struct mask_finding *f) {
    struct gismo_store *s = c->s;
    if (s->local[chunk].mine || loc_load(&s->host.chunk[chunk].claim) != 0 || !chunk_claim_locked(s, chunk))
        return false;
    struct local_chunk *l = &s->local[chunk];
    if (!unit_is_mine(s, AGREE_GROUP, chunk_group(s, chunk))) { /* returned just then */
        chunk_unclaim_locked(s, chunk);
        return false;
    }
    chunk_masks_from_slots(s, chunk, &f->is_free, &f->is_deleted, &f->writing);
    f->free = l->free;
    f->deleted = l->deleted;
    bool wrong = f->writing || f->is_free != l->free || f->is_deleted != l->deleted;
    if (wrong && (c->flags & GISMO_FSCK_REPAIR)) {
        l->free = f->is_free;
        l->deleted = f->is_deleted;
    }
    chunk_settle_locked(s, chunk);
    return wrong;
}

static void check_masks(struct check *c) {
    struct gismo_store *s = c->s;
    for (uint32_t chunk = 0; chunk < s->chunks; chunk++) {
        if (!unit_is_mine(s, AGREE_GROUP, chunk_group(s, chunk)))
            continue;
        struct mask_finding f;
        store_lock(s);
        bool wrong = compare_masks(c, chunk, &f);
        store_unlock(s); /* before the report: whoever is told may need what another thread holds that waits for us */
        if (wrong)
            say(c, c->flags & GISMO_FSCK_REPAIR ? GISMO_FSCK_REPAIRED : GISMO_FSCK_ERROR, "mask",
                (uint64_t)chunk * FMT_CHUNK_SLOTS,
                "chunk %u: free slots %016llx, recorded %016llx; deleted %016llx, recorded %016llx; being written by "
                "nobody %016llx",
                chunk, (unsigned long long)f.is_free, (unsigned long long)f.free, (unsigned long long)f.is_deleted,
                (unsigned long long)f.deleted, (unsigned long long)f.writing);
    }
}

static void check_lanes(struct check *c) {
    struct gismo_store *s = c->s;
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++) {
        uint64_t word = lane_state_word(s, lane);
        if (FMT_STATE(word) > GISMO_LANE_RELEASED)
            say(c, GISMO_FSCK_ERROR, "lane", UINT64_MAX, "lane %u is in no known state", lane);
        if (FMT_STATE(word) == GISMO_LANE_FREE)
            continue;
        struct fmt_identity identity;
        prim_read(&identity, &s->identities[lane], sizeof identity);
        if (crc32c(0, identity.boot_id, 40) != identity.crc)
            say(c, GISMO_FSCK_ERROR, "lane", UINT64_MAX, "the identity of lane %u is damaged", lane);
    }
}

static void check_registers(struct check *c) {
    struct gismo_store *s = c->s;
    static const char *const kinds[] = {[AGREE_ARENA] = "arena", [AGREE_GROUP] = "group", [AGREE_LANE] = "lane"};
    uint32_t counts[] = {[AGREE_ARENA] = s->sb.arenas, [AGREE_GROUP] = s->sb.groups, [AGREE_LANE] = s->sb.max_lanes};
    for (int kind = AGREE_ARENA; kind <= AGREE_LANE; kind++)
        for (uint32_t index = 0, host; index < counts[kind]; index++)
            if (agree_is_stuck(s, agree_register_of(s, (enum agree_unit)kind, index), &host))
                say(c, GISMO_FSCK_ERROR, "register", UINT64_MAX,
                    "the register of %s %u holds a ballot of host %u that no host writes: whom it belongs to cannot be "
                    "changed any more",
                    kinds[kind], index, host);
}

static int run(struct check *c) {
    struct gismo_store *s = c->s;
    check_copy(c);
    check_lanes(c);
    check_registers(c);
    check_chunks(c);
    if (!s->read_only) {
        check_pages(c);
        check_masks(c);
    }
    return c->result.errors ? fail(GISMO_ECORRUPT, "%llu errors were found", (unsigned long long)c->result.errors)
                            : GISMO_OK;
}

int gismo_fsck(struct gismo_store *s, uint32_t flags, gismo_fsck_report report, void *ctx, gismo_fsck_result *out) {
    if (s == NULL || s->closed)
        return fail(GISMO_ECLOSED, "the store is closed");
    if (!s->read_only) {
        int status = store_enter(s);
        if (status)
            return status;
    }
    struct check c = {.s = s, .flags = flags, .report = report, .ctx = ctx};
    c.covered = calloc((s->sb.data_bytes / FMT_PAGE + 63) / 64, 8);
    if (c.covered == NULL)
        return fail(GISMO_ESYS, "out of memory");
    int status = GUARDED(s, run(&c));
    free(c.covered);
    if (out)
        *out = c.result;
    return status;
}
