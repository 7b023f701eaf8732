/*
 * test_store.c - one store, many threads, forks and two hosts in one process, through the public calls.
 */
/* variants: plain asan tsan */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "crc32c.h"
#include "format.h"
#include "gismo.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#define FORKS_WORK 0 /* ThreadSanitizer gives up on a child that starts threads */
/* These copy a whole record while others may change it, and look at its word again afterwards. */
__attribute__((visibility("default"), used)) const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void) {
    return "race:check_slot\nrace:next_object\nrace:^stats$\nrace:host_info\nrace:slot_has_name\n";
}
#else
#define FORKS_WORK 1
#endif

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Waits up to a second, as promised of room that comes back. */
#define SOON(condition)                                                                                                \
    __extension__({                                                                                                    \
        uint64_t end_ = now_ms() + 1000;                                                                               \
        while (!(condition) && now_ms() < end_)                                                                        \
            usleep(1000);                                                                                              \
        (condition);                                                                                                   \
    })

static void fresh(const char *path, uint64_t size) {
    gismo_format_options o = {.size_bytes = size, .force = 1};
    OK(gismo_format(path, &o, NULL, NULL, NULL));
}

static gismo_store *open_as(const char *path, const char *state_dir, bool thread) {
    gismo_open_options o = {.state_dir = state_dir, .host_id = -1, .no_thread = !thread};
    gismo_store *s;
    OK(gismo_open(path, &o, &s));
    return s;
}

static void shut(gismo_store *s) {
    OK(gismo_close(s));
    gismo_free(s);
}

static gismo_handle put(gismo_store *s, const void *bytes, uint64_t n, const char *name) {
    gismo_buffer buffer = {bytes, n};
    gismo_create_options o = {.name = name, .name_bytes = name ? (uint32_t)strlen(name) : 0};
    gismo_handle h;
    OK(gismo_put(s, &buffer, 1, &o, &h));
    return h;
}

static gismo_stats stats(gismo_store *s) {
    gismo_stats out;
    OK(gismo_get_stats(s, &out));
    return out;
}

static bool can_get(gismo_store *s, const gismo_handle *h) {
    gismo_view view;
    if (gismo_get(s, h, &view) != GISMO_OK)
        return false;
    OK(gismo_release(s, view.slot));
    return true;
}

static void clean(gismo_store *s, uint64_t objects) {
    gismo_fsck_result r;
    CHECK(gismo_fsck(s, GISMO_FSCK_VERIFY, NULL, NULL, &r) == GISMO_OK && r.warnings == 0 && r.leaked_bytes == 0 &&
              r.objects == objects,
          "fsck: %llu objects, %llu errors, %llu warnings", (unsigned long long)r.objects, (unsigned long long)r.errors,
          (unsigned long long)r.warnings);
}

/* ---- threads ------------------------------------------------------------------------------------- */

#define THREADS 4
#define SHARED 64
#define ROUNDS 3000

static gismo_store *common;
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static gismo_handle table[SHARED];
static bool filled[SHARED];

static void *thread_works(void *argument) {
    uint64_t x = (uint64_t)(uintptr_t)argument * 0x9e3779b97f4a7c15ull + 1;
    for (int round = 0; round < ROUNDS; round++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        uint32_t at = (uint32_t)(x >> 40) % SHARED;
        uint64_t size = 1 + (x >> 20) % (round % 16 ? 3000 : 100000);
        gismo_handle h, old;
        gismo_object object;
        int status = gismo_create(common, size, NULL, &object);
        CHECK(status == GISMO_OK || status == GISMO_EFULL, "create");
        bool had = false;
        if (status == GISMO_OK) {
            h = object.handle;
            memset(object.data, (int)(h.slot & 0xff), size);
            if (round % 10 == 0) {
                OK(gismo_abort(common, &object));
                continue;
            }
            OK(gismo_seal(common, &object, round & 1));
            pthread_mutex_lock(&table_lock);
            had = filled[at];
            old = table[at];
            table[at] = h;
            filled[at] = true;
            pthread_mutex_unlock(&table_lock);
        }
        if (had)
            OK(gismo_delete(common, &old)); /* only who took it out of the table deletes it */
        pthread_mutex_lock(&table_lock);
        at = (at + 7) % SHARED;
        had = filled[at];
        old = table[at];
        pthread_mutex_unlock(&table_lock);
        gismo_view view;
        status = had ? gismo_get(common, &old, &view) : GISMO_EGONE;
        CHECK(status == GISMO_OK || status == GISMO_EGONE, "get");
        if (status == GISMO_OK) {
            const uint8_t *bytes = view.data;
            CHECK(bytes[0] == (old.slot & 0xff) && bytes[view.length - 1] == bytes[0], "content");
            OK(gismo_release(common, view.slot));
        }
    }
    return NULL;
}

