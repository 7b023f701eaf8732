/*
 * unit.c - leasing of arenas and slot groups to this lane: P7 of FORMAT.md.
 */
#include "internal.h"

#include <string.h>

static struct host_unit *unit_of(struct gismo_store *s, enum agree_unit kind, uint32_t index) {
    return kind == AGREE_ARENA ? &s->host.arena[index] : &s->host.group[index];
}

static uint32_t unit_count(const struct gismo_store *s, enum agree_unit kind) {
    return kind == AGREE_ARENA ? s->sb.arenas : s->sb.groups;
}

bool unit_is_mine(struct gismo_store *s, enum agree_unit kind, uint32_t index) {
    return loc_load(&unit_of(s, kind, index)->state) == HOST_UNIT_OWNED;
}

static int take_decide(uint64_t old_value, void *ctx, uint64_t *new_value) {
    struct gismo_store *s = ctx;
    if (agree_owner(old_value) == s->lane + 1) {
        *new_value = old_value;
        return 1;
    }
    if (agree_owner(old_value) != 0)
        return 0;
    *new_value =
        ((old_value >> 32) + 1) << 32 | (loc_load(&s->host.header->incarnation) & 0xffffff) << 8 | (s->lane + 1);
    return 1;
}

static int give_decide(uint64_t old_value, void *ctx, uint64_t *new_value) {
    struct gismo_store *s = ctx;
    *new_value = old_value;
    if (agree_owner(old_value) != s->lane + 1)
        return 1; /* it already is not ours */
    *new_value = ((old_value >> 32) + 1) << 32;
    return 1;
}

static uint64_t *own_map(struct gismo_store *s, enum agree_unit kind) {
    return kind == AGREE_ARENA ? s->lanes[s->lane].arena_map : s->lanes[s->lane].group_map;
}

static void publish_word(struct gismo_store *s, enum agree_unit kind, uint32_t word) {
    uint64_t value = 0, *map = own_map(s, kind);
    for (uint32_t i = word * 64; i < (word + 1) * 64 && i < unit_count(s, kind); i++)
        if (loc_load(&unit_of(s, kind, i)->state) != HOST_UNIT_NONE)
            value |= 1ull << (i % 64);
    if (prim_load64(&map[word]) != value) {
        prim_store64(&map[word], value);
        prim_publish(s->software, &map[word], 8);
    }
}

void unit_publish_maps(struct gismo_store *s) {
    for (uint32_t w = 0; w * 64 < s->sb.arenas; w++)
        publish_word(s, AGREE_ARENA, w);
    for (uint32_t w = 0; w * 64 < s->sb.groups; w++)
        publish_word(s, AGREE_GROUP, w);
}

void unit_leased_map(struct gismo_store *s, enum agree_unit kind, uint64_t *map) {
    uint32_t words = (unit_count(s, kind) + 63) / 64;
    memset(map, 0, FMT_MAX_ARENAS / 8);
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++) {
        if (FMT_STATE(lane_state_word(s, lane)) == GISMO_LANE_FREE)
            continue;
        uint64_t *of = kind == AGREE_ARENA ? s->lanes[lane].arena_map : s->lanes[lane].group_map;
        if (lane != s->lane)
            prim_refresh(s->software, of, words * 8);
        for (uint32_t w = 0; w < words; w++)
            map[w] |= prim_load64(&of[w]);
    }
}

bool unit_leasable(struct gismo_store *s, enum agree_unit kind, uint32_t index, const uint64_t *leased) {
    return loc_load(&unit_of(s, kind, index)->state) == HOST_UNIT_NONE && !(leased[index / 64] >> (index % 64) & 1) &&
           !quota_reached(s, kind);
}

