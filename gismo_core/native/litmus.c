/*
 * litmus.c - is this hardware as A1 to A3 of FORMAT.md say? Small programs for two sides, each of which can go wrong in one way only.
 *
 * Each side has an area that it alone writes, so a test that finds bad hardware harms nothing but its own bytes. Flushes are done whether or
 * not the store is declared coherent: they are what is tested. No side waits for the other inside a step, so that a caller can stop between
 * two of them, and see that nothing comes any more.
 *
 *   A1.dekker         both show a flag (store, flush, fence) and then look at the other's (invalidate, fence, load): not both see the old one.
 *                     This is how a pin and a delete meet (P3, P5).
 *   A1.message        payload, flush, store fence, flag, flush; who sees the flag sees that payload, or a newer one. This is how an object
 *                     is sealed and read (P2, P3).
 *   A2.never_dirtied  a host has another's old lines in its cache, and flushes or drops them: what their owner has written since stays.
 *                     All of a pool's metadata rests on it.
 *   A3.tearing        an aligned store of 8 bytes is seen whole or not at all. All state words and ballots rest on it.
 *
 * The first and the third go in lockstep, round by round, and end on both sides in the same. In the others both write as fast as they can, and
 * look as often; who has seen enough goes on writing until the other has, too.
 * `flawed` makes a side do what the assumption rules out; where memory is coherent, too, the test must find it.
 */
#include "internal.h"

#include <string.h>

/* What lies where in an area. Each line has one purpose, so that no test lives on a flush of another's, or finds what it left. */
struct area {
    uint64_t words[GISMO_LITMUS_WORDS]; /* gismo_litmus_say */
    uint64_t pad0[8];
    uint64_t dekker[8];       /* word 0 */
    uint64_t flag[8];         /* word 0 */
    uint64_t step[8];         /* word 0: how far never_dirtied is */
    uint64_t ended[8];        /* word 0: tearing has seen enough */
    uint64_t payload[4][8];
    uint64_t clean[4][8];
    uint64_t twins[8];
    uint64_t rest[(GISMO_LITMUS_BYTES - 17 * FMT_LINE) / 8];
};
_Static_assert(sizeof(struct area) == GISMO_LITMUS_BYTES, "area size");
_Static_assert(offsetof(struct area, dekker) % FMT_LINE == 0 && offsetof(struct area, payload) % FMT_LINE == 0,
               "lines");

/* gismo_litmus.private_: how far this side is. */
struct state {
    uint64_t round;
    uint64_t stage;
    uint64_t seen;     /* of the partner, last */
    uint64_t history;  /* dekker: bit i = the old value was seen i rounds ago */
    uint64_t ending;   /* the partner was told that this round is the last one */
    uint64_t begun_ns, moved_ns;
    uint64_t random;
};
_Static_assert(sizeof(struct state) == sizeof((gismo_litmus *)0)->private_, "state size");

/* IDLE: nothing new of the partner, so nothing was checked. */
enum outcome { IDLE, MOVED, OVER, NONSENSE };

static void say(uint64_t *p, uint64_t value) { prim_store64(p, value); }

static uint64_t look(const uint64_t *p) {
    prim_refresh(1, p, sizeof *p);
    return prim_load64(p);
}

static void show(const void *p, size_t n) {
    prim_flush(1, p, n);
    prim_fence_full();
}

/* Without it the side that is late stays late, and the two never meet. */
static void dawdle(struct state *at) {
    at->random ^= at->random << 13, at->random ^= at->random >> 7, at->random ^= at->random << 17;
    for (uint64_t n = at->random & 15; n > 0; n--)
        __builtin_ia32_pause();
}

/* ---- A1.dekker ----------------------------------------------------------------------------------------- */

/*
 * The word: round << 3 | this is the last round << 2 | saw the old value two rounds ago << 1 | in the round before this one.
 * A side begins a round when it has seen the other's word of the one before, so that the other is at most one ahead, and has not yet
 * overwritten what it says of it. A round is judged in the next one: the last of them only carries the answer.
 */
static enum outcome dekker(gismo_litmus *r, struct state *at, bool last) {
    struct area *own = r->own;
    const struct area *other = r->other;
    uint64_t word;
    if (at->stage == 0) {
        dawdle(at);
        at->ending = last || r->done + 1 >= r->rounds;
        uint64_t mine = ++at->round << 3 | at->ending << 2 | (at->history & 3);
        if (r->flawed) { /* the store is still in the store buffer when the load is done */
            say(own->dekker, mine);
            word = prim_load64(other->dekker);
            show(own->dekker, sizeof *own->dekker);
        } else {
            say(own->dekker, mine);
            prim_flush(1, own->dekker, sizeof *own->dekker);
            prim_fence_full();
            word = look(other->dekker);
        }
        at->history = at->history << 1 | (word >> 3 < at->round);
        at->stage = 1;
    } else {
        word = look(other->dekker);
    }
    uint64_t ahead = (word >> 3) - at->round;
    if (ahead > 1)
        return word >> 3 < at->round ? IDLE : NONSENSE;
    if (at->round > 1) {
        uint64_t mine = at->history >> 1 & 1, theirs = word >> ahead & 1;
        r->done++;
        r->violations += mine & theirs;
        r->contended += !(mine | theirs);
    }
    at->stage = 0;
    return at->ending || (ahead == 0 && (word >> 2 & 1)) ? OVER : MOVED;
}