static void test_threads(void) {
    fresh("threads", 64 << 20);
    common = open_as("threads", "state-threads", true);
    gismo_stats before = stats(common);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, thread_works, (void *)(i + 1)) == 0, "thread");
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    uint64_t objects = 0;
    for (int i = 0; i < SHARED; i++)
        objects += filled[i];
    CHECK(stats(common).sealed_objects == objects, "objects");
    clean(common, objects);
    for (int i = 0; i < SHARED; i++)
        if (filled[i])
            OK(gismo_delete(common, &table[i]));
    CHECK(SOON(stats(common).deleted_objects == 0), "what was deleted is retired");
    CHECK(stats(common).pins_here == 0, "no pin is left");
    shut(common);
    common = open_as("threads", "state-threads", false); /* an open store keeps chunks with room at hand */
    CHECK(stats(common).free_bytes == before.free_bytes, "all bytes came back");
    clean(common, 0);
    shut(common);
}

/* ---- fork ---------------------------------------------------------------------------------------- */

static void churn(gismo_store *s, int rounds, uint64_t size) {
    uint8_t *junk = malloc(size);
    memset(junk, 0xee, size);
    for (int i = 0; i < rounds; i++) {
        gismo_handle h = put(s, junk, size, NULL);
        OK(gismo_delete(s, &h));
    }
    free(junk);
}

static void test_fork(uint64_t size) {
    fresh("fork", 16 << 20);
    gismo_store *s = open_as("fork", "state-fork", true);
    uint8_t *payload = malloc(size);
    memset(payload, 0x5a, size);
    gismo_handle h = put(s, payload, size, NULL);
    uint64_t base = stats(s).used_bytes;
    gismo_view view;
    OK(gismo_get(s, &h, &view));
    int to_child[2], to_parent[2];
    CHECK(pipe(to_child) == 0 && pipe(to_parent) == 0, "pipe");
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    char byte = 0;
    if (child == 0) {
        alarm(60);
        close(to_child[1]); /* or it would wait for ever for a parent that failed */
        CHECK(write(to_parent[1], &byte, 1) == 1 && read(to_child[0], &byte, 1) == 1, "pipe");
        for (uint64_t i = 0; i < size; i++)
            CHECK(((const uint8_t *)view.data)[i] == 0x5a, "byte %llu, in the child", (unsigned long long)i);
        churn(s, 20, size); /* a child of its own right */
        OK(gismo_release(s, view.slot));
        gismo_handle own = put(s, payload, size, NULL);
        CHECK(can_get(s, &own), "own");
        OK(gismo_delete(s, &own));
        OK(gismo_close(s));
        _exit(0);
    }
    CHECK(read(to_parent[0], &byte, 1) == 1, "pipe");
    OK(gismo_delete(s, &h));
    OK(gismo_release(s, view.slot));
    CHECK(!can_get(s, &h), "deleted");
    churn(s, 300, size); /* all of the store's free cells are written over */
    CHECK(stats(s).deleted_objects >= 1, "the child pins it");
    CHECK(write(to_child[1], &byte, 1) == 1, "pipe");
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0, "the child ended with 0x%x", (unsigned)status);
    CHECK(SOON(stats(s).deleted_objects == 0), "its bytes come back when the child has gone");
    CHECK(stats(s).used_bytes < base, "used bytes");
    /* A child that just dies gives its pins back as well. */
    h = put(s, payload, size, NULL);
    OK(gismo_get(s, &h, &view));
    child = fork();
    if (child == 0)
        _exit(0);
    CHECK(waitpid(child, &status, 0) == child, "wait");
    OK(gismo_delete(s, &h));
    OK(gismo_release(s, view.slot));
    CHECK(SOON(stats(s).deleted_objects == 0), "after the death of a child");
    free(payload);
    clean(s, 0);
    shut(s);
}

/* ---- the same store twice --------------------------------------------------------------------------- */

