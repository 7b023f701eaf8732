/* Pin, delete, reuse with `coherence: software`: P2, P3 and P5 of gismo_core/FORMAT.md on two hosts whose caches do not know of each other.
 *
 * MODELLED. Host 0 owns the slot: process D (it may die at each step; its successor knows only what host 0's cache and the device show). Host 1 pins: two getters,
 * and a process that handles CLEAR (it, too, may die between any two steps). One slot, generations 1 .. 3. Four lines: the slot's line, the extent (payload: its content is the
 * generation that was written), host 1's pin line, and host 1's lane line; the ring's head and tail are lines of their own. Each host has ONE cache for its
 * processes: a line is absent, clean or dirty in it. At any moment (process Caches) a dirty line may be written back silently, a clean one dropped, any one prefetched.
 * Flush + fence is one step: the device has the line after it (A1). Nothing writes back a line that is not dirty (A2).
 * Host 1's lane is QUIET at first and becomes ACTIVE at some time (P9: state, flush, fence, then gets).
 *
 * ABSTRACTED. Store buffers and the order of loads: pin.pml has them; here every access takes effect at once in the own host's cache, and "full fence" is only the waiting for the
 * flush. Counts, claims, the asked position and the mark "this host has invalidated the extent for generation g" lie in the state directories, ordinary coherent
 * memory. The ring's cells are left out (ring.pml). D sends at most MSGS questions.
 *
 * PROPERTY. (1) When D writes the extent for g + 1, no getter holds a pin on g. (2) A getter that holds g reads the payload of g.
 *
 * What FORMAT.md leaves open and the model shows to be necessary:
 *   - whoever finds DELETED(g) already there flushes the slot's line before P5.2 (NO_REFLUSH: its predecessor may have died between the store and the flush; its host
 *     sees DELETED, the device does not);
 *   - the getter flushes the pin byte also when it found it 1 (FLUSH_ONLY_OWN: another process may be frozen between its store and its flush);
 *   - the lane line is invalidated before its state is loaded in P5.2 (NO_INVALIDATE_LANE);
 *   - "first get of (host, g)" is marked after the invalidate, never before (MARK_BEFORE_INVALIDATE).
 *
 * CONFIGS: TWO_HOSTS
 * MUTANTS TWO_HOSTS: NO_INVALIDATE_WORD NO_FLUSH_PIN FLUSH_ONLY_OWN NO_FLUSH_DELETED NO_REFLUSH NO_INVALIDATE_PINS NO_INVALIDATE_LANE NO_FLUSH_LANE NO_FLUSH_PAYLOAD NO_INVALIDATE_PAYLOAD MARK_BEFORE_INVALIDATE CLEAR_WITHOUT_POSITION
 */
#define SLOT 0             /* written by host 0 */
#define EXTENT 1           /* written by host 0 */
#define PINS 2             /* written by host 1 */
#define LANE 3             /* written by host 1 */
#define LINES 4

#define ABSENT 0
#define CLEAN 1
#define DIRTY 2

#define SEALED(g) (2 * (g))
#define DELETED(g) (2 * (g) + 1)
#define IS_SEALED(w) (((w) & 1) == 0)

#ifndef GENS
#define GENS 2
#endif
#ifndef MSGS
#define MSGS 1
#endif

byte dev[LINES];
byte val[LINES * 2];       /* cache of host h: val[2 * line + h] */
byte st[LINES * 2];

#define C(h, l) (2 * (l) + (h))
/* As part of an atomic step */
#define LOAD(h, l, x) if :: st[C(h, l)] == ABSENT -> st[C(h, l)] = CLEAN; val[C(h, l)] = dev[l] :: else fi; x = val[C(h, l)]
#define STORE(h, l, x) val[C(h, l)] = (x); st[C(h, l)] = DIRTY
#define FLUSH(h, l) if :: st[C(h, l)] == DIRTY -> dev[l] = val[C(h, l)]; st[C(h, l)] = CLEAN :: else fi
#define INVALIDATE(h, l) assert(st[C(h, l)] != DIRTY); st[C(h, l)] = ABSENT; val[C(h, l)] = 0
/* Invalidate, full fence, load, in one step: the value is that of some moment between the invalidate and the load, and the process does nothing else between them. What stays in the cache
 * is never looked at again without another invalidate, so it is left absent (the mutants that leave an invalidate out keep it) */
