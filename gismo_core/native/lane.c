/*
 * lane.c - how a host gets its lane, keeps it and leaves it: P9 of FORMAT.md.
 *
 * A lane is chosen under a lock on the medium's file, which orders the joiners of one kernel. Between machines the identity is
 * written, 200 ms pass, and it must still be there: that finds two machines that took one lane at the same time, as long
 * as stores become visible within that time; GISMO_HOST_ID, set by whoever runs the cluster, makes it certain.
 */
#include "internal.h"

#include "crc32c.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t lane_join_wait_ns = 10000000000ull; /* a test may not want to wait so long */
#define PID_LIMIT (1ll << 32)
#define SETTLE_NS 200000000ull
#define SILENCE_NS 3000000000ull
#define FIND_OUT_NS 1000000000ull

void lane_heartbeat(struct gismo_store *s) {
    struct fmt_lane *lane = &s->lanes[s->lane];
    prim_store64(&lane->heartbeat_unix_ns, now_coarse_unix_ns());
    prim_store64(&lane->heartbeat, prim_load64(&lane->heartbeat) + 1);
    prim_publish(s->software, &lane->heartbeat, FMT_LINE);
}

static void set_state(struct gismo_store *s, uint64_t incarnation, uint32_t state) {
    prim_store64(&s->identities[s->lane].state_word, FMT_WORD(incarnation, state));
    prim_flush(s->software, &s->identities[s->lane], FMT_LINE);
    prim_fence_full();
}

static void write_identity(struct gismo_store *s, const uint8_t boot[16], const uint8_t uuid[16]) {
    struct fmt_identity *lane = &s->identities[s->lane];
    struct fmt_identity copy;
    memset(&copy, 0, sizeof copy);
    memcpy(copy.boot_id, boot, 16);
    memcpy(copy.state_dir_uuid, uuid, 16);
    copy.joined_unix_ns = now_coarse_unix_ns();
    copy.crc = crc32c(0, (const uint8_t *)&copy + 8, 40);
    uint64_t words[8];
    memcpy(words, &copy, sizeof words);
    uint64_t *to = &lane->state_word;
    for (int i = 1; i < 8; i++)
        prim_store64(&to[i], words[i]);
    prim_flush(s->software, lane, FMT_LINE);
    prim_fence_full();
}

static int is_identity(struct gismo_store *s, uint32_t lane, const uint8_t boot[16], const uint8_t uuid[16]) {
    prim_refresh(s->software, &s->identities[lane], FMT_LINE);
    return prim_equal(s->identities[lane].boot_id, boot, 16) &&
           (uuid == NULL || prim_equal(s->identities[lane].state_dir_uuid, uuid, 16));
}

/*
 * The metadata that this host may have stored to and not flushed: a word that nobody else looks at, or that a process died over. In
 * somebody else's hands its late write-back would undo what he wrote (invariant 3: who gives bytes away flushes them first).
 */
void lane_flush(struct gismo_store *s) {
    if (!s->software)
        return;
    uint64_t pins = s->chunks * FMT_LINE, row = (uint64_t)s->sb.max_lanes * sizeof(struct fmt_ring);
    prim_flush(s->software, s->base + s->sb.lanes_offset, s->sb.pins_offset - s->sb.lanes_offset);
    prim_flush(s->software, s->pins + s->lane * pins, pins);
    prim_flush(s->software, (uint8_t *)s->rings + s->lane * row, row);
    for (uint32_t from = 0; from < s->sb.max_lanes; from++)
        prim_flush(s->software, &s->rings[(uint64_t)from * s->sb.max_lanes + s->lane].head, FMT_LINE);
    prim_fence_store();
}

uint64_t lane_register(struct gismo_store *s, uint32_t lane) {
    return agree_peek(s, agree_register_of(s, AGREE_LANE, lane));
}

/* Who has woken this lane, or taken it over: what stands in its register when it is ours. */
static uint32_t own_taker(const struct gismo_store *s) { return s->taker ? s->taker : s->lane + 1; }

