/*
 * quota.c - fair shares of arenas and slot groups: a busy lane must not keep the others out for ever. P7 of FORMAT.md.
 *
 * Nothing is done while there is room for all. When another lane wishes for room (its WANTED line), the elected process of
 * each host compares: who has more than its share (units ÷ ACTIVE lanes) leases no more of what the other could use, and, if no
 * run of unleased units is long enough for the wish, lets one of its own runs drain: nothing new is put there, so that the
 * deletes to come empty it, and it is returned. All of it is advice in the state directory, void two seconds after the last
 * wish; a process that does not heed it for a moment costs time, never data.
 */
#include "internal.h"

#define LINGER_NS 2000000000ull /* who wishes tries again, but not at every moment */

static struct host_unit *units(struct gismo_store *s, enum agree_unit kind) {
    return kind == AGREE_ARENA ? s->host.arena : s->host.group;
}

static uint32_t count(const struct gismo_store *s, enum agree_unit kind) {
    return kind == AGREE_ARENA ? s->sb.arenas : s->sb.groups;
}

struct wish {
    uint64_t pages, groups; /* the most that any other lane wishes */
    uint32_t active;        /* lanes, ours included */
};

static struct wish look_at_wishes(struct gismo_store *s) {
    struct wish most = {0, 0, 1};
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++) {
        if (lane == s->lane || FMT_STATE(lane_state_word(s, lane)) != GISMO_LANE_ACTIVE)
            continue;
        most.active++;
        prim_refresh(s->software, &s->lanes[lane].pages_wanted, FMT_LINE);
        uint64_t pages = prim_load64(&s->lanes[lane].pages_wanted);
        if (pages > most.pages)
            most.pages = pages < s->host.pages ? pages : s->host.pages;
        if (prim_load64(&s->lanes[lane].groups_wanted))
            most.groups = 1;
    }
    return most;
}

static bool in_force(struct gismo_store *s) {
    uint64_t until = loc_load(&s->host.header->wish_until_ns);
    return until != 0 && now_ns() < until;
}

bool quota_draining_(struct gismo_store *s, enum agree_unit kind, uint32_t index) {
    return loc_load(&units(s, kind)[index].draining) && in_force(s);
}

bool quota_reached_(struct gismo_store *s, enum agree_unit kind) {
    return loc_load(&s->host.header->lease_stop) >> kind & 1 && in_force(s);
}

static void set_draining(struct host_unit *unit, uint32_t draining) {
    if (loc_load(&unit->draining) != draining)
        loc_store(&unit->draining, draining);
}

static void stop_draining(struct gismo_store *s, enum agree_unit kind) {
    for (uint32_t i = 0; i < count(s, kind); i++)
        set_draining(&units(s, kind)[i], 0);
}

static uint64_t free_in(struct gismo_store *s, enum agree_unit kind, uint32_t index) {
    if (kind == AGREE_ARENA)
        return loc_load(&s->host.arena[index].free_pages);
    uint64_t from = (uint64_t)index * s->sb.group_chunks, chunks = 0;
    for (uint64_t c = from; c < from + s->sb.group_chunks && c < s->chunks; c++)
        chunks += bit_get(s->host.free_chunks, c);
    return chunks;
}

/* The run of that length with the most free room, of our units and unleased ones, with at most `most` of ours in it. */
static uint32_t best_run(struct gismo_store *s, enum agree_unit kind, const uint64_t *leased, uint32_t run,
                         uint32_t most) {
    uint32_t best = count(s, kind);
    uint64_t best_free = 0;
    for (uint32_t start = 0; start + run <= count(s, kind); start++) {
        uint64_t room = 1;
        uint32_t mine = 0, i = start;
        for (; i < start + run; i++) {
            bool own = unit_is_mine(s, kind, i);
            if ((!own && leased[i / 64] >> (i % 64) & 1) || (mine += own) > most)
                break;
            room += own ? free_in(s, kind, i) : 0;
        }
        if (i == start + run && room > best_free) {
            best_free = room;
            best = start;
        }
    }
    return best;
}

/* run = how many units in a row the wish asks for, 0 = none. */
static void share(struct gismo_store *s, enum agree_unit kind, uint32_t run, uint32_t active) {
    struct host_header *h = s->host.header;
    uint64_t leased[FMT_MAX_ARENAS / 64], stop = loc_load(&h->lease_stop) & ~(1ull << kind);
    uint32_t fair = count(s, kind) / active ? count(s, kind) / active : 1;
    uint32_t owned = 0, unleased = 0, draining = 0, row = 0;
    bool can_be_had = run == 0;
    unit_leased_map(s, kind, leased);
    for (uint32_t i = 0; i < count(s, kind); i++) {
        bool mine = unit_is_mine(s, kind, i), other = leased[i / 64] >> (i % 64) & 1;
        owned += mine;
        draining += mine && loc_load(&units(s, kind)[i].draining);
        unleased += !mine && !other;
        row = mine || other ? 0 : row + 1;
        can_be_had |= row >= run;
    }
    if (run && owned >= fair && (unleased <= run || !can_be_had))
        stop |= 1ull << kind;
    if (loc_load(&h->lease_stop) != stop)
        loc_store(&h->lease_stop, stop);
    if (can_be_had || owned <= fair) {
        stop_draining(s, kind);
    } else if (draining == 0) { /* else those that were chosen go on, or none would ever be empty */
        uint32_t first = best_run(s, kind, leased, run, owned - fair);
        for (uint32_t i = first; i < count(s, kind) && i < first + run; i++)
            set_draining(&units(s, kind)[i], unit_is_mine(s, kind, i));
    }
}

bool quota_tick(struct gismo_store *s) {
    struct host_header *h = s->host.header;
    struct wish wish = look_at_wishes(s);
    uint64_t until = loc_load(&h->wish_until_ns), time = now_ns();
    if (wish.pages) {
        loc_store(&h->wish_pages, wish.pages);
        loc_store(&h->wish_groups, wish.groups);
        loc_store(&h->wish_until_ns, time + LINGER_NS);
    } else if (until == 0) {
        return false;
    } else if (time >= until) {
        stop_draining(s, AGREE_ARENA);
        stop_draining(s, AGREE_GROUP);
        loc_store(&h->lease_stop, (uint64_t)0);
        loc_store(&h->wish_until_ns, (uint64_t)0);
        return false;
    }
    share(s, AGREE_ARENA, (uint32_t)((loc_load(&h->wish_pages) + arena_pages(s) - 1) / arena_pages(s)), wish.active);
    share(s, AGREE_GROUP, loc_load(&h->wish_groups) != 0, wish.active);
    return wish.pages != 0;
}
