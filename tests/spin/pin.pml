/* Pin, delete, reuse: protocols P3, P4 and P5 of gismo_core/FORMAT.md, on hosts that share one coherence domain.
 *
 * MODELLED. One slot through several generations. The owner D (process 0, on the owner's host; it holds the chunk's claim): DELETED,
 * fence, look at who pins, reuse or later. Two getters (processes 1 and 2) of ONE pinning host: own counts, one common byte if the slot is another host's, fence, second look
 * at the word. Memory is TSO (tso.h): each process has a store buffer, so that the fences matter. Any process may freeze anywhere: it is simply not scheduled, while its store buffer drains or not.
 *   OWN      the getters are on the owner's host: there is no byte; D looks at their counts (P5.3).
 *   FOREIGN  they are on another host: D looks at the pin byte, sends CLEAR over the ring, and believes the byte when the ring's head has passed the asked position or, if that is less, the tail (P5.2, P5.4). There two consumers (3 and 4) compete
 *            for the claim of the ring's consumer side. A consumer may die at each step; the other takes the claim over (from the dead only) and handles the message again.
 * D may die at each step, too (in both): its successor knows only what is in shared memory and in the state directory (the asked position).
 * The pin byte begins as 0 or as a spurious 1. Gets that find the slot gone leave spurious 1s, too.
 *
 * ABSTRACTED. FREE and WRITING are left out: for a getter they are, like DELETED, "not SEALED(g)". "The extent is written for g+1" is the moment when D
 * decides to reuse. The ring's cells are left out (ring.pml): message n is always CLEAR of our slot, so the ring is its tail and its head.
 * A getter's death voids its count and nothing else: the same as its release at that moment. The state of the pinning lane is ACTIVE throughout
 * (pin_incoherent.pml has a lane that joins). A slot's group does not change its host. D gives up after MSGS questions, so that the model is finite.
 *
 * PROPERTY. When D reuses the extent, no getter that has completed P3 on that generation still holds its pin (assert in `reuse`).
 *
 * POSITION_AFTER_SEND is why the asked position is stored before the tail, and the min with the tail is why that does no harm: a recorded question that was never sent (D died between) stops nobody.
 *
 * Not mutants, because the model holds without them: D's look at the head before its look at the byte; the consumer's look at the word (DELETED?), and its place before the look at the counts. The message is sent
 * after DELETED, and with the position the owner waits; so who has the message sees DELETED anyway. The look is a second line of defence.
 *
 * CONFIGS: OWN FOREIGN
 * MUTANTS OWN: NO_FENCE_PIN NO_FENCE_DELETE NO_RECHECK NO_COUNTS
 * MUTANTS FOREIGN: NO_FENCE_PIN NO_FENCE_DELETE NO_RECHECK CLEAR_WITHOUT_COUNTS CLEAR_WITHOUT_POSITION CLEAR_BY_ANY POSITION_AFTER_SEND
 */
#define NV 6
#define NP 5
#define KB 2
#include "tso.h"

#define WORD 0
#define BYTE 1
#define COUNT 1            /* count of process p: COUNT + p */
#define TAIL 4
#define HEAD 5

#define SEALED(g) (2 * (g))
#define DELETED(g) (2 * (g) + 1)
#define IS_SEALED(w) (((w) & 1) == 0)

#ifndef GENS
#define GENS 2             /* deletions; so generations 1 .. GENS, and GENS + 1 is written */
#endif
#ifndef GETS
#define GETS(p) (3 - p)    /* gets: two of process 1, one of process 2 */
#endif
#ifndef MSGS
#define MSGS 2
#endif

byte held[3];              /* ghost: the generation that getter 1, 2 holds; 0 = none */
byte asked;                /* state directory of the owner's host: number of the last CLEAR + 1; 0 = none */
byte consumer;             /* state directory of the pinning host: claim of the ring's consumer side */
bool dead[NP];
byte deaths_d = 1;

