/*
 * soak.c - processes of two hosts at work on one store, killed and stopped at random, for as long as is asked.
 *
 *     soak STORE STATE_DIR_A STATE_DIR_B SECONDS SEED
 *
 * Every payload is made from a number that is the object's tag, and is looked at as a whole at each read. At the end
 * all is deleted, and the store must be as empty as a new one: no byte leaked, fsck clean. The last line is JSON.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "gismo.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HOSTS 2
#define PER_HOST 3
#define WORKERS (HOSTS * PER_HOST)
#define ENTRIES 96 /* handles that a worker makes known */
#define HELD 24
#define NAMES 32
#define LARGEST (2u << 20)
#define ULL(x) ((unsigned long long)(x))

struct entry {
    atomic_ullong version; /* odd = being written; one writer */
    gismo_handle handle;
};

struct worker_board {
    struct entry entry[ENTRIES];
    atomic_ullong puts, gets, deletes, lookups, misses, full, checked_bytes;
};

static struct board {
    struct worker_board worker[WORKERS];
    atomic_int stop;
} *board;

static const char *store_path;
static const char *state_dir[HOSTS];

static void die(const char *what, int status) {
    fprintf(stderr, "soak: process %d: %s: %s (%d): %s\n", (int)getpid(), what, gismo_status_name(status), status,
            gismo_error_message());
    _exit(3);
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t state;
static uint64_t random64(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * 0x2545f4914f6cdd1dull;
}

/* ---- payloads ------------------------------------------------------------------------------------ */

static uint64_t next_word(uint64_t *x) {
    *x = *x * 6364136223846793005u + 1442695040888963407u;
    return *x ^ *x >> 29;
}

static void fill(uint8_t *to, uint64_t bytes, uint64_t seed) {
    uint64_t x = seed;
    for (uint64_t at = 0; at < bytes; at += 8) {
        uint64_t word = next_word(&x);
        memcpy(to + at, &word, bytes - at < 8 ? bytes - at : 8);
    }
}

static void check(struct worker_board *mine, const gismo_view *view) {
    uint64_t x = view->tag;
    const uint8_t *p = view->data;
    for (uint64_t at = 0; at < view->length; at += 8) {
        uint64_t word = next_word(&x), n = view->length - at < 8 ? view->length - at : 8;
        if (memcmp(p + at, &word, n) != 0) {
            fprintf(stderr, "soak: slot %u, generation %llu, %llu bytes: wrong at %llu\n", view->slot,
                    ULL(view->generation), ULL(view->length), ULL(at));
            _exit(4);
        }
    }
    mine->checked_bytes += view->length;
}

/* ---- a worker -------------------------------------------------------------------------------------- */

static void publish(struct entry *e, const gismo_handle *h) {
    uint64_t version = atomic_load(&e->version) & ~1ull;
    atomic_store(&e->version, version + 1);
    e->handle = *h;
    atomic_store(&e->version, version + 2);
}

static bool look_up(const struct entry *e, gismo_handle *out) {
    uint64_t before = atomic_load(&((struct entry *)(uintptr_t)e)->version);
    if (before == 0 || before & 1)
        return false;
    atomic_thread_fence(memory_order_acquire);
    memcpy(out, &e->handle, sizeof *out);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load(&((struct entry *)(uintptr_t)e)->version) == before;
}

static bool any_handle(int self, gismo_handle *out) {
    int who = random64() % 3 ? self : (int)(random64() % WORKERS); /* others', too */
    return look_up(&board->worker[who].entry[random64() % ENTRIES], out);
}

static bool expected(int status) {
    return status == GISMO_OK || status == GISMO_EGONE || status == GISMO_EFULL || status == GISMO_ENOTFOUND ||
           status == GISMO_EEXIST;
}

static void put(gismo_store *s, struct worker_board *mine, int self) {
    static uint8_t payload[LARGEST];
    uint64_t bytes = (uint64_t)exp((double)(random64() >> 11) / 9007199254740992.0 * log((double)LARGEST));
    if (bytes < 1)
        bytes = 1;
    uint64_t tag = random64();
    char name[64];
    gismo_create_options o = {.tag = tag};
    if (random64() % 8 == 0) {
        o.name = name;
        o.name_bytes = (uint32_t)snprintf(name, sizeof name, "soak %d %d", self, (int)(random64() % NAMES));
    }
    gismo_handle h;
    int status;
    if (random64() % 2) {
        fill(payload, bytes, tag);
        gismo_buffer buffer = {payload, bytes};
        status = gismo_put(s, &buffer, 1, &o, &h);
    } else {
        gismo_object object;
        status = gismo_create(s, bytes, &o, &object);
        if (status == GISMO_OK) {
            h = object.handle;
            fill(object.data, bytes, tag);
            if (random64() % 16 == 0) {
                status = gismo_abort(s, &object);
                if (status)
                    die("abort", status);
                return;
            }
            status = gismo_seal(s, &object, random64() % 2 ? GISMO_SEAL_CRC : 0);
#ifdef SOAK_SELFTEST
            if (status == GISMO_OK && random64() % 64 == 0)
                ((uint8_t *)object.data)[bytes / 2] ^= 1; /* who has sealed must not write: the readers shall see it */
#endif
        }
    }
    if (!expected(status))
        die("put", status);
    if (status == GISMO_OK) {
        mine->puts++;
        struct entry *e = &mine->entry[random64() % ENTRIES];
        gismo_handle old;
        if (look_up(e, &old)) { /* nobody would know of it any more */
            status = gismo_delete(s, &old);
            if (!expected(status))
                die("delete", status);
            mine->deletes += status == GISMO_OK;
        }
        publish(e, &h);
    } else if (status == GISMO_EFULL) {
        mine->full++;
        for (int i = 0; i < 12; i++)
            if (look_up(&mine->entry[random64() % ENTRIES], &h) && gismo_delete(s, &h) == GISMO_OK)
                mine->deletes++;
    }
}

static int worker(int self) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct worker_board *mine = &board->worker[self];
    gismo_open_options o = {.state_dir = state_dir[self / PER_HOST], .host_id = -1};
    gismo_store *s;
    int status = gismo_open(store_path, &o, &s);
    if (status)
        die("open", status);
    gismo_view held[HELD];
    int holds = 0;
    while (!board->stop) {
        gismo_handle h;
        uint64_t what = random64() % 100;
        if (what < 30) {
            put(s, mine, self);
        } else if (what < 65) {
            if (!any_handle(self, &h))
                continue;
            gismo_view view;
            status = gismo_get(s, &h, &view);
            if (!expected(status))
                die("get", status);
            if (status != GISMO_OK) {
                mine->misses++;
                continue;
            }
            mine->gets++;
            check(mine, &view);
            if (holds < HELD && random64() % 2)
                held[holds++] = view;
            else if ((status = gismo_release(s, view.slot)) != GISMO_OK)
                die("release", status);
        } else if (what < 82) {
            if (holds == 0)
                continue;
            int i = (int)(random64() % (uint64_t)holds);
            check(mine, &held[i]); /* as it was, whoever deleted it meanwhile */
            if ((status = gismo_release(s, held[i].slot)) != GISMO_OK)
                die("release", status);
            held[i] = held[--holds];
        } else if (what < 95) {
            if (!any_handle(self, &h))
                continue;
            status = gismo_delete(s, &h);
            if (!expected(status))
                die("delete", status);
            mine->deletes += status == GISMO_OK;
            gismo_view view;
            if (gismo_get(s, &h, &view) == GISMO_OK) {
                fprintf(stderr, "soak: slot %u can still be had after its deletion\n", h.slot);
                _exit(5);
            }
        } else {
            char name[64];
            uint32_t n = (uint32_t)snprintf(name, sizeof name, "soak %d %d", (int)(random64() % WORKERS),
                                            (int)(random64() % NAMES));
            status = gismo_lookup(s, name, n, 0, &h);
            if (!expected(status))
                die("lookup", status);
            mine->lookups++;
            gismo_view view;
            if (status == GISMO_OK && gismo_get(s, &h, &view) == GISMO_OK) {
                char got[GISMO_NAME_MAX];
                if (gismo_view_name(s, &view, got) != (int)n || memcmp(got, name, n) != 0) {
                    fprintf(stderr, "soak: found %.*s under the name %s\n", (int)view.name_bytes, got, name);
                    _exit(6);
                }
                check(mine, &view);
                gismo_release(s, view.slot);
            }
        }
    }
    while (holds) {
        check(mine, &held[--holds]);
        if ((status = gismo_release(s, held[holds].slot)) != GISMO_OK)
            die("release", status);
    }
    status = gismo_close(s);
    if (status)
        die("close", status);
    gismo_free(s);
    return 0;
}

