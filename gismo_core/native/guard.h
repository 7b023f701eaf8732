/*
 * guard.h - turns a SIGBUS inside a guarded region into a second return of GUARD_TRY.
 *
 * A mapping can lose its pages under us: the file is truncated, a tmpfs is full, a device is unbound, memory is
 * poisoned. The kernel then sends SIGBUS to the thread that touched it. Use:
 *
 *     struct gismo_guard guard;
 *     if (GUARD_TRY(guard)) {
 *         ... touch the medium ...
 *         GUARD_END(guard);
 *     } else {
 *         ... the medium failed at guard.fault_address; the guard is disarmed and popped ...
 *     }
 *
 * Rules:
 *  - The guard is a local of the function that has GUARD_TRY; that function must not return, or leave the region by
 *    any other way, before GUARD_END. Guards nest; the innermost gets the fault.
 *  - A local that is changed inside the region and read after the fault must be volatile.
 *  - Inside the region: no lock taken, no memory allocated, nothing that a jump out of the middle would leave half
 *    done. Loads, stores, memcpy.
 *  - guard_install() has been called before (it costs one load when it has).
 *  - A thread that blocks SIGBUS is killed by the kernel on a fault: nothing here can help it.
 */
#ifndef GISMO_GUARD_H
#define GISMO_GUARD_H

#include <signal.h>
#include <stdbool.h>

struct gismo_guard {
    void *jmp[5]; /* of __builtin_setjmp: frame, label, stack pointer, shadow stack, target use */
    struct gismo_guard *outer;
    volatile int armed;
    void *fault_address; /* NULL when unknown (the signal came through another handler) */
};

/*
 * initial-exec: the handler reads it, and the dynamic TLS model may call malloc at a thread's first access. It takes
 * 8 bytes of the surplus that glibc keeps for libraries loaded late.
 */
extern __thread struct gismo_guard *gismo_guard_top __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* What to say of a fault outside of every guard, before it goes to the handler behind ours: async-signal-safe, or NULL. */
typedef void guard_stray_fn(const void *address, bool is_poisoned);
extern guard_stray_fn *_Atomic guard_on_stray;

/* Installs the handler, once per process, children of fork included. Returns 0, or -1 with errno set. */
int guard_install(void);

/* The mask that a thread of ours shall inherit: set for this thread, the one before in *before, to be put back by
 * sigprocmask once the thread is made. No signal is meant for such a thread but the faults: a blocked SIGBUS would kill
 * the process instead of reaching the guard, and the others would not reach a handler that reports them. */
void guard_mask_for_threads(sigset_t *before);

/* The compiler must not move the guarded accesses across arming and disarming; the CPU never shows a thread itself
 * out of order, so a compiler barrier is enough. */
static inline void guard_push_(struct gismo_guard *guard) {
    guard->fault_address = (void *)0;
    guard->outer = gismo_guard_top;
    guard->armed = 1;
    __asm__ volatile("" ::: "memory");
    gismo_guard_top = guard;
    __asm__ volatile("" ::: "memory");
}

static inline void guard_pop_(struct gismo_guard *guard) {
    __asm__ volatile("" ::: "memory");
    gismo_guard_top = guard->outer;
    guard->armed = 0;
    __asm__ volatile("" ::: "memory");
}

/*
 * clang does not know by itself that __builtin_setjmp returns twice, and may give the stack slot of a local that only the
 * second return reads to another variable. A call of a function that says so keeps it from that. gcc knows.
 */
#if defined(__clang__)
int guard_returns_twice(void) __attribute__((returns_twice));
#define GUARD_RETURNS_TWICE_() (void)guard_returns_twice()
#else
#define GUARD_RETURNS_TWICE_() (void)0
#endif

/* Macros, for __builtin_setjmp must be in the frame that is jumped to. Pushed after setjmp: armed means jumpable. */
#define GUARD_TRY(g) (GUARD_RETURNS_TWICE_(), __builtin_setjmp((g).jmp) == 0 ? (guard_push_(&(g)), 1) : 0)
#define GUARD_END(g) guard_pop_(&(g))

#endif
