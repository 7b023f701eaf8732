/*
 * evict.c - taking a host out of the store that is gone: FENCED, RELEASED, and its lane taken over and tidied up. P10 of FORMAT.md.
 *
 * Each call does what can be done now and says how far it came; who waits calls again. Every step is an agreement or may be
 * repeated, so the one that evicts may die anywhere, and several may evict the same host.
 */
#include "internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TIDY_NS 500000000ull
#define ANSWER_NS 60000000ull /* within which a living host answers */
#define SERVE_PAUSE_NS 5000000ull
#define TRIES_SOON 8u  /* where something is left: so often soon again, for hosts answer within a few ticks, ... */
#define TRIES_MOST 21u /* ... then after twice as long each time, up to 41 s */

/* ---- the lane, held by us -------------------------------------------------------------------- */

static void remove_files(int fd) {
    DIR *d = fdopendir(fd);
    if (d == NULL) {
        close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            (void)unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
}

/* The state directory of the lane: nobody has the store open with it any more. */
static void remove_directory(struct gismo_store *s, const char *name) {
    int base = openat(s->state_dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (base < 0)
        return;
    char uuid[HOST_NAME_BYTES];
    host_directory_name(s, uuid);
    int inner = openat(base, uuid, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (inner >= 0)
        remove_files(inner);
    (void)unlinkat(base, uuid, AT_REMOVEDIR);
    close(base);
    (void)unlinkat(s->state_dir_fd, name, AT_REMOVEDIR);
}

/* What the lane asks of our own host, which may be waiting for us to come back. */
static void answer(struct gismo_store *s) {
    store_lock(s);
    (void)ring_receive_all(s);
    store_unlock(s);
}

/* Requests that waited, drafts and what was deleted: until all is done, or nothing has happened for a while. True: some is left. */
static bool tidy(struct gismo_store *s, struct gismo_store *lane) {
    uint64_t now = now_ns(), end = now + TIDY_NS, quiet_end = now + ANSWER_NS;
    while (now < end && now < quiet_end) {
        int done = gismo_tick(lane);
        if (done < 0)
            return true;
        if (done == 0 && loc_load(&lane->host.header->retire_hint) == 0)
            return false;
        answer(s);
        now = now_ns();
        if (done > 0)
            quiet_end = now + ANSWER_NS;
        else
            sleep_ns(2000000);
    }
    return true;
}

/* The register says (incarnation, ACTIVE) for us, and we have the claim of it. */
static int take_over(struct gismo_store *s, uint32_t host_id, uint64_t incarnation, gismo_evict_result *out) {
    loc_store(&s->host.silence[host_id].taking, s->claim);
    char name[32], path[sizeof s->state_path + 40];
    snprintf(name, sizeof name, "lane.%u", host_id);
    snprintf(path, sizeof path, "%s/%s", s->state_path, name);
    struct gismo_store *lane = NULL;
    uint64_t before = now_ns();
    int status = store_open_lane(s, path, host_id, incarnation, &lane);
    if (status != GISMO_OK)
        return status;
    s->serve_cost_ns += now_ns() - before;
    out->left = tidy(s, lane);
    gismo_host_info info;
    if (gismo_host(lane, host_id, &info) == GISMO_OK) {
        out->objects = info.objects;
        out->object_bytes = info.used_bytes;
    }
    gismo_free(lane);
    remove_directory(s, name);
    loc_store(&s->host.silence[host_id].taking, (uint64_t)0);
    /* A host that waited for this is there again at once, in the next incarnation: ours was brought to its end all the same. */
    uint64_t word = lane_state_word(s, host_id);
    out->state = FMT_GENERATION(word) > incarnation ? (uint32_t)GISMO_LANE_QUIET : FMT_STATE(word);
    return GISMO_OK;
}

/* ---- the steps --------------------------------------------------------------------------------- */

static int still_alive(uint32_t host_id, uint64_t samples) {
    return fail(
        GISMO_EBUSY,
        "host %u may be alive: its heartbeat stood still at %llu of %u looks, one a second; stop its processes, "
        "wait, or force it",
        host_id, (unsigned long long)samples, GISMO_SILENT_SAMPLES);
}

/* A lane that somebody is joining or taking over, who has not come to the end of it. */
static int unfinished(struct gismo_store *s, uint32_t host_id, uint64_t value, uint32_t flags) {
    uint32_t taker = lane_taker(value);
    if (taker != 0 && taker <= s->sb.max_lanes) {
        uint32_t state = FMT_STATE(lane_state_word(s, taker - 1));
        if (state == GISMO_LANE_QUIET || state == GISMO_LANE_FREE)
            return GISMO_OK; /* no process of it is left */
    }
    if (flags & GISMO_EVICT_CONFIRMED_OFF)
        return GISMO_OK;
    return taker != 0
               ? fail(GISMO_EBUSY,
                      "host %u was taking host %u over and has not come to the end of it: evict host %u there, or "
                      "confirm that the machine of host %u is off",
                      taker - 1, host_id, host_id, taker - 1)
               : fail(GISMO_EBUSY,
                      "host %u is joining the store, or its process died while it did: open the store there, or "
                      "confirm that the machine is off",
                      host_id);
}

/*
 * Is the lane, as `value` has it, of that boot of its host? Who returns agrees on the next incarnation before it writes its identity, so
 * an identity that was read after the register is of the register's incarnation, or of a host that is just joining.
 */
static bool is_of_boot(struct gismo_store *s, uint32_t host_id, uint64_t value, const uint8_t boot_id[16]) {
    const struct fmt_identity *identity = &s->identities[host_id];
    prim_refresh(s->software, identity, sizeof *identity);
    bool joining = FMT_STATE(value) == LANE_JOINING && lane_taker(value) == 0;
    return !joining && memcmp(identity->boot_id, boot_id, sizeof identity->boot_id) == 0;
}

/* The caller has the claim of the register. One agreement, or what is in its way. 1 = done, look again. */
static int step(struct gismo_store *s, uint32_t host_id, const uint8_t *boot_id, uint32_t flags,
                gismo_evict_result *out) {
    uint64_t word = lane_state_word(s, host_id), value = lane_register(s, host_id), i = lane_incarnation(value);
    /* What a process of ours has begun is brought to an end in any case. */
    if (boot_id && lane_taker(value) != s->lane + 1 && !is_of_boot(s, host_id, value, boot_id))
        return fail(GISMO_ENOTFOUND, "host %u is not in the boot any more that was to be evicted: it has been back",
                    host_id);
    bool quiet = FMT_STATE(word) == GISMO_LANE_QUIET && FMT_GENERATION(word) >= i;
    uint32_t decided = FMT_STATE(value), taker = lane_taker(value), us = s->lane + 1;
    int status = GISMO_OK;
    out->state = decided == GISMO_LANE_ACTIVE || decided == LANE_JOINING ? FMT_STATE(word) : decided;
    if ((decided == LANE_JOINING || (decided == GISMO_LANE_ACTIVE && !quiet)) && taker == us)
        return take_over(s, host_id, i, out); /* begun by a process of ours that died */
    /* Fenced by another while a process of ours had it, which is dead, for we have its claim. No proof is better. */
    bool died_here = decided == GISMO_LANE_FENCED && taker == us;
    if (decided == LANE_JOINING)
        status = unfinished(s, host_id, value, flags);
    if (decided == GISMO_LANE_RELEASED || decided == LANE_JOINING || died_here ||
        (decided == GISMO_LANE_ACTIVE && quiet)) {
        /* Of the others that try, one gets it; and who returns by itself meanwhile keeps it. */
        if (status == GISMO_OK) {
            loc_store(&s->host.silence[host_id].taking, s->claim); /* before: should we die, somebody looks */
            status = lane_agree(s, host_id, value, LANE_VALUE(i + 1, us, LANE_JOINING));
        }
        if (status != GISMO_OK)
            loc_store(&s->host.silence[host_id].taking, (uint64_t)0);
        return status == GISMO_OK ? take_over(s, host_id, i + 1, out) : status;
    }
    if (decided == GISMO_LANE_FENCED) {
        if (!quiet && !(flags & GISMO_EVICT_CONFIRMED_OFF))
            return fail(
                GISMO_EBUSY,
                "host %u is fenced, and what it could still write waits for proof that it stopped: close or kill "
                "its processes and open the store there once, or confirm that the machine is off",
                host_id);
        status = lane_agree(s, host_id, value, LANE_VALUE(i, taker, GISMO_LANE_RELEASED));
        return status == GISMO_OK ? 1 : status;
    }
    uint64_t samples = loc_load(&s->host.silence[host_id].samples);
    out->silent_samples = (uint32_t)(samples < GISMO_SILENT_SAMPLES ? samples : GISMO_SILENT_SAMPLES);
    if (!silence_suspect(s, host_id) && !(flags & GISMO_EVICT_FORCE))
        return still_alive(host_id, samples);
    status = lane_agree(s, host_id, value, LANE_VALUE(i, taker, GISMO_LANE_FENCED));
    return status == GISMO_OK ? 1 : status;
}

static int evict(struct gismo_store *s, uint32_t host_id, const uint8_t *boot_id, uint32_t flags,
                 gismo_evict_result *out) {
    memset(out, 0, sizeof *out);
    if (host_id >= s->sb.max_lanes)
        return fail(GISMO_EINVAL, "host id %u is out of range: this store has room for hosts 0..%u", host_id,
                    s->sb.max_lanes - 1);
    if (host_id == s->lane)
        return fail(GISMO_EINVAL, "a host cannot evict itself: close the store in all its processes instead");
    if (FMT_STATE(lane_state_word(s, host_id)) == GISMO_LANE_FREE)
        return fail(GISMO_ENOTFOUND, "there is no host %u", host_id);
    int nobody = 0, status = 1;
    if (!atomic_compare_exchange_strong(&s->evicting, &nobody, 1) || !host_claim(s, &s->host.lane_claim[host_id])) {
        if (nobody == 0)
            s->evicting = 0;
        return fail(GISMO_EBUSY, "this host is evicting host %u already", host_id);
    }
    for (int n = 0; n < 8 && status == 1; n++)
        status = step(s, host_id, boot_id, flags, out);
    host_unclaim(s, &s->host.lane_claim[host_id]);
    s->evicting = 0;
    return status == 1 ? fail(GISMO_EBUSY, "others are changing the state of host %u: try again", host_id) : status;
}

static bool is_ours(struct gismo_store *s, uint32_t lane) {
    uint64_t noted = loc_load(&s->host.silence[lane].taking);
    if (noted == 0)
        return false;
    uint64_t claim = loc_load(&s->host.lane_claim[lane]);
    if (claim != 0 && host_alive(s, host_claim_index(claim), host_claim_epoch(claim)))
        return false; /* it is still at it */
    if (lane_taker(lane_register(s, lane)) == s->lane + 1)
        return true;
    /* It died before it came so far, or another host has the lane now. */
    (void)loc_cas(&s->host.silence[lane].taking, &noted, (uint64_t)0);
    return false;
}

/* A new state directory: what it does not know is that this host was taking a lane over when the one before it was lost. */
void evict_remember(struct gismo_store *s) {
    for (uint32_t lane = 0; lane < s->sb.max_lanes && s->granted == 0; lane++) {
        if (lane == s->lane || FMT_STATE(lane_state_word(s, lane)) == GISMO_LANE_FREE)
            continue;
        uint64_t value = lane_register(s, lane), state = FMT_STATE(value);
        bool left = lane_state_word(s, lane) == FMT_WORD(lane_incarnation(value), GISMO_LANE_QUIET);
        if (lane_taker(value) == s->lane + 1 && (state == LANE_JOINING || (state == GISMO_LANE_ACTIVE && !left)))
            loc_store(&s->host.silence[lane].taking, (uint64_t)1); /* not a claim of anybody's */
    }
}

/*
 * The host is about to leave. What a process of it died over is in this host's cache alone, in part, and once our own lane is QUIET
 * anybody may take that one.
 */
void evict_finish(struct gismo_store *s) {
    gismo_evict_result result;
    for (uint32_t lane = 0; lane < s->sb.max_lanes && s->granted == 0; lane++)
        if (lane != s->lane && UNLIKELY(loc_load(&s->host.silence[lane].taking)) && is_ours(s, lane))
            (void)evict(s, lane, NULL, 0, &result);
}

/* What is wanted stands in the state directory: who asked, or was at it, may be dead. */
static bool serve_lane(struct gismo_store *s, uint32_t lane) {
    uint64_t *wanted = &s->host.silence[lane].wanted, seen = loc_load(wanted);
    bool unfinished_here = UNLIKELY(loc_load(&s->host.silence[lane].taking)) && is_ours(s, lane);
    if (LIKELY(seen == 0 && !unfinished_here) || lane == s->lane)
        return false;
    if (FMT_STATE(lane_state_word(s, lane)) != GISMO_LANE_QUIET && !unfinished_here) {
        (void)loc_cas(wanted, &seen, (uint64_t)0); /* its host is there again, and does it itself */
        return false;
    }
    gismo_evict_result result;
    if (evict(s, lane, NULL, 0, &result) != GISMO_OK)
        return true; /* another has it just now */
    /* Something left: another host did not answer in time, or still pins it. Its release will ask; its death will not. */
    if (!result.left)
        (void)loc_cas(wanted, &seen, (uint64_t)0); /* unless more is wanted since */
    else
        loc_add(wanted, 1);
    s->serve_tries = !result.left ? 0 : s->serve_tries < TRIES_MOST ? s->serve_tries + 1 : TRIES_MOST;
    return true;
}

int evict_serve(struct gismo_store *s) {
    bool did = false;
    if (s->granted || now_ns() < s->serve_after_ns)
        return 0;
    s->serve_cost_ns = 0;
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++)
        did |= serve_lane(s, lane);
    if (!did)
        return 0;
    /* With software coherence a large lane takes a while: not all the time. */
    uint32_t doublings = s->serve_tries > TRIES_SOON ? s->serve_tries - TRIES_SOON : 0;
    s->serve_after_ns = now_ns() + (SERVE_PAUSE_NS << doublings) + 10 * s->serve_cost_ns;
    return 1;
}

int gismo_evict_host(struct gismo_store *s, uint32_t host_id, const uint8_t *boot_id, uint32_t flags,
                     gismo_evict_result *out) {
    int status = store_enter(s);
    return status ? status : GUARDED(s, evict(s, host_id, boot_id, flags, out));
}