enum host_standing lane_standing(struct gismo_store *s) {
    uint64_t value = lane_register(s, s->lane), ours = loc_load(&s->host.header->incarnation);
    /* One more, and by us: just being woken, by a process that has not yet come to say so here. */
    bool waking = lane_incarnation(value) == ours + 1 && lane_taker(value) == own_taker(s);
    if (lane_incarnation(value) < ours) /* by damage only */
        return HOST_IN_PLACE;
    if ((lane_incarnation(value) > ours && !waking) || FMT_STATE(value) == GISMO_LANE_RELEASED)
        return HOST_LOST;
    return FMT_STATE(value) == GISMO_LANE_FENCED ? HOST_FENCED : HOST_IN_PLACE;
}

struct change {
    uint64_t from, to;
};

static int exactly(uint64_t old_value, void *ctx, uint64_t *new_value) {
    const struct change *change = ctx;
    *new_value = change->to;
    return old_value == change->from || old_value == change->to; /* the latter: our own try that was interrupted */
}

int lane_agree(struct gismo_store *s, uint32_t lane, uint64_t from, uint64_t to) {
    struct change change = {from, to};
    uint64_t agreed;
    return agree_change(s, agree_register_of(s, AGREE_LANE, lane), exactly, &change, &agreed);
}

/* A forced host id whose lane is ACTIVE under another boot: rebooted, or another machine with the same number? */
static int is_silent(struct gismo_store *s, uint32_t lane) {
    prim_refresh(s->software, &s->lanes[lane].heartbeat, FMT_LINE);
    uint64_t seen = prim_load64(&s->lanes[lane].heartbeat), end = now_ns() + SILENCE_NS;
    while (now_ns() < end) {
        sleep_ns(50000000);
        prim_refresh(s->software, &s->lanes[lane].heartbeat, FMT_LINE);
        if (prim_load64(&s->lanes[lane].heartbeat) != seen)
            return 0;
    }
    return 1;
}

/*
 * What can be said of a lane by its register and its identity, the register read first: if it is still the same when we change it,
 * then the identity was at least so young. QUIET (or FREE) is what it says only in the incarnation of the register: else somebody
 * has just agreed to wake it, and is about to say so.
 */
struct sight {
    uint64_t value, word;
};

static struct sight look_at(struct gismo_store *s, uint32_t lane) {
    struct sight sight = {.value = lane_register(s, lane)};
    sight.word = lane_state_word(s, lane);
    return sight;
}

static bool is_left(struct sight sight, uint32_t state) {
    return FMT_STATE(sight.word) == state && FMT_GENERATION(sight.word) >= lane_incarnation(sight.value) &&
           FMT_STATE(sight.value) != LANE_JOINING;
}

/* Another host is tidying the lane up and will leave it in a moment: P10. */
static bool is_being_tidied(struct sight sight, uint32_t lane) {
    uint32_t taker = lane_taker(sight.value);
    return taker != 0 && taker != lane + 1 && FMT_STATE(sight.value) != GISMO_LANE_RELEASED &&
           !is_left(sight, GISMO_LANE_QUIET);
}

/* The caller knows that nobody is left who used it in this boot: and its heartbeat says nothing else. P10, proof b. */
static bool has_restarted(struct gismo_store *s, uint32_t lane, const uint8_t boot[16]) {
    return s->restarted && is_identity(s, lane, boot, NULL) && is_silent(s, lane);
}

/* May a joiner with this boot id have the lane, whose id it was given? own_uuid: of the state directory it returns with. */
static int may_take(struct gismo_store *s, uint32_t lane, const uint8_t boot[16], const uint8_t *own_uuid,
                    uint64_t *from) {
    struct sight sight = look_at(s, lane);
    uint32_t decided = FMT_STATE(sight.value);
    *from = sight.value;
    if (is_left(sight, GISMO_LANE_FREE) || is_left(sight, GISMO_LANE_QUIET) || decided == GISMO_LANE_RELEASED)
        return GISMO_OK;
    if (decided == LANE_JOINING && lane_taker(sight.value) == 0)
        return GISMO_OK; /* of this id, with the lock that we have now: it is dead */
    if (is_being_tidied(sight, lane))
        return fail(
            GISMO_EBUSY,
            "host %u is taking host id %u over and does not come to the end of it: run `gismo evict` for that id "
            "there",
            lane_taker(sight.value) - 1, lane);
    if (own_uuid ? is_identity(s, lane, boot, own_uuid) : !is_identity(s, lane, boot, NULL) && is_silent(s, lane))
        return GISMO_OK; /* back again: P10, proof b */
    if (own_uuid == NULL && has_restarted(s, lane, boot))
        return GISMO_OK;
    return fail(decided == GISMO_LANE_FENCED ? GISMO_EFENCED : GISMO_EHOSTINUSE,
                "host id %u belongs to another living host, or to one on this machine whose state directory was "
                "removed while it was "
                "in use: choose another GISMO_HOST_ID, or the same GISMO_STATE_DIR for all processes of one host",
                lane);
}

