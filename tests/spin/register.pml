/* The agreed register: protocol R of gismo_core/FORMAT.md (CASPaxos over one single-writer line per host, two halves per line).
 *
 * MODELLED. Two or three hosts; on each, one process at a time speaks for the host (the claim of the register). It wants the unit (f: nobody -> us, us -> us, another -> refuse),
 * then gives it back (f: us -> nobody, otherwise nothing to do) or asks again while it owns it (us -> us), then wants it again, as long as ballots last. It may freeze anywhere (it is not scheduled) and die between any two steps
 * (DEATHS in all): then its successor on the same host goes on, knowing only the lines and whether the host believed itself the owner (the arena state in the state directory).
 * Each write of a line is two steps: between them (and for ever, if the writer dies there) the half being written is torn, that is, invalid. Lines are read one by one, each at another moment.
 *
 * ABSTRACTED. Values have no version and no incarnation: only the owner, 0 = nobody (that is harder, since equal values cannot be told apart). Flush, invalidate and fences: a line is
 * read as the device has it, and a write is done when its second step is (READ_BEFORE_WRITE is the missing full fence). Ballot = round * HOSTS + host, at most ROUNDS rounds; a proposer without ballots gives up
 * for ever, as if dead. A torn write that a reader sees half-way is "invalid": CRC.
 *
 * PROPERTY. Never do two hosts believe that they own the unit: a host believes from the moment when step 5 succeeded with its own name as the value until the moment when it begins to give the unit back. And who owns it finds, when it asks again, that it does.
 *
 * CONFIGS: TWO THREE
 * MUTANTS TWO: NO_REREAD NO_ADOPT SINGLE_HALF BLIND_ALTERNATE READ_BEFORE_WRITE FORGET_ACCEPTED LOWER_BALLOT TAKE_FROM_FROZEN
 * MUTANTS THREE: NO_REREAD NO_ADOPT SINGLE_HALF
 */
#ifdef THREE
#define HOSTS 3
#ifndef ROUNDS
#define ROUNDS 1
#endif
#define DEATHS 0
#else
#define HOSTS 2
#ifndef ROUNDS
#define ROUNDS 3
#endif
#define DEATHS 2
#endif
#define NOBODY 0

/* Half x of host h's line: H(h, x). seq 0 = never written */
#define H(h, x) (2 * (h) + (x))
byte mbal[2 * HOSTS], bal[2 * HOSTS], val[2 * HOSTS], seq[2 * HOSTS];
bool torn[2 * HOSTS];

#define LIVE(h, x) (seq[H(h, x)] != 0 && !torn[H(h, x)])
/* The half that counts: valid, and the higher sequence. Sequences are 1, 2, 3 in turn, so that the model is finite: b follows a when b == a % 3 + 1 */
#define FOLLOWS(a, b) ((b) == (a) % 3 + 1)
#define CURRENT(h) ((LIVE(h, 0) && (!LIVE(h, 1) || FOLLOWS(seq[H(h, 1)], seq[H(h, 0)]))) -> 0 : 1)
#define ANY(h) (LIVE(h, 0) || LIVE(h, 1))
#define MBAL(h) (ANY(h) -> mbal[H(h, CURRENT(h))] : 0)
#define BAL(h) (ANY(h) -> bal[H(h, CURRENT(h))] : 0)
#define VAL(h) (ANY(h) -> val[H(h, CURRENT(h))] : NOBODY)
#define SEQ(h) (ANY(h) -> seq[H(h, CURRENT(h))] : 0)

bool owns[HOSTS];
byte deaths = DEATHS;

#define DIES if :: atomic { deaths > 0 -> deaths--; goto restart } :: true fi

/* Writes the own line in two steps. The half to write is the one that does not count */
#ifdef SINGLE_HALF
#define HALF 0
#define TEAR if :: ANY(me) -> torn[H(me, 0)] = true; mbal[H(me, 0)] = 0; bal[H(me, 0)] = 0; val[H(me, 0)] = 0 :: else -> torn[H(me, 0)] = true fi
#else
#ifdef BLIND_ALTERNATE
#define HALF blind[me]
#define TEAR torn[H(me, half)] = true; mbal[H(me, half)] = 0; bal[H(me, half)] = 0; val[H(me, half)] = 0; blind[me] = 1 - blind[me]
bit blind[HOSTS];          /* takes the halves in turn, without looking which one counts */
#else
#define HALF (ANY(me) -> 1 - CURRENT(me) : 0)
#define TEAR torn[H(me, half)] = true; mbal[H(me, half)] = 0; bal[H(me, half)] = 0; val[H(me, half)] = 0
#endif
#endif

