/* Pages: P6 and P8 (3, 4) of gismo_core/FORMAT.md. (The claims of chunks are in claim.pml.)
 *
 * MODELLED. Arenas of one page each (a run may be in two), with their claims. Workers take a run (claims, another look, intent, bits, claims released, header, intent cleared) and
 * give it back (claims, intent, header, bits, intent cleared, claims released), or keep it; each has OPS takes. A worker may die after any step; the object whose header is there outlives it. When it is buried, its record
 * is used again, with the next epoch, by another one, who may give the object back. Two survivors settle the dead ones' intents at the same time and bury them; the first of them may die after any step, too. DEATHS in all.
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
#define WORKERS 2
#define ARENAS 2
#ifndef OPS
#define OPS(me) (me == 1 -> 2 : 1)
#endif
#ifndef DEATHS
#define DEATHS 2
#endif
#else
#define WORKERS 3
#define ARENAS 1
#ifndef OPS
#define OPS(me) (me == 1 -> 2 : 1)
#endif
#ifndef DEATHS
#define DEATHS 2
#endif
#endif
#define S1 (WORKERS + 1)
#define S2 (WORKERS + 2)
#define NP (WORKERS + 3)

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
byte header[WORKERS + 1];  /* pages */
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

/* Ghost */
#define SET(a) assert(!HAS(used, a)); used = used | BIT(a); truth[a] = ME
#define CLEAR(a) used = used & ~BIT(a); truth[a] = 0

proctype Worker(byte me) {
    byte m, a, n;
    bool giving, ok;
born:
    atomic { dead[me] = false; epoch[me] = epoch[me] + 1; state[me] = LIVE };
    if
    :: header[me] != 0 -> goto owns
    :: else
    fi;
again:
    atomic {
        if
        :: n == OPS(me) -> goto finish
        :: else -> n++
        fi;
        if
        :: m = 1
#ifdef TWO_ARENAS
        :: m = 2
        :: m = 3
#endif
        fi;
        giving = false
    }
#ifdef NO_RELOOK
    if
    :: (used & m) == 0
    :: else -> goto again
    fi;
#endif
claims:
    ok = false;
    a = 0;
    do
    :: a < ARENAS && HAS(m, a) ->
        if
        :: STEP(TAKABLE(a) -> claim[a] = ME; a++)
        :: !TAKABLE(a) -> goto release
        fi
    :: a < ARENAS && !HAS(m, a) -> a++
    :: a == ARENAS -> break
    od;
    a = 0;
    if
    :: giving -> goto give
    :: !giving
    fi;
#ifndef NO_RELOOK
    if
    :: (used & m) == 0
    :: else -> goto release
    fi;
#endif
    ok = true;
#if !defined(NO_INTENT) && !defined(INTENT_AFTER_BITS)
    STEP(kind[me] = true; mask[me] = m; sequence[me] = sequence[me] + 1);
#endif
#ifdef RELEASE_BEFORE_BITS
    do
    :: a < ARENAS && claim[a] == ME -> STEP(claim[a] = 0; a++)
    :: a < ARENAS && claim[a] != ME -> a++
    :: a == ARENAS -> break
    od;
    a = 0;
#endif
    do
    :: a < ARENAS && HAS(m, a) -> STEP(SET(a); a++)
    :: a < ARENAS && !HAS(m, a) -> a++
    :: a == ARENAS -> break
    od;
    a = 0;
#ifdef INTENT_AFTER_BITS
    STEP(kind[me] = true; mask[me] = m; sequence[me] = sequence[me] + 1);
#endif
release:
    a = 0;
    do
    :: a < ARENAS && claim[a] == ME -> STEP(claim[a] = 0; a++)
    :: a < ARENAS && claim[a] != ME -> a++
    :: a == ARENAS -> break
    od;
    a = 0;
#ifdef INTENT_AFTER_RELEASE
    if
    :: giving && ok -> STEP(kind[me] = false)
    :: else
    fi;
#endif
    if
    :: giving && !ok -> goto owns     /* busy: later, or never */
    :: giving && ok -> m = 0; ok = false; goto again
    :: !giving && !ok -> m = 0; goto again
    :: !giving && ok
    fi;
#ifdef CLEAR_INTENT_EARLY
    STEP(kind[me] = false);
#endif
    STEP(header[me] = m);
    STEP(kind[me] = false);
owns:
    if
    :: goto finish
    :: atomic { m = header[me]; giving = true }; goto claims
    fi;
give:
    atomic {
#ifndef GIVE_WITHOUT_INTENT
        kind[me] = true; mask[me] = m; sequence[me] = sequence[me] + 1;
#endif
        a = 0;
        do
        :: a < ARENAS -> if :: HAS(m, a) -> truth[a] = ME :: else fi; a++
        :: else -> break
        od;
        a = 0;
        ok = true;
        MAY_DIE
    }
#ifdef GIVE_WITHOUT_CLAIM
    do
    :: a < ARENAS && claim[a] == ME -> STEP(claim[a] = 0; a++)
    :: a < ARENAS && claim[a] != ME -> a++
    :: a == ARENAS -> break
    od;
    a = 0;
#endif
#ifndef BITS_BEFORE_HEADER
    STEP(header[me] = 0);
#endif
    do
    :: a < ARENAS && HAS(m, a) -> STEP(assert(HAS(used, a) && truth[a] == ME); CLEAR(a); a++)
    :: a < ARENAS && !HAS(m, a) -> a++
    :: a == ARENAS -> break
    od;
#ifdef BITS_BEFORE_HEADER
    STEP(header[me] = 0);
#endif
#ifndef INTENT_AFTER_RELEASE
    STEP(kind[me] = false);
#endif
    goto release;
died:
    skip;
    d_step { m = 0; a = 0; giving = false; ok = false }
end:
    if
    :: state[me] == FREE -> goto born
    fi;
finish:
    skip;
    d_step { m = 0; a = 0; giving = false; ok = false }
}

