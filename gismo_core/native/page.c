/*
 * page.c - runs of pages of the data area: P6 of FORMAT.md.
 *
 * One bit a page in the host's state directory; the bits of an arena change only under that arena's claim, which is
 * held for a few hundred ns. Nobody waits for a claim: an allocator takes a run elsewhere, a free is done later. So a
 * frozen process costs at most the arenas that it was changing at that instant.
 *
 * Search is address-ordered first fit: small extents from the top, large ones from the bottom, over the arenas that this lane has
 * leased; only when nothing fits is another arena leased. Two hints per arena (free_pages, largest_run) let full arenas be
 * passed by; they are never believed when the answer would be "full".
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#define ANY_RUN UINT32_MAX

static inline bool page_taken(const struct gismo_store *s, uint64_t page) {
    return loc_load(&s->host.page_bits[page / 64]) >> (page % 64) & 1;
}

static uint64_t arena_first(const struct gismo_store *s, uint32_t arena) { return arena * arena_pages(s); }
static uint64_t arena_end(const struct gismo_store *s, uint32_t arena) {
    uint64_t end = (arena + 1) * arena_pages(s);
    return end > s->host.pages ? s->host.pages : end;
}
static uint32_t arena_of(const struct gismo_store *s, uint64_t page) {
    return (uint32_t)(page >> (s->sb.arena_shift - FMT_PAGE_SHIFT));
}

/* First page >= at with the bit as wanted (0 free, 1 taken), or end. */
static uint64_t next_page(const struct gismo_store *s, uint64_t at, uint64_t end, int taken) {
    while (at < end) {
        uint64_t word = loc_load(&s->host.page_bits[at / 64]);
        if (!taken)
            word = ~word;
        word >>= at % 64;
        if (word) {
            at += (uint64_t)__builtin_ctzll(word);
            return at < end ? at : end;
        }
        at = (at | 63) + 1;
    }
    return end;
}

static void change_bits(struct gismo_store *s, uint64_t first, uint64_t pages, int taken) {
    for (uint64_t at = first, end = first + pages; at < end;) {
        uint64_t n = 64 - at % 64;
        if (n > end - at)
            n = end - at;
        uint64_t mask = (n == 64 ? ~0ull : ((1ull << n) - 1)) << (at % 64), *word = &s->host.page_bits[at / 64];
        /* Atomic although claimed: the word may be shared with the next arena where arenas are small. */
        if (taken)
            loc_or(word, mask);
        else
            loc_and(word, ~mask);
        at += n;
    }
    for (uint32_t a = arena_of(s, first), last = arena_of(s, first + pages - 1); a <= last; a++) {
        uint64_t from = arena_first(s, a) > first ? arena_first(s, a) : first;
        uint64_t to = arena_end(s, a) < first + pages ? arena_end(s, a) : first + pages;
        struct host_unit *unit = &s->host.arena[a];
        if (taken) {
            loc_store(&unit->free_pages, unit->free_pages - (uint32_t)(to - from));
        } else {
            loc_store(&unit->free_pages, unit->free_pages + (uint32_t)(to - from));
            loc_store(&unit->largest_run, ANY_RUN);
        }
    }
}

void page_mark(struct gismo_store *s, uint64_t first, uint64_t pages) {
    for (uint64_t page = first; page < first + pages; page++)
        loc_or(&s->host.page_bits[page / 64], 1ull << (page % 64));
}

/* The hint may be too high (a page freed while another process raised it): who finds nothing above it looks below, too. */
static void lower_hint(struct gismo_store *s, uint32_t arena) {
    uint64_t *hint = &s->host.header->lowest_arena, seen = loc_load(hint);
    while (seen > arena && !loc_cas(hint, &seen, (uint64_t)arena))
        ;
}

static uint32_t lowest_with_room(struct gismo_store *s) {
    uint64_t seen = loc_load(&s->host.header->lowest_arena), a = seen;
    while (a < s->sb.arenas && loc_load(&s->host.arena[a].state) == HOST_UNIT_OWNED &&
           loc_load(&s->host.arena[a].free_pages) == 0)
        a++;
    if (a != seen)
        (void)loc_cas(&s->host.header->lowest_arena, &seen, a);
    return a < s->sb.arenas ? (uint32_t)a : s->sb.arenas;
}

