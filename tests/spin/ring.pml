/* The ring between two hosts: P5 and "Rings" of gismo_core/FORMAT.md.
 *
 * MODELLED. A ring of CELLS = 2 cells that wraps, with three or more messages. The sender keeps a request bit for each thing that it wants done (the pending word with its outbound bit) and clears it only
 * after the message is sent; so the ring may be full, and nothing needs to be spilled. A message is four words: sequence, operation, generation, check. The consumer reads the tail, then the cell; takes the cell only
 * if its sequence is the number it expects + 1 and the check fits; handles it; moves the head.
 *   CRASH    memory is as FORMAT.md assumes (A1): what is flushed and fenced is at the device, in program order. The producer may die between any two steps (its successor, the claim
 *            taken over from the dead, goes on with what is in the ring and in the request bits), and so may the consumer.
 *   LATE     A1 is false for the cells: a cell's words arrive at the device late, one by one in any order, though the tail may be there already. Nobody dies.
 * Freezing is not being scheduled.
 *
 * ABSTRACTED. Operation and generation are small numbers. Caches: what is read is what the device has. The claims are those of claim.pml: at most one producer and one consumer.
 * Requests 0 .. REQUESTS-1; those are made at the beginning. The check is any injective function of the three words (what a CRC is, in all probability), except with XOR_CHECK.
 *
 * PROPERTY. (1) A message that is taken for number n has the content that was sent as number n: no stale cell, no torn one. (2) When nothing moves any more, every request
 * has been handled at least once (monitor; a ring that is stuck fails here).
 *
 * XOR_CHECK is what FORMAT.md says ("check = XOR of the three"; ring.c has a CRC32C of them, as here): weak, but only beyond the assumptions. Old operation and generation with the new sequence and the new check pass when
 * op ^ gen is the same in both, and so the new message is lost. PRODUCER_DIES shows why A1's remedy (read the flushed cell back before the tail) is needed where A1 is false: two producers, one after the other, write
 * different messages with the same sequence, and the consumer may take the first, whose successor's request is then forgotten.
 *
 * CONFIGS: CRASH LATE
 * MUTANTS CRASH: TAIL_FIRST BIT_FIRST HEAD_FIRST NO_ROOM_CHECK
 * MUTANTS LATE: NO_SEQ NO_CHECK XOR_CHECK PRODUCER_DIES
 */
#define CELLS 2
#define REQUESTS 4

#define SEQ 0
#define OP 1
#define GEN 2
#define CHECK 3
/* Request r: operation and generation. 0 and 2 (the same cell, a lap apart) have the same XOR */
#define OPERATION(r) ((r) == 0 -> 1 : ((r) == 1 -> 1 : ((r) == 2 -> 2 : 3)))
#define GENERATION(r) ((r) == 0 -> 2 : ((r) == 1 -> 3 : ((r) == 2 -> 1 : 3)))
#define REQUEST(o, g) ((o) == 3 -> 3 : ((o) == 2 -> 2 : ((g) == 3 -> 1 : 0)))
#ifdef XOR_CHECK
#define SUM(s, o, g) ((s) ^ (o) ^ (g))
#else
#define SUM(s, o, g) ((s) * 16 + (o) * 4 + (g))
#endif

#define W(c, w) (4 * (c) + (w))
byte dev[4 * CELLS];       /* what the device has of the cells */
byte out[4 * CELLS];       /* what the producer's host wrote */
byte tail, head;
bit wanted[REQUESTS] = 1;
bool handled[REQUESTS];    /* ghost */
byte sent[16];             /* ghost: request + 1 that was sent as number n */
#ifdef CRASH
byte deaths_p = 2, deaths_c = 2;
#else
#ifdef PRODUCER_DIES
byte deaths_p = 1, deaths_c = 0;
#else
byte deaths_p = 0, deaths_c = 0;
#endif
#endif

#define DIES(n) if :: atomic { n > 0 -> n--; goto restart } :: true fi

