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

static int next_incarnation(uint64_t old_value, void *ctx, uint64_t *new_value) {
    uint64_t *at_least = ctx;
    uint64_t incarnation = old_value > *at_least ? old_value : *at_least;
    *new_value = incarnation + 1;
    return 1;
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

static int choose(struct gismo_store *s, int32_t host_id, const uint8_t boot[16]) {
    if (host_id >= 0) {
        if ((uint32_t)host_id >= s->sb.max_lanes)
            return fail(GISMO_EINVAL, "host id %d is out of range: this store has room for hosts 0..%u", host_id,
                        s->sb.max_lanes - 1);
        uint32_t state = FMT_STATE(lane_state_word(s, (uint32_t)host_id));
        if (state == GISMO_LANE_FREE || state == GISMO_LANE_QUIET || state == GISMO_LANE_RELEASED)
            return host_id;
        if (state == GISMO_LANE_ACTIVE && !is_identity(s, (uint32_t)host_id, boot, NULL) &&
            is_silent(s, (uint32_t)host_id))
            return host_id;
        return fail(state == GISMO_LANE_FENCED ? GISMO_EFENCED : GISMO_EHOSTINUSE,
                    "host id %d belongs to another living host, or to one on this machine whose state directory was "
                    "removed while it was "
                    "in use: choose another GISMO_HOST_ID, or the same GISMO_STATE_DIR for all processes of one host",
                    host_id);
    }
    int free_lane = -1, quiet_lane = -1;
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++) {
        uint32_t state = FMT_STATE(lane_state_word(s, lane));
        if (state == GISMO_LANE_QUIET && is_identity(s, lane, boot, NULL))
            return (int)
                lane; /* left in order on this machine, its state directory is gone or another's: take its room over */
        if ((state == GISMO_LANE_FREE || state == GISMO_LANE_RELEASED) && free_lane < 0)
            free_lane = (int)lane;
        if (state == GISMO_LANE_QUIET && quiet_lane < 0)
            quiet_lane = (int)lane;
    }
    if (free_lane >= 0)
        return free_lane;
    if (quiet_lane >= 0)
        return quiet_lane;
    return fail(GISMO_EFULL,
                "all %u host ids of the store are taken: `gismo hosts` shows by whom; format with a larger --max-hosts",
                s->sb.max_lanes);
}

static int fill_state(struct gismo_store *s) { return GUARDED(s, chunk_rebuild(s)); }

static int join_new(struct gismo_store *s, int32_t host_id) {
    uint8_t boot[16], uuid[16];
    host_read_boot_id(boot);
    int status = host_random(uuid, sizeof uuid);
    if (status)
        return status;
    int chosen = choose(s, host_id, boot);
    if (chosen < 0)
        return chosen;
    s->lane = (uint32_t)chosen;
    /* From here on what this host has in its cache of its own lane is believed. If another machine had the lane, nothing
     * may be there that was read in that time. (Its arenas: chunk_rebuild.) */
    s->takes_over = FMT_STATE(lane_state_word(s, s->lane)) != GISMO_LANE_FREE && !is_identity(s, s->lane, boot, NULL);
    prim_refresh(s->software && s->takes_over, s->base + s->sb.lanes_offset, s->sb.data_offset - s->sb.lanes_offset);
    uint64_t old = lane_state_word(s, s->lane), incarnation;
    uint64_t at_least = FMT_GENERATION(old);
    status = agree_change(s, agree_register_of(s, AGREE_LANE, s->lane), next_incarnation, &at_least, &incarnation);
    if (status)
        return status;
    /* The state stays what it was (not ACTIVE) until the state directory is there: a joiner that dies leaves a lane to take. */
    set_state(s, incarnation, FMT_STATE(old) == GISMO_LANE_FREE ? GISMO_LANE_FREE : GISMO_LANE_QUIET);
    write_identity(s, boot, uuid);
    if (s->is_dax) {
        sleep_ns(SETTLE_NS);
        if (!is_identity(s, s->lane, boot, uuid))
            return fail(GISMO_EHOSTINUSE,
                        "another host took host id %u at the same moment: set GISMO_HOST_ID on each host", s->lane);
    }
    return host_create(s, s->lane, incarnation, uuid, fill_state);
}

