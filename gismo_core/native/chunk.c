/*
 * chunk.c - chunks of 64 slots: claiming, allocating, deleting, retiring, recovering. P1, P5 and P8 of FORMAT.md.
 *
 * A process that claims a chunk is its only writer. What it knows of it stands in struct local_chunk (its own memory); when
 * it gives the claim back, the masks go to the chunk's control record, so that the next claimer need not read 64 slots. If it
 * dies, they are made anew from the slots. Chunks in which it allocates or writes stay claimed; all others are claimed
 * for one operation.
 *
 * Deleting in a chunk that another living process claims leaves a request (the pending word) that the claimer carries out; both
 * sides look again after their full fence, so no request is left lying (tests/spin/claim.pml).
 */
#include "internal.h"

#include <string.h>

#define ASK_AGAIN_NS 5000000ull

void bit_set(uint64_t *map, uint64_t i) {
    if (!bit_get(map, i))
        loc_or(&map[i / 64], 1ull << (i % 64));
}

void bit_clear(uint64_t *map, uint64_t i) {
    if (bit_get(map, i))
        loc_and(&map[i / 64], ~(1ull << (i % 64)));
}

static uint64_t *partial_map(struct gismo_store *s, uint32_t size_class) {
    return s->host.partial + size_class * s->host.words;
}

/* Atomic: seal looks at it without the lock. */
static void set_open(struct local_chunk *l, uint8_t open) { __atomic_store_n(&l->open, open, __ATOMIC_RELEASE); }

static uint64_t cells_mask(uint32_t cells) { return cells >= 64 ? ~0ull : (1ull << cells) - 1; }

void retire_later(struct gismo_store *s, uint32_t chunk) {
    bit_set(s->host.retire, chunk);
    loc_store(&s->host.header->retire_hint, (uint64_t)1);
}

/* ---- hostile input -------------------------------------------------------------------------- */

bool chunk_header_read(struct gismo_store *s, uint32_t chunk, struct fmt_chunk *out) {
    struct fmt_chunk *h = &s->chunk_headers[chunk];
    /* What this host itself writes is right in its cache. */
    bool foreign = s->software && (s->read_only || !unit_is_mine(s, AGREE_GROUP, chunk_group(s, chunk)));
    prim_refresh(foreign, h, sizeof *h);
    uint64_t word = prim_load64(&h->word);
    prim_read(out, h, sizeof *out);
    out->word = word;
    uint32_t kind = word & 0xff, size_class = word >> 8 & 0xff, cells = word >> 16 & 0xff;
    uint32_t cell_bytes = (uint32_t)(word >> 32);
    if (kind == FMT_CHUNK_NONE)
        return true;
    if (kind > FMT_CHUNK_LARGE || fmt_chunk_crc(out, word) != out->crc)
        return false;
    if (kind == FMT_CHUNK_LARGE)
        return size_class == FMT_CLASS_LARGE && cells == FMT_CHUNK_SLOTS;
    uint64_t end = s->sb.data_offset + s->sb.data_bytes;
    return size_class < FMT_CLASSES && cells >= 1 && cells <= FMT_CHUNK_SLOTS &&
           cell_bytes == fmt_class_bytes(size_class) && out->base >= s->sb.data_offset && out->base < end &&
           out->base % FMT_PAGE == 0 && out->bytes % FMT_PAGE == 0 && out->bytes <= end - out->base &&
           (uint64_t)cells * cell_bytes <= out->bytes;
}

uint64_t slot_extent_bytes(const struct fmt_slot *slot) {
    uint64_t bytes = slot->length;
    if (slot->buffers > 1)
        bytes = ((bytes + 7) & ~7ull) + 8ull * slot->buffers;
    return bytes + slot->name_bytes;
}

bool slot_extent_ok(const struct gismo_store *s, const struct fmt_slot *slot) {
    uint64_t begin = s->sb.data_offset, bytes = s->sb.data_bytes;
    if (slot->offset < begin || slot->offset - begin >= bytes || slot->offset % FMT_LINE != 0)
        return false;
    if (slot->length > bytes || slot->buffers == 0 || slot->buffers > GISMO_BUFFERS_MAX)
        return false;
    return slot_extent_bytes(slot) <= bytes - (slot->offset - begin);
}

/* ---- claiming ------------------------------------------------------------------------------- */

static bool load_local(struct gismo_store *s, uint32_t chunk) {
    struct local_chunk *l = &s->local[chunk];
    struct fmt_chunk *shared = &s->chunk_headers[chunk], h;
    /* Of our own group: only this host writes it, so what its cache has is right. */
    if (LIKELY(l->header_crc != 0 && l->header_word == prim_load64(&shared->word) &&
               l->header_crc == prim_load32(&shared->crc) && l->base == prim_load64(&shared->base)))
        return true;
    l->header_crc = 0;
    if (!chunk_header_read(s, chunk, &h))
        return false;
    l->size_class = (uint8_t)(h.word >> 8);
    l->cells = (uint8_t)(h.word >> 16);
    l->cell_bytes = (uint32_t)(h.word >> 32);
    l->base = h.base;
    if ((h.word & 0xff) == FMT_CHUNK_NONE) {
        l->cells = 0;
        return true;
    }
    l->header_word = h.word;
    l->header_crc = h.crc;
    return true;
}

