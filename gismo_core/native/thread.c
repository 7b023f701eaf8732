/*
 * thread.c - the background thread of a process, the election of one per host, and fork.
 *
 * Each process has one thread; one of them is elected per host and does the host's work: heartbeat, rings, reaping, retiring,
 * returning arenas. All of that is safe when two do it at once (every step is claimed or idempotent), so the
 * election may be loose: a leader that is dead or silent (frozen) is replaced, and if it thaws it finds that out.
 *
 * Deaths are noticed by inotify on `locks`: when a process dies, the kernel closes its descriptor (IN_CLOSE_WRITE) and then drops
 * its lock. Only the leader has an inotify instance (128 per user is a common limit); without one it looks every 10 ms.
 */
#include "internal.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define BUSY_NS 10000000ull
#define CALM_NS 50000000ull
#define IDLE_NS 100000000ull
#define LAZY_NS 1000000000ull
#define SILENT_LEADER_NS 500000000ull
#define PUT_OFF_MAX 4u

enum { THREAD_NONE = 0, THREAD_RUNS = 1, THREAD_STOPPING = 2 };

struct runner {
    struct gismo_store *s;
    pthread_t thread;
    uint64_t beat_seen;
    uint64_t beat_seen_ns;
    uint64_t last_probe_ns;
    uint64_t operations_seen;
    uint64_t busy_until_ns;
    uint64_t last_heartbeat_ns;
    uint32_t kick_seen;
    uint32_t put_off; /* ticks in a row that an operation of our own was in the way of */
};

static uint64_t operations(const struct gismo_store *s) {
    const struct host_process *p = &s->host.process[s->index];
    return loc_load(&p->puts) + loc_load(&p->gets) + loc_load(&p->deletes);
}

static int others_active(struct gismo_store *s) {
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++)
        if (lane != s->lane && FMT_STATE(lane_state_word(s, lane)) == GISMO_LANE_ACTIVE)
            return 1;
    return 0;
}

/* What this process does for itself: requests for the chunks that it claims. Caller holds the lock. */
static int own_work(struct gismo_store *s) {
    int done = 0;
    s->work_left = 0;
    for (uint64_t w = 0; w < s->host.words; w++) {
        for (uint64_t bits = loc_load(&s->claimed[w]); bits; bits &= bits - 1) {
            uint32_t c = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits);
            if (!s->local[c].mine || (loc_load(&s->host.chunk[c].pending) == 0 && s->local[c].deleted == 0))
                continue;
            chunk_pending_locked(s, c);
            done += (int)__builtin_popcountll(chunk_retire_locked(s, c));
            chunk_settle_locked(s, c);
            /* Pinned, or being written. (An open chunk of cells is retired by the operation that needs its slots.) */
            struct local_chunk *l = &s->local[c];
            bool later = l->deleted && (!l->open || l->size_class == FMT_CLASS_LARGE);
            if (l->mine && (later || loc_load(&s->host.chunk[c].pending)))
                s->work_left = 1;
        }
    }
    if (UNLIKELY(loc_load(&s->host.header->wish_until_ns) != 0))
        chunk_close_draining_locked(s);
    uint64_t now = operations(s);
    if (now == s->idle_operations)
        for (uint32_t k = 0; k <= FMT_CLASSES; k++)
            chunk_close_if_empty_locked(s, k);
    s->idle_operations = now;
    return done;
}

/* A process that died waiting for room leaves its wish. Who lives and waits wishes again at once. */
static void forget_old_wish(struct gismo_store *s, uint64_t *wishes_seen, uint64_t *since_ns) {
    struct fmt_lane *lane = &s->lanes[s->lane];
    uint64_t wishes = prim_load64(&lane->wishes), now = now_ns();
    if (wishes != *wishes_seen || prim_load64(&lane->pages_wanted) == 0) {
        *wishes_seen = wishes;
        *since_ns = now;
    } else if (now - *since_ns > LAZY_NS) {
        prim_store64(&lane->pages_wanted, 0);
        prim_publish(s->software, &lane->pages_wanted, 8);
    }
}

