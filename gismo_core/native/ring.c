/*
 * ring.c - messages between hosts: one ring per ordered pair of lanes, one sending and one receiving host each.
 *
 * Within a host the sending and the receiving side are claimed for one batch (microseconds), taken over from the dead only.
 * Messages are requests that may be repeated: DELETE names a generation, CLEAR is answered by the head passing it. What
 * does not fit stays a bit in the sender's state directory (pending, outbound) and is sent later. Model: tests/spin/ring.pml.
 */
#include "internal.h"

#include "crc32c.h"

#define RESEND_NS 100000000ull

static uint64_t check_of(uint64_t sequence, uint64_t what, uint64_t value) {
    uint64_t words[3] = {sequence, what, value};
    return crc32c(0, words, sizeof words);
}

static struct fmt_ring *ring_of(struct gismo_store *s, uint32_t from, uint32_t to) {
    return &s->rings[(uint64_t)from * s->sb.max_lanes + to];
}

uint64_t ring_head(struct gismo_store *s, uint32_t to) {
    struct fmt_ring *ring = ring_of(s, s->lane, to);
    prim_refresh(s->software, &ring->head, 8);
    return prim_load64(&ring->head);
}

int ring_send(struct gismo_store *s, uint32_t to, uint32_t op, uint32_t what, uint64_t value, uint64_t *asked) {
    struct fmt_ring *ring = ring_of(s, s->lane, to);
    if (!host_claim(s, &s->host.ring_send[to]))
        return GISMO_EBUSY;
    int status = GISMO_EBUSY;
    uint64_t tail = prim_load64(&ring->tail), head = ring_head(s, to);
    if (tail - head < FMT_RING_CELLS) {
        struct fmt_ring_cell *cell = &ring->cell[tail % FMT_RING_CELLS];
        uint64_t words = (uint64_t)op << 32 | what, sequence = tail + 1;
        prim_store64(&cell->what, words);
        prim_store64(&cell->value, value);
        prim_store64(&cell->check, check_of(sequence, words, value));
        prim_store64(&cell->sequence, sequence);
        prim_flush(s->software, cell, sizeof *cell);
        prim_fence_store();
        if (asked)
            loc_store(asked, tail + 1);
        prim_store64(&ring->tail, tail + 1);
        prim_publish(s->software, &ring->tail, 8);
        status = GISMO_OK;
    }
    host_unclaim(s, &s->host.ring_send[to]);
    return status;
}

/* We are the receiver: P5, handling CLEAR. Only here is a byte of a foreign chunk ever cleared. */
static void handle_clear(struct gismo_store *s, uint32_t chunk, uint64_t mask) {
    if (chunk >= s->chunks)
        return;
    uint64_t gone = 0;
    struct fmt_slot *slots = &s->slot[chunk * FMT_CHUNK_SLOTS];
    prim_refresh(s->software, slots, FMT_CHUNK_SLOTS * sizeof *slots);
    for (uint64_t rest = mask; rest; rest &= rest - 1) {
        uint32_t i = (uint32_t)__builtin_ctzll(rest);
        if (FMT_STATE(prim_load64(&slots[i].word)) == GISMO_DELETED)
            gone |= 1ull << i;
    }
    prim_fence_full();
    gone &= ~host_pinned_mask(s, chunk, gone);
    uint8_t *line = s->pins + (s->lane * s->chunks + chunk) * FMT_LINE;
    for (uint64_t rest = gone; rest; rest &= rest - 1) {
        uint8_t *byte = &line[__builtin_ctzll(rest)];
        if (prim_load8(byte))
            prim_store8(byte, 0);
    }
    prim_flush(s->software, line, FMT_LINE);
    prim_fence_full();
}