/* ---- A1.message ------------------------------------------------------------------------------------------ */

/* The word of the flag: number << 1 | has seen enough. Words of payload: number << 8 | which word. */
static void send_payload(struct area *own, uint64_t number) {
    for (uint64_t i = 0; i < sizeof own->payload / 8; i++)
        say(&own->payload[i / 8][i % 8], number << 8 | i);
    prim_flush(1, own->payload, sizeof own->payload);
}

static void send_flag(struct area *own, uint64_t word) {
    say(own->flag, word);
    prim_flush(1, own->flag, sizeof *own->flag);
}

/* (The flag's flush is waited for by the full fence of the look that follows.) */
static enum outcome message(gismo_litmus *r, struct state *at, bool last) {
    struct area *own = r->own;
    const struct area *other = r->other;
    uint64_t number = ++at->round, word = number << 1 | (at->ending = last);
    if (r->flawed) {
        send_flag(own, word);
        prim_fence_store();
        send_payload(own, number);
    } else {
        send_payload(own, number);
        prim_fence_store();
        send_flag(own, word);
    }

    uint64_t flag = look(other->flag), news = 0, wrong = 0;
    if (flag >> 1 == at->seen)
        return last && (flag & 1) ? OVER : IDLE;
    if (flag >> 1 < at->seen)
        wrong = 1;
    prim_fence_load();
    prim_refresh(1, other->payload, sizeof other->payload);
    for (uint64_t i = 0; i < sizeof other->payload / 8; i++) {
        uint64_t value = prim_load64(&other->payload[i / 8][i % 8]);
        wrong |= value >> 8 < flag >> 1 || (value & 255) != i;
        news |= value >> 8 > flag >> 1;
    }
    at->seen = flag >> 1;
    r->done++;
    r->violations += wrong;
    r->contended += news;
    return last && (flag & 1) ? OVER : MOVED;
}

/* ---- A2.never_dirtied --------------------------------------------------------------------------------------- */

/* The step: round << 2 | the other's lines were dropped << 1 | this is the last round. */
static enum outcome never_dirtied(gismo_litmus *r, struct state *at, bool last) {
    struct area *own = r->own;
    const struct area *other = r->other;
    const uint64_t count = sizeof own->clean / 8;
    if (at->stage == 0) { /* new values, while the partner has the old ones in its cache, clean */
        at->round++;
        at->ending = last || r->done + 1 >= r->rounds;
        for (uint64_t i = 0; i < count; i++)
            say(&own->clean[i / 8][i % 8], at->round);
        show(own->clean, sizeof own->clean);
        say(own->step, at->round << 2 | at->ending);
        show(own->step, sizeof *own->step);
        at->stage = 1;
    }
    uint64_t step = look(other->step), reached = step >> 1, wanted = at->round << 1 | (at->stage == 2);
    if (reached < wanted)
        return IDLE;
    if (step >> 2 > at->round + 1)
        return NONSENSE;
    prim_fence_load(); /* else what is invalidated below may be so before the step was seen, and fetched again, old */
    uint64_t old = 0, wrong = 0;
    if (at->stage == 1) { /* let go of the old copies in both ways, and see what is there then */
        for (uint64_t i = 0; i < count; i += 8)
            old |= prim_load64(&other->clean[i / 8][0]) < at->round;
        r->contended += old;
        if (r->flawed)
            for (uint64_t i = 0; i < count; i++)
                say((uint64_t *)(uintptr_t)&other->clean[i / 8][i % 8], at->round - 1);
        if (at->round & 1)
            prim_flush(1, other->clean, sizeof other->clean);
        prim_refresh(1, other->clean, sizeof other->clean);
        for (uint64_t i = 0; i < count; i++)
            wrong |= prim_load64(&other->clean[i / 8][i % 8]) != at->round;
        at->history = wrong;
        say(own->step, at->round << 2 | 2 | at->ending);
        show(own->step, sizeof *own->step);
        at->stage = 2;
        return MOVED;
    }
    prim_refresh(1, own->clean, sizeof own->clean);
    for (uint64_t i = 0; i < count; i++)
        wrong |= prim_load64(&own->clean[i / 8][i % 8]) != at->round;
    r->done++;
    r->violations += wrong | at->history;
    at->stage = 0;
    return at->ending || (step >> 2 == at->round && (step & 1)) ? OVER : MOVED;
}

/* ---- A3.tearing ------------------------------------------------------------------------------------------------ */