/* Is the state directory we found still the lane's? If another took the lane since, it was QUIET: then ours is void. */
static int check_identity(struct gismo_store *s) {
    uint64_t word = lane_state_word(s, s->lane);
    if (is_identity(s, s->lane, s->host.header->boot_id, s->host.header->uuid) &&
        FMT_GENERATION(word) == s->incarnation)
        return FMT_STATE(word) == GISMO_LANE_FENCED
                   ? fail(GISMO_EFENCED, "this host (id %u) was fenced: stop its processes and open again", s->lane)
                   : GISMO_OK;
    for (uint32_t i = 0; i < HOST_PROCESSES; i++) {
        uint64_t p = loc_load(&s->host.process[i].word);
        if ((p & 0xff) == HOST_PROCESS_LIVE && host_alive(s, i, p >> 8))
            return fail(GISMO_EFENCED,
                        "host id %u was given to another host while processes of this one still run: stop them, then "
                        "open again",
                        s->lane);
    }
    return GISMO_ENOTFOUND;
}

/*
 * We are registered, so who takes leave_claim from now on finds us and leaves the lane ACTIVE. Who has it already may have
 * looked before we were there: wait for it, unless it is dead. Joiners need no claim against each other: all store the same.
 */
static int activate(struct gismo_store *s) {
    uint64_t *claim = &s->host.header->leave_claim, end = now_ns() + lane_join_wait_ns, seen;
    while ((seen = loc_load(claim)) != 0) {
        uint32_t index = host_claim_index(seen);
        if (!host_alive(s, index, host_claim_epoch(seen))) {
            (void)loc_cas(claim, &seen, (uint64_t)0);
            continue;
        }
        if (now_ns() > end)
            return fail(GISMO_EBUSY,
                        "process %lld of this host (%.63s) was the last to leave the store and has not come to the end "
                        "of it: it may be stopped (SIGSTOP); let it go on, or kill it, and open again",
                        (long long)s->host.process[index].pid, s->host.process[index].command);
        sleep_ns(200000);
    }
    if (FMT_STATE(lane_state_word(s, s->lane)) != GISMO_LANE_ACTIVE)
        set_state(s, s->incarnation, GISMO_LANE_ACTIVE);
    return GISMO_OK;
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

int lane_join(struct gismo_store *s, const char *state_dir, int32_t host_id) {
    int status = host_open_directory(s, state_dir);
    if (status)
        return status;
    for (int attempt = 0; attempt < 8; attempt++) {
        status = host_attach(s);
        if (status == GISMO_OK) {
            if (host_id >= 0 && (uint32_t)host_id != s->lane)
                return fail(
                    GISMO_EHOSTINUSE,
                    "the state directory %s belongs to host id %u, not %d: use another GISMO_STATE_DIR for another "
                    "host",
                    s->state_path, s->lane, host_id);
            status = check_identity(s);
            if (status == GISMO_ENOTFOUND) {
                int keep = dup(s->state_dir_fd);
                unlinkat(s->state_dir_fd, "state", 0);
                host_detach(s);
                s->state_dir_fd = keep;
                continue;
            }
            if (status == GISMO_OK)
                status = host_register(s);
            return status == GISMO_OK ? activate(s) : status;
        }
        if (status != GISMO_ENOTFOUND)
            return status;
        status = joining_lock(s);
        if (status)
            return status;
        int probe = openat(s->state_dir_fd, "state", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (probe >= 0) { /* somebody was faster */
            close(probe);
            joining_unlock(s);
            continue;
        }
        status = GUARDED(s, join_new(s, host_id));
        if (status == GISMO_OK) { /* attach is idempotent over what join_new mapped */
            status = host_register(s);
            if (status == GISMO_OK)
                status = activate(s);
            joining_unlock(s);
            return status;
        }
        joining_unlock(s);
        if (status != GISMO_EEXIST)
            return status;
    }
    return fail(GISMO_EBUSY, "the state directory %s changes under us: try again", s->state_path);
}

static bool is_last(struct gismo_store *s) {
    for (uint32_t i = 0; i < HOST_PROCESSES; i++)
        if (i != s->index && (loc_load(&s->host.process[i].word) & 0xff) != HOST_PROCESS_FREE)
            return false;
    return true;
}

/* The last one out says so. Its entry stays LIVE until QUIET is written, so its claim cannot be taken from it. */
void lane_leave(struct gismo_store *s) {
    bool others = false;
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++)
        others |= lane != s->lane && FMT_STATE(lane_state_word(s, lane)) != GISMO_LANE_FREE;
    if (others && is_last(s)) /* room that nobody here will use; alone, it would only have to be leased again */
        (void)unit_return_empty(s);
    /* Held for one store: who joins waits for it (activate). */
    if (!host_claim(s, &s->host.header->leave_claim))
        return; /* another is at it, and will see that we are gone or still here; the lane stays ACTIVE at worst */
    prim_fence_full();
    if (is_last(s))
        set_state(s, s->incarnation, GISMO_LANE_QUIET);
    host_unclaim(s, &s->host.header->leave_claim);
}