/* Caller holds the lock. */
static int tick_locked(struct gismo_store *s, int leader) {
    if (UNLIKELY(loc_load(&s->host.header->standing) != HOST_IN_PLACE))
        return 0; /* from here on nothing of ours is written that need not be */
    if (leader && silence_look(s) != GISMO_OK)
        return 0;
    int done = own_work(s);
    if (leader) {
        silence_watch(s);
        done += ring_receive_all(s);
        if (loc_load(&s->host.header->retire_hint)) {
            loc_store(&s->host.header->retire_hint, (uint64_t)0);
            prim_fence_full();
            done += chunk_sweep_locked(s, 0);
            bool left = ring_send_outbound(s) > 0;
            for (uint64_t w = 0; w < s->host.words && !left; w++)
                left = loc_load(&s->host.retire[w]) != 0;
            if (left)
                loc_store(&s->host.header->retire_hint, (uint64_t)1);
        }
        if (quota_tick(s)) {
            chunk_sweep_locked(s, 1);
            done += unit_return_empty(s);
        }
        unit_publish_maps(s);
        forget_old_wish(s, &s->wishes_seen, &s->wishes_since_ns);
    }
    return done;
}

/* One round. leader = the host's work, too. Returns units of work done. */
int thread_tick(struct gismo_store *s, int leader) {
    int done = 0;
    store_lock(s);
    done += tick_locked(s, leader);
    store_unlock(s);
    return done;
}

/* The same for a process that only has its own work to do: not in the middle of one of its operations. -1 = it was. */
static int tick_aside(struct gismo_store *s) {
    if (!store_trylock(s))
        return -1;
    int done = tick_locked(s, 0);
    store_unlock(s);
    return done;
}

static void reap(struct gismo_store *s) {
    store_lock(s);
    int dead = recover_find_dead(s);
    store_unlock(s);
    while (dead > 0) {
        store_lock(s); /* in pieces, so that the process's own operations get in between */
        int did = recover_step(s);
        if (store_unlock(s))
            sleep_ns(50000); /* else we had it again before the one that waits is awake */
        if (!did)
            break;
    }
}

static int guarded_tick(struct gismo_store *s, int leader) { return GUARDED(s, thread_tick(s, leader)); }
static int guarded_tick_aside(struct gismo_store *s) { return GUARDED(s, tick_aside(s)); }
static int guarded_reap(struct gismo_store *s) { return GUARDED(s, (reap(s), 0)); }
static int guarded_serve(struct gismo_store *s) { return GUARDED(s, evict_serve(s)); }
static int guarded_others_active(struct gismo_store *s) { return GUARDED(s, others_active(s)); }
static int guarded_heartbeat(struct gismo_store *s) {
    return loc_load(&s->host.header->standing) ? 0 : GUARDED(s, (lane_heartbeat(s), 0));
}

/* Is it us? Takes over from a dead leader, and from one whose beat stood still for half a second of our own time. */
static bool elect(struct runner *r) {
    struct gismo_store *s = r->s;
    struct host_header *h = s->host.header;
    uint64_t leader = loc_load(&h->leader), beat = loc_load(&h->leader_beat), now = now_ns();
    if (leader == s->claim)
        return true;
    if (leader != 0 && beat != r->beat_seen) {
        r->beat_seen = beat;
        r->beat_seen_ns = now;
    }
    bool silent = now - r->beat_seen_ns > SILENT_LEADER_NS;
    if (leader != 0 && !silent && host_alive(s, host_claim_index(leader), host_claim_epoch(leader)))
        return false;
    if (leader != 0 && silent && now - r->last_probe_ns > 4 * SILENT_LEADER_NS) {
        r->beat_seen_ns = now; /* we were stopped ourselves, or just began: look at it afresh */
        r->last_probe_ns = now;
        return false;
    }
    r->last_probe_ns = now;
    if (!loc_cas(&h->leader, &leader, s->claim))
        return false;
    loc_store(&h->retire_hint, (uint64_t)1); /* the last one may have reset it and not swept */
    return true;
}

