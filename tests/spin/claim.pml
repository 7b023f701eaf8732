/* The claim of a chunk, requests to delete, death during recovery: "Claims", "Deletes asked of others" and P8 (1, 2) of gismo_core/FORMAT.md.
 *
 * MODELLED. One chunk with one slot, on one host. Process 1 claims the chunk, does what is pending, deletes the object that is there or not, makes one when the slot is free (WRITING, SEALED), releases, looks again; three times. Process 2 asks for each sealed
 * generation that it sees to be deleted, perhaps too late: mark, pending generation := max, pending bit, another look at the claim, unmark; if the claim is free, 2 claims the chunk and does it itself. Processes 3 and 4 are survivors: they recover the dead.
 * What is pending is done as chunk.c does it: load the generation, DELETED if it is sealed, clear the bit, set it again if the generation has changed.
 * 1, 2 and 3 may die between any two steps (DEATHS in all), also 3 in the middle of a recovery; 4 never dies. All may freeze: they are not scheduled. Memory is TSO (tso.h): stores to the claim and to the
 * slot's word wait in the store buffer; CAS and atomic or/and drain it. A process is found dead (OFD lock) only when its stores are done.
 *
 * ABSTRACTED. Pins: a delete frees the slot at once, SEALED(g) -> FREE(g + 1). No retire bitmap: it is a hint, which may make things earlier but on which nothing may rest. Chunk bitmap of a process = `marked`.
 *
 * PROPERTY. (1) Who stores to the slot's word holds the claim at that moment. (2) When nothing moves any more: no request is left lying, nothing is WRITING, the claim is free.
 *
 * What the model shows to be necessary:
 *   - the request counts from the pending BIT, not from the pending generation: who dies between the two has asked nothing, so `get` must look at both (else the object is
 *     gone for every reader and its slot is freed by nobody);
 *   - who clears the bit looks at the generation again, and sets it again if a later request came meanwhile (NO_RESTORE);
 *   - he may die between the two, so whoever takes a claim over from the dead goes by the generations, not only by the bits (RECOVER_BITS_ONLY);
 *   - recovery looks at the pending word of EVERY chunk marked by the dead one, not only of those "whose claim names it" (RECOVER_CLAIMED_ONLY: it may have died between the release and the second look);
 *   - who leaves a request marks the chunk in its own bitmap first, as one who claims does (REQUEST_WITHOUT_MARK: it may die between the bit and its look at the claim), and unmarks it after that look
 *     (REQUESTER_UNMARKS_BEFORE_LOOK);
 *   - a claimer's mark goes after the second look (UNMARK_BEFORE_LOOK).
 * Not a mutant, because the model holds without it: "does it" before the pending bit is cleared. Since recovery goes by the generations no request is lost; but a `get` between the two would find the deleted object again.
 *
 * CONFIGS: CHUNK
 * MUTANTS CHUNK: NO_FENCE_RELEASE NO_SECOND_LOOK NO_REQUESTER_LOOK TAKE_FROM_FROZEN RECOVER_CLAIMED_ONLY REQUEST_WITHOUT_MARK UNMARK_BEFORE_LOOK MARK_AFTER_CLAIM
 * MUTANTS CHUNK: NO_RESTORE RECOVER_BITS_ONLY REQUESTER_UNMARKS_BEFORE_LOOK
 */
#define NV 2
#define NP 5
#define KB 2
#include "tso.h"

#define CLAIM 0
#define WORD 1

#define FREE(g) (3 * (g))
#define WRITING(g) (3 * (g) + 1)
#define SEALED(g) (3 * (g) + 2)
#define GEN(w) ((w) / 3)
#define IS_FREE(w) ((w) % 3 == 0)
#define IS_WRITING(w) ((w) % 3 == 1)
#define IS_SEALED(w) ((w) % 3 == 2)

#ifndef GENS
#define GENS 3             /* sealed generations 1 .. GENS */
#endif
#ifndef DEATHS
#define DEATHS 2
#endif

byte pending;              /* pending generation */
bool bit_set;              /* pending bit */
byte asked;                /* ghost: the generation for which the bit was set */
bool marked[NP], dead[NP];
byte deaths = DEATHS;

#define DIES if :: atomic { me != 4 && deaths > 0 -> deaths--; dead[me] = true; goto died } :: true fi
#ifdef TAKE_FROM_FROZEN
#define DEAD(p) (p) == 1
#else
#define DEAD(p) (dead[p] && bufn[p] == 0)
#endif
#define MAKES (me == 1 && IS_FREE(LD(me, WORD)) && GEN(LD(me, WORD)) <= GENS)
#define FOUND(p) (marked[p] && DEAD(p))
#define STORE_WORD(w) d_step { bufn[me] < KB -> assert(mem[CLAIM] == me); bufa[AT(me, bufn[me])] = WORD; bufv[AT(me, bufn[me])] = (w); bufn[me] = bufn[me] + 1 }

