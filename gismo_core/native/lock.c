/*
 * lock.c - the lock of one process over its own allocator caches.
 *
 * Three states (0 free, 1 held, 2 held and somebody sleeps), after Drepper's "Futexes Are Tricky", mutex 2. An own lock and not a
 * pthread mutex because the uncontended pair must cost a few ns, because fork remakes it in the child, and because a SIGBUS that
 * leaves it held must be able to find that out (lock_owner).
 */
#include "internal.h"

static __thread char thread_mark
    __attribute__((tls_model("initial-exec"))); /* its address names the thread, cheaper than gettid */

void store_lock(struct gismo_store *s) {
    uint32_t expected = 0;
    if (UNLIKELY(!__atomic_compare_exchange_n(&s->lock, &expected, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))) {
        for (int spin = 0; spin < 100 && expected != 0; spin++) {
            __builtin_ia32_pause();
            expected = __atomic_load_n(&s->lock, __ATOMIC_RELAXED);
        }
        while (__atomic_exchange_n(&s->lock, 2, __ATOMIC_ACQUIRE) != 0)
            futex_wait(&s->lock, 2, 100000000u, 0);
    }
    s->lock_owner = (uint32_t)(uintptr_t)&thread_mark;
}

bool store_trylock(struct gismo_store *s) {
    uint32_t expected = 0;
    if (!__atomic_compare_exchange_n(&s->lock, &expected, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return false;
    s->lock_owner = (uint32_t)(uintptr_t)&thread_mark;
    return true;
}

bool store_unlock(struct gismo_store *s) {
    s->lock_owner = 0;
    if (LIKELY(__atomic_exchange_n(&s->lock, 0, __ATOMIC_RELEASE) != 2))
        return false;
    futex_wake(&s->lock, 0);
    return true;
}

/*
 * A guarded call was left by a fault. If this thread held the lock, its caches may be half changed: the store refuses
 * everything from now on but release and close, which need none of them.
 */
int media_failed(struct gismo_store *s) {
    if (s && s->lock_owner == (uint32_t)(uintptr_t)&thread_mark) {
        s->failed = GISMO_EMEDIA;
        store_unlock(s);
    }
    return fail(
        GISMO_EMEDIA,
        "the medium failed under %s: it was truncated, unbound or poisoned, or the file system of the store or of the "
        "state directory is full (`df`). Check the file or device and `gismo fsck`; close this store and open it again",
        s ? s->path : "the store");
}