/* ---- the one who kills ------------------------------------------------------------------------------ */

static pid_t pids[WORKERS];
static uint64_t stopped_until[WORKERS];
static uint64_t kills, host_kills, stops;

static void start(int i) {
    uint64_t seed = random64() | 1;
    stopped_until[i] = 0;
    pids[i] = fork();
    if (pids[i] == 0) {
        state = seed;
        _exit(worker(i));
    }
}

static void must_have_been_killed(int i) {
    int status;
    if (waitpid(pids[i], &status, 0) != pids[i] || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        fprintf(stderr, "soak: worker %d ended by itself (0x%x)\n", i, status);
        exit(1);
    }
}

static void look_for_failures(void) {
    for (int i = 0; i < WORKERS; i++) {
        int status;
        if (waitpid(pids[i], &status, WNOHANG) == pids[i]) {
            fprintf(stderr, "soak: worker %d ended by itself (0x%x)\n", i, status);
            exit(1);
        }
    }
}

static void let_go_on(int i) {
    if (stopped_until[i])
        kill(pids[i], SIGCONT);
    stopped_until[i] = 0;
}

static void torment(uint64_t end) {
    while (now_ns() < end) {
        usleep((useconds_t)(5000 + random64() % 25000));
        look_for_failures();
        for (int i = 0; i < WORKERS; i++)
            if (stopped_until[i] && now_ns() >= stopped_until[i])
                let_go_on(i);
        uint64_t what = random64() % 100;
        int i = (int)(random64() % WORKERS);
        if (what < 30) {
            kill(pids[i], SIGKILL);
            must_have_been_killed(i);
            kills++;
            start(i);
        } else if (what < 32) { /* a whole host at once */
            int first = i / PER_HOST * PER_HOST;
            for (int k = first; k < first + PER_HOST; k++)
                kill(pids[k], SIGKILL);
            for (int k = first; k < first + PER_HOST; k++) {
                must_have_been_killed(k);
                start(k);
            }
            kills += PER_HOST;
            host_kills++;
        } else if (what < 60 && !stopped_until[i]) {
            kill(pids[i], SIGSTOP);
            stopped_until[i] = now_ns() + 1000000 + random64() % (random64() % 10 ? 100000000 : 1500000000);
            stops++;
        }
    }
}

