/* copy_pool.h - helping threads for large copies. */
#ifndef GISMO_COPY_POOL_H
#define GISMO_COPY_POOL_H

#include "copy.h"

#define COPY_POOL_THREADS_MAX 4 /* the caller's included */

enum copy_pool_result {
    COPY_POOL_DONE = 0,
    COPY_POOL_FAULT = -1,
    COPY_POOL_UNAVAILABLE = 1, /* busy, no second processor, does not pay just now: copy alone. Nothing was done. */
};

/* options.mode is COPY_CACHED or COPY_STREAM. options.threads: 0 = decide, >= 2 = do not decline for economy. */
enum copy_pool_result copy_pool_run(void *dst, const void *src, size_t n, struct copy_options options);

/* For tests: slices that helpers (not callers) have copied in this process. */
uint64_t copy_pool_helped_slices(void);
/* For tests: called by a helper before each slice it takes, if not NULL. */
extern void (*_Atomic copy_pool_test_hook)(void);
extern void (*_Atomic copy_pool_wait_hook)(void); /* in the caller, before it waits for a helper */
extern uint32_t (*_Atomic copy_pool_idle_hook)(void); /* what is said of idle processors, in the place of /proc */

#endif
