/*
 * copy_pool.c - a few threads per process that help with one large copy at a time.
 *
 * A copy is cut into slices. The caller publishes the job, wakes the helpers and begins to take slices itself; so do
 * the helpers, as soon as they run. Nobody waits for a helper to start: if none comes, the caller has done it all. It
 * waits only for slices that a helper has begun, and these are small (SLICE_BYTES_MAX, 50 us).
 *
 * The hand-over. `claims` holds the number of slices nobody has taken yet (and how many helpers may take any); a slice
 * is taken by decrementing it with a compare-and-swap. Whoever succeeds owns a slice of the *current* job, for a job
 * ends only when `done_slices` has reached its count: so the plain fields of `job` are stable until its owner counts
 * the slice as done, and a helper that wakes up late, in the middle of the next job, either finds nothing to take or
 * takes a slice of that one. There is no way to hold on to an old job. Release on `claims` and `done_slices`, acquire
 * on the other side, order the plain fields and the copied bytes; non-temporal stores are fenced per slice.
 *
 * One job at a time: `busy` is taken by compare-and-swap; who finds it taken copies alone. So do jobs that would not pay:
 * as many helpers are called as processors are idle just then (idle_processors), none beside the caller on its own
 * processor (spread_helpers), and after a job in which the helpers did nothing or the caller waited long for a slice
 * (somebody else uses the processors) the next ones are done alone, twice as many after each failure, 64 at most. A copy
 * that takes long (ASK_AGAIN_BYTES) is not left with what its first moment was like: between its slices the caller asks
 * again, calls more helpers, or lets some go. What a task of Ray returns is
 * copied when the task ends, and just then the processors are busy with that.
 *
 * Fork. No lock is held at any time; what a child finds is stale, not locked. The child's atfork handler empties the
 * pool, so that the child makes threads of its own when it needs them. A fork from a signal handler on top of a copy
 * is seen by `epoch`: the child does that copy again, alone.
 *
 * Faults. Each slice is copied under a guard of the thread that copies it. A fault marks the job as failed, all other
 * slices are skipped, and the job ends in the ordinary way, so the pool stays usable.
 *
 * Helpers block all signals (the application's handlers run in its own threads) but the synchronous ones: a blocked
 * SIGBUS would kill the process on a fault. They sleep on a futex and never exit; a library with this file in it must
 * not be unloaded (link with -z nodelete).
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT_S */
#endif
#include "copy_pool.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "compat.h"
#include "crc32c.h"
#include "guard.h"

#define HELPERS_MAX (COPY_POOL_THREADS_MAX - 1)
#define LINE_BYTES 64u
#define SLICE_BYTES_MIN (128u << 10) /* of 64, 128, 256, 512 KiB the best for 1 MiB: 20.3, 21.3, 21.0, 17.5 GB/s */
#define SLICE_BYTES_MAX (1u << 20)
#define SLICES_PER_THREAD 8 /* as small as SLICE_BYTES_MIN, so that both end at about the same time */
#define IDLE_ANSWER_NS 1000000u /* so long the last count of idle processors is believed */
#define ASK_AGAIN_BYTES (32u << 20) /* 3 ms of one thread */
#define ASK_AGAIN_NS 2000000u
#define SLICES_MAX 4096u    /* copies beyond SLICES_MAX * SLICE_BYTES_MAX have larger slices */
#define STACK_BYTES (256u << 10)
#define SPINS_BEFORE_SLEEP 2000 /* about 20 us: the next buffer of the same put comes soon */
#define DECLINED_MAX 64u
#define MASK_WORDS 128 /* 8192 processors: the C library's 1024 are too few for some machines */

struct job {
    char *dst;
    const char *src;
    size_t length_bytes;
    size_t slice_bytes; /* a multiple of LINE_BYTES */
    size_t dst_skew;    /* dst modulo LINE_BYTES: slices are cut at line boundaries of the destination */
    uint32_t slices;
    enum copy_mode mode;
    bool wants_crc;
    uint32_t slice_crc[SLICES_MAX];
};

