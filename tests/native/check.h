/*
 * check.h - what a C test says and how it ends when something is not as it must be. CHECK needs words, printf-like.
 */
#ifndef GISMO_TESTS_CHECK_H
#define GISMO_TESTS_CHECK_H

#include "gismo.h"

#include <stdio.h>
#include <unistd.h>

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                            \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fprintf(stderr, " (last error: %s)\n", gismo_error_message());                                             \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)
#define OK(call) CHECK((call) == GISMO_OK, "failed")

#endif
