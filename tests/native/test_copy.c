/*
 * test_copy.c - crc32c.c, copy.c, copy_pool.c, guard.c, cpu.c. Exit status 0 or 1; no arguments.
 *
 * Alone: gcc -std=gnu17 -O2 -g -Wall -Wextra -Werror -pthread -I gismo_core/native tests/native/test_copy.c
 *            gismo_core/native/{copy,copy_pool,cpu,crc32c,guard}.c -o test_copy
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "copy.h"
#include "copy_pool.h"
#include "cpu.h"
#include "crc32c.h"
#include "gismo.h"
#include "guard.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
#if defined(__SANITIZE_THREAD__)
/* What one thread does alone is looked at by the other builds; here it only takes long. */
#define LENGTHS_STEP 41
#define FORKED_THREADS_WORK 0 /* ThreadSanitizer gives up on a child that starts threads */
/* It does not see the jump out of the SIGBUS handler, and so takes all that follows for a part of the handler. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "report_signal_unsafe=0"; }
#else
#define LENGTHS_STEP 1
#define FORKED_THREADS_WORK 1
#endif

#define MIB ((size_t)1 << 20)
static void fill_random(void *data, size_t n, uint64_t seed) {
    unsigned char *p = data;
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        p[i] = (unsigned char)(seed >> 56);
    }
}

static void *aligned(size_t n) {
    void *p = aligned_alloc(4096, (n + 4095) & ~(size_t)4095);
    CHECK(p != NULL, "out of memory");
    return p;
}

static uint32_t reference(uint32_t crc, const void *data, size_t n) {
    return crc32c_copy_by(CRC32C_TABLE, crc, NULL, data, n, CRC32C_STORE_NONE);
}

/* ---- crc32c ---------------------------------------------------------------------------------- */

static void test_known_vectors(void) {
    unsigned char zeros[32] = {0}, ones[32], up[32], down[32];
    memset(ones, 0xFF, sizeof ones);
    for (int i = 0; i < 32; i++)
        up[i] = (unsigned char)i, down[i] = (unsigned char)(31 - i);
    /* RFC 3720 B.4, an iSCSI read command */
    const unsigned char command[48] = {[0] = 0x01, [1] = 0xC0,  [16] = 0x14, [20] = 0,    [22] = 0x04,
                                       [26] = 0,   [27] = 0x14, [31] = 0x18, [32] = 0x28, [40] = 0x02};
    for (int by = 0; by < CRC32C_IMPLEMENTATIONS; by++) {
        if (!crc32c_is_usable((enum crc32c_implementation)by)) {
            printf("crc32c implementation %d: not on this machine, skipped\n", by);
            continue;
        }
#define VECTOR(data, n, expected)                                                                                      \
    do {                                                                                                               \
        uint32_t got = crc32c_copy_by((enum crc32c_implementation)by, 0, NULL, data, n, CRC32C_STORE_NONE);            \
        CHECK(got == (expected), "implementation %d: %08x", by, got);                                                  \
    } while (0)
        VECTOR("", 0, 0);
        VECTOR("123456789", 9, 0xE3069283);
        VECTOR(zeros, 32, 0x8A9136AA);
        VECTOR(ones, 32, 0x62A8AB43);
        VECTOR(up, 32, 0x46DD794E);
        VECTOR(down, 32, 0x113FDB5C);
        VECTOR(command, 48, 0xD9963A56);
    }
    CHECK(crc32c(0, "123456789", 9) == 0xE3069283, "dispatch");
    CHECK(gismo_crc32c(0, "123456789", 9) == 0xE3069283, "export");
    CHECK((gismo_cpu_features() & ~63u) == 0, "%x", gismo_cpu_features());
}