static void watch_deaths(struct gismo_store *s) {
    if (s->inotify_fd >= 0)
        return;
    char path[4128];
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", s->lock_fd);
    if (inotify_add_watch(fd, path, IN_CLOSE_WRITE) < 0) {
        snprintf(path, sizeof path, "%s/locks", s->state_path);
        if (inotify_add_watch(fd, path, IN_CLOSE_WRITE) < 0) {
            close(fd);
            return;
        }
    }
    s->inotify_fd = fd;
}

/* Sleeps until kicked, a death, or the time is over. Returns 1 if somebody died, perhaps. */
static int rest(struct gismo_store *s, int leader, uint32_t kick, uint64_t ns) {
    struct host_process *p = &s->host.process[s->index];
    if (s->thread_state != THREAD_RUNS)
        return 0;
    if (!leader || s->inotify_fd < 0) {
        futex_wait(&p->kick, kick, ns, 1);
        return 0;
    }
    struct pollfd poller[2] = {{s->inotify_fd, POLLIN, 0}, {s->wake_fd, POLLIN, 0}};
    /* A kick from another process does not end a poll: never sleep longer than it may wait. */
    if (poll(poller, 2, (int)(ns / 1000000u)) <= 0 || !(poller[0].revents & POLLIN))
        return 0;
    char buffer[1024];
    while (read(s->inotify_fd, buffer, sizeof buffer) > 0)
        ;
    return 1;
}

static void *run(void *argument) {
    struct runner *r = argument;
    struct gismo_store *s = r->s;
    prctl(PR_SET_NAME, "gismo");
    r->beat_seen_ns = r->last_probe_ns = now_ns();
    uint64_t last_reap = 0;
    while (s->thread_state == THREAD_RUNS && !s->failed) {
        uint32_t kick =
            loc_load(&s->host.process[s->index].kick); /* before the look: one that comes later ends the rest */
        bool leader = elect(r);
        uint64_t now = now_ns(), ops = operations(s);
        if (ops != r->operations_seen) {
            r->operations_seen = ops;
            r->busy_until_ns = now + LAZY_NS;
        }
        bool busy = now < r->busy_until_ns;
        /*
         * A lock that is held is mostly held by an operation that we have just preempted: to sleep on it costs that operation a
         * futex call and the processor two switches. So the thread goes aside, but not when asked, and a few times only.
         */
        int done;
        if (leader || kick != r->kick_seen || r->put_off >= PUT_OFF_MAX) {
            done = guarded_tick(s, leader);
            r->put_off = 0;
        } else {
            done = guarded_tick_aside(s);
            r->put_off = done < 0 ? r->put_off + 1 : 0;
        }
        r->kick_seen = kick;
        if (leader) {
            (void)guarded_serve(s);
            loc_store(&s->host.header->leader_beat, loc_load(&s->host.header->leader_beat) + 1);
            watch_deaths(s);
            if (busy || now - r->last_heartbeat_ns >= LAZY_NS) {
                r->last_heartbeat_ns = now;
                guarded_heartbeat(s);
            }
            if (now - last_reap > (s->inotify_fd >= 0 ? LAZY_NS : BUSY_NS)) {
                last_reap = now;
                guarded_reap(s);
            }
        }
        if (s->failed || s->thread_state != THREAD_RUNS)
            break;
        bool lively =
            done != 0 || (leader && (busy || loc_load(&s->host.header->retire_hint) || guarded_others_active(s)));
        uint64_t ns = lively || busy ? BUSY_NS : leader ? IDLE_NS / 2 : IDLE_NS * 2;
        if (busy && !leader && done >= 0 && !s->work_left)
            ns = CALM_NS; /* a request comes with a kick */
        if (rest(s, leader, kick, ns)) {
            /* The descriptor goes a little before the lock: look again for some milliseconds. */
            for (int i = 0; i < 12 && s->thread_state == THREAD_RUNS; i++) {
                guarded_reap(s);
                sleep_ns(i < 6 ? 200000 : 1000000);
            }
            last_reap = now_ns();
        }
    }
    if (s->inotify_fd >= 0)
        close(s->inotify_fd);
    s->inotify_fd = -1;
    return NULL;
}