proctype Owner() {
    byte g, b, h;
restart:
    FENCE(0);              /* whoever finds the OFD lock free finds the dead one's stores done */
    g = LD(0, WORD) / 2;
    b = 0; h = 0;
    if
    :: IS_SEALED(LD(0, WORD)) -> skip
    :: else -> goto look
    fi;
delete:
    if
    :: g > GENS -> goto finish
    :: else
    fi;
    STORE(0, WORD, DELETED(g));
look:
#ifndef NO_FENCE_DELETE
    FENCE(0);
#endif
#ifdef OWN
#ifndef NO_COUNTS
    LD(0, COUNT + 1) == 0; /* not zero: later. Waiting here for it is the same */
    LD(0, COUNT + 2) == 0;
#endif
    if
    :: deaths_d > 0 -> deaths_d--; goto restart
    :: true
    fi;
    goto reuse;
#else
#ifndef CLEAR_WITHOUT_POSITION
    if
    :: asked != 0 ->
        h = LD(0, HEAD);
        if
        :: h < asked && h < LD(0, TAIL) ->
            h = 0; b = 0;
            (LD(0, HEAD) >= asked || LD(0, HEAD) >= LD(0, TAIL));      /* later */
            goto look
        :: else
        fi;
        h = 0;
        asked = 0
    :: else
    fi;
#endif
    b = LD(0, BYTE);
    if
    :: b == 0 -> goto reuse
    :: else -> b = 0
    fi;
    if
    :: LD(0, TAIL) >= MSGS -> goto finish
    :: else
    fi;
#ifndef POSITION_AFTER_SEND
    asked = LD(0, TAIL) + 1;
    if
    :: deaths_d > 0 -> deaths_d--; goto restart
    :: true
    fi;
    STORE(0, TAIL, LD(0, TAIL) + 1);
#else
    STORE(0, TAIL, LD(0, TAIL) + 1);
    if
    :: deaths_d > 0 -> deaths_d--; goto restart
    :: true
    fi;
    asked = LD(0, TAIL);
#endif
    if
    :: deaths_d > 0 -> deaths_d--; goto restart
    :: true
    fi;
#ifdef CLEAR_WITHOUT_POSITION
    LD(0, BYTE) == 0;      /* asks once and believes what it then sees */
#endif
    goto look;
#endif
reuse:
    skip;
    d_step {
        assert(held[1] != g && held[2] != g);
        g = g + 1
    }
    STORE(0, WORD, SEALED(g));
    if
    :: deaths_d > 0 -> deaths_d--; goto restart
    :: true
    fi;
    goto delete;
finish:
    skip
}

proctype Getter(byte p) {
    byte g, n;
    do
    :: n < GETS(p) ->
end:    atomic { IS_SEALED(LD(p, WORD)) -> g = LD(p, WORD) / 2; n++ }
        STORE(p, COUNT + p, 1);
#ifdef FOREIGN
        if
        :: LD(p, BYTE) == 0 -> STORE(p, BYTE, 1)
        :: else
        fi;
#endif
#ifndef NO_FENCE_PIN
        FENCE(p);
#endif
#ifndef NO_RECHECK
        if
        :: d_step { LD(p, WORD) == SEALED(g) -> held[p] = g }
        :: else
        fi;
#else
        held[p] = g;
#endif
        atomic { g = 0; held[p] = 0; STORE(p, COUNT + p, 0) }      /* P4, or the get failed */
    :: else -> break
    od
}

#define DIES if :: p == 3 -> goto died :: true fi   /* one death: of consumer 3; 4 is its successor, or it is its predecessor */

proctype Consumer(byte p) {
    byte n;
    bool clear;
end:
#ifdef CLEAR_BY_ANY
    true;
#else
    atomic { consumer == 0 || consumer == p || (dead[consumer] && bufn[consumer] == 0) -> consumer = p }
#endif
end2:
    do
    :: LD(p, HEAD) < LD(p, TAIL) ->
        n = LD(p, HEAD);
        clear = !IS_SEALED(LD(p, WORD));
#ifndef CLEAR_WITHOUT_COUNTS
        clear = (clear && LD(p, COUNT + 1) == 0);
        clear = (clear && LD(p, COUNT + 2) == 0);
#endif
        if
        :: clear -> clear = false; STORE(p, BYTE, 0)
        :: else
        fi;
        DIES;
        atomic { FENCE(p) -> STORE(p, HEAD, n + 1); n = 0 }
        DIES;
        FENCE(p)
#ifndef CLEAR_BY_ANY
    :: atomic { FENCE(p) -> consumer = 0 }; goto end      /* lets go, for whoever comes */
#endif
    od;
died:
    skip;
    d_step { dead[p] = true; n = 0; clear = false }
}

proctype Memory() {
end:
    do
    :: DRAINS(0)
    :: DRAINS(1)
    :: DRAINS(2)
    :: DRAINS(3)
    :: DRAINS(4)
    od
}

init {
    atomic {
        mem[WORD] = SEALED(1);
        if
        :: mem[BYTE] = 1
        :: mem[BYTE] = 0
        fi;
        run Owner();
        run Getter(1);
        run Getter(2);
#ifdef FOREIGN
        run Consumer(3);
        run Consumer(4);
#endif
        run Memory()
    }
}