void page_recount(struct gismo_store *s, uint32_t arena) {
    uint64_t count = 0, end = arena_end(s, arena);
    for (uint64_t page = arena_first(s, arena); page < end; page++)
        count += !page_taken(s, page);
    loc_store(&s->host.arena[arena].free_pages, (uint32_t)count);
    loc_store(&s->host.arena[arena].largest_run, ANY_RUN);
    lower_hint(s, arena);
}

/* ---- intents -------------------------------------------------------------------------------- */

static void intent_set(struct gismo_store *s, uint64_t first, uint64_t pages) {
    struct host_process *p = &s->host.process[s->index];
    uint64_t sequence = (loc_load(&p->intent_kind) >> 8) + 1;
    loc_store(&p->intent_first, first);
    loc_store(&p->intent_pages, pages);
    loc_store(&p->intent_kind, sequence << 8 | HOST_INTENT_PAGES);
}

void page_intent_done(struct gismo_store *s) {
    struct host_process *p = &s->host.process[s->index];
    loc_store(&p->intent_kind, (loc_load(&p->intent_kind) >> 8) << 8 | HOST_INTENT_NONE);
}

/* Marks in `owned` (one bit a page of [first, first+pages)) what [from, from+n) covers of it. */
static void mark_owned(uint64_t *owned, uint64_t first, uint64_t pages, uint64_t from, uint64_t n) {
    uint64_t lo = from > first ? from : first, hi = from + n < first + pages ? from + n : first + pages;
    for (uint64_t page = lo; page < hi; page++)
        owned[(page - first) / 64] |= 1ull << ((page - first) % 64);
}

/*
 * Pages of [first, first+pages), all of ONE arena that we have claimed, that are taken and nobody's: given back.
 *
 * Right because: bits of this arena stand still while we have its claim; a free (header or slot word cleared, then the
 * bits) happens under the claim as a whole; and a living process that took pages here keeps its intent until its header or slot is
 * written. So: intents first, headers and slots second.
 */
static uint64_t settle_claimed(struct gismo_store *s, uint64_t first, uint64_t pages, int repair, bool *complete) {
    uint64_t words = (pages + 63) / 64, freed = 0;
    uint64_t *owned = calloc(words, 8);
    if (owned == NULL) {
        *complete = false;
        return 0;
    }
    for (uint32_t i = 0; i < HOST_PROCESSES; i++) {
        struct host_process *p = &s->host.process[i];
        if ((loc_load(&p->word) & 0xff) != HOST_PROCESS_LIVE)
            continue;
        uint64_t kind, from, n;
        do {
            kind = loc_load(&p->intent_kind);
            from = loc_load(&p->intent_first);
            n = loc_load(&p->intent_pages);
        } while (loc_load(&p->intent_kind) != kind);
        if ((kind & 0xff) == HOST_INTENT_PAGES)
            mark_owned(owned, first, pages, from, n);
    }
    prim_fence_full();
    uint64_t data_page = s->sb.data_offset / FMT_PAGE;
    for (uint32_t c = 0; c < s->chunks; c++) {
        if (c % s->sb.group_chunks == 0 && !unit_is_mine(s, AGREE_GROUP, chunk_group(s, c))) {
            c += s->sb.group_chunks - 1;
            continue;
        }
        uint64_t word = prim_load64(&s->chunk_headers[c].word);
        if ((word & 0xff) == FMT_CHUNK_SMALL) {
            struct fmt_chunk h;
            if (!chunk_header_read(s, c, &h)) {
                free(owned); /* damaged: any page may be its. What leaks is better than what is given out twice */
                return 0;
            }
            mark_owned(owned, first, pages, h.base / FMT_PAGE - data_page, h.bytes / FMT_PAGE);
        } else if ((word & 0xff) == FMT_CHUNK_LARGE) {
            for (uint32_t i = 0; i < FMT_CHUNK_SLOTS; i++) {
                struct fmt_slot slot;
                slot_read(&s->slot[c * FMT_CHUNK_SLOTS + i], &slot);
                if (FMT_STATE(slot.word) != GISMO_FREE && slot_extent_ok(s, &slot))
                    mark_owned(owned, first, pages, slot.offset / FMT_PAGE - data_page,
                               (slot_extent_bytes(&slot) + FMT_PAGE - 1) / FMT_PAGE);
            }
        }
    }
    for (uint64_t page = first; page < first + pages; page++) {
        if (page_taken(s, page) && !(owned[(page - first) / 64] >> ((page - first) % 64) & 1)) {
            freed++;
            if (repair)
                change_bits(s, page, 1, 0);
        }
    }
    free(owned);
    return freed;
}