static int any_lane(struct gismo_store *s, const uint8_t boot[16], uint64_t *from) {
    enum { A_FREE, A_QUIET, AT_LAST, RANKS };
    int found[RANKS] = {-1, -1, -1};
    uint64_t values[RANKS];
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++) {
        if (FMT_STATE(lane_state_word(s, lane)) == GISMO_LANE_FREE && found[A_FREE] >= 0)
            continue; /* one is enough; most are FREE */
        struct sight sight = look_at(s, lane);
        bool joining = FMT_STATE(sight.value) == LANE_JOINING && lane_taker(sight.value) == 0, quiet;
        quiet = is_left(sight, GISMO_LANE_QUIET);
        if (quiet && is_identity(s, lane, boot, NULL)) {
            *from = sight.value; /* left in order on this machine, its state directory is gone or another's */
            return (int)lane;
        }
        /* Of this machine who is joining has the lock that we have now, so he is dead; of another he may be at it. */
        int rank = joining                                                  ? s->is_dax ? AT_LAST : A_FREE
                   : is_left(sight, GISMO_LANE_FREE)                        ? A_FREE
                   : quiet || FMT_STATE(sight.value) == GISMO_LANE_RELEASED ? A_QUIET
                                                                            : RANKS;
        if (rank < RANKS && found[rank] < 0) {
            found[rank] = (int)lane;
            values[rank] = sight.value;
        }
    }
    for (int rank = 0; rank < RANKS; rank++) {
        if (found[rank] < 0)
            continue;
        *from = values[rank];
        return found[rank];
    }
    return fail(GISMO_EFULL,
                "all %u host ids of the store are taken: `gismo hosts` shows by whom; format with a larger --max-hosts",
                s->sb.max_lanes);
}

/* The lane, and what its register said then. own_uuid: of the state directory with which this host returns, or NULL. */
static int choose(struct gismo_store *s, int32_t host_id, const uint8_t boot[16], const uint8_t *own_uuid,
                  uint64_t *from) {
    if (host_id < 0)
        return any_lane(s, boot, from);
    if ((uint32_t)host_id >= s->sb.max_lanes)
        return fail(GISMO_EINVAL, "host id %d is out of range: this store has room for hosts 0..%u", host_id,
                    s->sb.max_lanes - 1);
    int status = may_take(s, (uint32_t)host_id, boot, own_uuid, from);
    return status == GISMO_OK ? host_id : status;
}

static int fill(struct gismo_store *s) {
    evict_remember(s);
    return chunk_rebuild(s);
}

static int fill_state(struct gismo_store *s) { return GUARDED(s, fill(s)); }

static bool anybody_lives(struct gismo_store *s) {
    for (uint32_t i = 0; i < HOST_PROCESSES; i++) {
        uint64_t p = loc_load(&s->host.process[i].word);
        if ((p & 0xff) == HOST_PROCESS_LIVE && host_alive(s, i, p >> 8))
            return true;
    }
    return false;
}

/* The incarnation in which we have the lane now. */
static int take_lane(struct gismo_store *s, int32_t host_id, const uint8_t boot[16], uint64_t *incarnation) {
    uint64_t from = 0;
    if (s->granted) {
        s->lane = (uint32_t)host_id;
        *incarnation = s->granted;
    } else {
        int chosen = choose(s, host_id, boot, s->state_mapping ? s->host.header->uuid : NULL, &from);
        if (chosen < 0)
            return chosen;
        s->lane = (uint32_t)chosen;
        uint64_t seen = FMT_GENERATION(lane_state_word(s, s->lane)), last = lane_incarnation(from);
        *incarnation = (last > seen ? last : seen) + 1;
    }
    /* From here on what this host has in its cache of its own lane is believed. If another machine had the lane, nothing
     * may be there that was read in that time. (Its arenas: chunk_rebuild.) If it was ours, what dead processes stored and did
     * not flush must not stay in our cache alone. */
    uint32_t state = FMT_STATE(lane_state_word(s, s->lane));
    s->takes_over = state != GISMO_LANE_FREE && (s->granted || !is_identity(s, s->lane, boot, NULL));
    if (s->takes_over)
        prim_refresh(s->software, s->base + s->sb.lanes_offset, s->sb.data_offset - s->sb.lanes_offset);
    else if (state != GISMO_LANE_FREE)
        lane_flush(s);
    return s->granted ? GISMO_OK : lane_agree(s, s->lane, from, LANE_VALUE(*incarnation, 0, LANE_JOINING));
}