void chunk_mark(struct gismo_store *s, uint32_t chunk) {
    loc_store(&s->claimed[chunk / 64], loc_load(&s->claimed[chunk / 64]) | 1ull << (chunk % 64));
}

void chunk_unmark(struct gismo_store *s, uint32_t chunk) {
    if (!s->local[chunk].mine)
        loc_store(&s->claimed[chunk / 64], loc_load(&s->claimed[chunk / 64]) & ~(1ull << (chunk % 64)));
}

/* 1 = ours, masks loaded. 0 = another has it, or its header is corrupt. */
int chunk_claim_locked(struct gismo_store *s, uint32_t chunk) {
    struct local_chunk *l = &s->local[chunk];
    if (l->mine)
        return 1;
    struct host_chunk *control = &s->host.chunk[chunk];
    if (loc_load(&control->claim) != 0)
        return 0;
    chunk_mark(s, chunk); /* before the claim: recovery looks at the marks */
    uint64_t free_claim = 0;
    if (!loc_cas(&control->claim, &free_claim, s->claim)) {
        chunk_unmark(s, chunk);
        return 0;
    }
    if (!load_local(s, chunk)) {
        loc_store(&control->claim, (uint64_t)0);
        chunk_unmark(s, chunk);
        return 0;
    }
    l->free =
        loc_load(&control->free) & cells_mask(l->cells); /* the header may be another than when they were written */
    l->deleted = loc_load(&control->deleted) & cells_mask(l->cells);
    l->writing = 0;
    set_open(l, 0);
    l->retry_unix_ns = 0;
    l->mine = 1;
    return 1;
}

static void unclaim_once(struct gismo_store *s, uint32_t chunk) {
    struct local_chunk *l = &s->local[chunk];
    struct host_chunk *control = &s->host.chunk[chunk];
    if (loc_load(&control->free) != l->free)
        loc_store(&control->free, l->free);
    if (loc_load(&control->deleted) != l->deleted)
        loc_store(&control->deleted, l->deleted);
    if (l->cells) {
        if (l->free)
            bit_set(partial_map(s, l->size_class), chunk);
        else
            bit_clear(partial_map(s, l->size_class), chunk);
    }
    if (l->deleted)
        retire_later(s, chunk);
    l->mine = 0;
    set_open(l, 0);
    loc_store(&control->claim, (uint64_t)0);
}

/*
 * Still marked during the second look: if we die before it, the survivor looks at the pending word of every chunk that we
 * had marked (RECOVER_CLAIMED_ONLY and UNMARK_BEFORE_LOOK in tests/spin/claim.pml).
 */
void chunk_unclaim_locked(struct gismo_store *s, uint32_t chunk) {
    unclaim_once(s, chunk);
    prim_fence_full(); /* the other half of the second look in chunk_delete_locked */
    if (UNLIKELY(loc_load(&s->host.chunk[chunk].pending) != 0) && unit_is_mine(s, AGREE_GROUP, chunk_group(s, chunk)) &&
        chunk_claim_locked(s, chunk)) {
        chunk_pending_locked(s, chunk);
        chunk_settle_locked(s, chunk);
        return;
    }
    chunk_unmark(s, chunk);
}

/* Carry out what was left for later: requests, retired slots, and (everywhere) chunks that are empty by now. */
int chunk_sweep_locked(struct gismo_store *s, int everywhere) {
    int done = 0;
    for (uint32_t k = 0; everywhere && k <= FMT_CLASSES; k++)
        chunk_close_if_empty_locked(s, k);
    for (uint64_t w = 0; w < s->host.words; w++) {
        uint64_t bits = loc_load(&s->host.retire[w]);
        for (uint32_t k = 0; everywhere && k <= FMT_CLASSES; k++)
            bits |= loc_load(&partial_map(s, k)[w]);
        if (everywhere)
            bits |= loc_load(&s->claimed[w]);
        for (; bits; bits &= bits - 1) {
            uint32_t c = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits);
            if (c >= s->chunks || !unit_is_mine(s, AGREE_GROUP, chunk_group(s, c))) {
                bit_clear(s->host.retire, c); /* returned since */
                continue;
            }
            if (!chunk_claim_locked(s, c))
                continue; /* another has it: it will see the request, or its death will */
            if (UNLIKELY(!unit_is_mine(s, AGREE_GROUP, chunk_group(s, c)))) { /* returned just then */
                chunk_unclaim_locked(s, c);
                continue;
            }
            bit_clear(s->host.retire, c);
            chunk_pending_locked(s, c);
            done += (int)__builtin_popcountll(chunk_retire_locked(s, c));
            chunk_settle_locked(s, c);
        }
    }
    return done;
}

/* ---- new chunks ----------------------------------------------------------------------------- */

