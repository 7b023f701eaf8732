/*
 * simulated.h - included before every source of the core in the fuzzing build (clang -include).
 *
 * Every mapping gets gigabytes of PROT_NONE on both sides, so that an unchecked offset ends in SIGSEGV and not in
 * a neighbour; and time passes only in the mind, so that a wait costs nothing and a wait without end is found.
 * Lines are not flushed but read, which faults where a flush does: flushes of the incoherent image, and the misses after
 * them, were a third of all the time. What they are for is tests/sim.
 */
#ifndef FUZZ_SIMULATED_H
#define FUZZ_SIMULATED_H

#include <immintrin.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>

void *fuzz_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
int fuzz_munmap(void *address, size_t length);
int fuzz_nanosleep(const struct timespec *wanted, struct timespec *left);
int fuzz_clock_gettime(clockid_t clock, struct timespec *out);

static inline void fuzz_touch(const void *line) { (void)*(const volatile unsigned char *)line; }

#define _mm_clflushopt fuzz_touch
#define _mm_clwb fuzz_touch
#define mmap fuzz_mmap
#define munmap fuzz_munmap
#define nanosleep fuzz_nanosleep
#define clock_gettime fuzz_clock_gettime

#endif