/* ---- the end ----------------------------------------------------------------------------------------- */

static void report(uint32_t severity, const char *code, const char *message, uint64_t slot, void *ctx) {
    (void)ctx;
    if (severity == GISMO_FSCK_ERROR || severity == GISMO_FSCK_WARNING)
        fprintf(stderr, "fsck: %s (slot %lld): %s\n", code, (long long)slot, message);
}

static uint64_t delete_all(gismo_store *s) {
    uint64_t cursor = 0, n = 0;
    gismo_object_info info;
    while (gismo_next(s, &cursor, &info) == GISMO_OK) {
        n++;
        if (info.state == GISMO_SEALED)
            (void)gismo_delete(s, &info.handle);
    }
    return n;
}

static uint64_t sum(size_t field) {
    uint64_t total = 0;
    for (int i = 0; i < WORKERS; i++)
        total += *(atomic_ullong *)(void *)((uint8_t *)&board->worker[i] + field);
    return total;
}
#define SUM(field) ULL(sum(offsetof(struct worker_board, field)))

static void open_hosts(gismo_store *host[HOSTS]) {
    for (int i = 0; i < HOSTS; i++) {
        gismo_open_options o = {.state_dir = state_dir[i], .host_id = -1, .no_thread = 1};
        int status = gismo_open(store_path, &o, &host[i]);
        if (status)
            die("open at the end", status);
    }
}