/* Every implementation, every kind of store, against the table; nothing outside [dst, dst + n) is touched. */
static void crc_case(int by, const char *src, size_t n, char *dst, char *area, size_t area_bytes) {
    uint32_t expected = reference(0x12345678, src, n);
    for (int store = CRC32C_STORE_NONE; store <= CRC32C_STORE_STREAM; store++) {
        if (store == CRC32C_STORE_STREAM && (n % 64 != 0 || (uintptr_t)dst % 64 != 0))
            continue;
        memset(area, 0x5A, area_bytes);
        uint32_t got =
            crc32c_copy_by((enum crc32c_implementation)by, 0x12345678, dst, src, n, (enum crc32c_store)store);
        CHECK(got == expected, "implementation %d store %d n %zu", by, store, n);
        size_t wrote = store == CRC32C_STORE_NONE ? 0 : n;
        CHECK(memcmp(dst, src, wrote) == 0, "implementation %d store %d n %zu", by, store, n);
        for (char *p = area; p < dst; p++)
            CHECK(*p == 0x5A, "before: implementation %d store %d n %zu", by, store, n);
        for (char *p = dst + wrote; p < area + area_bytes; p++)
            CHECK(*p == 0x5A, "after: implementation %d store %d n %zu", by, store, n);
    }
}

static void test_crc_lengths(void) {
    enum { AREA = 8192 };
    char *src = aligned(AREA), *area = aligned(AREA);
    fill_random(src, AREA, 1);
    for (int by = 0; by < CRC32C_IMPLEMENTATIONS; by++) {
        if (!crc32c_is_usable((enum crc32c_implementation)by))
            continue;
        for (size_t n = 0; n <= 1000; n += LENGTHS_STEP)
            for (size_t skew = 0; skew < 16; skew += n % 64 == 0 ? 1 : 5)
                crc_case(by, src + skew, n, area + 64 + (n % 64 == 0 ? 0 : skew * 3), area, 1200);
        for (size_t n = 1000; n <= 7000; n += 61 * LENGTHS_STEP)
            crc_case(by, src + n % 16, n, area + 64, area, AREA);
        for (size_t n = 0; n <= 7168; n += 64 * LENGTHS_STEP)
            crc_case(by, src + n % 48, n, area + 64, area, AREA);
    }
    free(src);
    free(area);
}

static void test_combine(void) {
    size_t total = 100000;
    char *data = aligned(total);
    fill_random(data, total, 2);
    uint32_t whole = crc32c(0, data, total);
    for (size_t cut = 0; cut <= total; cut += cut < 300 ? 1 : 997) {
        uint32_t a = crc32c(0, data, cut), b = crc32c(0, data + cut, total - cut);
        CHECK(crc32c_combine(a, b, total - cut) == whole, "cut %zu", cut);
        CHECK(crc32c_combine_with(crc32c_combine_operator(total - cut), a, b) == whole, "cut %zu", cut);
        CHECK(crc32c(a, data + cut, total - cut) == whole, "cut %zu", cut);
    }
    free(data);
}

/* ---- copies ------------------------------------------------------------------------------------ */

static void copy_case(char *dst, const char *src, size_t n, enum copy_mode mode, int threads, bool with_crc) {
    uint32_t crc = 7;
    struct copy_options options = {.mode = mode, .threads = threads, .crc = with_crc ? &crc : NULL};
    dst[-1] = dst[n] = 0x5A;
    memset(dst, 0, n);
    CHECK(copy_payload(dst, src, n, options) == 0, "n %zu", n);
    CHECK(memcmp(dst, src, n) == 0, "n %zu mode %d threads %d", n, (int)mode, threads);
    CHECK(dst[-1] == 0x5A && dst[n] == 0x5A, "n %zu mode %d threads %d", n, (int)mode, threads);
    if (with_crc)
        CHECK(crc == crc32c(7, src, n), "n %zu mode %d threads %d", n, (int)mode, threads);
}

static void test_copy_lengths(void) {
    char *src = aligned(4096), *area = aligned(4096);
    fill_random(src, 4096, 3);
    const size_t src_skews[] = {0, 1, 13, 32};
    for (size_t n = 0; n <= 1000; n += (SANITIZED ? 3 : 1) * LENGTHS_STEP)
        for (size_t skew = 0; skew < 64; skew++)
            for (size_t k = 0; k < sizeof src_skews / sizeof *src_skews; k++)
                for (int mode = COPY_AUTO; mode <= COPY_STREAM; mode++)
                    copy_case(area + 64 + skew, src + src_skews[k], n, (enum copy_mode)mode, 0,
                              (n + skew + k) % 4 != 0);
    free(src);
    free(area);
}