int arena_claim(struct gismo_store *s, uint32_t arena) {
    struct host_unit *unit = &s->host.arena[arena];
    uint64_t before = 0;
    if (LIKELY(loc_cas(&unit->claim, &before, s->claim)))
        return 1;
    if (before == s->claim)
        return 1;
    if (!host_claim(s, &unit->claim))
        return 0;
    /* A dead claimer's half-done pages are settled by its intent, before it is buried: not here (STALE_HOLDER). */
    if (loc_load(&unit->state) == HOST_UNIT_RETURNING) {
        if (agree_owner(agree_peek(s, agree_register_of(s, AGREE_ARENA, arena))) == s->lane + 1) {
            loc_store(&unit->state, (uint32_t)HOST_UNIT_OWNED);
        } else {
            page_mark(s, arena_first(s, arena), arena_end(s, arena) - arena_first(s, arena));
            loc_store(&unit->state, (uint32_t)HOST_UNIT_NONE);
        }
    }
    page_recount(s, arena);
    return 1;
}

static void unclaim_arenas(struct gismo_store *s, uint32_t from, uint32_t to) {
    for (uint32_t a = from; a <= to; a++)
        if (loc_load(&s->host.arena[a].claim) == s->claim)
            host_unclaim(s, &s->host.arena[a].claim);
}

static int claim_arenas(struct gismo_store *s, uint64_t first, uint64_t pages) {
    uint32_t from = arena_of(s, first), to = arena_of(s, first + pages - 1);
    for (uint32_t a = from; a <= to; a++) {
        int got = 0;
        for (int spin = 0; spin < 200 && !got; spin++) { /* its holder, if it runs, needs a few hundred ns */
            uint64_t seen = 0;
            got = loc_cas(&s->host.arena[a].claim, &seen, s->claim) || seen == s->claim;
            if (!got)
                __builtin_ia32_pause();
        }
        if (!got && !arena_claim(s, a)) {
            if (a > from)
                unclaim_arenas(s, from, a - 1);
            return 0;
        }
    }
    return 1;
}

uint64_t page_settle(struct gismo_store *s, uint64_t first, uint64_t pages, int repair, bool *complete) {
    uint64_t freed = 0;
    *complete = true;
    if (first >= s->host.pages || pages > s->host.pages - first || pages == 0)
        return 0;
    for (uint32_t a = arena_of(s, first), last = arena_of(s, first + pages - 1); a <= last; a++) {
        if (loc_load(&s->host.arena[a].state) != HOST_UNIT_OWNED)
            continue;
        if (!arena_claim(s, a)) {
            *complete = false; /* busy: who wants to forget the intent must come again */
            continue;
        }
        uint64_t lo = first > arena_first(s, a) ? first : arena_first(s, a);
        uint64_t hi = first + pages < arena_end(s, a) ? first + pages : arena_end(s, a);
        freed += settle_claimed(s, lo, hi - lo, repair, complete);
        host_unclaim(s, &s->host.arena[a].claim);
    }
    return freed;
}

/* ---- taking and giving ---------------------------------------------------------------------- */

static bool run_is_free(struct gismo_store *s, uint64_t first, uint64_t pages) {
    for (uint32_t a = arena_of(s, first), last = arena_of(s, first + pages - 1); a <= last; a++)
        if (loc_load(&s->host.arena[a].state) != HOST_UNIT_OWNED || quota_draining(s, AGREE_ARENA, a))
            return false;
    return next_page(s, first, first + pages, 1) == first + pages;
}

/* The lowest (or highest) free run of that length inside one arena; UINT64_MAX if none. Sets the arena's hint. */
static uint64_t run_in_arena(struct gismo_store *s, uint32_t arena, uint64_t pages, int from_top) {
    uint64_t end = arena_end(s, arena), best = UINT64_MAX, longest = 0;
    for (uint64_t at = arena_first(s, arena); at < end;) {
        uint64_t from = next_page(s, at, end, 0), to = next_page(s, from, end, 1);
        if (to - from > longest)
            longest = to - from;
        if (to - from >= pages) {
            best = from_top ? to - pages : from;
            if (!from_top)
                return best;
        }
        at = to;
    }
    if (best == UINT64_MAX)
        loc_store(&s->host.arena[arena].largest_run, (uint32_t)longest);
    return best;
}