static void test_one_host_twice(void) {
    fresh("twice", 16 << 20);
    gismo_store *a = open_as("twice", "state-twice", true), *b = open_as("twice", "state-twice", true);
    CHECK(stats(a).lane == stats(b).lane && stats(a).processes == 2, "one host, two of its processes");
    gismo_handle h = put(a, "hello", 5, "greeting"), found;
    OK(gismo_lookup(b, "greeting", 8, 0, &found));
    gismo_view view;
    OK(gismo_get(b, &found, &view));
    OK(gismo_delete(a, &h));
    CHECK(!can_get(b, &h) && !can_get(a, &h), "gone for both");
    churn(a, 200, 5);
    CHECK(memcmp(view.data, "hello", 5) == 0, "pinned by the other");
    OK(gismo_release(b, view.slot));
    CHECK(SOON(stats(a).deleted_objects == 0), "released, retired");
    h = put(b, "again", 5, NULL); /* deleted by who does not claim its chunk */
    OK(gismo_delete(a, &h));
    CHECK(!can_get(b, &h), "gone");
    CHECK(SOON(stats(a).sealed_objects == 0 && stats(a).deleted_objects == 0), "the claimer carried it out");
    shut(a);
    clean(b, 0);
    shut(b);
}

static void test_two_hosts(void) {
    fresh("hosts", 32 << 20);
    gismo_store *a = open_as("hosts", "state-a", true), *b = open_as("hosts", "state-b", true);
    CHECK(stats(a).lane != stats(b).lane, "two lanes");
    static uint8_t payload[100000];
    for (int large = 0; large < 2; large++) {
        uint64_t size = large ? sizeof payload : 100;
        memset(payload, 7 + large, sizeof payload);
        gismo_handle h = put(a, payload, size, "shared"), found;
        OK(gismo_lookup(b, "shared", 6, 0, &found));
        CHECK(memcmp(&found, &h, sizeof h) == 0, "the same handle");
        gismo_view view;
        OK(gismo_get(b, &found, &view));
        OK(gismo_delete(a, &h)); /* its owner deletes while the other host pins */
        CHECK(!can_get(a, &h) && !can_get(b, &h), "gone on both");
        churn(a, 100, size);
        usleep(50000);
        CHECK(memcmp(view.data, payload, size) == 0, "pinned by another host");
        CHECK(SOON(stats(a).deleted_objects == 1), "still there"); /* and what churn left is gone */
        OK(gismo_release(b, view.slot));
        CHECK(SOON(stats(a).deleted_objects == 0), "CLEAR went there and back: free within a second");
        h = put(a, payload, size, NULL); /* the other host deletes it */
        OK(gismo_get(a, &h, &view));
        OK(gismo_delete(b, &h));
        CHECK(!can_get(b, &h), "gone at once where it was deleted");
        CHECK(SOON(!can_get(a, &h)), "gone at its owner's");
        CHECK(memcmp(view.data, payload, size) == 0, "but pinned");
        OK(gismo_release(a, view.slot));
        CHECK(SOON(stats(a).deleted_objects == 0 && stats(a).sealed_objects == 0), "free");
    }
    clean(a, 0);
    clean(b, 0);
    gismo_host_info info;
    uint32_t lane_b = stats(b).lane;
    gismo_handle kept = put(b, "kept", 4, "kept");
    shut(b);
    OK(gismo_host(a, lane_b, &info));
    CHECK(info.state == GISMO_LANE_QUIET, "quiet after the last close, not %u", info.state);
    CHECK(can_get(a, &kept), "what it made outlives it");
    uint64_t incarnation = info.incarnation;
    b = open_as("hosts", "state-b", true);
    CHECK(stats(b).lane == lane_b, "its own lane again");
    OK(gismo_host(b, lane_b, &info));
    CHECK(info.state == GISMO_LANE_ACTIVE && info.incarnation == incarnation, "active");
    CHECK(can_get(b, &kept), "kept");
    OK(gismo_delete(b, &kept));
    shut(b);
    shut(a);
}

/* ---- the state directory is lost ---------------------------------------------------------------------- */

static void remove_tree(const char *path) {
    DIR *d = opendir(path);
    CHECK(d, "%s", path);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char inner[600];
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && unlink(inner) != 0)
            remove_tree(inner);
    }
    closedir(d);
    CHECK(rmdir(path) == 0, "%s", path);
}