static void test_copy_large(void) {
    size_t most = 24 * MIB;
    char *src = aligned(most + 4096), *area = aligned(most + 4096);
    fill_random(src, most + 4096, 4);
    const size_t lengths[] = {4095,    32767,       32768,   65536 + 1,    MIB,
                              MIB + 3, 4 * MIB - 1, 4 * MIB, 8 * MIB + 77, 24 * MIB};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (size_t skew = 0; skew < 64; skew += 21)
            for (int threads = 0; threads <= 5; threads += threads < 2 ? 1 : 3)
                for (int mode = COPY_AUTO; mode <= COPY_STREAM; mode++)
                    copy_case(area + 64 + skew, src + (skew ? 5 : 0), lengths[i], (enum copy_mode)mode, threads,
                              (threads + mode) % 3 != 0);
    uint32_t crc = 99;
    gismo_copy(area, src, 5 * MIB + 1, 0, 0, &crc);
    CHECK(crc == crc32c(0, src, 5 * MIB + 1) && memcmp(area, src, 5 * MIB + 1) == 0, "gismo_copy");
    gismo_copy(area, src + 1, 5 * MIB, 2, 2, NULL);
    CHECK(memcmp(area, src + 1, 5 * MIB) == 0, "gismo_copy");
    free(src);
    free(area);
}

static void *copy_in_thread(void *argument) {
    size_t n = 6 * MIB, seed = (size_t)argument;
    char *src = aligned(n), *dst = aligned(n);
    fill_random(src, n, seed);
    for (int round = 0; round < 8; round++)
        copy_case(dst + 64, src, n - 4096 - seed, COPY_STREAM, round % 2 ? 4 : 0, true);
    free(src);
    free(dst);
    return NULL;
}

static void test_many_callers(void) {
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, copy_in_thread, (void *)(i + 10)) == 0, "thread");
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

/* ---- faults ------------------------------------------------------------------------------------- */

static int medium_fd;
static char *medium;
#define MEDIUM_BYTES (64 * MIB)

static void medium_open(void) {
    medium_fd = memfd_create("test_copy", 0);
    CHECK(medium_fd >= 0 && ftruncate(medium_fd, (off_t)MEDIUM_BYTES) == 0, "memfd");
    medium = mmap(NULL, MEDIUM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, medium_fd, 0);
    CHECK(medium != MAP_FAILED, "mmap");
}

static void medium_resize(size_t bytes) { CHECK(ftruncate(medium_fd, (off_t)bytes) == 0, "ftruncate"); }

static void test_fault_in_caller(void) {
    char *memory = aligned(MEDIUM_BYTES);
    memset(memory, 3, MEDIUM_BYTES);
    const size_t lengths[] = {8200, 20000, 100000, 3 * MIB, 16 * MIB};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (int mode = COPY_AUTO; mode <= COPY_STREAM; mode++)
            for (int reading = 0; reading < 2; reading++)
                for (int with_crc = 0; with_crc < 2; with_crc++) {
                    size_t n = lengths[i], cut = (n / 2) & ~(size_t)4095;
                    uint32_t crc = 42;
                    void *where = NULL;
                    struct copy_options options = {.mode = (enum copy_mode)mode,
                                                   .threads = 1,
                                                   .crc = with_crc ? &crc : NULL,
                                                   .fault_address = &where};
                    medium_resize(cut);
                    void *dst = reading ? memory : medium, *src = reading ? medium : memory;
                    CHECK(copy_payload(dst, src, n, options) == -1, "n %zu mode %d", n, mode);
                    CHECK((char *)where >= medium + cut && (char *)where < medium + n, "%p", where);
                    CHECK(crc == 42, "crc changed");
                    CHECK(gismo_guard_top == NULL, "guard left behind");
                    options.threads = 2;
                    CHECK(copy_payload(dst, src, n, options) == -1, "n %zu mode %d, 2 threads", n, mode);
                    medium_resize(MEDIUM_BYTES);
                    CHECK(copy_payload(dst, src, n, options) == 0, "n %zu mode %d, restored", n, mode);
                }
    free(memory);
}

static _Atomic int hook_calls;
static _Thread_local bool is_main;