proctype Process(byte me) {
    byte n, d, w, g;
next:
    if
    :: me == 1 ->
        if
        :: n == 3 -> goto finish
        :: else -> n++
        fi;
#ifndef MARK_AFTER_CLAIM
        marked[me] = true;
        DIES;
#endif
        goto want
    :: me == 2 ->
end:    atomic { IS_SEALED(LD(me, WORD)) && GEN(LD(me, WORD)) > n -> n = GEN(LD(me, WORD)) }
#ifndef REQUEST_WITHOUT_MARK
        marked[me] = true;
#endif
        atomic { FENCE(me) -> if :: pending < n -> pending = n :: else fi };
        DIES;
        d_step { bit_set = true; asked = n }
        DIES;
#ifdef NO_REQUESTER_LOOK
        goto done;
#else
#ifdef REQUESTER_UNMARKS_BEFORE_LOOK
        marked[me] = false;
        DIES;
#endif
        goto look;
#endif
    :: me > 2 ->
end2:   if
        :: atomic { FOUND(1) -> d = 1 }
        :: atomic { FOUND(2) -> d = 2 }
        :: atomic { me == 4 && FOUND(3) -> d = 3 }
        fi;
        marked[me] = true;
        if
        :: atomic { FENCE(me) && mem[CLAIM] == d -> mem[CLAIM] = me };
#ifndef RECOVER_BITS_ONLY
            atomic { if :: mem[WORD] == SEALED(pending) -> bit_set = true :: else fi };
#endif
            goto claimed
        :: atomic { FENCE(me) && mem[CLAIM] != d };
#ifdef RECOVER_CLAIMED_ONLY
            goto done
#else
            goto look
#endif
        fi
    fi;
look:
#ifdef UNMARK_BEFORE_LOOK
    marked[me] = false;
    DIES;
#endif
    if
    :: !bit_set -> goto done
    :: bit_set
    fi;
want:
    if
    :: atomic { FENCE(me) && mem[CLAIM] == 0 -> mem[CLAIM] = me };
    :: atomic { FENCE(me) && mem[CLAIM] != 0 }; goto done      /* goes elsewhere: the holder will look, or he is dead and will be recovered */
    fi;
#ifdef MARK_AFTER_CLAIM
    DIES;
#endif
    marked[me] = true;
claimed:
    DIES;
    if
    :: atomic { me > 2 && IS_WRITING(LD(me, WORD)) -> w = LD(me, WORD) };
        STORE_WORD(FREE(GEN(w) + 1));
        w = 0;
        DIES
    :: !(me > 2 && IS_WRITING(LD(me, WORD)))
    fi;
    if
    :: bit_set ->
        g = pending;
        if
        :: atomic { LD(me, WORD) == SEALED(g) -> w = LD(me, WORD) };
            STORE_WORD(FREE(GEN(w) + 1));
            w = 0;
            DIES
        :: LD(me, WORD) != SEALED(g)
        fi;
        atomic { FENCE(me) -> bit_set = false };
        DIES;
#ifndef NO_RESTORE
        if
        :: pending != g -> bit_set = true
        :: else
        fi;
#endif
        g = 0
    :: else
    fi;
    if                     /* its own delete, or not */
    :: atomic { me == 1 && IS_SEALED(LD(me, WORD)) -> w = LD(me, WORD) };
        STORE_WORD(FREE(GEN(w) + 1));
        w = 0;
        DIES
    :: true
    fi;
    if
    :: atomic { MAKES -> w = GEN(LD(me, WORD)) };
        STORE_WORD(WRITING(w));
        DIES;
        STORE_WORD(SEALED(w));
        w = 0;
        DIES
    :: !MAKES
    fi;
    STORE(me, CLAIM, 0);
    DIES;
#ifndef NO_FENCE_RELEASE
    FENCE(me);
#endif
#ifndef NO_SECOND_LOOK
    goto look;
#endif
done:
    skip;
    d_step { marked[me] = false; if :: d != 0 -> marked[d] = false; d = 0 :: else fi }
    goto next;
died:
    skip;
    d_step { n = 0; d = 0; w = 0; g = 0 }
finish:
    skip
}

proctype Memory() {
end:
    do
    :: DRAINS(1)
    :: DRAINS(2)
    :: DRAINS(3)
    :: DRAINS(4)
    od
}

proctype Monitor() {
end:
    timeout;
    assert(mem[CLAIM] == 0 && !IS_WRITING(mem[WORD]) && !(IS_SEALED(mem[WORD]) && asked == GEN(mem[WORD])))
}

init {
    atomic {
        mem[WORD] = SEALED(1);
        run Process(1);
        run Process(2);
        run Process(3);
        run Process(4);
        run Memory();
        run Monitor()
    }
}