struct helper {
    _Alignas(LINE_BYTES) _Atomic uint32_t wake; /* futex; changes to wake it */
    _Atomic int tid;                            /* 0 until it runs */
    uint32_t index;
    int avoids; /* the processor its affinity leaves out, -1 = none; by the holder of `busy` */
};

static struct pool {
    _Alignas(LINE_BYTES) _Atomic uint64_t claims;      /* helpers allowed << 32 | slices nobody has taken */
    _Alignas(LINE_BYTES) _Atomic uint32_t done_slices; /* futex for the caller */
    _Atomic uint32_t caller_sleeps;
    _Atomic int failed;
    _Atomic(void *) fault_address;
    _Alignas(LINE_BYTES) _Atomic int busy;
    /* Below: the holder of `busy` only (and helpers while they own a slice: job). */
    uint32_t helpers;
    uint32_t online;                       /* processors of the machine, 0 = not asked yet */
    uint32_t declined_left, declined_next; /* jobs still to be done alone; how many after the next failure */
    unsigned long allowed[MASK_WORDS];     /* that `avoids` was taken out of */
    struct helper helper[HELPERS_MAX];
    struct job job;
} pool;

static _Atomic uint32_t epoch; /* forks between us and the first process */
static _Atomic int fork_handler_state;
static _Atomic uint64_t helped_slices;
static _Atomic uint32_t awake; /* helpers that copy or spin: runnable, but ours to use */
void (*_Atomic copy_pool_test_hook)(void), (*_Atomic copy_pool_wait_hook)(void);
uint32_t (*_Atomic copy_pool_idle_hook)(void);

/* 0 ms = until woken. */
static void futex_wait(_Atomic uint32_t *word, uint32_t value, long at_most_ms) {
    struct timespec timeout = {.tv_nsec = at_most_ms * 1000000};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, at_most_ms ? &timeout : NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- slices, by helpers and caller alike ------------------------------------------------------ */

#define CALLER (-1)

/* Takes a slice of the current job; false when there is none for this thread: CALLER, for whom there is always one as long
 * as any is left, or the number of a helper. */
static bool claim_slice(int who, uint32_t *left) {
    uint64_t claims = atomic_load_explicit(&pool.claims, memory_order_relaxed);
    do {
        if ((uint32_t)claims == 0 || who >= (int)(claims >> 32))
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&pool.claims, &claims, claims - 1, memory_order_acq_rel,
                                                    memory_order_relaxed));
    *left = (uint32_t)claims;
    return true;
}

/* Not inlined: __builtin_setjmp needs a frame without values kept in registers across it. */
static __attribute__((noinline)) int copy_guarded(char *dst, const char *src, size_t n, enum copy_mode mode,
                                                  uint32_t *crc) {
    struct gismo_guard guard;
    if (GUARD_TRY(guard)) {
        copy_range(dst, src, n, mode, crc);
        GUARD_END(guard);
        return 0;
    }
    atomic_store_explicit(&pool.fault_address, guard.fault_address, memory_order_relaxed);
    return -1;
}

static void copy_slice(uint32_t left) {
    struct job *job = &pool.job;
    uint32_t slices = job->slices, slice = slices - left; /* ascending, as the hardware likes it */
    if (!atomic_load_explicit(&pool.failed, memory_order_relaxed)) {
        size_t begin = slice * job->slice_bytes, end = begin + job->slice_bytes;
        begin = slice == 0 ? 0 : begin - job->dst_skew;
        end = slice == slices - 1 ? job->length_bytes : end - job->dst_skew;
        job->slice_crc[slice] = 0;
        if (copy_guarded(job->dst + begin, job->src + begin, end - begin, job->mode,
                         job->wants_crc ? &job->slice_crc[slice] : NULL) != 0)
            atomic_store_explicit(&pool.failed, 1, memory_order_relaxed);
    }
    /* From here on `job` may belong to the next caller. */
    if (atomic_fetch_add(&pool.done_slices, 1) + 1 == slices && atomic_load(&pool.caller_sleeps))
        futex_wake(&pool.done_slices);
}