static void truncate_under_helper(void) {
    if (atomic_fetch_add(&hook_calls, 1) == 0)
        medium_resize(0);
}

static uint32_t usable_processors(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
}

/* The helper itself takes the pages away before its slice, so it is (nearly always) the one that faults. */
static void test_fault_in_helper(void) {
    if (usable_processors() < 2) {
        printf("fault in helper: one processor, skipped\n");
        return;
    }
    char *memory = aligned(MEDIUM_BYTES);
    memset(memory, 4, MEDIUM_BYTES);
    atomic_store(&copy_pool_test_hook, truncate_under_helper);
    int faults = 0;
    for (int round = 0; round < 2000 && faults < 10; round++) {
        uint32_t crc = 42;
        medium_resize(MEDIUM_BYTES);
        atomic_store(&hook_calls, 0);
        int status = copy_payload(medium + 64, memory, MEDIUM_BYTES - 64,
                                  (struct copy_options){.mode = COPY_STREAM, .threads = 2, .crc = &crc});
        bool truncated = atomic_load(&hook_calls) > 0;
        CHECK(status == (truncated ? -1 : 0), "round %d: %d", round, status);
        faults += truncated;
    }
    atomic_store(&copy_pool_test_hook, NULL);
    medium_resize(MEDIUM_BYTES);
    CHECK(faults > 0, "no helper ever took a slice");
    /* the pool lives on */
    fill_random(memory, MEDIUM_BYTES, 5);
    copy_case(medium + 64, memory, MEDIUM_BYTES - 4096, COPY_STREAM, 2, true);
    free(memory);
}

static void test_guards_nest(void) {
    struct gismo_guard outer;
    volatile int inner_faults = 0;
    medium_resize(0);
    if (GUARD_TRY(outer)) {
        struct gismo_guard inner;
        if (GUARD_TRY(inner)) {
            *(volatile char *)medium = 1;
            GUARD_END(inner);
        } else {
            inner_faults++;
            CHECK(inner.fault_address == medium, "%p", inner.fault_address);
        }
        char byte[8];
        CHECK(copy_payload(byte, medium, 8, (struct copy_options){0}) == -1, "does not jump to the outer guard");
        *(volatile char *)(medium + 4096) = 1;
        GUARD_END(outer);
        CHECK(false, "no fault");
    }
    CHECK(inner_faults == 1 && outer.fault_address == medium + 4096, "%p", outer.fault_address);
    CHECK(gismo_guard_top == NULL, "guard left behind");
    medium_resize(MEDIUM_BYTES);
}

static sigjmp_buf foreign_jump;
static volatile sig_atomic_t foreign_faults;

static void foreign_handler(int signal_number) {
    (void)signal_number;
    foreign_faults = foreign_faults + 1;
    siglongjmp(foreign_jump, 1);
}

/* Runs first: it must be the one that installs our handler. */
static void test_foreign_fault_reaches_previous_handler(void) {
    struct sigaction foreign = {.sa_handler = foreign_handler};
    CHECK(sigaction(SIGBUS, &foreign, NULL) == 0 && guard_install() == 0 && guard_install() == 0, "sigaction");
    medium_resize(0);
    if (sigsetjmp(foreign_jump, 1) == 0)
        *(volatile char *)medium = 1;
    CHECK(foreign_faults == 1, "%d", (int)foreign_faults);
    medium_resize(MEDIUM_BYTES);
}

static struct sigaction displaced;

static void displacing_handler(int signal_number) { /* as Python's faulthandler does */
    sigaction(signal_number, &displaced, NULL);
    raise(signal_number);
}

static void test_later_handler_that_raises_again(void) {
    struct sigaction displacing = {.sa_handler = displacing_handler, .sa_flags = SA_NODEFER};
    CHECK(sigaction(SIGBUS, &displacing, &displaced) == 0, "sigaction");
    medium_resize(0);
    char bytes[8];
    CHECK(copy_payload(bytes, medium, 8, (struct copy_options){0}) == -1, "fault");
    CHECK(copy_payload(bytes, medium, 8, (struct copy_options){0}) == -1, "fault");
    medium_resize(MEDIUM_BYTES);
}

