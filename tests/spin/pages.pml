/* Pages and intents: P6 and P8 (3) of gismo_core/FORMAT.md. (The claims of chunks are in claim.pml.)
 *
 * MODELLED. A lane's page bits, of one or two pages; workers that take a run (intent, bits one by one, header, intent cleared; when a bit is taken already: give back what was taken) and give it back (intent,
 * header, bits, intent cleared), over and over as long as OPS last; each may die between any two steps (DEATHS in all). In TWO_PAGES two survivors look at the intents of the dead, and
 * one of them may die meanwhile: then the other goes on. In ONE_PAGE there are three workers, of which two may die, and one survivor.
 * All may freeze: they are not scheduled. An object whose header is there outlives its worker.
 *
 * ABSTRACTED. Memory is sequentially consistent: the stores of one process become visible in order (TSO), CAS drains the store buffer, and nobody here relies on a load after a store but for CAS. An intent is
 * one step with its version (in the record: version odd, fields, version even). One header per worker. A process is found dead by its OFD lock.
 *
 * PROPERTY. (1) A page is freed only by who took it, or for one who is dead and has no header over it: no page has two owners. (2) When nothing moves any more, each set bit is covered by a header: nothing is lost.
 *
 * FORMAT.md, P6 AND P8, AS WRITTEN, IS WRONG in three ways; the model has the repaired protocol, and what the text says as mutants:
 *   MANY_SURVIVORS   "any survivor may help", "by several at a time". Survivors S and T both find that the dead one's page is nobody's; T frees it; a living worker takes it; S, thawed, clears the living one's bit (a CAS on the word
 *                    does not help: the word is what it was). Repair: looking at intents and freeing is done under ONE claim per host, taken over from the dead only.
 *   NO_VERSION       "the order is right because a living process's intent goes only after its header is there": so it is when pages are taken, but giving back goes the other way. The survivor looks at the intents (none: the living
 *                    worker has a header), the worker writes intent RELEASE and removes its header, the survivor looks at the headers (none) and frees the page; another takes it, and the worker clears the bit. Repair: each process has
 *                    a version in its record that grows with each intent; the survivor reads versions, intents, headers, the bit,
 *                    versions again, in this order, and begins anew if a version has changed. (The bit before the versions is wrong again: BIT_FIRST.)
 *   FORGET_CONTESTED a page that the intent of a living process covers is passed over, and the dead one's intent is cleared: but the living one may be trying in vain, because the dead one HAS the page: then
 *                    it is lost. Repair: covered by a header: not the dead one's. Covered by an intent only: undecided, so the dead one's intent stays and is looked at again later.
 *
 * CONFIGS: ONE_PAGE TWO_PAGES
 * MUTANTS ONE_PAGE: NO_VERSION FORGET_CONTESTED BIT_FIRST HEADERS_FIRST NO_HEADERS NO_INTENTS INTENT_AFTER_BITS CLEAR_INTENT_FIRST TAKE_FROM_FROZEN
 * MUTANTS TWO_PAGES: MANY_SURVIVORS NO_VERSION HEADERS_FIRST FREE_UNSEEN
 */
#ifdef TWO_PAGES
#define WORKERS 2
#define OPS (me == 1 -> 2 : 1)
#define DEATHS 2
#define PAGES 2
#else
#define WORKERS 3
#define OPS (me == 1 -> 2 : 1)
#define DEATHS 2
#define PAGES 1
#endif
#define S1 (WORKERS + 1)
#define S2 (WORKERS + 2)
#define NP (WORKERS + 3)

#define HAS(mask, p) (((mask) >> (p)) & 1)

bit used[PAGES];           /* the page bits */
byte truth[PAGES];         /* ghost: who set the bit; 0 = it is clear */
byte intent[NP];           /* pages, as a mask; 0 = none */
byte version[NP];
byte header[NP];           /* pages, as a mask, of the worker's object; 0 = none */
bool dead[NP];
byte claim;                /* who looks at the intents of the dead */
byte deaths = DEATHS;

#define DIES if :: atomic { deaths > 0 -> deaths--; dead[me] = true; goto died } :: true fi
#define BEGIN(m) d_step { intent[me] = (m); version[me] = version[me] + 1 }