/* ---- helpers ---------------------------------------------------------------------------------- */

static void *helper_main(void *argument) {
    struct helper *self = argument;
    prctl(PR_SET_NAME, "gismo-copy", 0, 0, 0);
    atomic_store_explicit(&self->tid, (int)syscall(SYS_gettid), memory_order_release);
    for (;;) {
        uint32_t seen = atomic_load_explicit(&self->wake, memory_order_acquire), left;
        atomic_fetch_add_explicit(&awake, 1, memory_order_relaxed);
        while (claim_slice((int)self->index, &left)) {
            void (*hook)(void) = atomic_load_explicit(&copy_pool_test_hook, memory_order_relaxed);
            if (__builtin_expect(hook != NULL, 0))
                hook();
            atomic_fetch_add_explicit(&helped_slices, 1, memory_order_relaxed);
            copy_slice(left);
        }
        for (int i = 0; i < SPINS_BEFORE_SLEEP && atomic_load_explicit(&self->wake, memory_order_relaxed) == seen; i++)
            __builtin_ia32_pause();
        atomic_fetch_sub_explicit(&awake, 1, memory_order_relaxed);
        while (atomic_load_explicit(&self->wake, memory_order_relaxed) == seen)
            futex_wait(&self->wake, seen, 0);
    }
    return NULL;
}

static void empty_pool_in_child(void) {
    /* The only thread here: a plain reset, field by field, for the job's 16 KiB need none. */
    atomic_store(&pool.claims, 0);
    atomic_store(&pool.done_slices, 0);
    atomic_store(&pool.caller_sleeps, 0);
    atomic_store(&pool.failed, 0);
    atomic_store(&awake, 0);
    pool.helpers = 0;
    pool.declined_left = 0;
    pool.declined_next = 0;
    atomic_fetch_add(&epoch, 1);
    atomic_store(&pool.busy, 0);
}