static void write_header(struct gismo_store *s, uint32_t chunk, uint64_t word, uint64_t base, uint64_t bytes) {
    struct fmt_chunk *h = &s->chunk_headers[chunk];
    struct fmt_chunk copy;
    memset(&copy, 0, sizeof copy);
    copy.base = base;
    copy.bytes = bytes;
    copy.lane_plus_1 = s->lane + 1;
    prim_store64(&h->base, base);
    prim_store64(&h->bytes, bytes);
    prim_store64(&h->lane_plus_1, (uint64_t)s->lane + 1);
    prim_store32(&h->crc, fmt_chunk_crc(&copy, word));
    prim_store64(&h->word, word);
    prim_publish(s->software, h, sizeof *h);
}

/* A chunk of kind NONE, claimed; GISMO_EFULL when there is none. */
static int take_free_chunk(struct gismo_store *s, uint32_t *out) {
    for (int again = 0; again < 64; again++) {
        for (uint64_t w = 0; w < s->host.words; w++) {
            for (uint64_t bits = loc_load(&s->host.free_chunks[w]); bits; bits &= bits - 1) {
                uint32_t c = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits);
                /* A group that another process is only just leasing: leave its bits as that one sets them. */
                if (c >= s->chunks || s->local[c].mine || !unit_is_mine(s, AGREE_GROUP, chunk_group(s, c)) ||
                    quota_draining(s, AGREE_GROUP, chunk_group(s, c)) || !chunk_claim_locked(s, c))
                    continue;
                bit_clear(s->host.free_chunks, c);
                if (s->local[c].cells == 0 && unit_is_mine(s, AGREE_GROUP, chunk_group(s, c))) {
                    *out = c;
                    return GISMO_OK;
                }
                chunk_unclaim_locked(s, c);
            }
        }
        if (unit_lease_some(s, AGREE_GROUP, 0) != GISMO_OK)
            return GISMO_EFULL;
    }
    return GISMO_EFULL;
}

static void untake_free_chunk(struct gismo_store *s, uint32_t chunk) {
    s->local[chunk].free = s->local[chunk].deleted = 0;
    s->local[chunk].cells = 0;
    s->local[chunk].header_crc = 0;
    bit_set(s->host.free_chunks, chunk);
    chunk_unclaim_locked(s, chunk);
}

static int new_chunk(struct gismo_store *s, uint32_t size_class, uint32_t *out) {
    uint32_t chunk;
    int status = take_free_chunk(s, &chunk);
    if (status)
        return status;
    struct local_chunk *l = &s->local[chunk];
    if (size_class == FMT_CLASS_LARGE) {
        write_header(s, chunk, FMT_CHUNK_LARGE | (uint64_t)FMT_CLASS_LARGE << 8 | (uint64_t)FMT_CHUNK_SLOTS << 16, 0,
                     0);
    } else {
        uint32_t cell = fmt_class_bytes(size_class), cells = fmt_class_cells(size_class, s->sb.segment_max);
        uint64_t pages = ((uint64_t)cell * cells + FMT_PAGE - 1) / FMT_PAGE, first = 0;
        status = page_take_locked(s, pages, 1, &first);
        /* No room for a whole segment: fewer cells will do. */
        while (status != GISMO_OK && cells > 1) {
            cells /= 2;
            pages = ((uint64_t)cell * cells + FMT_PAGE - 1) / FMT_PAGE;
            status = page_take_locked(s, pages, 1, &first);
        }
        if (status != GISMO_OK) {
            untake_free_chunk(s, chunk);
            return status;
        }
        cells = (uint32_t)(pages * FMT_PAGE / cell < FMT_CHUNK_SLOTS ? pages * FMT_PAGE / cell : FMT_CHUNK_SLOTS);
        uint64_t base = s->sb.data_offset + first * FMT_PAGE;
        write_header(s, chunk,
                     FMT_CHUNK_SMALL | (uint64_t)size_class << 8 | (uint64_t)cells << 16 | (uint64_t)cell << 32, base,
                     pages * FMT_PAGE);
        page_intent_done(s);
    }
    load_local(s, chunk);
    l->free = cells_mask(l->cells);
    l->deleted = 0;
    if (size_class != FMT_CLASS_LARGE) {
        status = medium_reserve(s, l->base, (uint64_t)l->cells * l->cell_bytes);
        if (status != GISMO_OK) {
            chunk_settle_locked(s, chunk); /* it is empty, so it goes */
            return status;
        }
    }
    *out = chunk;
    return GISMO_OK;
}

/* All its slots are FREE: the header goes, then the pages. 0 = the arena is busy, the chunk stays for later. */
static int free_chunk(struct gismo_store *s, uint32_t chunk) {
    struct local_chunk *l = &s->local[chunk];
    struct fmt_chunk *h = &s->chunk_headers[chunk];
    bool small = l->size_class != FMT_CLASS_LARGE;
    uint64_t first = 0, pages = 0;
    if (small) {
        struct fmt_chunk checked; /* it may have been damaged since it was claimed */
        if (!chunk_header_read(s, chunk, &checked) || (checked.word & 0xff) != FMT_CHUNK_SMALL)
            return 0;
        first = (checked.base - s->sb.data_offset) / FMT_PAGE;
        pages = checked.bytes / FMT_PAGE;
        if (!page_give_begin(s, first, pages))
            return 0;
    }
    bit_clear(partial_map(s, l->size_class), chunk);
    prim_store64(&h->word, FMT_CHUNK_NONE);
    prim_publish(s->software, h, sizeof *h);
    if (small)
        page_give_end(s, first, pages);
    untake_free_chunk(s, chunk);
    return 1;
}