static int join_new(struct gismo_store *s, int32_t host_id) {
    uint8_t boot[16], uuid[16];
    uint64_t incarnation = 0;
    host_read_boot_id(boot);
    int status = host_random(uuid, sizeof uuid);
    if (status == GISMO_OK)
        status = take_lane(s, host_id, boot, &incarnation);
    if (status)
        return status;
    if (s->state_mapping) { /* of the void directory. Who registers there late finds out (activate) */
        unlinkat(s->state_dir_fd, "state", 0);
        host_forget(s);
    }
    /* The state stays what it was (not ACTIVE) until the state directory is there: a joiner that dies leaves a lane to take. */
    uint32_t state = FMT_STATE(lane_state_word(s, s->lane));
    set_state(s, incarnation, state == GISMO_LANE_FREE ? GISMO_LANE_FREE : GISMO_LANE_QUIET);
    write_identity(s, boot, uuid);
    if (s->is_dax && s->granted == 0) {
        sleep_ns(SETTLE_NS);
        if (!is_identity(s, s->lane, boot, uuid))
            return fail(GISMO_EHOSTINUSE,
                        "another host took host id %u at the same moment: set GISMO_HOST_ID on each host", s->lane);
    }
    return host_create(s, s->lane, incarnation, uuid, fill_state);
}

/*
 * Is the lane still that of the state directory we found? GISMO_ENOTFOUND: no, and nobody here thinks so any more; the directory is
 * void. That is so when another took the lane, or when the lane was fenced and all its processes are dead (P10, proof b).
 */
static int check_identity(struct gismo_store *s) {
    enum host_standing standing = lane_standing(s);
    if (standing == HOST_IN_PLACE && is_identity(s, s->lane, s->host.header->boot_id, s->host.header->uuid))
        return GISMO_OK;
    /* It may be one that has just opened, too, and is about to find out the same. */
    for (uint64_t end = now_ns() + FIND_OUT_NS; now_ns() < end; sleep_ns(2000000))
        if (!anybody_lives(s))
            return GISMO_ENOTFOUND;
    return standing == HOST_FENCED
               ? fail(GISMO_EFENCED, "this host (id %u) was fenced: stop its processes and open again", s->lane)
               : fail(GISMO_EFENCED,
                      "host id %u was given to another host while processes of this one still run: stop them, then "
                      "open again",
                      s->lane);
}

static int not_in_time(struct gismo_store *s, uint32_t index, const char *what) {
    return fail(GISMO_EBUSY,
                "process %lld of this host (%.63s) %s and has not come to the end of it: it may be stopped (SIGSTOP); "
                "let it go on, or kill it, and open again",
                (long long)s->host.process[index].pid, s->host.process[index].command, what);
}

/*
 * QUIET to ACTIVE, by agreement: a QUIET lane may be taken by another host at any moment. The caller has this host's claim of
 * the register, for so long and no longer: what comes after may be done by several, and late, because all of them are registered
 * and live, so the lane does not become QUIET again. GISMO_ENOTFOUND: another has taken it.
 */
static int agree_to_wake(struct gismo_store *s, uint64_t *incarnation) {
    *incarnation = loc_load(&s->host.header->incarnation);
    if (lane_state_word(s, s->lane) == FMT_WORD(*incarnation, GISMO_LANE_ACTIVE))
        return GISMO_OK;
    uint64_t value = lane_register(s, s->lane), ours = LANE_VALUE(++*incarnation, own_taker(s), GISMO_LANE_ACTIVE);
    if (value == ours)
        return GISMO_OK; /* agreed by one that has died since, or is about to say so */
    int status = lane_standing(s) == HOST_IN_PLACE ? lane_agree(s, s->lane, value, ours) : GISMO_EBUSY;
    return status == GISMO_EBUSY ? GISMO_ENOTFOUND : status;
}