#define FRESH(h, l, x) assert(st[C(h, l)] != DIRTY); x = dev[l]

#ifdef NO_INVALIDATE_WORD
#define KEPT CLEAN
#else
#define KEPT ABSENT
#endif

byte head;                 /* of the ring: store and flush in one step; a late flush is only a delay */
byte tail;
byte held[2];
byte count[2];
byte asked;
byte marked;               /* host 1: the extent was invalidated for this generation */
byte deaths_d = 1;
byte deaths_c = 1;

proctype Owner() {
    byte g, x, h;
restart:
    skip;
    d_step { LOAD(0, SLOT, x); g = x / 2; h = 0 }
    if
    :: d_step { !IS_SEALED(x) -> x = 0 }
#ifndef NO_REFLUSH
        d_step { FLUSH(0, SLOT) }
#endif
        goto look
    :: d_step { IS_SEALED(x) -> x = 0 }
#ifndef NO_REFLUSH
        d_step { FLUSH(0, SLOT) }      /* SEALED, its writer dead between the store and the flush; freshness, not safety */
#endif
    fi;
delete:
    if
    :: g > GENS -> goto finish
    :: else
    fi;
    d_step { STORE(0, SLOT, DELETED(g)) }
    if
    :: deaths_d > 0 -> deaths_d--; goto restart
    :: true
    fi;
#ifndef NO_FLUSH_DELETED
    d_step { FLUSH(0, SLOT) }
#endif
look:
    skip;
#ifdef NO_INVALIDATE_LANE
    d_step { LOAD(0, LANE, x) }
#else
    d_step { FRESH(0, LANE, x) }
#endif
    if
    :: x == 0 -> goto reuse
    :: else -> x = 0
    fi;
    h = head;
#ifdef NO_INVALIDATE_PINS
    d_step { LOAD(0, PINS, x) }
#else
    d_step { FRESH(0, PINS, x) }
#endif
#ifndef CLEAR_WITHOUT_POSITION
    if
    :: h < asked && h < tail ->
        d_step { h = 0; x = 0 }
        d_step { head >= asked || head >= tail -> skip }  /* nothing else could change: waits so as not to spin */
        goto look
    :: else
    fi;
#endif
    h = 0;
    if
    :: x == 0 -> goto reuse
    :: else -> x = 0
    fi;
    if
    :: tail >= MSGS -> goto finish
    :: else
    fi;
    asked = tail + 1;
    if
    :: deaths_d > 0 -> deaths_d--; goto restart
    :: true
    fi;
    tail = asked;
#ifdef CLEAR_WITHOUT_POSITION
    dev[PINS] == 0;
#endif
    goto look;
reuse:
    skip;
    d_step {
        assert(held[0] != g && held[1] != g);
        x = 0;
        g = g + 1;
        STORE(0, EXTENT, g)
    }
#ifndef NO_FLUSH_PAYLOAD
    d_step { FLUSH(0, EXTENT) }
#endif
    d_step { STORE(0, SLOT, SEALED(g)) }
    if
    :: deaths_d > 0 -> deaths_d--; goto restart
    :: true
    fi;
    d_step { FLUSH(0, SLOT) }
    goto delete;
finish:
    skip
}