/* ---- allocating ----------------------------------------------------------------------------- */

static void close_open(struct gismo_store *s, uint32_t size_class) {
    uint32_t chunk = s->open_chunk[size_class];
    if (chunk == NO_CHUNK)
        return;
    s->open_chunk[size_class] = NO_CHUNK;
    set_open(&s->local[chunk], 0);
    prim_fence_full(); /* before the look at `writing`: seal clears its bit, then looks at `open`; one of us settles */
    chunk_settle_locked(s, chunk);
}

static void open_it(struct gismo_store *s, uint32_t chunk) {
    set_open(&s->local[chunk], 1);
    s->open_chunk[s->local[chunk].size_class] = chunk;
}

/* Is this chunk, or is any of its cells, where nothing new is to be put? */
static bool is_draining(struct gismo_store *s, uint32_t chunk) {
    const struct local_chunk *l = &s->local[chunk];
    if (LIKELY(loc_load(&s->host.header->wish_until_ns) == 0))
        return false;
    if (quota_draining(s, AGREE_GROUP, chunk_group(s, chunk)))
        return true;
    if (l->size_class == FMT_CLASS_LARGE || l->cells == 0)
        return false;
    uint64_t first = l->base - s->sb.data_offset, last = first + (uint64_t)l->cells * l->cell_bytes - 1;
    for (uint64_t a = first >> s->sb.arena_shift; a <= last >> s->sb.arena_shift; a++)
        if (quota_draining(s, AGREE_ARENA, (uint32_t)a))
            return true;
    return false;
}

void chunk_close_draining_locked(struct gismo_store *s) {
    for (uint32_t k = 0; k <= FMT_CLASSES; k++)
        if (s->open_chunk[k] != NO_CHUNK && is_draining(s, s->open_chunk[k]))
            close_open(s, k);
}

/* An open chunk in which nothing is left: kept for the next object only as long as there is no better use. */
void chunk_close_if_empty_locked(struct gismo_store *s, uint32_t size_class) {
    uint32_t chunk = s->open_chunk[size_class];
    if (chunk == NO_CHUNK)
        return;
    struct local_chunk *l = &s->local[chunk];
    if (l->deleted)
        chunk_retire_locked(s, chunk);
    if (l->free == cells_mask(l->cells))
        close_open(s, size_class);
}

/* A chunk of the class that nobody claims and that has a free slot, claimed. */
static bool take_partial(struct gismo_store *s, uint32_t size_class, uint32_t *out) {
    uint64_t *map = partial_map(s, size_class);
    for (uint64_t w = 0; w < s->host.words; w++) {
        for (uint64_t bits = loc_load(&map[w]); bits; bits &= bits - 1) {
            uint32_t c = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits);
            if (c >= s->chunks || s->local[c].mine || !chunk_claim_locked(s, c))
                continue;
            struct local_chunk *l = &s->local[c];
            bit_clear(map, c);
            if (l->cells && l->size_class == size_class && l->free && !is_draining(s, c) &&
                unit_is_mine(s, AGREE_GROUP, chunk_group(s, c))) {
                *out = c;
                return true;
            }
            chunk_unclaim_locked(s, c);
        }
    }
    return false;
}

int chunk_slot_locked(struct gismo_store *s, uint32_t size_class, uint32_t *slot) {
    for (;;) {
        uint32_t chunk = s->open_chunk[size_class];
        if (chunk != NO_CHUNK) {
            struct local_chunk *l = &s->local[chunk];
            if (l->free == 0) {
                if (loc_load(&s->host.chunk[chunk].pending))
                    chunk_pending_locked(s, chunk);
                if (l->deleted)
                    chunk_retire_locked(s, chunk);
            }
            if (LIKELY(l->free)) {
                uint32_t i = (uint32_t)__builtin_ctzll(l->free);
                l->free &= l->free - 1;
                __atomic_fetch_or(&l->writing, 1ull << i, __ATOMIC_RELAXED);
                *slot = chunk * FMT_CHUNK_SLOTS + i;
                return GISMO_OK;
            }
            close_open(s, size_class);
        }
        if (!take_partial(s, size_class, &chunk)) {
            int status = new_chunk(s, size_class, &chunk);
            if (status != GISMO_OK)
                return status;
        }
        open_it(s, chunk);
    }
}

/* ---- deleting and retiring ------------------------------------------------------------------ */

