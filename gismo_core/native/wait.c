/*
 * wait.c - what the core asks of the kernel to wait: sleeping, futexes (lock.c, thread.c), and giving way (litmus.c).
 */
#include "internal.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

int futex_wait(uint32_t *word, uint32_t expected, uint64_t timeout_ns, int shared) {
    struct timespec timeout = {(time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u)};
    return (int)syscall(SYS_futex, word, FUTEX_WAIT | (shared ? 0 : FUTEX_PRIVATE_FLAG), expected, &timeout, NULL, 0);
}

void futex_wake(uint32_t *word, int shared) {
    syscall(SYS_futex, word, FUTEX_WAKE | (shared ? 0 : FUTEX_PRIVATE_FLAG), INT32_MAX, NULL, NULL, 0);
}

void sleep_ns(uint64_t ns) {
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    nanosleep(&t, NULL);
}

void yield_cpu(void) { (void)sched_yield(); }