static void test_cold(void) {
    enum { OBJECTS = 300 };
    fresh("cold", 32 << 20);
    gismo_store *s = open_as("cold", "state-cold", true);
    static gismo_handle h[OBJECTS];
    static uint8_t payload[60000];
    for (int i = 0; i < OBJECTS; i++) {
        char name[32];
        snprintf(name, sizeof name, "object %d", i);
        memset(payload, i, sizeof payload);
        h[i] = put(s, payload, (uint64_t)(i * 131 % 60000) + 1, i % 3 ? NULL : name);
    }
    for (int i = 0; i < OBJECTS; i += 5)
        OK(gismo_delete(s, &h[i]));
    CHECK(SOON(stats(s).deleted_objects == 0), "retired");
    uint64_t used = stats(s).used_bytes;
    shut(s);
    remove_tree("state-cold");
    s = open_as("cold", "state-cold", true);
    CHECK(stats(s).used_bytes == used, "as much is used as before");
    for (int i = 0; i < OBJECTS; i++) {
        CHECK(can_get(s, &h[i]) == (i % 5 != 0), "object %d", i);
        char name[32];
        gismo_handle found;
        int n = snprintf(name, sizeof name, "object %d", i), status = gismo_lookup(s, name, (uint32_t)n, 0, &found);
        CHECK(status == (i % 3 == 0 && i % 5 ? GISMO_OK : GISMO_ENOTFOUND), "name %d: %d", i, status);
    }
    churn(s, 300, 3000); /* nothing that lives is written over */
    churn(s, 100, 50000);
    clean(s, OBJECTS - OBJECTS / 5);
    for (int i = 0; i < OBJECTS; i++)
        if (i % 5)
            OK(gismo_delete(s, &h[i]));
    CHECK(SOON(stats(s).deleted_objects == 0), "retired");
    clean(s, 0);
    shut(s);
}

/* ---- the medium is damaged meanwhile ------------------------------------------------------------------ */

/* The record of a draft is spoilt before seal: neither believed nor sealed, and no pages of others are given back. */
static void test_damaged_draft(uint32_t coherence, uint64_t size) {
    enum { SIZE = 16 << 20 };
    gismo_format_options o = {.size_bytes = SIZE, .force = 1, .coherence = coherence};
    OK(gismo_format("damaged", &o, NULL, NULL, NULL));
    int fd = open("damaged", O_RDWR | O_CLOEXEC);
    uint8_t *medium = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(fd >= 0 && medium != MAP_FAILED, "map");
    close(fd);
    const struct fmt_superblock *sb = (const void *)medium;
    gismo_store *s = open_as("damaged", "state-damaged", false);
    uint8_t *payload = malloc(size);
    memset(payload, 0x77, size);
    gismo_handle other = put(s, payload, size, NULL);
    for (int damage = 0; damage < 5; damage++) {
        gismo_object draft;
        OK(gismo_create(s, size, NULL, &draft));
        memset(draft.data, 0x11, size);
        struct fmt_slot *record = (struct fmt_slot *)(void *)(medium + sb->slots_offset) + draft.handle.slot;
        switch (damage) {
        case 0:
            record->length = 1ull << 40;
            break;
        case 1:
            record->offset = SIZE - FMT_LINE;
            break;
        case 2:
            record->offset = other.offset;
            break;
        case 3:
            record->buffers = GISMO_BUFFERS_MAX;
            break;
        default:
            record->name_bytes = 255;
            break;
        }
        CHECK(gismo_seal(s, &draft, damage & 1 ? GISMO_SEAL_CRC : 0) == GISMO_ECORRUPT, "damage %d", damage);
        OK(gismo_abort(s, &draft));
        gismo_handle next = put(s, payload, size, NULL), again = put(s, payload, size, NULL);
        CHECK(next.offset != other.offset && again.offset != other.offset, "given out twice");
        CHECK(can_get(s, &other), "the neighbour");
        OK(gismo_delete(s, &next));
        OK(gismo_delete(s, &again));
        clean(s, 1);
    }
    free(payload);
    munmap(medium, SIZE);
    shut(s);
}

static uint32_t registers_reported;

static void count_registers(uint32_t severity, const char *code, const char *text, uint64_t slot, void *ctx) {
    (void)slot;
    (void)ctx;
    if (strcmp(code, "register") == 0) {
        CHECK(severity == GISMO_FSCK_ERROR && strstr(text, "of host 3 "), "%s", text);
        registers_reported++;
    }
}

/* A ballot that none can pass stands in every arena's register: no room to be had, told at once, and fsck says why. */
static void test_ballot_that_cannot_be_passed(void) {
    enum { SIZE = 16 << 20 };
    gismo_format_options o = {.size_bytes = SIZE, .max_hosts = 4, .force = 1};
    OK(gismo_format("ballot", &o, NULL, NULL, NULL));
    int fd = open("ballot", O_RDWR | O_CLOEXEC);
    uint8_t *medium = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(fd >= 0 && medium != MAP_FAILED, "map");
    close(fd);
    const struct fmt_superblock *sb = (const void *)medium;
    struct fmt_register_line *lines = (void *)(medium + sb->registers_offset);
    for (uint32_t arena = 0; arena < sb->arenas; arena++) {
        struct fmt_register_half *half = &lines[arena * sb->max_lanes + 3].half[0];
        *half = (struct fmt_register_half){.mbal = UINT64_MAX - 60, .sequence = 1};
        half->crc = crc32c(0, half, offsetof(struct fmt_register_half, crc));
    }
    gismo_store *s = open_as("ballot", "state-ballot", false);
    uint8_t *payload = calloc(1, 1 << 20);
    gismo_buffer buffer = {payload, 1 << 20};
    gismo_handle h;
    CHECK(gismo_put(s, &buffer, 1, NULL, &h) == GISMO_EFULL, "nothing can be leased");
    gismo_fsck_result r;
    CHECK(gismo_fsck(s, 0, count_registers, NULL, &r) == GISMO_ECORRUPT, "fsck");
    CHECK(registers_reported == sb->arenas, "%u of %u registers", registers_reported, sb->arenas);
    free(payload);
    munmap(medium, SIZE);
    shut(s);
}

