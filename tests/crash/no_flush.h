/*
 * no_flush.h - included before every source of the core in the build of worker.c (cc -include): flushes do nothing.
 *
 * Processes of one machine cannot tell, for its caches are coherent; what flushes are for is tests/sim. But each lease of an arena
 * would read all of it into being, which was a quarter of the time of all cases.
 */
#ifndef CRASH_NO_FLUSH_H
#define CRASH_NO_FLUSH_H

#include <immintrin.h>

#define _mm_clflushopt(line) ((void)(line))
#define _mm_clwb(line) ((void)(line))

#endif