proctype Getter(byte p) {
    byte g, x;
end:
#ifdef NO_FLUSH_LANE
    val[C(1, LANE)] == 1;
#else
    dev[LANE] == 1;                                    /* its host has joined */
#endif
end2:                      /* waits for a sealed generation: a get that finds none does nothing */
    d_step { IS_SEALED(dev[SLOT]) -> g = dev[SLOT] / 2; st[C(1, SLOT)] = KEPT; val[C(1, SLOT)] = (KEPT -> dev[SLOT] : 0) }
    count[p] = 1;
    if
    :: d_step { val[C(1, PINS)] == 0 -> STORE(1, PINS, 1) }
#ifdef FLUSH_ONLY_OWN
        d_step { FLUSH(1, PINS) }
#endif
    :: else
    fi;
#if !defined(NO_FLUSH_PIN) && !defined(FLUSH_ONLY_OWN)
    d_step { FLUSH(1, PINS) }
#endif
    d_step {
#ifdef NO_INVALIDATE_WORD
        LOAD(1, SLOT, x);
#else
        FRESH(1, SLOT, x);
#endif
        if :: x == SEALED(g) -> held[p] = g :: else -> g = 0 fi;
        x = 0
    }
    if
    :: g != 0 && marked != g ->
#ifdef MARK_BEFORE_INVALIDATE
        marked = g;
        d_step { INVALIDATE(1, EXTENT) }
#else
#ifndef NO_INVALIDATE_PAYLOAD
        d_step { INVALIDATE(1, EXTENT) }
#endif
        marked = g
#endif
    :: else
    fi;
    if
    :: g != 0 -> d_step { LOAD(1, EXTENT, x); assert(x == g); x = 0 }
    :: else
    fi;
    d_step { held[p] = 0; g = 0; count[p] = 0 }
}

proctype Consumer() {
    byte n, x;
    bool clear;
    d_step { STORE(1, LANE, 1) }
#ifndef NO_FLUSH_LANE
    d_step { FLUSH(1, LANE) }
#endif
restart:
    skip;
    d_step { n = 0; x = 0; clear = false }
end:
    do
    :: head < tail -> n = head;
        d_step { FRESH(1, SLOT, x); clear = !IS_SEALED(x); x = 0 }
        clear = (clear && count[0] == 0);
        clear = (clear && count[1] == 0);
        if
        :: clear -> d_step { clear = false; STORE(1, PINS, 0) }
            if
            :: deaths_c > 0 -> deaths_c--; goto restart
            :: true
            fi
        :: else
        fi;
        d_step { FLUSH(1, PINS) }
        d_step { head = n + 1; n = 0 }
    od
}

#define MOVES(h, l, own) \
    :: d_step { st[C(h, l)] == ABSENT -> val[C(h, l)] = dev[l]; st[C(h, l)] = CLEAN } \
    :: d_step { !own && st[C(h, l)] == CLEAN -> val[C(h, l)] = 0; st[C(h, l)] = ABSENT } \
    :: d_step { own && st[C(h, l)] == DIRTY -> dev[l] = val[C(h, l)]; st[C(h, l)] = CLEAN }

/* An own line that is clean holds what the device has, so dropping it changes nothing; and see FRESH */
proctype Caches() {
end:
    do
    MOVES(0, SLOT, true)
    MOVES(0, EXTENT, true)
    MOVES(1, PINS, true)
    MOVES(1, LANE, true)
    MOVES(1, EXTENT, false)
#ifdef NO_INVALIDATE_PINS
    MOVES(0, PINS, false)
#endif
#ifdef NO_INVALIDATE_LANE
    MOVES(0, LANE, false)
#endif
#ifdef NO_INVALIDATE_WORD
    MOVES(1, SLOT, false)
#endif
    od
}

init {
    atomic {
        dev[SLOT] = SEALED(1);
        dev[EXTENT] = 1;
        val[C(0, SLOT)] = dev[SLOT]; st[C(0, SLOT)] = CLEAN;
        val[C(0, EXTENT)] = 1; st[C(0, EXTENT)] = CLEAN;
        st[C(1, PINS)] = CLEAN; st[C(1, LANE)] = CLEAN;
        run Owner();
        run Getter(0);
        run Getter(1);
        run Consumer();
        run Caches()
    }
}