/* Without an earlier handler a fault of others, or a sent signal, still kills. In children, before the first install. */
static void test_default_death(void) {
    for (int sent = 0; sent < 2 && !SANITIZED; sent++) { /* the sanitizers have SIGBUS handlers of their own */
        pid_t child = fork();
        if (child == 0) {
            signal(SIGBUS, SIG_DFL);
            guard_install();
            medium_open();
            medium_resize(0);
            if (sent)
                kill(getpid(), SIGBUS);
            else
                *(volatile char *)medium = 1;
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child, "waitpid");
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status %x", status);
    }
}

/* ---- fork ---------------------------------------------------------------------------------------- */

static void expect_success(pid_t child) {
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child, "fork");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child: %x", status);
}

static _Atomic int stop;

static void *copy_until_stopped(void *argument) {
    size_t n = 8 * MIB;
    char *src = aligned(n), *dst = aligned(n);
    memset(src, 1, n);
    memset(dst, 1, n);
    while (!atomic_load(&stop))
        copy_payload(dst, src, n, (struct copy_options){.mode = COPY_STREAM, .threads = 2});
    free(src);
    free(dst);
    return argument;
}

/* A child must be able to copy, with helpers of its own, whatever the parent's pool was doing at the fork. */
static void test_fork(void) {
    if (!FORKED_THREADS_WORK)
        return;
    size_t n = 12 * MIB;
    char *src = aligned(n), *dst = aligned(n);
    fill_random(src, n, 6);
    copy_case(dst + 64, src, n - 4096, COPY_STREAM, 2, true);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, copy_until_stopped, NULL) == 0, "thread");
    for (int round = 0; round < 25; round++) {
        pid_t child = fork();
        if (child == 0) {
            uint64_t before = copy_pool_helped_slices();
            for (int i = 0; i < 300 && (i < 2 || copy_pool_helped_slices() == before); i++)
                copy_case(dst + 64, src, n - 4096, COPY_STREAM, 2, true);
            CHECK(usable_processors() < 2 || copy_pool_helped_slices() > before, "the child's pool does not help");
            _exit(0);
        }
        expect_success(child);
    }
    atomic_store(&stop, 1);
    pthread_join(thread, NULL);
    copy_case(dst + 64, src, n - 4096, COPY_STREAM, 2, true);
    free(src);
    free(dst);
}

static volatile sig_atomic_t forked_child = -1;

static void fork_on_alarm(int signal_number) {
    (void)signal_number;
    if (is_main && forked_child < 0)
        forked_child = (sig_atomic_t)fork();
}

static void test_fork_on_top_of_a_copy(void) {
    if (!FORKED_THREADS_WORK)
        return;
    size_t n = 32 * MIB;
    char *src = aligned(n), *dst = aligned(n);
    fill_random(src, n, 7);
    struct sigaction on_alarm = {.sa_handler = fork_on_alarm};
    CHECK(sigaction(SIGALRM, &on_alarm, NULL) == 0, "sigaction");
    for (int round = 0; round < 10; round++) {
        forked_child = -1;
        struct itimerval soon = {.it_value = {.tv_usec = 300 + 100 * round}};
        setitimer(ITIMER_REAL, &soon, NULL);
        while (forked_child < 0) {
            uint32_t crc = 0;
            CHECK(copy_payload(dst, src, n, (struct copy_options){.threads = 2, .crc = &crc}) == 0, "copy");
            CHECK(crc == crc32c(0, src, n) && memcmp(dst, src, n) == 0, "wrong bytes, round %d", round);
            memset(dst, 0, 4096);
        }
        if (forked_child == 0) {
            copy_case(dst + 64, src, n - 4096, COPY_STREAM, 2, true);
            _exit(0);
        }
        expect_success((pid_t)forked_child);
    }
    free(src);
    free(dst);
}

static void be_late(void) { usleep(30000); }

static void fork_before_the_wait(void) {
    if (is_main && forked_child < 0)
        forked_child = (sig_atomic_t)fork();
}