void chunk_pending_locked(struct gismo_store *s, uint32_t chunk) {
    struct host_chunk *control = &s->host.chunk[chunk];
    struct local_chunk *l = &s->local[chunk];
    /* A slot being written keeps its request: the generation will or will not fit once it is sealed. */
    uint64_t pending = loc_load(&control->pending) & ~__atomic_load_n(&l->writing, __ATOMIC_ACQUIRE);
    for (; pending; pending &= pending - 1) {
        uint32_t i = (uint32_t)__builtin_ctzll(pending), slot = chunk * FMT_CHUNK_SLOTS + i;
        uint64_t *word = &s->slot[slot].word, generation = loc_load(&s->host.pending_generation[slot]);
        if (i < l->cells && prim_load64(word) == FMT_WORD(generation, GISMO_SEALED)) {
            prim_store64(word, FMT_WORD(generation, GISMO_DELETED));
            prim_publish(s->software, word, 8);
            name_remove(s, slot);
            l->deleted |= 1ull << i;
        }
        /* The bit goes after the deed, or a death in between loses the request; and comes back if a later one came. */
        loc_and(&control->pending, ~(1ull << i));
        if (UNLIKELY(loc_load(&s->host.pending_generation[slot]) != generation)) {
            loc_or(&control->pending, 1ull << i);
            retire_later(s, chunk);
        }
    }
}

/* Slots of `candidates` that another host may pin: P5.2 and P5.4. */
static uint64_t pinned_elsewhere(struct gismo_store *s, uint32_t chunk, uint64_t candidates) {
    uint64_t blocked = 0;
    prim_refresh(s->software, s->identities, s->sb.max_lanes * sizeof *s->identities); /* all with one fence */
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++) {
        if (lane == s->lane)
            continue;
        uint32_t state = FMT_STATE(prim_load64(&s->identities[lane].state_word));
        if (LIKELY(state != GISMO_LANE_ACTIVE && state != GISMO_LANE_FENCED))
            continue;
        uint64_t *asked = &s->host.asked[lane * s->chunks + chunk], position = loc_load(asked);
        if (position) {
            /* Not beyond the tail: its sender may have died between the position and the message. */
            uint64_t tail = prim_load64(&s->rings[(uint64_t)s->lane * s->sb.max_lanes + lane].tail);
            if (ring_head(s, lane) < (position < tail ? position : tail)) {
                blocked |= candidates; /* not answered: its bytes mean nothing now */
                continue;
            }
            loc_store(asked, (uint64_t)0);
        }
        const uint64_t *line = (const uint64_t *)(const void *)(s->pins + (lane * s->chunks + chunk) * FMT_LINE);
        prim_refresh(s->software, line, FMT_LINE);
        uint64_t pinned = 0;
        for (uint32_t w = 0; w < 8; w++) {
            uint64_t bytes = prim_load64(&line[w]);
            for (uint32_t b = 0; bytes; b++, bytes >>= 8)
                if (bytes & 0xff)
                    pinned |= 1ull << (w * 8 + b);
        }
        pinned &= candidates;
        if (pinned == 0)
            continue;
        blocked |= pinned;
        struct local_chunk *l = &s->local[chunk];
        uint64_t now = now_coarse_unix_ns();
        if (now >= l->retry_unix_ns) { /* it may hold them for long: do not flood it */
            l->retry_unix_ns = now + ASK_AGAIN_NS;
            ring_send(s, lane, FMT_RING_CLEAR, chunk, pinned, asked);
        }
    }
    return blocked;
}

/* P5.5 for one slot. False: its pages' arena is busy, later. */
static bool retire_slot(struct gismo_store *s, uint32_t slot, bool large) {
    struct fmt_slot *record = &s->slot[slot];
    struct fmt_slot copy;
    slot_read(record, &copy);
    uint64_t first = 0, pages = 0;
    if (copy.name_entry)
        name_remove(s, slot);
    bool pages_known = large && slot_extent_ok(s, &copy);
    if (pages_known) {
        first = (copy.offset - s->sb.data_offset) / FMT_PAGE;
        pages = (slot_extent_bytes(&copy) + FMT_PAGE - 1) / FMT_PAGE;
        if (pages == 0)
            pages = 1;
        if (!page_give_begin(s, first, pages))
            return false;
    }
    uint64_t next = (FMT_GENERATION(copy.word) + 1) & FMT_GENERATION_MASK;
    prim_store64(&record->word, FMT_WORD(next, GISMO_FREE));
    prim_publish(s->software, record, 8);
    if (pages_known)
        page_give_end(s, first, pages);
    return true;
}

uint64_t chunk_retire_locked(struct gismo_store *s, uint32_t chunk) {
    struct local_chunk *l = &s->local[chunk];
    uint64_t candidates = l->deleted;
    if (candidates == 0)
        return 0;
    prim_fence_full(); /* P5.1: our DELETED before our look at pins */
    uint64_t blocked = pinned_elsewhere(s, chunk, candidates);
    blocked |= host_pinned_mask(s, chunk, candidates & ~blocked);
    uint64_t freed = candidates & ~blocked;
    bool large = l->size_class == FMT_CLASS_LARGE;
    for (uint64_t rest = freed; rest; rest &= rest - 1) {
        uint32_t i = (uint32_t)__builtin_ctzll(rest);
        if (!retire_slot(s, chunk * FMT_CHUNK_SLOTS + i, large))
            freed &= ~(1ull << i);
    }
    l->deleted &= ~freed;
    l->free |= freed;
    if (l->deleted)
        retire_later(s, chunk);
    return freed;
}