static int receive(struct gismo_store *s, uint32_t from) {
    struct fmt_ring *ring = ring_of(s, from, s->lane);
    prim_refresh(s->software, &ring->tail, 8);
    if (prim_load64(&ring->tail) == prim_load64(&ring->head) || !host_claim(s, &s->host.ring_receive[from]))
        return 0;
    int handled = 0;
    uint64_t head = prim_load64(&ring->head), tail = prim_load64(&ring->tail);
    while (head != tail && handled < (int)FMT_RING_CELLS) {
        struct fmt_ring_cell *cell = &ring->cell[head % FMT_RING_CELLS];
        prim_refresh(s->software, cell, sizeof *cell);
        uint64_t sequence = prim_load64(&cell->sequence), what = prim_load64(&cell->what);
        uint64_t value = prim_load64(&cell->value), check = prim_load64(&cell->check);
        if (sequence != head + 1 || check != check_of(sequence, what, value))
            break; /* not yet visible */
        uint32_t op = (uint32_t)(what >> 32), index = (uint32_t)what;
        if (op == FMT_RING_CLEAR) {
            handle_clear(s, index, value);
        } else if (op == FMT_RING_DELETE && index < s->slots &&
                   unit_is_mine(s, AGREE_GROUP, chunk_group(s, index / FMT_CHUNK_SLOTS))) {
            (void)chunk_delete_locked(s, index, value);
        }
        prim_store64(&ring->head, ++head);
        prim_publish(s->software, &ring->head, 8);
        handled++;
    }
    host_unclaim(s, &s->host.ring_receive[from]);
    return handled;
}

int ring_receive_all(struct gismo_store *s) {
    int handled = 0;
    for (uint32_t from = 0; from < s->sb.max_lanes; from++) {
        if (from == s->lane || FMT_STATE(lane_state_word(s, from)) == GISMO_LANE_FREE)
            continue;
        handled += receive(s, from);
    }
    return handled;
}

/* DELETEs for objects of other hosts. The request stays until the slot's word has moved on. */
int ring_send_outbound(struct gismo_store *s) {
    int left = 0;
    uint64_t now = now_ns();
    for (uint64_t w = 0; w < s->host.words; w++) {
        for (uint64_t bits = loc_load(&s->host.outbound[w]); bits; bits &= bits - 1) {
            uint32_t c = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits);
            if (c >= s->chunks)
                continue;
            struct host_chunk *control = &s->host.chunk[c];
            struct fmt_chunk header;
            chunk_mark(s, c); /* we take request bits away and may put them back: should we die in between */
            bool known =
                chunk_header_read(s, c, &header) && header.lane_plus_1 != 0 && header.lane_plus_1 <= s->sb.max_lanes;
            if (known && (header.lane_plus_1 - 1 == s->lane || unit_is_mine(s, AGREE_GROUP, chunk_group(s, c)))) {
                retire_later(s, c); /* it became ours: then we do it ourselves */
                bit_clear(s->host.outbound, c);
                chunk_unmark(s, c);
                continue;
            }
            uint32_t owner = (uint32_t)header.lane_plus_1 - 1;
            if (known && FMT_STATE(lane_state_word(s, owner)) == GISMO_LANE_QUIET)
                loc_add(&s->host.silence[owner].wanted, 1); /* what is sent now, or was pinned here until now */
            /* Each request at once, and all again after a while: its sender, or the one asked, may have died. */
            struct local_chunk *l = &s->local[c];
            if (now >= l->retry_unix_ns) {
                l->sent = 0;
                l->retry_unix_ns = now + RESEND_NS;
            }
            bool send = known; /* whose it is has to be known */
            uint64_t open = 0;
            for (uint64_t pending = loc_load(&control->pending); pending; pending &= pending - 1) {
                uint32_t i = (uint32_t)__builtin_ctzll(pending), slot = c * FMT_CHUNK_SLOTS + i;
                uint64_t generation = loc_load(&s->host.pending_generation[slot]);
                prim_refresh(s->software, &s->slot[slot], FMT_LINE);
                if (prim_load64(&s->slot[slot].word) != FMT_WORD(generation, GISMO_SEALED)) {
                    loc_and(&control->pending, ~(1ull << i));
                    if (loc_load(&s->host.pending_generation[slot]) != generation)
                        loc_or(&control->pending, 1ull << i); /* asked again meanwhile, of a later one */
                    else
                        continue;
                }
                open |= 1ull << i;
                if (!send || l->sent >> i & 1)
                    continue;
                if (ring_send(s, owner, FMT_RING_DELETE, slot, generation, NULL) == GISMO_OK)
                    l->sent |= 1ull << i;
                else
                    send = false; /* full, or another is at it */
            }
            if (open) {
                left++;
                chunk_unmark(s, c);
                continue;
            }
            /* Cleared last, and looked at again: neither our death nor a request that comes now loses one. */
            bit_clear(s->host.outbound, c);
            prim_fence_full();
            if (loc_load(&control->pending))
                bit_set(s->host.outbound, c);
            chunk_unmark(s, c);
        }
    }
    return left;
}
