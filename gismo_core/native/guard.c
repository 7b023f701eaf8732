/*
 * guard.c - the SIGBUS handler behind guard.h.
 *
 * One handler per process, chained to the one that was there. It claims a signal only if this thread has an armed
 * guard, that is, only while our own code is touching a medium; a fault of anybody else goes to the previous handler
 * unchanged. It never allocates, never locks, and reads only a thread-local and what was written before it was
 * installed.
 *
 * What counts as a fault: a signal made by the kernel for this very access (si_code > 0), except BUS_MCEERR_AO, which
 * tells of poisoned memory that nobody touched. A SIGBUS sent with kill() is not ours. One exception: a SIGBUS that
 * this process sent to this very thread by tgkill while it is inside a guard. Our regions raise nothing, so it is
 * another library's handler, put over ours later, passing a fault on: Python's faulthandler prints its traceback,
 * puts our handler back and raises again. So with faulthandler enabled after the first gismo call a media fault
 * prints a needless traceback but is still turned into an error.
 *
 * The jump leaves the handler without sigreturn, which would restore the signal mask. Hence SA_NODEFER and an empty
 * mask; and since whoever calls us from a handler of its own may have blocked more (ThreadSanitizer blocks all), we
 * also restore the mask of the interrupted code: a SIGBUS left blocked makes the next fault deadly. SA_ONSTACK serves threads with an alternate stack; the kernel judges by the stack pointer
 * whether that one is in use, so jumping off it frees it.
 *
 * Caveats
 *  - A library that replaces the handler later and does not chain takes the protection away: a media fault then is its
 *    affair. Not re-checked: sigaction() is a system call, dearer than a small copy, and putting ours on top of one
 *    that chains to us would make a loop.
 *  - The previous handler's own mask and SA_RESETHAND are not imitated.
 */
#include "guard.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
void __asan_handle_no_return(void);
#endif

__thread struct gismo_guard *gismo_guard_top __attribute__((tls_model("initial-exec"), visibility("hidden")));

#if defined(__clang__)
int guard_returns_twice(void) { return 0; }
#endif

guard_stray_fn *_Atomic guard_on_stray;

/* Written before our handler is installed and never after, hence safe to read in it. */
static struct sigaction previous;

enum install_state { NOT_BEGUN, INSTALLING, INSTALLED };
static _Atomic int install_state;

static int is_claimable(const siginfo_t *info) {
    if (info->si_code > 0)
        return info->si_code != BUS_MCEERR_AO;
    return info->si_code == SI_TKILL && info->si_pid == getpid();
}

/*
 * Where a fault was passed on to us as a signal that was sent, its address stands in the context all the same: the kernel
 * keeps that of a thread's last fault. Not so for one that somebody really sent: then it is that of an earlier fault.
 */
static const void *stray_address(const siginfo_t *info, const ucontext_t *context) {
    const greg_t page_fault = 14;
    if (info->si_code > 0)
        return info->si_addr;
    return context->uc_mcontext.gregs[REG_TRAPNO] == page_fault ? (const void *)context->uc_mcontext.gregs[REG_CR2]
                                                                : NULL;
}

static void tell_stray(const siginfo_t *info, const ucontext_t *context) {
    const void *address = stray_address(info, context);
    guard_stray_fn *tell = atomic_load(&guard_on_stray);
    if (tell && address)
        tell(address, info->si_code == BUS_MCEERR_AR);
}

static void pass_on(int signal_number, siginfo_t *info, void *context) {
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signal_number, info, context);
        return;
    }
    if (previous.sa_handler == SIG_IGN && info->si_code <= 0)
        return;
    if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(signal_number);
        return;
    }
    /* Returning repeats the access, which then dies the default death (core dump at the right place). The kernel kills
     * on a fault that is ignored, too. What was sent does not repeat by itself: send it again. */
    struct sigaction fallback = {.sa_handler = SIG_DFL};
    sigaction(signal_number, &fallback, NULL);
    if (info->si_code <= 0 || info->si_code == BUS_MCEERR_AO)
        raise(signal_number);
}

static void on_sigbus(int signal_number, siginfo_t *info, void *context) {
    struct gismo_guard *guard = gismo_guard_top;
    bool is_fault = is_claimable(info);
    if (guard == NULL || !guard->armed || !is_fault) {
        if (is_fault)
            tell_stray(info, context);
        pass_on(signal_number, info, context);
        return;
    }
    guard->fault_address = info->si_code > 0 ? info->si_addr : NULL;
    gismo_guard_top = guard->outer;
    guard->armed = 0;
    sigprocmask(SIG_SETMASK, &((const ucontext_t *)context)->uc_sigmask, NULL);
#if defined(__SANITIZE_ADDRESS__)
    __asan_handle_no_return();
#endif
    __builtin_longjmp(guard->jmp, 1);
}

static int install(void) {
    struct sigaction current;
    if (sigaction(SIGBUS, NULL, &current) != 0)
        return -1;
    /* A second installer must not make our handler its own predecessor. */
    if (!((current.sa_flags & SA_SIGINFO) && current.sa_sigaction == on_sigbus)) {
        previous = current;
        atomic_signal_fence(memory_order_seq_cst);
        struct sigaction ours = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
        sigemptyset(&ours.sa_mask);
        if (sigaction(SIGBUS, &ours, NULL) != 0)
            return -1;
    }
    return 0;
}

void guard_mask_for_threads(sigset_t *before) {
    sigset_t blocked;
    sigfillset(&blocked);
    const int synchronous[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    for (size_t i = 0; i < sizeof synchronous / sizeof *synchronous; i++)
        sigdelset(&blocked, synchronous[i]);
    /* Not pthread_sigmask, whose symbol is newer; on Linux this is the same, per thread. */
    sigprocmask(SIG_SETMASK, &blocked, before);
}

int guard_install(void) {
    if (__builtin_expect(atomic_load_explicit(&install_state, memory_order_acquire) == INSTALLED, 1))
        return 0;
    /* One installs, the others wait; but not for ever, for a fork may have left the one behind. Then the waiter does
     * it too, which gives the same result. */
    int expected = NOT_BEGUN;
    if (!atomic_compare_exchange_strong(&install_state, &expected, INSTALLING)) {
        for (int i = 0; i < 1000 && atomic_load(&install_state) == INSTALLING; i++)
            sched_yield();
        if (atomic_load(&install_state) == INSTALLED)
            return 0;
    }
    int status = install();
    atomic_store(&install_state, status == 0 ? INSTALLED : NOT_BEGUN);
    return status;
}