#define WRITE(m, b, v) \
    d_step { half = HALF; s = SEQ(me) % 3 + 1; kb = (b); kv = (v); TEAR; seq[H(me, half)] = s } \
    DIES; \
    d_step { mbal[H(me, half)] = (m); bal[H(me, half)] = kb; val[H(me, half)] = kv; torn[H(me, half)] = false; half = 0; s = 0; kb = 0; kv = 0 }

proctype Host(byte me) {
    byte b, i, best, v, seen, s, kb, kv;
    bit half;
    bool release;
restart:
    skip;
    d_step { b = 0; i = 0; best = 0; v = 0; half = 0; s = 0; kb = 0; kv = 0; seen = MBAL(me); release = false }
    if                     /* the arena state RETURNING is in the state directory, but a successor may as well find out by wanting the unit again */
    :: true
    :: d_step { owns[me] -> release = true; owns[me] = false }
    fi;
again:
    skip;
    d_step {               /* 1. a ballot above every one seen */
#ifdef LOWER_BALLOT
        if :: b == 0 -> b = HOSTS + me :: else -> b = b + HOSTS fi;
#else
        b = (seen / HOSTS + 1) * HOSTS + me;
#endif
        seen = 0
    }
    if
    :: b >= (ROUNDS + 1) * HOSTS + HOSTS -> goto finish
    :: else
    fi;
#ifdef READ_BEFORE_WRITE
    goto read;
written:
#endif
    skip;
#ifdef FORGET_ACCEPTED
    WRITE(b, 0, NOBODY)
#else
    WRITE(b, BAL(me), VAL(me))
#endif
    DIES;
#ifdef READ_BEFORE_WRITE
    goto decide;
read:
    skip;
#endif
    d_step { i = 0; best = 0; v = NOBODY; seen = b }   /* 2. all lines */
    do
    :: i < HOSTS -> d_step {
            if :: MBAL(i) > seen -> seen = MBAL(i) :: else fi;
            if :: BAL(i) > best -> best = BAL(i); v = VAL(i) :: else fi;
            i++
        }
    :: else -> break
    od;
    i = 0;
    if
    :: seen > b -> goto again
    :: else
    fi;
#ifdef READ_BEFORE_WRITE
    goto written;
decide:
#endif
    skip;
    d_step {               /* 3. f */
#ifdef NO_ADOPT
        v = VAL(me);
#endif
        if
        :: !release && v == NOBODY -> v = me + 1
        :: release && v == me + 1 -> v = NOBODY
        :: else            /* has what it wants, or refuses: settle what was read */
        fi;
        best = 0
    }
    WRITE(b, b, v)         /* 4. */
    DIES;
#ifndef NO_REREAD
    d_step { seen = b; i = 0 }
    do                     /* 5. */
    :: i < HOSTS -> d_step { if :: MBAL(i) > seen -> seen = MBAL(i) :: else fi; i++ }
    :: else -> break
    od;
    i = 0;
    if
    :: seen > b -> v = 0; goto again
    :: else
    fi;
#endif
    d_step {
        assert(!owns[me] || v == me + 1);      /* nobody takes it away */
        owns[me] = (!release && v == me + 1);
#ifdef THREE
        assert(owns[0] + owns[1] + owns[2] <= 1);
#else
        assert(owns[0] + owns[1] <= 1);
#endif
        v = 0; seen = b
    }
    if                     /* owned: gives it back, or asks once more (us -> us) while it owns; given back or refused: wants it (again) */
    :: d_step { owns[me] -> release = false }
    :: d_step { owns[me] -> release = true; owns[me] = false }
    :: d_step { !owns[me] -> release = false }
    fi;
    goto again;
finish:
    skip;
    d_step { b = 0; i = 0; best = 0; v = 0; seen = 0; release = false }
}

init {
    atomic {
        run Host(0);
        run Host(1);
#ifdef THREE
        run Host(2);
#endif
#ifdef TAKE_FROM_FROZEN
        run Host(1)        /* a second process speaks for host 1, although the first one lives */
#endif
    }
}