/* Both halves of a value are the same, and all bytes of it change from one to the next. */
static enum outcome tearing(gismo_litmus *r, struct state *at, bool last) {
    struct area *own = r->own;
    const struct area *other = r->other;
    uint32_t half = (uint32_t)++at->round * 0x9e3779b1u;
    for (uint64_t i = 0; i < 8; i++) {
        if (r->flawed) {
            uint32_t *halves = (uint32_t *)(void *)&own->twins[i];
            prim_store32(&halves[0], half);
            prim_store32(&halves[1], half);
        } else {
            say(&own->twins[i], (uint64_t)half << 32 | half);
        }
    }
    prim_flush(1, own->twins, sizeof own->twins);
    if (last && !at->ending) {
        at->ending = 1;
        say(own->ended, 1);
        show(own->ended, sizeof *own->ended);
    }

    prim_refresh(1, other->twins, sizeof other->twins);
    uint64_t first = prim_load64(&other->twins[0]), wrong = first >> 32 != (uint32_t)first, mixed = 0;
    for (uint64_t i = 1; i < 8; i++) {
        uint64_t value = prim_load64(&other->twins[i]);
        wrong |= value >> 32 != (uint32_t)value;
        mixed |= value != first;
    }
    bool news = first != at->seen || wrong || mixed;
    at->seen = first;
    r->done += news;
    r->violations += wrong;
    r->contended += mixed;
    if (at->ending && look(other->ended))
        return OVER;
    return news ? MOVED : IDLE;
}

/* ---- running --------------------------------------------------------------------------------------------------- */

/* Steps between two looks at the clock; and how often the partner is looked for before others may have the core. */
#define STEPS 64u
#define PATIENCE 64u

static int run_slice(gismo_litmus *r, struct state *at, uint64_t slice_ns) {
    static enum outcome (*const tests[])(gismo_litmus *, struct state *, bool) = {dekker, message, never_dirtied,
                                                                                  tearing};
    const uint64_t begin_ns = now_ns();
    if (at->begun_ns == 0) {
        at->begun_ns = at->moved_ns = begin_ns;
        at->random = begin_ns | 1;
    }
    uint64_t time_ns = begin_ns, idle = 0;
    for (;;) {
        bool last = r->done >= r->rounds || (r->limit_ns != 0 && time_ns - at->begun_ns >= r->limit_ns);
        for (uint32_t i = 0; i < STEPS; i++) {
            switch (tests[r->test](r, at, last || r->done >= r->rounds)) {
            case OVER:
                r->idle_ns = 0;
                return 1;
            case NONSENSE:
                return fail(GISMO_ECORRUPT,
                            "the other side's word makes no sense: it runs another test, or its bytes are "
                            "not what it wrote");
            case MOVED:
                at->moved_ns = 0;
                idle = 0;
                break;
            case IDLE:
                if (++idle >= PATIENCE)
                    yield_cpu();
                break;
            }
        }
        time_ns = now_ns();
        if (at->moved_ns == 0)
            at->moved_ns = time_ns;
        r->idle_ns = time_ns - at->moved_ns;
        if (time_ns - begin_ns >= slice_ns)
            return 0;
    }
}

int gismo_litmus_run(gismo_litmus *r, uint64_t slice_ns) {
    if (r->own == NULL || r->other == NULL || r->test > GISMO_LITMUS_TEARING || r->rounds == 0 || r->rounds >> 55)
        return fail(GISMO_EINVAL, "a litmus test has two areas, one of the four tests and 1 to 2^55 rounds");
    return GUARDED(NULL, run_slice(r, (struct state *)(void *)r->private_, slice_ns));
}

static int begin(struct area *own) {
    uint64_t *words = (uint64_t *)(void *)own;
    for (uint64_t i = 0; i < sizeof *own / 8; i++)
        say(&words[i], 0);
    show(own, sizeof *own);
    return GISMO_OK;
}

int gismo_litmus_begin(void *own) { return GUARDED(NULL, begin(own)); }

static int say_word(struct area *own, uint32_t word, uint64_t value) {
    say(&own->words[word], value);
    show(&own->words[word], sizeof value);
    return GISMO_OK;
}

static int hear_word(const struct area *other, uint32_t word, uint64_t *value) {
    *value = look(&other->words[word]);
    return GISMO_OK;
}

int gismo_litmus_say(void *own, uint32_t word, uint64_t value) {
    if (word >= GISMO_LITMUS_WORDS)
        return fail(GISMO_EINVAL, "an area has %u words", GISMO_LITMUS_WORDS);
    return GUARDED(NULL, say_word(own, word, value));
}

int gismo_litmus_hear(const void *other, uint32_t word, uint64_t *value) {
    if (word >= GISMO_LITMUS_WORDS)
        return fail(GISMO_EINVAL, "an area has %u words", GISMO_LITMUS_WORDS);
    return GUARDED(NULL, hear_word(other, word, value));
}