static bool arena_may_fit(struct gismo_store *s, uint32_t arena, uint64_t pages, int sure) {
    const struct host_unit *unit = &s->host.arena[arena];
    if (loc_load(&unit->state) != HOST_UNIT_OWNED || quota_draining(s, AGREE_ARENA, arena))
        return false;
    return sure || (loc_load(&unit->free_pages) >= pages && loc_load(&unit->largest_run) >= pages);
}

/* Claims, looks again, writes the intent, takes. */
static bool take_run(struct gismo_store *s, uint64_t first, uint64_t pages) {
    if (!claim_arenas(s, first, pages))
        return false;
    uint32_t from = arena_of(s, first), to = arena_of(s, first + pages - 1);
    bool ok = run_is_free(s, first, pages);
    if (ok) {
        intent_set(s, first, pages);
        change_bits(s, first, pages, 1);
    }
    unclaim_arenas(s, from, to);
    return ok;
}

/* Arenas below `lowest` are not looked at. */
static bool take_inside(struct gismo_store *s, uint64_t pages, int from_top, uint32_t lowest, int sure,
                        uint64_t *first) {
    for (uint32_t n = 0; n < s->sb.arenas - lowest; n++) {
        uint32_t a = from_top ? s->sb.arenas - 1 - n : lowest + n;
        while (arena_may_fit(s, a, pages, sure)) {
            uint64_t run = run_in_arena(s, a, pages, from_top);
            if (run == UINT64_MAX)
                break;
            if (take_run(s, run, pages)) {
                *first = run;
                return true;
            }
            if (loc_load(&s->host.arena[a].claim) != 0)
                break; /* busy: look elsewhere */
        }
    }
    return false;
}

/* Is [start, start+pages) free, counting arenas that can be leased as free? If not, *next is where to look on. */
static bool run_possible(struct gismo_store *s, uint64_t start, uint64_t pages, const uint64_t *leased,
                         uint64_t *next) {
    for (uint64_t at = start; at < start + pages;) {
        uint32_t a = arena_of(s, at);
        uint64_t end = arena_end(s, a) < start + pages ? arena_end(s, a) : start + pages;
        if (loc_load(&s->host.arena[a].state) == HOST_UNIT_OWNED) {
            if (loc_load(&s->host.arena[a].free_pages) == 0 || quota_draining(s, AGREE_ARENA, a)) {
                *next = arena_end(s, a);
                return false;
            }
            uint64_t taken = next_page(s, at, end, 1);
            if (taken < end) {
                *next = next_page(s, taken, arena_end(s, a), 0);
                return false;
            }
        } else if (!unit_leasable(s, AGREE_ARENA, a, leased)) {
            *next = arena_end(s, a);
            return false;
        }
        at = end;
    }
    return true;
}

/* The lowest run, over several arenas if need be; arenas that can be leased count as free and are leased then. */
static bool take_across(struct gismo_store *s, uint64_t pages, uint32_t lowest, uint64_t *first) {
    uint64_t leased[FMT_MAX_ARENAS / 64];
    unit_leased_map(s, AGREE_ARENA, leased);
    for (uint64_t start = arena_first(s, lowest); start + pages <= s->host.pages;) {
        if (!run_possible(s, start, pages, leased, &start))
            continue;
        bool whole = true;
        for (uint32_t a = arena_of(s, start), last = arena_of(s, start + pages - 1); a <= last && whole; a++) {
            if (loc_load(&s->host.arena[a].state) != HOST_UNIT_OWNED && unit_lease(s, AGREE_ARENA, a) != GISMO_OK) {
                leased[a / 64] |= 1ull << (a % 64); /* another has it, or is at it: do not ask again */
                whole = false;
            }
        }
        if (!whole)
            continue;
        if (take_run(s, start, pages)) {
            *first = start;
            return true;
        }
        start = arena_end(s, arena_of(s, start)); /* busy, or another process was faster: look on */
    }
    return false;
}

static uint32_t highest_leasable(struct gismo_store *s) {
    uint64_t leased[FMT_MAX_ARENAS / 64];
    unit_leased_map(s, AGREE_ARENA, leased);
    for (uint32_t a = s->sb.arenas; a-- > 0;)
        if (unit_leasable(s, AGREE_ARENA, a, leased))
            return a;
    return s->sb.arenas;
}