/* Starts what is missing of `wanted` helpers; fewer when the system gives no more. By the holder of `busy`. */
static void start_helpers(uint32_t wanted) {
    if (pool.helpers >= wanted)
        return;
    if (atomic_exchange(&fork_handler_state, 1) == 0 && pthread_atfork(NULL, NULL, empty_pool_in_child) != 0) {
        atomic_store(&fork_handler_state, 0);
        return;
    }
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigset_t before;
    guard_mask_for_threads(&before);
    while (pool.helpers < wanted) {
        struct helper *helper = &pool.helper[pool.helpers];
        helper->index = pool.helpers;
        helper->avoids = -1;
        atomic_store_explicit(&helper->tid, 0, memory_order_relaxed);
        pthread_t thread;
        if (pthread_create(&thread, &attributes, helper_main, helper) != 0)
            break;
        pool.helpers++;
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

/* ---- the caller -------------------------------------------------------------------------------- */

/* Processors that this thread (and so a thread it starts) may run on. */
static uint32_t read_processors(unsigned long mask[MASK_WORDS]) {
    memset(mask, 0, MASK_WORDS * sizeof *mask);
    if (sched_getaffinity(0, MASK_WORDS * sizeof *mask, (cpu_set_t *)(void *)mask) != 0)
        return 1;
    return (uint32_t)CPU_COUNT_S(MASK_WORDS * sizeof *mask, (cpu_set_t *)(void *)mask);
}

/*
 * Keeps the helpers off the caller's processor. The kernel likes to wake a thread beside its waker; there a helper does
 * not add to the caller but displaces it, even with another processor idle (measured: 2 of 3 wakes, kernel 6.18).
 * One system call per helper, and only when the caller has moved.
 */
static void spread_helpers(const unsigned long allowed[MASK_WORDS]) {
    int here = sched_getcpu();
    if (here < 0 || here >= MASK_WORDS * 64)
        return;
    bool same_mask = memcmp(pool.allowed, allowed, sizeof pool.allowed) == 0;
    memcpy(pool.allowed, allowed, sizeof pool.allowed);
    for (uint32_t i = 0; i < pool.helpers; i++) {
        struct helper *helper = &pool.helper[i];
        int tid = atomic_load_explicit(&helper->tid, memory_order_acquire);
        if (tid == 0 || (same_mask && helper->avoids == here))
            continue;
        unsigned long mask[MASK_WORDS];
        memcpy(mask, allowed, sizeof mask);
        mask[here / 64] &= ~(1ul << (here % 64));
        if (sched_setaffinity(tid, sizeof mask, (const cpu_set_t *)(const void *)mask) == 0)
            helper->avoids = here;
    }
}

/*
 * Processors that nobody uses at this moment, by the fourth field of /proc/loadavg: runnable threads, system-wide, now.
 * Without this a helper shares its processor, is suspended in the middle of a slice, and the caller waits for a whole
 * turn of somebody else (measured: 30 ms instead of 1). Costs some 5 us, hence only for large copies.
 */
static uint32_t idle_processors(void) {
    int fd = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return HELPERS_MAX; /* no /proc: try, and learn() judges */
    char text[128];
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return HELPERS_MAX;
    text[n] = '\0';
    const char *field = text;
    for (int i = 0; i < 3 && field != NULL; i++)
        field = (field = strchr(field, ' ')) != NULL ? field + 1 : NULL;
    uint32_t running = 0;
    for (; field != NULL && *field >= '0' && *field <= '9'; field++)
        running = running * 10 + (uint32_t)(*field - '0');
    uint32_t ours = atomic_load_explicit(&awake, memory_order_relaxed);
    running = running > ours ? running - ours : 0;
    return running < pool.online ? pool.online - running : 0;
}

/* As many as are idle, `most` at most. By the holder of `busy`. */
static uint32_t helpers_that_pay(uint32_t most) {
    /* Opening and reading /proc costs as much as copying 100 KiB, and what it says holds for a while. */
    static uint64_t asked_ns;
    static uint32_t idle;
    uint64_t now = now_ns();
    if (now - asked_ns > IDLE_ANSWER_NS) {
        uint32_t (*hook)(void) = atomic_load_explicit(&copy_pool_idle_hook, memory_order_relaxed);
        idle = hook != NULL ? hook() : idle_processors();
        asked_ns = now;
    }
    return idle < most ? idle : most;
}

/* From now on so many may take slices of the job; those that could not before are woken. By the holder of `busy`. */
static void let_help(uint32_t helpers) {
    uint64_t claims = atomic_load_explicit(&pool.claims, memory_order_relaxed);
    do {
        if ((uint32_t)claims == 0)
            return;
    } while (!atomic_compare_exchange_weak_explicit(&pool.claims, &claims, (uint64_t)helpers << 32 | (uint32_t)claims,
                                                    memory_order_acq_rel, memory_order_relaxed));
    for (uint32_t i = (uint32_t)(claims >> 32); i < helpers; i++) {
        atomic_fetch_add_explicit(&pool.helper[i].wake, 1, memory_order_release);
        futex_wake(&pool.helper[i].wake);
    }
}

static void publish_job(char *dst, const char *src, size_t n, const struct copy_options *options, uint32_t helpers) {
    struct job *job = &pool.job;
    size_t slice = n / ((helpers + 1) * SLICES_PER_THREAD);
    slice = slice < SLICE_BYTES_MIN ? SLICE_BYTES_MIN : slice > SLICE_BYTES_MAX ? SLICE_BYTES_MAX : slice;
    if (slice < n / (SLICES_MAX - 1))
        slice = n / (SLICES_MAX - 1) + 1; /* the skew can add a slice */
    job->slice_bytes = (slice + LINE_BYTES - 1) & ~(size_t)(LINE_BYTES - 1);
    job->dst = dst;
    job->src = src;
    job->length_bytes = n;
    job->dst_skew = (uintptr_t)dst % LINE_BYTES;
    job->slices = (uint32_t)((n + job->dst_skew + job->slice_bytes - 1) / job->slice_bytes);
    job->mode = options->mode;
    job->wants_crc = options->crc != NULL;
    atomic_store_explicit(&pool.failed, 0, memory_order_relaxed);
    atomic_store_explicit(&pool.fault_address, NULL, memory_order_relaxed);
    atomic_store_explicit(&pool.done_slices, 0, memory_order_relaxed);
    atomic_store_explicit(&pool.claims, job->slices, memory_order_release);
    let_help(helpers);
}

/* False if a fork in a signal handler made this a child without helpers. */
static bool wait_for_slices(uint32_t slices, uint32_t my_epoch) {
    uint32_t done;
    for (int spins = 0; (done = atomic_load(&pool.done_slices)) < slices; spins++) {
        if (atomic_load_explicit(&epoch, memory_order_relaxed) != my_epoch)
            return false;
        if (spins < SPINS_BEFORE_SLEEP) {
            __builtin_ia32_pause();
            continue;
        }
        /* Sequentially consistent on both sides: either the helper with the last slice sees that we sleep and wakes
         * us, or we see its count. A stray wake (of the job before) is harmless: we look again. Not for ever: a signal handler
         * that comes here may fork, and in the child nobody is left to wake us. */
        atomic_store(&pool.caller_sleeps, 1);
        void (*hook)(void) = atomic_load_explicit(&copy_pool_wait_hook, memory_order_relaxed);
        if (__builtin_expect(hook != NULL, 0))
            hook();
        done = atomic_load(&pool.done_slices);
        if (done < slices)
            futex_wait(&pool.done_slices, done, 20);
        atomic_store(&pool.caller_sleeps, 0);
    }
    return atomic_load_explicit(&epoch, memory_order_relaxed) == my_epoch;
}

/* An operator takes 0.5 us, and most copies of a program have slices of the same few lengths. Under pool.busy. */
static uint32_t operator_for(uint64_t length) {
    static struct {
        uint64_t length;
        uint32_t operator_of_it;
    } known[8];
    static uint32_t next;
    for (uint32_t i = 0; i < 8; i++)
        if (known[i].length == length)
            return known[i].operator_of_it;
    uint32_t place = next++ % 8;
    known[place].length = length;
    known[place].operator_of_it = crc32c_combine_operator(length);
    return known[place].operator_of_it;
}

static uint32_t combine_slices(uint32_t crc) {
    const struct job *job = &pool.job;
    size_t first = job->slice_bytes - job->dst_skew;
    for (uint32_t i = 0; i < job->slices; i++) {
        uint64_t length = job->slices == 1      ? job->length_bytes
                          : i == 0              ? first
                          : i < job->slices - 1 ? job->slice_bytes
                                                : job->length_bytes - first - (i - 1) * job->slice_bytes;
        crc = crc32c_combine_with(operator_for(length), crc, job->slice_crc[i]);
    }
    return crc;
}

static void learn(uint64_t total_ns, uint64_t waited_ns, uint64_t helped) {
    if (helped != 0 && waited_ns * 4 < total_ns) {
        pool.declined_next /= 2;
        return;
    }
    pool.declined_next = pool.declined_next == 0 ? 1 : pool.declined_next * 2;
    if (pool.declined_next > DECLINED_MAX)
        pool.declined_next = DECLINED_MAX;
    pool.declined_left = pool.declined_next;
}

/* Ready to be let help: `wanted` of them, or fewer, and not on this processor. */
static uint32_t prepare_helpers(uint32_t wanted, const unsigned long allowed[MASK_WORDS]) {
    start_helpers(wanted);
    if (wanted > pool.helpers)
        wanted = pool.helpers;
    if (wanted > 0)
        spread_helpers(allowed);
    return wanted;
}

static enum copy_pool_result run_as_owner(char *dst, const char *src, size_t n, const struct copy_options *options) {
    bool decides = options->threads == 0, asks_again = decides && n >= ASK_AGAIN_BYTES;
    uint32_t most = (decides ? COPY_POOL_THREADS_MAX : (uint32_t)options->threads) - 1;
    if (most > HELPERS_MAX)
        most = HELPERS_MAX;
    if (decides && !asks_again && pool.declined_left > 0) {
        pool.declined_left--;
        return COPY_POOL_UNAVAILABLE;
    }
    if (pool.online == 0)
        pool.online = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    unsigned long allowed[MASK_WORDS];
    uint32_t usable = read_processors(allowed);
    if (most > usable - 1)
        most = usable - 1;
    uint32_t helpers = prepare_helpers(decides ? helpers_that_pay(most) : most, allowed);
    if (helpers == 0 && (!asks_again || most == 0))
        return COPY_POOL_UNAVAILABLE;

    uint32_t my_epoch = atomic_load_explicit(&epoch, memory_order_relaxed), left;
    uint64_t helped = atomic_load_explicit(&helped_slices, memory_order_relaxed), began_ns = now_ns();
    publish_job(dst, src, n, options, helpers);
    uint32_t slices = pool.job.slices;
    uint64_t asked_ns = began_ns;
    bool called_any = helpers > 0;
    while (claim_slice(CALLER, &left)) {
        copy_slice(left);
        if (!asks_again || now_ns() - asked_ns < ASK_AGAIN_NS ||
            atomic_load_explicit(&epoch, memory_order_relaxed) != my_epoch)
            continue;
        asked_ns = now_ns();
        uint32_t now_idle = helpers_that_pay(most);
        if (now_idle != helpers) {
            helpers = prepare_helpers(now_idle, allowed);
            let_help(helpers);
            called_any |= helpers > 0;
        }
    }
    uint64_t wait_began_ns = now_ns();
    if (!wait_for_slices(slices, my_epoch))
        return COPY_POOL_UNAVAILABLE;
    uint64_t ended_ns = now_ns();
    if (called_any)
        learn(ended_ns - began_ns, ended_ns - wait_began_ns,
              atomic_load_explicit(&helped_slices, memory_order_relaxed) - helped);
    if (atomic_load_explicit(&pool.failed, memory_order_relaxed)) {
        if (options->fault_address != NULL)
            *options->fault_address = atomic_load_explicit(&pool.fault_address, memory_order_relaxed);
        return COPY_POOL_FAULT;
    }
    if (options->crc != NULL)
        *options->crc = combine_slices(*options->crc);
    return COPY_POOL_DONE;
}

enum copy_pool_result copy_pool_run(void *dst, const void *src, size_t n, struct copy_options options) {
    int expected = 0;
    if (!atomic_compare_exchange_strong_explicit(&pool.busy, &expected, 1, memory_order_acquire, memory_order_relaxed))
        return COPY_POOL_UNAVAILABLE;
    uint32_t my_epoch = atomic_load_explicit(&epoch, memory_order_relaxed);
    enum copy_pool_result result = run_as_owner(dst, src, n, &options);
    if (atomic_load_explicit(&epoch, memory_order_relaxed) == my_epoch) /* else the pool is not ours any more */
        atomic_store_explicit(&pool.busy, 0, memory_order_release);
    return result;
}

uint64_t copy_pool_helped_slices(void) { return atomic_load_explicit(&helped_slices, memory_order_relaxed); }