/*
 * We are registered, so who takes leave_claim from now on finds us and leaves the lane ACTIVE. Who has it already may have
 * looked before we were there: wait for it, unless it is dead.
 * GISMO_ENOTFOUND: the lane is not ours any more. We look after we registered: whoever made the directory void did so before
 * looking for those who live in it.
 */
static int activate(struct gismo_store *s) {
    struct host_header *h = s->host.header;
    uint64_t end = now_ns() + lane_join_wait_ns, seen;
    prim_fence_full();
    for (;; sleep_ns(200000)) {
        bool late = now_ns() > end;
        if ((seen = loc_load(&h->leave_claim)) != 0) {
            uint32_t index = host_claim_index(seen);
            if (!host_alive(s, index, host_claim_epoch(seen)))
                (void)loc_cas(&h->leave_claim, &seen, (uint64_t)0);
            else if (late)
                return not_in_time(s, index, "was the last to leave the store");
            continue;
        }
        uint64_t incarnation = loc_load(&h->incarnation), word = lane_state_word(s, s->lane);
        if (word == FMT_WORD(incarnation, GISMO_LANE_ACTIVE)) {
            uint64_t before = now_ns(); /* of the look: see silence_look */
            if (lane_standing(s) != HOST_IN_PLACE)
                return GISMO_ENOTFOUND;
            loc_store(&h->fence_seen_ns, before);
            return GISMO_OK;
        }
        uint64_t *claim = &s->host.lane_claim[s->lane];
        if (!host_claim(s, claim)) {
            seen = loc_load(claim);
            if (late && seen)
                return not_in_time(s, host_claim_index(seen), "began to join the store");
            continue;
        }
        int status = agree_to_wake(s, &incarnation);
        host_unclaim(s, claim);
        if (status != GISMO_OK)
            return status;
        if (loc_load(&h->incarnation) != incarnation)
            loc_store(&h->incarnation, incarnation); /* before the identity: who finds that goes by this */
        if (lane_state_word(s, s->lane) != FMT_WORD(incarnation, GISMO_LANE_ACTIVE))
            set_state(s, incarnation, GISMO_LANE_ACTIVE);
    }
}

/* The lock, and beside it a second one whose place is our pid: for the message of who waits, never for decisions. */
static int joining_lock(struct gismo_store *s) {
    int status = medium_lock(s->fd, MEDIUM_LOCK_JOIN, 1, lane_join_wait_ns);
    if (status == GISMO_EBUSY) {
        long long pid = (long long)medium_first_lock(s->fd, MEDIUM_LOCK_JOINER, PID_LIMIT) - MEDIUM_LOCK_JOINER;
        return pid > 0 ? fail(GISMO_EBUSY,
                              "process %lld of this machine (as its own PID namespace counts) began to join the store "
                              "and has not come to the end of it: it may be stopped (SIGSTOP); let it go on, or kill "
                              "it, and open again",
                              pid)
                       : fail(GISMO_EBUSY, "other processes of this machine are joining the store all the time: try "
                                           "again");
    }
    if (status == GISMO_OK)
        (void)medium_lock(s->fd, MEDIUM_LOCK_JOINER + getpid(), 1, 0);
    return status;
}

static void joining_unlock(struct gismo_store *s) {
    medium_unlock(s->fd, MEDIUM_LOCK_JOINER + getpid());
    medium_unlock(s->fd, MEDIUM_LOCK_JOIN);
}

/* The state directory that is there: GISMO_ENOTFOUND if there is none, or it is void (then it is still mapped). */
static int join_existing(struct gismo_store *s, int32_t host_id) {
    int status = host_attach(s);
    if (status)
        return status;
    if (host_id >= 0 && (uint32_t)host_id != s->lane)
        return fail(GISMO_EHOSTINUSE,
                    "the state directory %s belongs to host id %u, not %d: use another GISMO_STATE_DIR for another "
                    "host",
                    s->state_path, s->lane, host_id);
    return check_identity(s);
}