#ifdef CRASH
#define PUT(w, x) d_step { out[W(c, w)] = (x); dev[W(c, w)] = out[W(c, w)] }
#else
#define PUT(w, x) out[W(c, w)] = (x)
#endif

proctype Producer() {
    byte c, r, t;
restart:
    t = 0; c = 0; r = 0;
end:
    do
    :: atomic {
#ifndef NO_ROOM_CHECK
            tail - head < CELLS &&
#endif
            (wanted[0] || wanted[1] || wanted[2] || wanted[3]) ->
            t = tail; c = t % CELLS;
            if
            :: wanted[0] -> r = 0
            :: wanted[1] -> r = 1
            :: wanted[2] -> r = 2
            :: wanted[3] -> r = 3
            fi
        }
#ifdef BIT_FIRST
        wanted[r] = 0;
        DIES(deaths_p);
#endif
#ifdef TAIL_FIRST
        d_step { sent[t] = r + 1; tail = t + 1 }
        DIES(deaths_p);
#endif
        PUT(SEQ, t + 1);
        DIES(deaths_p);
        PUT(OP, OPERATION(r));
        DIES(deaths_p);
        PUT(GEN, GENERATION(r));
        DIES(deaths_p);
        PUT(CHECK, SUM(t + 1, OPERATION(r), GENERATION(r)));
        DIES(deaths_p);
#ifndef TAIL_FIRST
        d_step { sent[t] = r + 1; tail = t + 1 }
        DIES(deaths_p);
#endif
        d_step { wanted[r] = 0; t = 0; c = 0; r = 0 }
    od
}

#ifdef NO_SEQ
#define GOOD dev[W(head % CELLS, SEQ)]
#define FITS k == SUM(s, o, g)
#else
#define GOOD head + 1
#ifdef NO_CHECK
#define FITS s == n + 1
#else
#define FITS s == n + 1 && k == SUM(s, o, g)
#endif
#endif

#define READ(w, x) x = dev[W(n % CELLS, w)]

proctype Consumer() {
    byte n, s, o, g, k;
restart:
    n = 0; s = 0; o = 0; g = 0; k = 0;
end:
    do
    :: head < tail && dev[W(head % CELLS, SEQ)] == GOOD ->     /* waits for what it can take; else it would only look again */
        n = head;
        READ(SEQ, s);
        READ(OP, o);
        READ(GEN, g);
        READ(CHECK, k);
        if
        :: FITS ->
            s = 0; k = 0;
#ifdef HEAD_FIRST
            head = n + 1;
            DIES(deaths_c);
#endif
            d_step { assert(sent[n] == REQUEST(o, g) + 1); handled[REQUEST(o, g)] = true; o = 0; g = 0 }
            DIES(deaths_c);
#ifndef HEAD_FIRST
            head = n + 1
#endif
        :: else            /* not there yet: looks again later */
        fi;
        n = 0; s = 0; o = 0; g = 0; k = 0
    od
}

#ifdef LATE
proctype Fabric() {
    byte w;
end:
    do
    :: atomic { dev[0] != out[0] -> dev[0] = out[0] }
    :: atomic { dev[1] != out[1] -> dev[1] = out[1] }
    :: atomic { dev[2] != out[2] -> dev[2] = out[2] }
    :: atomic { dev[3] != out[3] -> dev[3] = out[3] }
    :: atomic { dev[4] != out[4] -> dev[4] = out[4] }
    :: atomic { dev[5] != out[5] -> dev[5] = out[5] }
    :: atomic { dev[6] != out[6] -> dev[6] = out[6] }
    :: atomic { dev[7] != out[7] -> dev[7] = out[7] }
    od
}
#endif

proctype Monitor() {
    timeout -> assert(handled[0] && handled[1] && handled[2] && handled[3])
}

init {
    atomic {
        run Producer();
        run Consumer();
#ifdef LATE
        run Fabric();
#endif
        run Monitor()
    }
}