static void open_group(struct gismo_store *s, uint32_t group) {
    uint64_t from = (uint64_t)group * s->sb.group_chunks, to = from + s->sb.group_chunks;
    for (uint64_t c = from; c < to && c < s->chunks; c++) {
        prim_refresh(s->software, &s->chunk_headers[c], FMT_LINE);
        prim_refresh(s->software, &s->slot[c * FMT_CHUNK_SLOTS],
                     FMT_PAGE); /* their generations, as another host left them */
        if ((prim_load64(&s->chunk_headers[c].word) & 0xff) == FMT_CHUNK_NONE)
            bit_set(s->host.free_chunks, c);
    }
}

/* While the state is NONE nobody allocates here, so clearing the bits again after a crash does no harm. */
static void open_arena(struct gismo_store *s, uint32_t arena) {
    uint64_t per = arena_pages(s), first = arena * per, last = first + per;
    if (last > s->host.pages)
        last = s->host.pages;
    for (uint64_t page = first; page < last; page++) {
        if (page % 64 == 0 && last - page >= 64) {
            loc_store(&s->host.page_bits[page / 64], (uint64_t)0);
            page += 63;
        } else {
            loc_and(&s->host.page_bits[page / 64], ~(1ull << (page % 64)));
        }
    }
    page_recount(s, arena);
}

int unit_lease(struct gismo_store *s, enum agree_unit kind, uint32_t index) {
    struct host_unit *unit = unit_of(s, kind, index);
    if (kind == AGREE_ARENA ? !arena_claim(s, index) : !host_claim(s, &unit->claim))
        return GISMO_EBUSY;
    int status = GISMO_OK;
    if (loc_load(&unit->state) != HOST_UNIT_OWNED) {
        uint64_t agreed;
        status = agree_change(s, agree_register_of(s, kind, index), take_decide, s, &agreed);
        if (status == GISMO_OK) {
            if (kind == AGREE_ARENA) {
                /* software coherence: lines that we cached while it was another's must not be merged into */
                uint64_t per = 1ull << s->sb.arena_shift, at = s->sb.data_offset + index * per;
                uint64_t n =
                    at + per > s->sb.data_offset + s->sb.data_bytes ? s->sb.data_offset + s->sb.data_bytes - at : per;
                prim_refresh(s->software, s->base + at, n);
                open_arena(s, index);
            } else {
                open_group(s, index);
            }
            loc_store(&unit->state, (uint32_t)HOST_UNIT_OWNED);
            publish_word(s, kind, index / 64);
        }
    }
    host_unclaim(s, &unit->claim);
    return status;
}

int unit_lease_some(struct gismo_store *s, enum agree_unit kind, int from_top) {
    uint64_t leased[FMT_MAX_ARENAS / 64];
    unit_leased_map(s, kind, leased);
    uint32_t count = unit_count(s, kind);
    for (uint32_t n = 0; n < count; n++) {
        uint32_t index = from_top ? count - 1 - n : n;
        if (unit_leasable(s, kind, index, leased) && unit_lease(s, kind, index) == GISMO_OK)
            return GISMO_OK;
    }
    return GISMO_EFULL;
}

static int return_empty_arenas(struct gismo_store *s) {
    int returned = 0;
    for (uint32_t a = 0; a < s->sb.arenas; a++) {
        struct host_unit *unit = &s->host.arena[a];
        if (loc_load(&unit->state) != HOST_UNIT_OWNED || !arena_claim(s, a))
            continue;
        uint64_t per = arena_pages(s), first = a * per,
                 last = first + per > s->host.pages ? s->host.pages : first + per;
        bool empty = true;
        for (uint64_t page = first; page < last && empty; page++)
            empty = !bit_get(s->host.page_bits, page);
        if (empty) {
            uint64_t agreed;
            loc_store(&unit->state, (uint32_t)HOST_UNIT_RETURNING);
            prim_flush(s->software, s->base + s->sb.data_offset + first * FMT_PAGE, (last - first) * FMT_PAGE);
            prim_fence_store();
            if (agree_change(s, agree_register_of(s, AGREE_ARENA, a), give_decide, s, &agreed) == GISMO_OK) {
                for (uint64_t page = first; page < last; page++)
                    loc_or(&s->host.page_bits[page / 64], 1ull << (page % 64));
                s->writable_arenas[a / 64] &= ~(1ull << (a % 64));
                loc_store(&unit->state, (uint32_t)HOST_UNIT_NONE);
                publish_word(s, AGREE_ARENA, a / 64);
                returned++;
            } else {
                loc_store(&unit->state, (uint32_t)HOST_UNIT_OWNED);
            }
        }
        host_unclaim(s, &unit->claim);
    }
    return returned;
}