void chunk_settle_locked(struct gismo_store *s, uint32_t chunk) {
    struct local_chunk *l = &s->local[chunk];
    if (l->deleted)
        chunk_retire_locked(s, chunk);
    if (l->open || __atomic_load_n(&l->writing, __ATOMIC_ACQUIRE))
        return;
    if (l->cells && l->free == cells_mask(l->cells) && free_chunk(s, chunk))
        return;
    chunk_unclaim_locked(s, chunk);
}

int chunk_request_delete(struct gismo_store *s, uint32_t slot, uint64_t generation, bool foreign) {
    uint32_t chunk = slot / FMT_CHUNK_SLOTS;
    struct host_chunk *control = &s->host.chunk[chunk];
    uint64_t *asked = &s->host.pending_generation[slot], seen = loc_load(asked);
    chunk_mark(s, chunk); /* if we die before our second look, the survivor looks at this chunk's requests */
    while (seen < generation && !loc_cas(asked, &seen, generation))
        ;
    if (seen <= generation) { /* else a later one is asked for, so this one is gone */
        loc_or(&control->pending, 1ull << (slot % FMT_CHUNK_SLOTS));
        if (foreign) {
            s->local[chunk].sent &= ~(1ull << (slot % FMT_CHUNK_SLOTS));
            bit_set(s->host.outbound, chunk);
            loc_store(&s->host.header->retire_hint, (uint64_t)1);
        } else {
            retire_later(s, chunk);
        }
    }
    return GISMO_OK;
}

/* Keeps the last few empty chunks open for the next object of their class; beyond them the oldest goes. */
static void note_empty(struct gismo_store *s, uint32_t size_class) {
    const uint32_t kept = sizeof s->empty_classes;
    for (uint32_t i = 0; i < kept; i++)
        if (s->empty_classes[i] == size_class + 1)
            return;
    uint8_t *oldest = &s->empty_classes[s->empty_next++ % kept];
    uint8_t closing = *oldest;
    *oldest = (uint8_t)(size_class + 1);
    if (closing)
        chunk_close_if_empty_locked(s, closing - 1u);
}

static void chunk_settle_unless_open(struct gismo_store *s, uint32_t chunk) {
    if (!s->local[chunk].open)
        chunk_settle_locked(s, chunk);
}

/* Caller: the slot's group is ours. */
int chunk_delete_locked(struct gismo_store *s, uint32_t slot, uint64_t generation) {
    uint32_t chunk = slot / FMT_CHUNK_SLOTS;
    struct local_chunk *l = &s->local[chunk];
    struct host_chunk *control = &s->host.chunk[chunk];
    uint64_t *word = &s->slot[slot].word;
    bool asked = false; /* then it may be gone because of us */
    while (!chunk_claim_locked(s, chunk)) {
        uint64_t holder = loc_load(&control->claim);
        if (prim_load64(word) != FMT_WORD(generation, GISMO_SEALED)) {
            chunk_unmark(s, chunk);
            return asked ? GISMO_OK : GISMO_EGONE;
        }
        if (holder == 0) {
            struct fmt_chunk ignored;
            if (!chunk_header_read(s, chunk, &ignored) && loc_load(&control->claim) == 0 &&
                prim_load64(word) == FMT_WORD(generation, GISMO_SEALED)) /* else it was being written just then */
                return fail(GISMO_ECORRUPT, "the header of chunk %u is damaged: run `gismo fsck`", chunk);
            continue;
        }
        chunk_request_delete(s, slot, generation, false);
        asked = true;
        prim_fence_full(); /* the second look */
        if (loc_load(&control->claim) != 0) {
            chunk_unmark(s, chunk);
            thread_kick_process(s, host_claim_index(holder));
            return GISMO_OK;
        }
    }
    if (prim_load64(word) != FMT_WORD(generation, GISMO_SEALED)) {
        chunk_settle_unless_open(s, chunk);
        return asked ? GISMO_OK : GISMO_EGONE;
    }
    if (UNLIKELY(slot % FMT_CHUNK_SLOTS >= l->cells)) { /* sealed where there is no cell */
        chunk_settle_unless_open(s, chunk);
        return fail(GISMO_ECORRUPT, "the header of chunk %u is damaged: run `gismo fsck`", chunk);
    }
    prim_store64(word, FMT_WORD(generation, GISMO_DELETED));
    prim_publish(s->software, word, 8);
    name_remove(s, slot); /* now, not with the last reader: a name that is used again must not fill the tables */
    l->deleted |= 1ull << (slot % FMT_CHUNK_SLOTS);
    if (l->open && l->size_class != FMT_CLASS_LARGE) { /* retired in one go when its free slots are used up */
        if (UNLIKELY((l->deleted | l->free) == cells_mask(l->cells)))
            note_empty(s, l->size_class);
        return GISMO_OK;
    }
    chunk_retire_locked(s, chunk);
    if (!l->open && l->free && l->size_class < FMT_CLASS_LARGE && !is_draining(s, chunk)) {
        /* Make the freed, cached cell the next one used, if our open chunk has none left. */
        uint32_t open = s->open_chunk[l->size_class];
        if (open == NO_CHUNK || (s->local[open].free == 0 && s->local[open].deleted == 0)) {
            close_open(s, l->size_class);
            open_it(s, chunk);
            return GISMO_OK;
        }
    }
    chunk_settle_unless_open(s, chunk);
    return GISMO_OK;
}