/* ---- one sealed object of each name ------------------------------------------------------------------- */

enum { SEALERS = 4, CONTESTS = 2000 };
static pthread_barrier_t ready;
static gismo_store *contest_store[SEALERS];
static int contest_status[SEALERS];
static gismo_object contest_draft[SEALERS];

static void *seals(void *argument) {
    uintptr_t i = (uintptr_t)argument;
    for (int round = 0; round < CONTESTS; round++) {
        pthread_barrier_wait(&ready);
        contest_status[i] = gismo_seal(contest_store[i], &contest_draft[i], 0);
        pthread_barrier_wait(&ready);
    }
    return NULL;
}

/* All have a draft of the name and seal at the same moment: exactly one may. Two threads each of two processes. */
static void test_one_name(void) {
    fresh("name", 16 << 20);
    gismo_store *a = open_as("name", "state-name", false), *b = open_as("name", "state-name", false);
    pthread_barrier_init(&ready, NULL, SEALERS + 1);
    pthread_t threads[SEALERS];
    for (uintptr_t i = 0; i < SEALERS; i++) {
        contest_store[i] = i % 2 ? a : b;
        CHECK(pthread_create(&threads[i], NULL, seals, (void *)i) == 0, "thread");
    }
    for (int round = 0; round < CONTESTS; round++) {
        gismo_create_options o = {.name = "wanted", .name_bytes = 6};
        for (uint32_t i = 0; i < SEALERS; i++)
            OK(gismo_create(contest_store[i], 64, &o, &contest_draft[i]));
        pthread_barrier_wait(&ready);
        pthread_barrier_wait(&ready);
        uint32_t won = SEALERS;
        for (uint32_t i = 0; i < SEALERS; i++) {
            CHECK(contest_status[i] == GISMO_OK || contest_status[i] == GISMO_EEXIST, "seal: %d", contest_status[i]);
            if (contest_status[i] != GISMO_OK) {
                OK(gismo_abort(contest_store[i], &contest_draft[i]));
                continue;
            }
            CHECK(won == SEALERS, "round %d: %u and %u are both called so", round, won, i);
            won = i;
        }
        CHECK(won < SEALERS, "round %d: nobody got the name", round);
        gismo_handle found;
        OK(gismo_lookup(a, "wanted", 6, 0, &found));
        CHECK(memcmp(&found, &contest_draft[won].handle, sizeof found) == 0, "the name is the winner's");
        OK(gismo_delete(contest_store[won], &found));
    }
    for (uint32_t i = 0; i < SEALERS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&ready);
    clean(a, 0);
    shut(b);
    shut(a);
    /* Another host: whose seal begins when the first has returned is told. */
    a = open_as("name", "state-name", false);
    b = open_as("name", "state-other-name", false);
    gismo_create_options o = {.name = "wanted", .name_bytes = 6};
    gismo_object first, second;
    OK(gismo_create(a, 64, &o, &first));
    OK(gismo_create(b, 64, &o, &second));
    OK(gismo_seal(b, &second, 0));
    CHECK(gismo_seal(a, &first, 0) == GISMO_EEXIST, "another host's");
    gismo_handle found;
    OK(gismo_lookup(a, "wanted", 6, 0, &found));
    CHECK(memcmp(&found, &second.handle, sizeof found) == 0, "the one that was sealed");
    OK(gismo_abort(a, &first));
    shut(b);
    shut(a);
}

int main(void) {
    alarm(240);
    test_one_name();
    for (uint32_t coherence = 0; coherence < 2; coherence++) {
        test_damaged_draft(coherence, 300);
        test_damaged_draft(coherence, 100000);
    }
    test_ballot_that_cannot_be_passed();
    test_threads();
    test_one_host_twice();
    test_two_hosts();
    test_cold();
    if (FORKS_WORK) {
        test_fork(3000);
        test_fork(100000);
    }
    return 0;
}