/*
 * All chunks of the group are NONE and nobody uses one: claimed one by one, so that nobody begins with one while the state
 * changes; whoever claims one later looks at the state again. Their pins and requests are void with their objects.
 */
static bool close_group(struct gismo_store *s, uint32_t group) {
    uint32_t from = group * s->sb.group_chunks, to = from + s->sb.group_chunks, c;
    if (to > s->chunks)
        to = (uint32_t)s->chunks;
    for (c = from; c < to; c++)
        if (!bit_get(s->host.free_chunks, c))
            return false;
    for (c = from; c < to && chunk_claim_locked(s, c); c++) {
        if (s->local[c].cells == 0)
            continue;
        chunk_unclaim_locked(s, c);
        break;
    }
    bool empty = c == to;
    if (empty) {
        for (uint32_t i = from; i < to; i++)
            bit_clear(s->host.free_chunks, i);
        loc_store(&s->host.group[group].state, (uint32_t)HOST_UNIT_RETURNING);
    }
    while (c-- > from)
        chunk_unclaim_locked(s, c);
    return empty;
}

static int return_empty_groups(struct gismo_store *s) {
    int returned = 0;
    for (uint32_t g = 0; g < s->sb.groups; g++) {
        struct host_unit *unit = &s->host.group[g];
        if (loc_load(&unit->state) != HOST_UNIT_OWNED || !host_claim(s, &unit->claim))
            continue;
        if (loc_load(&unit->state) == HOST_UNIT_OWNED && close_group(s, g)) {
            uint64_t agreed;
            if (agree_change(s, agree_register_of(s, AGREE_GROUP, g), give_decide, s, &agreed) == GISMO_OK) {
                loc_store(&unit->state, (uint32_t)HOST_UNIT_NONE);
                publish_word(s, AGREE_GROUP, g / 64);
                returned++;
            } else {
                open_group(s, g);
                loc_store(&unit->state, (uint32_t)HOST_UNIT_OWNED);
            }
        }
        host_unclaim(s, &unit->claim);
    }
    return returned;
}

/* By the elected process, when another lane wishes for room, and at the last close. */
int unit_return_empty(struct gismo_store *s) { return return_empty_arenas(s) + return_empty_groups(s); }

/*
 * Who died returning a unit, or leasing it after the agreement, is looked for: nobody else would claim a unit that is RETURNING, and
 * other hosts could not have what the register says is ours although we know nothing of it (P7).
 */
void unit_settle(struct gismo_store *s, enum agree_unit kind, uint32_t index, uint64_t dead_claim) {
    struct host_unit *unit = unit_of(s, kind, index);
    if (loc_load(&unit->claim) != dead_claim ||
        !(kind == AGREE_ARENA ? arena_claim(s, index) : host_claim(s, &unit->claim)))
        return;
    if (kind == AGREE_GROUP && loc_load(&unit->state) == HOST_UNIT_RETURNING) /* of an arena: arena_claim does it */
        loc_store(&unit->state, (uint32_t)HOST_UNIT_NONE); /* and if it is still ours it is leased again below */
    if (loc_load(&unit->state) == HOST_UNIT_NONE &&
        agree_owner(agree_peek(s, agree_register_of(s, kind, index))) == s->lane + 1)
        (void)unit_lease(s, kind, index); /* goes on where the dead one was */
    host_unclaim(s, &unit->claim);
}