void chunk_close_all_locked(struct gismo_store *s) {
    for (uint32_t k = 0; k <= FMT_CLASSES; k++)
        close_open(s, k);
    for (uint64_t w = 0; w < s->host.words; w++) {
        for (uint64_t bits = loc_load(&s->claimed[w]); bits; bits &= bits - 1) {
            uint32_t c = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits);
            if (s->local[c].mine)
                chunk_settle_locked(s, c);
        }
    }
}

/* ---- recovery ------------------------------------------------------------------------------- */

void chunk_masks_from_slots(struct gismo_store *s, uint32_t chunk, uint64_t *free_out, uint64_t *deleted_out,
                            uint64_t *writing_out) {
    struct fmt_chunk h;
    *free_out = *deleted_out = *writing_out = 0;
    if (!chunk_header_read(s, chunk, &h) || (h.word & 0xff) == FMT_CHUNK_NONE)
        return;
    uint32_t cells = h.word >> 16 & 0xff;
    for (uint32_t i = 0; i < cells; i++) {
        uint64_t word = prim_load64(&s->slot[chunk * FMT_CHUNK_SLOTS + i].word), bit = 1ull << i;
        switch (FMT_STATE(word)) {
        case GISMO_FREE:
            *free_out |= bit;
            break;
        case GISMO_WRITING:
            *writing_out |= bit;
            break;
        case GISMO_DELETED:
            *deleted_out |= bit;
            break;
        default:
            break;
        }
    }
}

/* A request is done before its bit goes, but the bit may have belonged to an older one of the same slot. */
void chunk_restore_requests(struct gismo_store *s, uint32_t chunk) {
    for (uint32_t i = 0; i < FMT_CHUNK_SLOTS; i++) {
        uint32_t slot = chunk * FMT_CHUNK_SLOTS + i;
        uint64_t generation = loc_load(&s->host.pending_generation[slot]);
        if (UNLIKELY(generation != 0) && prim_load64(&s->slot[slot].word) == FMT_WORD(generation, GISMO_SEALED))
            loc_or(&s->host.chunk[chunk].pending, 1ull << i);
    }
}

void chunk_draft_to_deleted(struct gismo_store *s, uint32_t slot) {
    struct fmt_slot *record = &s->slot[slot];
    struct fmt_slot copy;
    slot_read(record, &copy);
    if (s->software && slot_extent_ok(s, &copy)) /* what lies in this host's caches must not be written back later */
        prim_flush(1, s->base + copy.offset, slot_extent_bytes(&copy));
    prim_store64(&record->word, FMT_WORD(FMT_GENERATION(copy.word), GISMO_DELETED));
    prim_publish(s->software, record, 8);
}

/* A name table that was made but that no lane's root names: its maker died in between. */
static bool is_lost_table(struct gismo_store *s, uint32_t slot) {
    struct fmt_slot *record = &s->slot[slot];
    if (FMT_STATE(prim_load64(&record->word)) != GISMO_SEALED || !(prim_load32(&record->flags) & FMT_SLOT_INTERNAL))
        return false;
    for (uint32_t level = 0; level < FMT_NAME_LEVELS; level++)
        if (loc_load(&s->host.header->name_table_slot[level]) == (uint64_t)slot + 1)
            return false;
    return true;
}

/* The claim was just taken over from a dead process (the caller set it); its masks are worth nothing. */
void chunk_recover_locked(struct gismo_store *s, uint32_t chunk) {
    struct local_chunk *l = &s->local[chunk];
    uint64_t writing;
    if (!load_local(s, chunk))
        l->cells = 0;
    set_open(l, 0);
    l->writing = 0;
    l->retry_unix_ns = 0;
    chunk_masks_from_slots(s, chunk, &l->free, &l->deleted, &writing);
    l->free &= cells_mask(l->cells); /* that read the header a second time */
    l->deleted &= cells_mask(l->cells);
    l->mine = 1;
    /* What the dead one stored but did not flush is seen here, in this host's cache, and nowhere else yet. */
    prim_flush(s->software, &s->slot[chunk * FMT_CHUNK_SLOTS], FMT_CHUNK_SLOTS * sizeof(struct fmt_slot));
    prim_fence_full();
    for (uint32_t i = 0; i < l->cells; i++) {
        uint32_t slot = chunk * FMT_CHUNK_SLOTS + i;
        if (writing >> i & 1) {
            chunk_draft_to_deleted(s, slot);
            loc_add(&s->host.header->recovered_objects, 1);
            l->deleted |= 1ull << i;
        } else if (l->size_class == FMT_CLASS_LARGE && is_lost_table(s, slot)) {
            prim_store64(&s->slot[slot].word,
                         FMT_WORD(FMT_GENERATION(prim_load64(&s->slot[slot].word)), GISMO_DELETED));
            prim_publish(s->software, &s->slot[slot], 8);
            l->deleted |= 1ull << i;
        }
    }
    chunk_restore_requests(s, chunk);
    chunk_pending_locked(s, chunk);
    if (l->cells == 0)
        bit_set(s->host.free_chunks, chunk);
    chunk_settle_locked(s, chunk);
}