int thread_start(struct gismo_store *s) {
    int none = THREAD_NONE;
    if (!atomic_compare_exchange_strong(&s->thread_state, &none, THREAD_RUNS))
        return GISMO_OK;
    struct runner *r = calloc(1, sizeof *r);
    if (r == NULL) {
        s->thread_state = THREAD_NONE;
        return fail(GISMO_ESYS, "out of memory");
    }
    r->s = s;
    s->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    sigset_t before;
    guard_mask_for_threads(&before);
    int error = pthread_create(&r->thread, NULL, run, r);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (error) {
        free(r);
        if (s->wake_fd >= 0)
            close(s->wake_fd);
        s->wake_fd = -1;
        s->thread_state = THREAD_NONE;
        errno = error;
        return fail_errno(GISMO_ESYS, "cannot start the background thread");
    }
    s->runner = r;
    return GISMO_OK;
}

void thread_kick_process(struct gismo_store *s, uint32_t index) {
    if (index >= HOST_PROCESSES)
        return;
    __atomic_fetch_add(&s->host.process[index].kick, 1, __ATOMIC_SEQ_CST);
    futex_wake(&s->host.process[index].kick, 1);
}

void thread_kick(struct gismo_store *s) {
    uint64_t leader = loc_load(&s->host.header->leader);
    if (leader)
        thread_kick_process(s, host_claim_index(leader));
}

void thread_stop(struct gismo_store *s) {
    int runs = THREAD_RUNS;
    if (!atomic_compare_exchange_strong(&s->thread_state, &runs, THREAD_STOPPING))
        return;
    struct runner *r = s->runner;
    thread_kick_process(s, s->index);
    uint64_t one = 1;
    if (s->wake_fd >= 0 && write(s->wake_fd, &one, sizeof one) < 0)
        (void)0; /* then it ends with its own rest */
    if (r) {
        pthread_join(r->thread, NULL);
        close(s->wake_fd);
        s->wake_fd = -1;
        free(r);
        s->runner = NULL;
    }
    uint64_t mine = s->claim; /* let another be elected at once */
    (void)loc_cas(&s->host.header->leader, &mine, (uint64_t)0);
}

int gismo_tick(struct gismo_store *s) {
    int status = store_enter(s);
    if (status)
        return status;
    (void)guarded_reap(s);
    (void)guarded_heartbeat(s);
    int done = guarded_tick(s, 1);
    return done >= 0 && guarded_serve(s) > 0 ? done + 1 : done;
}

/* ---- fork ------------------------------------------------------------------------------------ */

/*
 * The child has copies of our views, so it needs pins of its own before the parent can drop its. prepare registers a second
 * process whose counts are copies of ours and whose OFD lock is on a descriptor that both have after the fork: the parent
 * closes its end, the child keeps it (and closes the parent's). Objects being written, claimed chunks and the thread stay the
 * parent's. A child that execs loses its descriptors, and its registration is reaped like that of the dead.
 */
struct spare {
    uint32_t index;
    uint64_t epoch;
    uint64_t claim;
    uint32_t *pin_counts;
    uint64_t *claimed;
    int lock_fd;
};

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct gismo_store *open_stores;
static struct spare spares[256];

