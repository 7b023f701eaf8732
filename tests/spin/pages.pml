/* Pages: P6 and P8 (3, 4) of gismo_core/FORMAT.md. (The claims of chunks are in claim.pml.)
 *
 * MODELLED. Arenas of one page each (a run may be in two), with their claims. Workers take a run (in TWO_ARENAS one takes both pages, the other both or the second; claims, another look, intent, bits, claims released, header, intent cleared) and
 * give it back (claims, intent, header, bits, intent cleared, claims released), or keep it; each has OPS takes. A worker may die after any step; the object whose header is there outlives it. When it is buried, its record
 * is used again, with the next epoch, by another one, who may give the object back. Two survivors settle the dead ones' intents at the same time and bury them; the first of them looks at one of the dead only, and may die after any step, too. DEATHS in all.
 * A claim that a dead one has is taken over by workers and survivors alike. Freezing is not being scheduled: nobody waits for a claim that a living process has.
 *
 * ABSTRACTED. Memory is sequentially consistent: bits and claims change by locked instructions, which drain the store buffer, and of the plain stores (intent, header) FIFO order is all that is needed. An intent is read and
 * written in one step (kind with sequence, first, pages: page.c reads the kind again). One header per record: a chunk's or a slot's. The states of arenas (NONE, OWNED, RETURNING) are not here. A free run is not searched: any is tried, which
 * is what a search that is out of date amounts to.
 *
 * PROPERTY. (1) A bit is set only if it is clear, and cleared only by who owns the page, or for one who is dead and has no header over it: no page has two owners. (2) When nothing moves any more, a bit is set if and only if one header
 * covers its page, and only one does: no page is lost.
 *
 * What is more than FORMAT.md says, or otherwise, and the model shows to be necessary:
 *   INTENT_AFTER_RELEASE the giver's intent goes BEFORE its claims (FORMAT.md, "Give": after). Else: M gives p back, releases the claim, and its intent stands a little longer; D takes p and dies before its header; the survivor finds p covered by the
 *                    intent of the living M, leaves it, and forgets D's intent. p is lost.
 *   BURY_BUSY        a dead one's intent is forgotten, and it is buried, only when every arena of the intent has been settled. Where a living process has the claim: later.
 *   STALE_HOLDER     who settles because it took a claim over goes by the word that its CAS replaced, not by the word that it saw before: the holder that it saw may live, have released the claim, and have its intent set
 *                    until its header is there.
 *   NO_SEQUENCE      the survivor forgets only the intent that it has read (CAS, with a sequence that goes on when the record is used again).
 *
 * Not a mutant, because the model holds without it: settling when a claim is taken over. Here workers do not (the survivors may: that is harmless). Who dies with a claim and anything half done has an intent, and that is settled before it is buried.
 *
 * CONFIGS: ONE_ARENA TWO_ARENAS
 * MUTANTS ONE_ARENA: INTENT_AFTER_RELEASE BURY_BUSY STALE_HOLDER NO_SEQUENCE HEADERS_FIRST GIVE_WITHOUT_CLAIM TAKE_FROM_FROZEN NO_INTENT CLEAR_INTENT_EARLY NO_RELOOK SETTLE_WITHOUT_CLAIM
 * MUTANTS ONE_ARENA: IGNORE_INTENTS IGNORE_HEADERS INTENT_AFTER_BITS RELEASE_BEFORE_BITS BITS_BEFORE_HEADER GIVE_WITHOUT_INTENT NO_EPOCH
 * MUTANTS TWO_ARENAS: INTENT_AFTER_RELEASE BURY_BUSY STALE_HOLDER
 */
#ifdef TWO_ARENAS
#define ARENAS 2
#ifndef OPS
#define OPS 1
#endif
#else
#define ARENAS 1
#ifndef OPS
#define OPS (me == 1 -> 2 : 1)
#endif
#endif
#ifndef DEATHS
#define DEATHS 2
#endif
#define S1 3
#define S2 4
#define NP 5

#define HAS(mask, p) (((mask) >> (p)) & 1)
#define BIT(p) (1 << (p))

/* Claim word */
#ifdef NO_EPOCH
#define CLAIM(i) (i)
#define EPOCH(w) epoch[RECORD(w)]
#else
#define CLAIM(i) ((i) + 8 * epoch[i])
#define EPOCH(w) ((w) / 8)
#endif
#define RECORD(w) ((w) & 7)
#define ME CLAIM(me)

#define FREE 0
#define LIVE 1
#define REAPING 2

byte state[NP], epoch[NP]; /* the word of a process record */
bool dead[NP];             /* its OFD lock is free */
bool kind[NP];             /* intent: is there one */
byte sequence[NP], mask[NP];
byte claim[ARENAS];
byte header[NP];           /* pages */
byte used;                 /* page bits */
byte truth[ARENAS];        /* ghost: claim word of who owns the page */
byte deaths = DEATHS;