static void close_hosts(gismo_store *host[HOSTS]) {
    for (int i = 0; i < HOSTS; i++) {
        int status = gismo_close(host[i]);
        if (status)
            die("close at the end", status);
        gismo_free(host[i]);
    }
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "soak STORE STATE_DIR_A STATE_DIR_B SECONDS SEED\n");
        return 2;
    }
    store_path = argv[1];
    state_dir[0] = argv[2];
    state_dir[1] = argv[3];
    uint64_t seconds = strtoull(argv[4], NULL, 10);
    state = strtoull(argv[5], NULL, 10) * 2 + 1;
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        return 2;
    for (int i = 0; i < WORKERS; i++)
        start(i);
    uint64_t began = now_ns();
    torment(began + seconds * 1000000000u);
    for (int i = 0; i < WORKERS; i++)
        let_go_on(i);
    /* What each host did for its dead is asked while it lives: once it has left, the other may tidy its lane up, and then
     * its state directory, where that is counted, is made anew. */
    gismo_store *host[HOSTS];
    gismo_stats stats[HOSTS];
    open_hosts(host);
    uint64_t recovered_processes = 0, recovered_objects = 0;
    for (int i = 0; i < HOSTS; i++) {
        if (gismo_get_stats(host[i], &stats[i]) != GISMO_OK)
            die("stats", GISMO_ECORRUPT);
        recovered_processes += stats[i].recovered_processes;
        recovered_objects += stats[i].recovered_objects;
    }
    close_hosts(host);
    board->stop = 1;
    uint64_t limit = now_ns() + 60000000000u;
    for (int i = 0; i < WORKERS; i++) {
        int status;
        pid_t got;
        while ((got = waitpid(pids[i], &status, WNOHANG)) == 0 && now_ns() < limit)
            usleep(1000);
        if (got != pids[i] || status != 0) {
            fprintf(stderr, "soak: worker %d did not end well (0x%x)\n", i, got == pids[i] ? status : -1);
            return 1;
        }
    }
    double lasted = (double)(now_ns() - began) / 1e9;

    open_hosts(host);
    /* What is there must be whole, too, before it goes. */
    gismo_fsck_result found[HOSTS];
    for (int i = 0; i < HOSTS; i++)
        if (gismo_fsck(host[i], GISMO_FSCK_VERIFY, report, NULL, &found[i]) != GISMO_OK)
            die("fsck of the full store", GISMO_ECORRUPT);
    limit = now_ns() + 20000000000u;
    uint64_t left;
    do {
        left = delete_all(host[0]);
        for (int i = 0; i < HOSTS; i++)
            (void)gismo_tick(host[i]);
        usleep(2000);
    } while (left && now_ns() < limit);
    int bad = left != 0;
    close_hosts(host); /* an open store keeps chunks with room at hand: pages that are neither used nor free */
    open_hosts(host);
    gismo_info info;
    uint64_t errors = 0, leaked = 0, free_bytes = 0, owned = 0;
    (void)gismo_get_info(host[0], &info);
    for (int i = 0; i < HOSTS; i++) {
        gismo_fsck_result r;
        bad |= gismo_fsck(host[i], GISMO_FSCK_VERIFY, report, NULL, &r) != GISMO_OK;
        errors += r.errors + r.warnings;
        leaked += r.leaked_bytes;
    }
    /* All that is used is name tables; all else is free: in an arena of one host, or in one of nobody (counted by both).
     * The hosts are asked one after the other, and an arena that one of them gives away meanwhile (on a wish that was left)
     * would be counted by neither: so what is lost has to stay lost. */
    uint64_t short_by = info.arenas * info.arena_bytes - info.data_bytes;
    int64_t lost;
    limit = now_ns() + 5000000000u;
    do {
        usleep(20000);
        free_bytes = owned = 0;
        for (int i = 0; i < HOSTS; i++) {
            bad |= gismo_get_stats(host[i], &stats[i]) != GISMO_OK;
            bad |=
                stats[i].sealed_objects || stats[i].writing_objects || stats[i].deleted_objects || stats[i].pins_here;
            free_bytes += stats[i].free_bytes;
            owned += stats[i].arenas_owned;
        }
        uint64_t unleased = (info.arenas - owned) * info.arena_bytes;
        lost = (int64_t)(info.data_bytes - (stats[0].used_bytes + free_bytes - unleased));
        if (lost == (int64_t)short_by)
            lost = 0; /* the last, short arena is nobody's */
    } while (lost != 0 && now_ns() < limit);
    printf("{\"seconds\": %.1f, \"operations\": %llu, \"puts\": %llu, \"gets\": %llu, \"deletes\": %llu, \"lookups\": "
           "%llu, "
           "\"gone\": %llu, \"full\": %llu, \"checked_bytes\": %llu, \"kills\": %llu, \"host_kills\": %llu, \"stops\": "
           "%llu, \"left\": %llu, \"used_bytes\": %llu, \"lost_bytes\": %lld, \"leaked_bytes\": %llu, "
           "\"fsck_errors\": %llu, \"recovered_processes\": %llu, \"recovered_objects\": %llu}\n",
           lasted, SUM(puts) + SUM(gets) + SUM(deletes) + SUM(lookups), SUM(puts), SUM(gets), SUM(deletes),
           SUM(lookups), SUM(misses), SUM(full), SUM(checked_bytes), ULL(kills), ULL(host_kills), ULL(stops), ULL(left),
           ULL(stats[0].used_bytes), (long long)lost, ULL(leaked), ULL(errors),
           ULL(recovered_processes), ULL(recovered_objects));
    close_hosts(host);
    return bad || lost || leaked || errors;
}
