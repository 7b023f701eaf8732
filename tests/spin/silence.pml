/* Who may write a lane: fencing, releasing, taking over, coming back. P10 and "Waking" of P9 of gismo_core/FORMAT.md.
 *
 * MODELLED. One lane and who wants it. Process 1 belongs to the lane's host and to its state directory: it has just registered there (or is about to), looks at the register, stores to the lane's lines, closes (QUIET), and wakes the lane once
 * more. Process 2 comes to the same host when the directory is void (the lane is fenced, or another's): it makes a new one, if no living process is registered in the old one. Processes 3 and 4 evict from two other hosts: they fence,
 * release with proof, take over, tidy up and leave, each a few times; and take a QUIET lane at any time, as requests do. 1 and 2 may lose their power anywhere (`off`); only then a word is given that it is off, at any time after.
 * All may freeze anywhere: they are not scheduled; a frozen one that goes on later is the zombie. A taker may die anywhere (it stops for ever), which another one has to stand.
 *
 * ABSTRACTED. The register is one word that changes by CAS: that protocol R does as much is register.pml's matter. Memory is sequentially consistent: each step between two hosts has a full fence and the identity is one line with one store
 * that matters. The lane's lines are one, and a store to it is a ghost: what it says does not matter, who makes it does. One process stands for all of a state directory; which of several is the last is "Who joins against who leaves".
 *
 * PROPERTY. No byte has two permitted writers: once somebody has stored to the lane's lines, or to its identity, in a newer incarnation, nobody else stores there in an older one, and of one incarnation all stores are of one state directory.
 *
 * What the model shows to be necessary:
 *   - RELEASED only with proof (NO_PROOF), and QUIET is proof only of the incarnation that it names (ANY_QUIET);
 *   - QUIET is the last store (STORE_AFTER_QUIET);
 *   - a QUIET lane is woken by agreement, not by a store of ACTIVE (WAKE_BY_STORE): the waker may freeze before that store while another takes the lane;
 *   - who takes a lane over says so in the register until it is ACTIVE there (TAKEN_IS_ACTIVE): meanwhile the identity says QUIET, in the incarnation of the register;
 *   - who registers looks at the register afterwards, not only before (NO_LOOK): another process of the host may find the directory void, and nobody in it.
 *
 * CONFIGS: LANE
 * MUTANTS LANE: NO_PROOF ANY_QUIET STORE_AFTER_QUIET WAKE_BY_STORE TAKEN_IS_ACTIVE NO_LOOK
 */
#ifndef TRIES
#define TRIES 2
#endif
#define ACTIVE 1
#define QUIET 2
#define FENCED 3
#define RELEASED 4
#define JOINING 5

byte reg_inc = 1, reg_taker = 1, reg_state = ACTIVE;
byte id_inc = 1, id_state = ACTIVE;
bool live;                 /* process 1 is registered in its directory */
bool off;                  /* it has no power any more */
byte newest = 1, writer = 1;

#define REG(i, t, s) (reg_inc == (i) && reg_taker == (t) && reg_state == (s))
#define SET_REG(i, t, s) reg_inc = (i); reg_taker = (t); reg_state = (s)
/* The ghost of a store to a line of the lane. */
#define STORE(me, i) d_step { assert((i) >= newest && ((i) > newest || writer == (me))); newest = (i); writer = (me) }
#define IDENTITY(me, i, s) d_step { assert((i) >= newest && ((i) > newest || writer == (me))); newest = (i); writer = (me); id_inc = (i); id_state = (s) }
#define LIVES if :: off -> goto gone :: else fi /* without power nothing more is done, nor is anybody registered */
#ifdef TAKEN_IS_ACTIVE
#define TAKING ACTIVE
#else
#define TAKING JOINING
#endif

