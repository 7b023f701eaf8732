/*
 * agree.c - agreed registers: protocol R of FORMAT.md (CASPaxos over single-writer lines on one shared medium).
 *
 * Rarely used (leases, incarnations), so clarity before speed. The caller holds this host's claim of the register, so one
 * process speaks for the host and its line has one writer. Model: tests/spin/register.pml.
 */
#include "internal.h"

#include "crc32c.h"

#include <string.h>

struct half {
    uint64_t mbal, bal, value;
    uint32_t sequence;
};

uint32_t agree_register_of(const struct gismo_store *s, enum agree_unit kind, uint32_t index) {
    return kind == AGREE_ARENA   ? index
           : kind == AGREE_GROUP ? s->sb.arenas + index
                                 : s->sb.arenas + s->sb.groups + index;
}

static struct fmt_register_line *line_of(struct gismo_store *s, uint32_t reg, uint32_t host) {
    return &s->registers[(uint64_t)reg * s->sb.max_lanes + host];
}

/* The newest half whose checksum holds; a torn one counts as not yet written. which = its index, or -1 if there is none. */
static struct half read_line(struct gismo_store *s, uint32_t reg, uint32_t host, int *which) {
    struct fmt_register_line *line = line_of(s, reg, host);
    struct half best = {0, 0, 0, 0};
    *which = -1;
    for (int i = 0; i < 2; i++) {
        const uint64_t *from = (const uint64_t *)(const void *)&line->half[i];
        uint64_t words[4];
        for (int w = 0; w < 4; w++)
            words[w] = prim_load64(&from[w]);
        struct fmt_register_half h;
        memcpy(&h, words, sizeof h);
        if (h.sequence == 0 || crc32c(0, &h, offsetof(struct fmt_register_half, crc)) != h.crc)
            continue;
        if (*which < 0 || (int32_t)(h.sequence - best.sequence) > 0) {
            best = (struct half){h.mbal, h.bal, h.value, h.sequence};
            *which = i;
        }
    }
    return best;
}

/*
 * Whose line it is that we write. Who takes a lane over has its leases as that lane, but about the lane itself it speaks as the host
 * that it is: the host whose lane it was may just be coming back, and speaks in the lane's own line.
 */
static uint32_t speaker(const struct gismo_store *s, uint32_t reg) {
    return s->taker && reg >= s->sb.arenas + s->sb.groups ? s->taker - 1 : s->lane;
}

static void write_line(struct gismo_store *s, uint32_t reg, struct half *own, int *which) {
    struct fmt_register_line *line = line_of(s, reg, speaker(s, reg));
    int into = *which == 0 ? 1 : 0;
    own->sequence++;
    if (own->sequence == 0)
        own->sequence = 1;
    struct fmt_register_half h = {own->mbal, own->bal, own->value, own->sequence, 0};
    h.crc = crc32c(0, &h, offsetof(struct fmt_register_half, crc));
    uint64_t words[4];
    memcpy(words, &h, sizeof words);
    uint64_t *to = (uint64_t *)(void *)&line->half[into];
    for (int w = 0; w < 4; w++)
        prim_store64(&to[w], words[w]);
    prim_flush(s->software, line, sizeof *line);
    prim_fence_full();
    *which = into;
}

/* Rounds grow by one at a time, so this one is reached by damage only; above it a ballot would wrap and be no more than 0. */
#define LAST_ROUND (UINT64_MAX >> 6)

bool agree_is_stuck(struct gismo_store *s, uint32_t reg, uint32_t *host) {
    prim_refresh(s->software, line_of(s, reg, 0), (size_t)s->sb.max_lanes * FMT_LINE);
    for (*host = 0; *host < s->sb.max_lanes; ++*host) {
        int ignored;
        if (read_line(s, reg, *host, &ignored).mbal >> 6 == LAST_ROUND)
            return true;
    }
    return false;
}

int agree_change(struct gismo_store *s, uint32_t reg, agree_decide decide, void *ctx, uint64_t *agreed) {
    const uint32_t us = speaker(s, reg);
    uint64_t round = 0;
    for (int attempt = 0; attempt < 1000; attempt++) {
        int which;
        struct half own = read_line(s, reg, us, &which);
        uint64_t most = own.mbal;
        for (uint32_t host = 0; host < s->sb.max_lanes; host++) {
            int ignored;
            prim_refresh(s->software, line_of(s, reg, host), FMT_LINE);
            struct half other = read_line(s, reg, host, &ignored);
            if (other.mbal > most)
                most = other.mbal;
        }
        if (most >> 6 == LAST_ROUND)
            return fail(GISMO_ECORRUPT,
                        "register %u holds a ballot that no host writes: it cannot be agreed on any more", reg);
        if (most >> 6 >= round)
            round = (most >> 6) + 1;
        uint64_t ballot = round << 6 | us;
        /* 1. promise */
        own.mbal = ballot;
        write_line(s, reg, &own, &which);
        /* 2. read all */
        uint64_t best_bal = own.bal, value = own.bal ? own.value : 0;
        bool beaten = false;
        for (uint32_t host = 0; host < s->sb.max_lanes; host++) {
            if (host == us)
                continue;
            int ignored;
            prim_refresh(s->software, line_of(s, reg, host), FMT_LINE);
            struct half other = read_line(s, reg, host, &ignored);
            beaten |= other.mbal > ballot;
            if (other.bal > best_bal) {
                best_bal = other.bal;
                value = other.value;
            }
        }
        if (!beaten) {
            /* 3. decide, 4. accept */
            uint64_t proposed = value;
            int wanted = decide(value, ctx, &proposed);
            own.bal = ballot;
            own.value = wanted ? proposed : value;
            write_line(s, reg, &own, &which);
            /* 5. read all again */
            for (uint32_t host = 0; host < s->sb.max_lanes; host++) {
                if (host == us)
                    continue;
                int ignored;
                prim_refresh(s->software, line_of(s, reg, host), FMT_LINE);
                beaten |= read_line(s, reg, host, &ignored).mbal > ballot;
            }
            if (!beaten) {
                *agreed = own.value;
                return wanted ? GISMO_OK : GISMO_EBUSY;
            }
        }
        /* Somebody else is at it: let him finish, each host after another time. */
        sleep_ns(20000u * (1u + (us * 7u + (uint32_t)attempt * 3u) % 16u));
    }
    return fail(GISMO_EBUSY, "other hosts are changing the same lease all the time: try again");
}

uint64_t agree_peek(struct gismo_store *s, uint32_t reg) {
    uint64_t best_bal = 0, value = 0;
    prim_refresh(s->software, line_of(s, reg, 0), (size_t)s->sb.max_lanes * FMT_LINE);
    for (uint32_t host = 0; host < s->sb.max_lanes; host++) {
        int ignored;
        struct half h = read_line(s, reg, host, &ignored);
        if (h.bal > best_bal) {
            best_bal = h.bal;
            value = h.value;
        }
    }
    return value;
}