#define FOUND(i) (state[i] == REAPING || (state[i] == LIVE && dead[i]))
#define TAKES_ON(i) atomic { FOUND(i) -> d = i; state[i] = REAPING; e = epoch[i]; q = sequence[i]; m = (kind[i] -> mask[i] : 0) }

#define LOOK_AT_INTENTS \
    do \
    :: i <= WORKERS -> d_step { if :: state[i] == LIVE && kind[i] && HAS(mask[i], a) -> owned = true :: else fi; i++ } \
    :: else -> break \
    od; \
    i = 1

#define LOOK_AT_HEADERS \
    do \
    :: i <= WORKERS -> d_step { if :: HAS(header[i], a) -> owned = true :: else fi; i++ } \
    :: else -> break \
    od; \
    i = 1

proctype Survivor(byte me) {
    byte d, e, q, m, a, i = 1, before;
    bool owned;
    atomic { epoch[me] = 1; state[me] = LIVE };
again:
    skip;
    d_step { d = 0; e = 0; q = 0; m = 0; a = 0; before = 0; owned = false }
end:
    if
    :: TAKES_ON(1)
    :: TAKES_ON(2)
#if WORKERS == 3
    :: TAKES_ON(3)
#endif
    fi;
    do
    :: a < ARENAS && HAS(m, a) ->
#ifndef SETTLE_WITHOUT_CLAIM
#ifdef STALE_HOLDER
        before = claim[a];
#endif
        if
#ifdef STALE_HOLDER
        :: STEP(TAKABLE(a) -> claim[a] = ME)
#else
        :: STEP(TAKABLE(a) -> before = claim[a]; claim[a] = ME)
#endif
        :: !TAKABLE(a) ->
#ifdef BURY_BUSY
            goto next
#else
            goto again
#endif
        fi;
        /* Whose claim it was: not LIVE, or its own intent would count as a living one's */
        d_step {
            if
            :: before != 0 && state[RECORD(before)] == LIVE && epoch[RECORD(before)] == EPOCH(before) && kind[RECORD(before)] &&
                HAS(mask[RECORD(before)], a) -> state[RECORD(before)] = REAPING
            :: else
            fi;
            before = 0
        }
#endif
#ifdef HEADERS_FIRST
        LOOK_AT_HEADERS;
        LOOK_AT_INTENTS;
#else
#ifndef IGNORE_INTENTS
        LOOK_AT_INTENTS;
#endif
#ifndef IGNORE_HEADERS
        LOOK_AT_HEADERS;
#endif
#endif
        if
        :: HAS(used, a) && !owned ->
            STEP(assert(!HAS(used, a) || truth[a] == 0 || (!ALIVE(truth[a]) && !HAS(header[RECORD(truth[a])], a))); CLEAR(a))
        :: else
        fi;
#ifndef SETTLE_WITHOUT_CLAIM
        STEP(if :: claim[a] == ME -> claim[a] = 0 :: else fi);
#endif
next:
        skip;
        d_step { a++; owned = false; before = 0 }
    :: a < ARENAS && !HAS(m, a) -> a++
    :: a == ARENAS -> break
    od;
    if
    :: state[d] == REAPING && epoch[d] == e
    :: else -> goto again
    fi;
#ifdef NO_SEQUENCE
    STEP(if :: m != 0 && kind[d] -> kind[d] = false :: else fi);
#else
    STEP(if :: m != 0 && kind[d] && sequence[d] == q -> kind[d] = false :: else fi);
#endif
    STEP(if :: state[d] == REAPING && epoch[d] == e -> state[d] = FREE :: else fi);
    goto again;
died:
    skip;
    d_step { d = 0; e = 0; q = 0; m = 0; a = 0; i = 0; before = 0; owned = false }
}

#define OWNERS(a) (HAS(header[1], a) + HAS(header[2], a) + HAS(header[WORKERS], a) * (WORKERS - 2))

proctype Monitor() {
end:
    timeout;
    assert(OWNERS(0) == HAS(used, 0));
#ifdef TWO_ARENAS
    assert(OWNERS(1) == HAS(used, 1));
#endif
}

init {
    atomic {
        run Worker(1);
        run Worker(2);
#if WORKERS == 3
        run Worker(3);
#endif
        run Survivor(S1);
        run Survivor(S2);
        run Monitor()
    }
}