int page_take_locked(struct gismo_store *s, uint64_t pages, int from_top, uint64_t *first) {
    if (pages == 0 || pages > s->host.pages)
        return GISMO_EFULL;
    bool fits_arena = pages <= arena_pages(s);
    uint32_t lowest = from_top ? 0 : lowest_with_room(s);
    if (fits_arena && from_top) {
        /* Above the highest arena that can still be leased first: small extents must not end up among the large ones. */
        uint32_t next;
        while ((next = highest_leasable(s)) < s->sb.arenas) {
            if (take_inside(s, pages, 1, next, 0, first))
                return GISMO_OK;
            if (unit_lease(s, AGREE_ARENA, next) != GISMO_OK)
                break;
        }
    }
    /* What is small against an arena is sought arena by arena, by their hints; what is not must be able to lie across. */
    if (fits_arena && (from_top || pages <= arena_pages(s) / 32)) {
        if (take_inside(s, pages, from_top, lowest, 0, first))
            return GISMO_OK;
        while (unit_lease_some(s, AGREE_ARENA, from_top) == GISMO_OK)
            if (take_inside(s, pages, from_top, 0, 0, first))
                return GISMO_OK;
    }
    if (take_across(s, pages, lowest, first) || (lowest > 0 && take_across(s, pages, 0, first)))
        return GISMO_OK;
    if (fits_arena && take_inside(s, pages, from_top, 0, 1, first)) /* the hints may have lied */
        return GISMO_OK;
    return GISMO_EFULL;
}

int page_give_begin(struct gismo_store *s, uint64_t first, uint64_t pages) {
    if (!claim_arenas(s, first, pages))
        return 0;
    intent_set(s, first, pages);
    return 1;
}

void page_give_end(struct gismo_store *s, uint64_t first, uint64_t pages) {
    change_bits(s, first, pages, 0);
    lower_hint(s, arena_of(s, first));
    page_intent_done(s); /* before the claims go: who takes these pages next may die, and our intent would cover them */
    unclaim_arenas(s, arena_of(s, first), arena_of(s, first + pages - 1));
}

/* Of this host's arenas and of those that nobody has leased. */
void page_free_stats(struct gismo_store *s, uint64_t *free_pages, uint64_t *largest_pages) {
    uint64_t leased[FMT_MAX_ARENAS / 64], total = 0, run = 0, largest = 0;
    unit_leased_map(s, AGREE_ARENA, leased);
    for (uint32_t a = 0; a < s->sb.arenas; a++) {
        uint64_t at = arena_first(s, a), end = arena_end(s, a);
        if (quota_draining(s, AGREE_ARENA, a)) {
            run = 0; /* another host's, as soon as it is empty */
        } else if (loc_load(&s->host.arena[a].state) == HOST_UNIT_OWNED) {
            while (at < end) {
                uint64_t from = next_page(s, at, end, 0);
                if (from > at)
                    run = 0;
                uint64_t to = next_page(s, from, end, 1);
                total += to - from;
                run += to - from;
                if (run > largest)
                    largest = run;
                if (to < end)
                    run = 0;
                at = to;
            }
        } else if (unit_leasable(s, AGREE_ARENA, a, leased)) {
            total += end - at;
            run += end - at;
            if (run > largest)
                largest = run;
        } else {
            run = 0;
        }
    }
    *free_pages = total;
    *largest_pages = largest;
}

int page_ensure_writable(struct gismo_store *s, uint64_t offset, uint64_t bytes) {
    uint64_t first = (offset - s->sb.data_offset) / FMT_PAGE,
             last = (offset + bytes - 1 - s->sb.data_offset) / FMT_PAGE;
    for (uint32_t a = arena_of(s, first); a <= arena_of(s, last); a++) {
        if (LIKELY(s->writable_arenas[a / 64] >> (a % 64) & 1))
            continue;
        uint64_t from = s->sb.data_offset + arena_first(s, a) * FMT_PAGE;
        int status = medium_make_writable(s, from, (arena_end(s, a) - arena_first(s, a)) * FMT_PAGE);
        if (status)
            return status;
        s->writable_arenas[a / 64] |= 1ull << (a % 64);
    }
    return GISMO_OK;
}