/* Tables of a new state directory: nobody else works on this lane yet. */
int chunk_rebuild(struct gismo_store *s) {
    for (uint32_t a = 0; a < s->sb.arenas; a++) {
        if (agree_owner(agree_peek(s, agree_register_of(s, AGREE_ARENA, a))) != s->lane + 1)
            continue;
        uint64_t per = arena_pages(s), first = a * per,
                 last = first + per > s->host.pages ? s->host.pages : first + per;
        prim_refresh(s->software && s->takes_over, s->base + s->sb.data_offset + first * FMT_PAGE,
                     (last - first) * FMT_PAGE);
        for (uint64_t page = first; page < last; page++)
            s->host.page_bits[page / 64] &= ~(1ull << (page % 64));
        s->host.arena[a].state = HOST_UNIT_OWNED;
    }
    for (uint32_t g = 0; g < s->sb.groups; g++) {
        if (agree_owner(agree_peek(s, agree_register_of(s, AGREE_GROUP, g))) != s->lane + 1)
            continue;
        s->host.group[g].state = HOST_UNIT_OWNED;
        uint64_t from = (uint64_t)g * s->sb.group_chunks,
                 to = from + s->sb.group_chunks < s->chunks ? from + s->sb.group_chunks : s->chunks;
        for (uint64_t n = from; n < to; n++) {
            uint32_t c = (uint32_t)n;
            struct fmt_chunk h;
            struct host_chunk *control = &s->host.chunk[c];
            if (!chunk_header_read(s, c, &h))
                continue; /* fsck names it; its slots are left alone */
            if ((h.word & 0xff) == FMT_CHUNK_NONE) {
                s->host.free_chunks[c / 64] |= 1ull << (c % 64);
                continue;
            }
            uint64_t writing;
            chunk_masks_from_slots(s, c, &control->free, &control->deleted, &writing);
            for (uint64_t rest = writing; rest; rest &= rest - 1)
                chunk_draft_to_deleted(s, c * FMT_CHUNK_SLOTS + (uint32_t)__builtin_ctzll(rest));
            control->deleted |= writing;
            if ((h.word & 0xff) == FMT_CHUNK_SMALL) {
                page_mark(s, (h.base - s->sb.data_offset) / FMT_PAGE, h.bytes / FMT_PAGE);
            } else {
                for (uint32_t i = 0; i < FMT_CHUNK_SLOTS; i++) {
                    struct fmt_slot slot;
                    slot_read(&s->slot[c * FMT_CHUNK_SLOTS + i], &slot);
                    uint64_t bytes = slot_extent_bytes(&slot);
                    if (FMT_STATE(slot.word) != GISMO_FREE && slot_extent_ok(s, &slot))
                        page_mark(s, (slot.offset - s->sb.data_offset) / FMT_PAGE,
                                  bytes ? (bytes + FMT_PAGE - 1) / FMT_PAGE : 1);
                }
            }
            if (control->free)
                partial_map(s, h.word >> 8 & 0xff)[c / 64] |= 1ull << (c % 64);
            if (control->deleted)
                s->host.retire[c / 64] |= 1ull << (c % 64);
        }
    }
    for (uint32_t a = 0; a < s->sb.arenas; a++)
        if (s->host.arena[a].state == HOST_UNIT_OWNED)
            page_recount(s, a);
    /* CLEARs that an earlier life of this lane sent may still be handled: believe no byte before. */
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++) {
        struct fmt_ring *ring = &s->rings[(uint64_t)s->lane * s->sb.max_lanes + lane];
        uint64_t tail = prim_load64(&ring->tail);
        if (lane == s->lane || tail == ring_head(s, lane))
            continue;
        for (uint64_t c = 0; c < s->chunks; c++)
            s->host.asked[lane * s->chunks + c] = tail;
    }
    name_rebuild(s);
    s->host.header->retire_hint = 1;
    unit_publish_maps(s);
    return GISMO_OK;
}

uint64_t chunk_free_slots(struct gismo_store *s) {
    uint64_t leased[FMT_MAX_ARENAS / 64], total = 0;
    unit_leased_map(s, AGREE_GROUP, leased);
    for (uint32_t g = 0; g < s->sb.groups; g++) {
        uint64_t from = (uint64_t)g * s->sb.group_chunks,
                 to = from + s->sb.group_chunks < s->chunks ? from + s->sb.group_chunks : s->chunks;
        if (unit_is_mine(s, AGREE_GROUP, g)) {
            if (quota_draining(s, AGREE_GROUP, g))
                continue;
            for (uint64_t c = from; c < to; c++) {
                if (bit_get(s->host.free_chunks, c))
                    total += FMT_CHUNK_SLOTS;
                else
                    total += (uint64_t)__builtin_popcountll(s->local[c].mine ? s->local[c].free
                                                                             : loc_load(&s->host.chunk[c].free));
            }
        } else if (unit_leasable(s, AGREE_GROUP, g, leased)) {
            total += (to - from) * FMT_CHUNK_SLOTS;
        }
    }
    return total;
}