#define ALIVE(w) (state[RECORD(w)] == LIVE && epoch[RECORD(w)] == EPOCH(w) && !dead[RECORD(w)])
#ifdef TAKE_FROM_FROZEN
#define TAKABLE(a) (claim[a] != ME)
#else
#define TAKABLE(a) (claim[a] == 0 || !ALIVE(claim[a]))
#endif

#define MAY_DIE if :: me != S2 && deaths > 0 -> deaths--; dead[me] = true; goto died :: true fi
#define STEP(what) atomic { what; MAY_DIE }

/* For each arena of the run */
#ifdef TWO_ARENAS
#define EACH(one) if :: HAS(m, 0) -> one(0) :: else fi; if :: HAS(m, 1) -> one(1) :: else fi
#else
#define EACH(one) one(0)
#endif

#define CLAIM_ARENA(a) if :: STEP(TAKABLE(a) -> claim[a] = ME) :: !TAKABLE(a) -> goto release fi
#define RELEASE_ARENA(a) STEP(if :: claim[a] == ME -> claim[a] = 0 :: else fi)
#define SET_BIT(a) STEP(assert(!HAS(used, a)); used = used | BIT(a); truth[a] = ME)
#define CLEAR_BIT(a) STEP(assert(HAS(used, a) && truth[a] == ME); used = used & ~BIT(a); truth[a] = 0)
#define OWNS_NOW(a) truth[a] = ME
#define INTENT kind[me] = true; mask[me] = m; sequence[me] = sequence[me] + 1
#define NO_MORE_INTENT STEP(kind[me] = false; mask[me] = 0)

proctype Worker(byte me) {
    byte m, n;
    bool giving, ok;
born:
    atomic {
        dead[me] = false; epoch[me] = epoch[me] + 1; state[me] = LIVE;
        if
        :: header[me] != 0 -> goto owns
        :: else
        fi
    }
again:
    atomic {
        giving = false; ok = false; m = 0;
        if
        :: n == OPS -> goto finish
        :: else -> n++
        fi;
#ifdef TWO_ARENAS
        if
        :: m = 3
        :: me == 2 -> m = 2
        fi
#else
        m = 1
#endif
    }
#ifdef NO_RELOOK
    if
    :: (used & m) == 0
    :: else -> goto again
    fi;
#endif
claims:
    EACH(CLAIM_ARENA);
    if
    :: giving -> goto give
    :: !giving
    fi;
    /* Looks again, and its intent. (One step: were the bits to change between the two, they could as well change before they are set) */
    atomic {
#ifndef NO_RELOOK
        if
        :: (used & m) == 0
        :: else -> goto release
        fi;
#endif
        ok = true;
#if !defined(NO_INTENT) && !defined(INTENT_AFTER_BITS)
        INTENT;
#endif
        MAY_DIE
    }
#ifdef RELEASE_BEFORE_BITS
    EACH(RELEASE_ARENA);
#endif
    EACH(SET_BIT);
#ifdef INTENT_AFTER_BITS
    STEP(INTENT);
#endif
release:
    EACH(RELEASE_ARENA);
#ifdef INTENT_AFTER_RELEASE
    if
    :: giving && ok -> NO_MORE_INTENT
    :: else
    fi;
#endif
    if
    :: giving && !ok -> goto owns     /* busy: later, or never */
    :: !giving && ok
    :: else -> goto again
    fi;
#ifdef CLEAR_INTENT_EARLY
    NO_MORE_INTENT;
#endif
    STEP(header[me] = m);
    NO_MORE_INTENT;
owns:
    atomic {
        ok = false;
        if
        :: giving = false; m = 0; goto finish
        :: giving = true; m = header[me]; goto claims
        fi
    }
give:
    atomic {
        ok = true;
#ifndef GIVE_WITHOUT_INTENT
        INTENT;
#endif
        EACH(OWNS_NOW);
        MAY_DIE
    }
#ifdef GIVE_WITHOUT_CLAIM
    EACH(RELEASE_ARENA);
#endif
#ifndef BITS_BEFORE_HEADER
    STEP(header[me] = 0);
#endif
    EACH(CLEAR_BIT);
#ifdef BITS_BEFORE_HEADER
    STEP(header[me] = 0);
#endif
#ifndef INTENT_AFTER_RELEASE
    NO_MORE_INTENT;
#endif
    goto release;
died:
    skip;
    d_step { m = 0; giving = false; ok = false }
end:
    if
    :: state[me] == FREE -> goto born
    fi;
finish:
    skip;
    d_step { m = 0; giving = false; ok = false }
}