proctype Old() {
    byte i = 1, rounds;
    bool looked;
    atomic { if :: REG(1, 1, ACTIVE) -> looked = true :: else -> goto gone fi }; /* it found the directory, which was good */
    LIVES;
    live = true;
    LIVES;
again:
#ifndef NO_LOOK
    if :: REG(i, 1, ACTIVE) :: else -> live = false; goto gone fi;
#endif
    LIVES;
    atomic { if :: off -> goto gone :: else -> STORE(1, i) fi };
    /* A call: it looks, and stores a while later, when it may be fenced already. */
    if :: REG(i, 1, ACTIVE) -> atomic { if :: off -> goto gone :: else -> STORE(1, i) fi } :: else fi;
    /* It closes: unless the lane is another's. */
    if :: reg_inc > i || reg_state == RELEASED -> live = false; goto gone :: else fi;
    atomic { if :: off -> goto gone :: else -> IDENTITY(1, i, QUIET) fi };
#ifdef STORE_AFTER_QUIET
    STORE(1, i);
#endif
    live = false;
    rounds++;
    if :: rounds == 2 -> goto gone :: else fi;
    /* And opens again, with the same directory. */
    if :: REG(i, 1, ACTIVE) :: else -> goto gone fi;
    live = true;
#ifdef WAKE_BY_STORE
    if :: REG(i, 1, ACTIVE) :: else -> live = false; goto gone fi;
    IDENTITY(1, i, ACTIVE);
#else
    atomic { if :: REG(i, 1, ACTIVE) -> SET_REG(i + 1, 1, ACTIVE) :: else -> live = false; goto gone fi };
    i++;
    atomic { if :: off -> goto gone :: else -> IDENTITY(1, i, ACTIVE) fi };
#endif
    goto again;
gone:
    skip
}

proctype Anew() {
    byte i, t, s;
end:
    if
    :: reg_state == FENCED || reg_state == RELEASED /* the directory is void; nobody lives in it, as far as one sees */
    fi;
    if :: live -> goto done :: else fi;
    d_step { i = reg_inc; t = reg_taker; s = reg_state };
    if :: (s == FENCED && t == 1) || (s == RELEASED && t == 1) :: else -> goto done fi;
    atomic { if :: !off && REG(i, t, s) -> SET_REG(i + 1, 0, JOINING) :: else -> goto done fi };
    atomic { if :: off -> goto done :: else -> IDENTITY(2, i + 1, QUIET) fi };
    atomic { if :: off -> goto done :: else -> STORE(2, i + 1) fi };
    atomic { if :: !off && REG(i + 1, 0, JOINING) -> SET_REG(i + 2, 1, ACTIVE) :: else -> goto done fi };
    atomic { if :: off -> goto done :: else -> IDENTITY(2, i + 2, ACTIVE) fi };
    atomic { if :: off -> goto done :: else -> STORE(2, i + 2) fi };
done:
    skip
}

proctype Evict(byte me) {
    byte i, t, s, tries;
    bool quiet;
next:
    if :: tries == TRIES -> goto done :: else -> tries++ fi;
    /* The identity first: QUIET in the incarnation that the register has later is as good as now. */
    d_step { i = id_inc; quiet = id_state == QUIET };
    d_step {
#ifndef ANY_QUIET
        quiet = quiet && i == reg_inc;
#endif
        i = reg_inc; t = reg_taker; s = reg_state
    };
    if
    :: s == ACTIVE && !quiet ->
        atomic { if :: REG(i, t, s) -> SET_REG(i, t, FENCED) :: else fi }; /* whom it has not heard of: perhaps it lives */
        goto next
    :: s == FENCED ->
#ifndef NO_PROOF
        if :: quiet || (off && t == 1) /* the word */ :: else -> goto next fi;
#endif
        atomic { if :: REG(i, t, s) -> SET_REG(i, t, RELEASED) :: else fi };
        goto next
    :: s == RELEASED || (s == ACTIVE && quiet) ->
        atomic { if :: REG(i, t, s) -> SET_REG(i + 1, me, TAKING) :: else -> goto next fi }
    :: s == JOINING && t == me -> i = i - 1 /* its own, of one that died */
    :: else -> goto next
    fi;
    if :: goto next :: skip fi; /* it dies, and another process of the host looks */
    IDENTITY(me, i + 1, QUIET);
    STORE(me, i + 1);
    atomic { if :: REG(i + 1, me, TAKING) -> SET_REG(i + 2, me, ACTIVE) :: else -> goto next fi };
    IDENTITY(me, i + 2, ACTIVE);
    STORE(me, i + 2);
    if :: REG(i + 2, me, ACTIVE) :: else -> goto done fi; /* it was fenced itself */
    IDENTITY(me, i + 2, QUIET);
    goto next;
done:
    skip
}

init {
    atomic { run Old(); run Anew(); run Evict(3); run Evict(4) };
    if :: off = true :: skip fi
}