static int make_spare(struct gismo_store *s, struct spare *spare) {
    /* host_register works on the store's own fields: lend it a shallow copy. */
    struct gismo_store *twin = malloc(sizeof *twin);
    if (twin == NULL)
        return GISMO_ESYS;
    memcpy(twin, s, sizeof *twin);
    memset(twin->peer, 0, sizeof twin->peer);
    twin->lock_fd = openat(s->state_dir_fd, "locks", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    int status = twin->lock_fd < 0 ? GISMO_ESYS : host_register(twin);
    if (status == GISMO_OK) {
        for (uint64_t w = 0; w < HOST_MASK_WORDS; w++) /* its bit where ours is, before its counts */
            (void)w;
        for (uint64_t slot = 0; slot < s->slots; slot++) {
            if (slot % FMT_CHUNK_SLOTS == 0) {
                struct host_chunk *c = &s->host.chunk[slot / FMT_CHUNK_SLOTS];
                if (!(loc_load(&c->pinners[s->index / 64]) >> (s->index % 64) & 1)) {
                    slot += FMT_CHUNK_SLOTS - 1;
                    continue;
                }
                bool any = false;
                for (uint32_t i = 0; i < FMT_CHUNK_SLOTS && !any; i++)
                    any = loc_load(&s->pin_counts[slot + i]) != 0;
                if (!any) {
                    slot += FMT_CHUNK_SLOTS - 1;
                    continue;
                }
                host_mark_pinner(c, twin->index);
            }
            uint32_t count = loc_load(&s->pin_counts[slot]);
            if (count)
                loc_store(&twin->pin_counts[slot], count);
        }
        prim_fence_full();
        *spare = (struct spare){twin->index, twin->epoch, twin->claim, twin->pin_counts, twin->claimed, twin->lock_fd};
    } else if (twin->lock_fd >= 0) {
        close(twin->lock_fd);
    }
    free(twin);
    return status;
}

static void fork_prepare(void) {
    pthread_mutex_lock(&list_lock);
    int n = 0;
    for (struct gismo_store *s = open_stores; s && n < 256; s = s->next_open, n++) {
        store_lock(s);
        spares[n].claim = 0;
        if (!s->failed && make_spare(s, &spares[n]) != GISMO_OK)
            spares[n].claim = 0; /* the child will have no pins: its views are not safe once the parent drops them */
    }
}

static void fork_parent(void) {
    int n = 0;
    for (struct gismo_store *s = open_stores; s && n < 256; s = s->next_open, n++) {
        if (spares[n].claim) {
            close(spares[n].lock_fd); /* the child's end keeps the lock */
            munmap(spares[n].pin_counts, s->pins_bytes);
        }
        store_unlock(s);
    }
    pthread_mutex_unlock(&list_lock);
}

static void fork_child(void) {
    int n = 0;
    for (struct gismo_store *s = open_stores; s && n < 256; s = s->next_open, n++) {
        close(s->lock_fd);
        munmap(s->pin_counts, s->pins_bytes);
        s->lock_fd = -1;
        s->pin_counts = NULL;
        s->claimed = NULL;
        s->claim = 0;
        if (spares[n].claim) {
            s->index = spares[n].index;
            s->epoch = spares[n].epoch;
            s->claim = spares[n].claim;
            s->pin_counts = spares[n].pin_counts;
            s->claimed = spares[n].claimed;
            s->lock_fd = spares[n].lock_fd;
            s->host.process[s->index].pid = getpid();
        } else {
            s->failed = GISMO_ESYS;
        }
        for (uint32_t k = 0; k <= FMT_CLASSES; k++)
            s->open_chunk[k] = NO_CHUNK;
        madvise(s->local, s->chunks * sizeof *s->local, MADV_DONTNEED); /* private and anonymous: zeroes again */
        if (s->inotify_fd >= 0)
            close(s->inotify_fd);
        s->inotify_fd = -1;
        if (s->wake_fd >= 0)
            close(s->wake_fd);
        s->wake_fd = -1;
        s->runner = NULL; /* its memory is the parent thread's, gone with it */
        s->thread_state = THREAD_NONE; /* the next operation starts one */
        s->lock = 0;
        s->lock_owner = 0;
    }
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    list_lock = fresh;
}

void fork_watch(struct gismo_store *s) {
    static int installed;
    pthread_mutex_lock(&list_lock);
    if (!installed) {
        installed = 1;
        pthread_atfork(fork_prepare, fork_parent, fork_child);
    }
    s->next_open = open_stores;
    open_stores = s;
    pthread_mutex_unlock(&list_lock);
}

void fork_forget(struct gismo_store *s) {
    pthread_mutex_lock(&list_lock);
    for (struct gismo_store **at = &open_stores; *at; at = &(*at)->next_open) {
        if (*at == s) {
            *at = s->next_open;
            break;
        }
    }
    pthread_mutex_unlock(&list_lock);
}