/* All others are gone, or have nothing left to do but what we are doing. */
static bool is_last(struct gismo_store *s) {
    for (uint32_t i = 0; i < HOST_PROCESSES; i++) {
        const struct host_process *p = &s->host.process[i];
        uint64_t word = loc_load(&p->word);
        bool leaves = (word & 0xff) == HOST_PROCESS_LIVE && loc_load(&p->leaving) == word >> 8;
        if (i != s->index && (word & 0xff) != HOST_PROCESS_FREE && !leaves)
            return false;
    }
    return true;
}

/*
 * The last one out says so. Its entry stays LIVE until QUIET is written, so its claim cannot be taken from it. Of several that leave at
 * once the one that has the claim does it: each has said that it leaves before it tries, and looks again after it gave the claim back.
 */
void lane_leave(struct gismo_store *s) {
    bool others = false, last = false;
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++)
        others |= lane != s->lane && FMT_STATE(lane_state_word(s, lane)) != GISMO_LANE_FREE;
    if (others && is_last(s)) { /* room that nobody here will use; alone, it would only have to be leased again */
        evict_finish(s);
        (void)unit_return_empty(s);
    }
    loc_store(&s->host.process[s->index].leaving, s->epoch);
    prim_fence_full();
    /* Held for one store: who joins waits for it (activate). */
    while (!last && is_last(s) && host_claim(s, &s->host.header->leave_claim)) {
        prim_fence_full();
        last = is_last(s);
        if (last && lane_standing(s) != HOST_LOST) {
            lane_flush(s);
            set_state(s, loc_load(&s->host.header->incarnation), GISMO_LANE_QUIET);
        }
        host_unclaim(s, &s->host.header->leave_claim);
        prim_fence_full();
    }
}

static int enter(struct gismo_store *s) {
    int status = host_register(s);
    if (status != GISMO_OK)
        return status;
    status = activate(s);
    if (status == GISMO_ENOTFOUND &&
        s->granted) { /* fenced while we took it over: whoever did that waits for our QUIET */
        lane_leave(s);
        return fail(GISMO_EBUSY, "another host is evicting host %u", s->lane);
    }
    if (status == GISMO_ENOTFOUND) { /* lost just then: give all back and look again */
        host_unregister(s);
        host_forget(s);
        return GISMO_EEXIST;
    }
    return status;
}

int lane_join(struct gismo_store *s, const char *state_dir, int32_t host_id) {
    int status = host_open_directory(s, state_dir);
    uint64_t end = now_ns() + lane_join_wait_ns;
    if (status)
        return status;
    for (int attempt = 0; attempt < 8 || now_ns() < end; attempt++) {
        status = join_existing(s, host_id);
        if (status == GISMO_OK)
            status = enter(s);
        if (status != GISMO_ENOTFOUND && status != GISMO_EEXIST)
            return status;
        int32_t lane = host_id < 0 && s->state_mapping ? (int32_t)s->lane : host_id; /* that of a void directory */
        host_forget(s);
        if (status == GISMO_EEXIST) {
            sleep_ns(1000000);
            continue;
        }
        while (lane >= 0 && s->granted == 0 && (uint32_t)lane < s->sb.max_lanes && now_ns() < end &&
               is_being_tidied(look_at(s, (uint32_t)lane), (uint32_t)lane))
            sleep_ns(2000000);
        status = joining_lock(s);
        if (status)
            return status;
        status = join_existing(s, host_id); /* somebody may have been faster */
        if (status == GISMO_ENOTFOUND) {
            /* With a void directory we return to its lane, if we still may. */
            lane = host_id < 0 && s->state_mapping ? (int32_t)s->lane : host_id;
            status = GUARDED(s, join_new(s, lane));
            if (lane != host_id && (status == GISMO_EHOSTINUSE || status == GISMO_EFENCED))
                status = GUARDED(s, join_new(s, host_id));
            if (status == GISMO_EBUSY && now_ns() < end)
                status = GISMO_EEXIST; /* another host was faster with the lane */
        }
        if (status == GISMO_OK)
            status = enter(s);
        joining_unlock(s);
        if (status != GISMO_EEXIST)
            return status;
        host_forget(s);
        sleep_ns(1000000);
    }
    return fail(GISMO_EBUSY, "the state directory %s changes under us: try again", s->state_path);
}