#define TAKES_ON(i) \
    d_step { state[i] == REAPING || (state[i] == LIVE && dead[i]) -> \
        d = i; state[i] = REAPING; e = epoch[i]; q = sequence[i]; m = (kind[i] -> mask[i] : 0) }

#define LOOK_AT_INTENT(i, a) d_step { if :: state[i] == LIVE && kind[i] && HAS(mask[i], a) -> owned = true :: else fi }
#define LOOK_AT_HEADER(i, a) d_step { if :: HAS(header[i], a) -> owned = true :: else fi }
#define LOOK_AT_INTENTS(a) LOOK_AT_INTENT(1, a); LOOK_AT_INTENT(2, a)
#define LOOK_AT_HEADERS(a) LOOK_AT_HEADER(1, a); LOOK_AT_HEADER(2, a)

#if defined(HEADERS_FIRST)
#define LOOK(a) LOOK_AT_HEADERS(a); LOOK_AT_INTENTS(a)
#elif defined(IGNORE_INTENTS)
#define LOOK(a) LOOK_AT_HEADERS(a)
#elif defined(IGNORE_HEADERS)
#define LOOK(a) LOOK_AT_INTENTS(a)
#else
#define LOOK(a) LOOK_AT_INTENTS(a); LOOK_AT_HEADERS(a)
#endif

#ifdef STALE_HOLDER
#define SEE(a) before = claim[a]
#define TAKE_OVER(a) claim[a] = ME
#else
#define SEE(a)
#define TAKE_OVER(a) before = claim[a]; claim[a] = ME
#endif
#ifdef BURY_BUSY
#define BUSY goto bury
#else
#define BUSY goto again
#endif

/* Whose claim it was is not LIVE any more, or its own intent would count as a living one's */
#define NOT_LIVE(a, w) \
    if \
    :: w != 0 && state[RECORD(w)] == LIVE && epoch[RECORD(w)] == EPOCH(w) && kind[RECORD(w)] && HAS(mask[RECORD(w)], a) -> state[RECORD(w)] = REAPING \
    :: else \
    fi; \
    w = 0

#define NOBODYS(a) (truth[a] == 0 || (!ALIVE(truth[a]) && !HAS(header[RECORD(truth[a])], a)))

#define SETTLE(a) \
    SEE(a); \
    if \
    :: STEP(TAKABLE(a) -> TAKE_OVER(a)) \
    :: !TAKABLE(a) -> BUSY \
    fi; \
    d_step { NOT_LIVE(a, before) } \
    SETTLE_CLAIMED(a); \
    RELEASE_ARENA(a)

#define SETTLE_CLAIMED(a) \
    LOOK(a); \
    if \
    :: HAS(used, a) && !owned -> STEP(assert(NOBODYS(a)); used = used & ~BIT(a); truth[a] = 0) \
    :: else -> owned = false \
    fi

#ifdef SETTLE_WITHOUT_CLAIM
#define SETTLE_ARENA(a) SETTLE_CLAIMED(a)
#else
#define SETTLE_ARENA(a) SETTLE(a)
#endif

proctype Survivor(byte me) {
    byte d, e, q, m, before;
    bool owned, once;
    d_step { epoch[me] = 1; state[me] = LIVE };
again:
    skip;
    d_step { d = 0; e = 0; q = 0; m = 0; before = 0; owned = false }
    if
    :: me == S1 && once -> goto finish
    :: else -> once = true
    fi;
end:
    if
    :: TAKES_ON(1)
    :: TAKES_ON(2)
    fi;
    if
    :: m == 0 -> goto bury
    :: else
    fi;
    EACH(SETTLE_ARENA);
    if
    :: state[d] == REAPING && epoch[d] == e
    :: else -> goto again
    fi;
#ifdef NO_SEQUENCE
    STEP(if :: kind[d] -> kind[d] = false; mask[d] = 0 :: else fi);
#else
    STEP(if :: kind[d] && sequence[d] == q -> kind[d] = false; mask[d] = 0 :: else fi);
#endif
bury:
#ifdef BURY_BUSY
    STEP(if :: kind[d] && sequence[d] == q -> kind[d] = false; mask[d] = 0 :: else fi);
#endif
    STEP(if :: state[d] == REAPING && epoch[d] == e -> state[d] = FREE :: else fi);
    goto again;
died:
finish:
    skip;
    d_step { d = 0; e = 0; q = 0; m = 0; before = 0; owned = false }
}

proctype Monitor() {
end:
    timeout;
    assert(HAS(header[1], 0) + HAS(header[2], 0) == HAS(used, 0));
#ifdef TWO_ARENAS
    assert(HAS(header[1], 1) + HAS(header[2], 1) == HAS(used, 1));
#endif
}

init {
    atomic {
        run Worker(1);
        run Worker(2);
        run Survivor(S1);
        run Survivor(S2);
        run Monitor()
    }
}