proctype Worker(byte me) {
    byte m, got, p, n;
again:
    if
    :: n == OPS -> goto finish
    :: else -> n++
    fi;
    if
    :: m = 1
#ifdef TWO_PAGES
    :: m = 2
    :: m = 3
#endif
    fi;
#ifndef INTENT_AFTER_BITS
    BEGIN(m);
#endif
    DIES;
    p = 0;
    do
    :: p < PAGES && HAS(m, p) ->
        if
        :: atomic { used[p] == 0 -> used[p] = 1; assert(truth[p] == 0); truth[p] = me; got = got | (1 << p) }
        :: used[p] == 1 -> goto back
        fi;
        DIES;
        p++
    :: p < PAGES && !HAS(m, p) -> p++
    :: p == PAGES -> break
    od;
    p = 0;
#ifdef INTENT_AFTER_BITS
    BEGIN(m);
#endif
#ifdef CLEAR_INTENT_FIRST
    intent[me] = 0;
    DIES;
#endif
    header[me] = m;
    DIES;
    intent[me] = 0;
    DIES;
    if                     /* gives it back, or is content */
    :: true
    :: goto finish
    fi;
    BEGIN(m);
    DIES;
    header[me] = 0;
    DIES;
back:
    p = 0;
    do
    :: p < PAGES && HAS(got, p) ->
        d_step { assert(used[p] == 1 && truth[p] == me); used[p] = 0; truth[p] = 0; got = got & ~(1 << p) }
        DIES;
        p++
    :: p < PAGES && !HAS(got, p) -> p++
    :: p == PAGES -> break
    od;
    skip;
    d_step { intent[me] = 0; m = 0; p = 0; got = 0 }
    DIES;
    goto again;
died:
finish:
    skip;
    d_step { m = 0; got = 0; p = 0; n = 0 }
}

#ifdef TAKE_FROM_FROZEN
#define DEAD(i) true
#else
#define DEAD(i) dead[i]
#endif

#define LOOK_AT_INTENTS \
    do \
    :: i <= WORKERS -> d_step { if :: i != d && !dead[i] && HAS(intent[i], p) -> tried = true :: else fi; i++ } \
    :: else -> break \
    od; \
    i = 1

#define LOOK_AT_HEADERS \
    do \
    :: i <= WORKERS -> d_step { if :: HAS(header[i], p) -> covered = true :: else fi; i++ } \
    :: else -> break \
    od; \
    i = 1

/* Versions only grow: their sum is what it was if and only if each is */
#define VERSIONS(v) \
    do \
    :: i <= WORKERS -> d_step { v = v + version[i]; i++ } \
    :: else -> break \
    od; \
    i = 1

proctype Survivor(byte me) {
    byte d, p, i = 1, before, after;
    bool covered, tried;
again:
    skip;
end:
    if
    :: atomic { DEAD(1) && intent[1] != 0 -> d = 1 }
    :: atomic { DEAD(2) && intent[2] != 0 -> d = 2 }
#if WORKERS == 3
    :: atomic { DEAD(3) && intent[3] != 0 -> d = 3 }
#endif
    fi;
#ifndef MANY_SURVIVORS
end2:
    atomic { claim == 0 || dead[claim] -> claim = me }
#endif
    p = 0;
    do
    :: p < PAGES && HAS(intent[d], p) ->
#ifndef FREE_UNSEEN
look:
        skip;
        d_step { covered = false; tried = false; before = 0; after = 0 }
#ifdef BIT_FIRST
        if
        :: used[p] == 0 -> goto next
        :: else
        fi;
#endif
        VERSIONS(before);
#ifdef HEADERS_FIRST
        LOOK_AT_HEADERS;
        LOOK_AT_INTENTS;
#else
#ifndef NO_INTENTS
        LOOK_AT_INTENTS;
#endif
#ifndef NO_HEADERS
        LOOK_AT_HEADERS;
#endif
#endif
#ifndef BIT_FIRST
        if
        :: used[p] == 0 -> goto next
        :: else
        fi;
#endif
#ifndef NO_VERSION
        VERSIONS(after);
        if
        :: before != after -> goto look
        :: else
        fi;
#endif
#ifdef FORGET_CONTESTED
        covered = covered || tried;
#else
        if
        :: tried && !covered -> goto look      /* later: the living one may be trying in vain */
        :: else
        fi;
#endif
#endif
        if
        :: !covered ->
            d_step {
                assert(truth[p] == 0 || (dead[truth[p]] && !HAS(header[truth[p]], p)));
                used[p] = 0;
                truth[p] = 0
            }
        :: else
        fi;
        if :: atomic { me == S1 && deaths > 0 -> deaths--; dead[me] = true; goto died } :: true fi;
next:
        skip;
        d_step { p++; covered = false; tried = false; before = 0; after = 0 }
    :: p < PAGES && !HAS(intent[d], p) -> p++
    :: p == PAGES -> break
    od;
    skip;
    d_step { intent[d] = 0; p = 0; d = 0 }
#ifndef MANY_SURVIVORS
    claim = 0;
#endif
    goto again;
died:
    skip;
    d_step { d = 0; p = 0; i = 0; before = 0; after = 0; covered = false; tried = false }
}

proctype Monitor() {
end:
    timeout;
    assert(!used[0] || HAS(header[truth[0]], 0));
#ifdef TWO_PAGES
    assert(!used[1] || HAS(header[truth[1]], 1));
#endif
}

init {
    atomic {
        run Worker(1);
        run Worker(2);
#if WORKERS == 3
        run Worker(3);
#endif
#ifdef TWO_PAGES
        run Survivor(S1);
#endif
        run Survivor(S2);
        run Monitor()
    }
}