/* Between the caller's look at what is done and its wait: the child has nobody who could wake it. */
static void test_fork_just_before_the_caller_waits(void) {
    if (!FORKED_THREADS_WORK || usable_processors() < 2)
        return;
    size_t n = 8 * MIB;
    char *src = aligned(n), *dst = aligned(n);
    fill_random(src, n, 9);
    forked_child = -1;
    atomic_store(&copy_pool_test_hook, be_late); /* each slice of a helper: so the caller has to wait */
    atomic_store(&copy_pool_wait_hook, fork_before_the_wait);
    for (int round = 0; round < 50 && forked_child < 0; round++) {
        uint32_t crc = 0;
        CHECK(copy_payload(dst, src, n, (struct copy_options){.threads = 2, .crc = &crc}) == 0, "copy");
        CHECK(crc == crc32c(0, src, n) && memcmp(dst, src, n) == 0, "wrong bytes, round %d", round);
    }
    atomic_store(&copy_pool_test_hook, NULL);
    atomic_store(&copy_pool_wait_hook, NULL);
    if (forked_child == 0) {
        copy_case(dst + 64, src, n - 4096, COPY_STREAM, 2, true);
        _exit(0);
    }
    CHECK(forked_child > 0, "the caller never had to wait for its helper");
    expect_success((pid_t)forked_child);
    free(src);
    free(dst);
}

static _Atomic int times_asked;

static uint32_t none_is_idle(void) { return 0; }

static uint32_t idle_when_asked_again(void) { return atomic_fetch_add(&times_asked, 1) > 0; }

static uint32_t idle_until_asked_again(void) { return atomic_fetch_add(&times_asked, 1) == 0; }

static void copy_and_compare(char *dst, const char *src, size_t n) {
    usleep(2000); /* what was said of idle processors before is not believed any more */
    atomic_store(&times_asked, 0);
    memset(dst, 0, n);
    uint32_t crc = 0;
    CHECK(copy_payload(dst, src, n, (struct copy_options){.crc = &crc}) == 0, "copy");
    CHECK(crc == crc32c(0, src, n) && memcmp(dst, src, n) == 0, "wrong bytes");
}

/* A long copy: helpers come when processors become idle meanwhile, and go. */
static void test_helpers_come_and_go(void) {
    size_t n = 256 * MIB;
    char *src = aligned(n), *dst = aligned(n);
    fill_random(src, n, 10);
    atomic_store(&copy_pool_idle_hook, none_is_idle);
    uint64_t before = copy_pool_helped_slices();
    copy_and_compare(dst, src, n);
    CHECK(copy_pool_helped_slices() == before, "a helper came, and no processor was idle");
    if (usable_processors() > 1) {
        atomic_store(&copy_pool_idle_hook, idle_when_asked_again);
        for (int round = 0; round < 200 && copy_pool_helped_slices() == before; round++)
            copy_and_compare(dst, src, n);
        CHECK(copy_pool_helped_slices() > before, "no helper came when a processor became idle");
        uint64_t fewest = UINT64_MAX;
        atomic_store(&copy_pool_idle_hook, idle_until_asked_again);
        for (int round = 0; round < 200 && fewest >= n / MIB / 4; round++) {
            before = copy_pool_helped_slices();
            copy_and_compare(dst, src, n);
            uint64_t helped = copy_pool_helped_slices() - before;
            if (helped > 0 && helped < fewest)
                fewest = helped;
        }
        CHECK(fewest < n / MIB / 4, "no helper went when its processor was not idle any more: %llu slices",
              (unsigned long long)fewest);
    }
    atomic_store(&copy_pool_idle_hook, NULL);
    free(src);
    free(dst);
}

int main(void) {
    is_main = true;
    test_default_death();
    medium_open();
    test_foreign_fault_reaches_previous_handler();
    test_known_vectors();
    test_crc_lengths();
    test_combine();
    test_copy_lengths();
    test_copy_large();
    test_guards_nest();
    test_fault_in_caller();
    test_fault_in_helper();
    test_later_handler_that_raises_again();
    test_many_callers();
    test_fork();
    test_fork_on_top_of_a_copy();
    test_fork_just_before_the_caller_waits();
    test_helpers_come_and_go();
    printf("test_copy: ok (cpu features %x, %llu slices by helpers)\n", gismo_cpu_features(),
           (unsigned long long)copy_pool_helped_slices());
    return 0;
}
