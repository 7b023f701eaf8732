/*
 * error.c - the words of an error, kept per thread until its next one.
 */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static __thread char message[768];
static __thread gismo_detail detail;

int fail(int status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    memset(&detail, 0, sizeof detail);
    return status;
}

int fail_errno(int status, const char *format, ...) {
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (n >= 0 && (size_t)n < sizeof message)
        snprintf(message + n, sizeof message - (size_t)n, ": %s", strerror(error));
    memset(&detail, 0, sizeof detail);
    detail.sys_errno = error;
    return status;
}

void fail_detail(uint64_t asked, uint64_t free_bytes, uint64_t largest, uint64_t free_objects) {
    detail.asked_bytes = asked;
    detail.free_bytes = free_bytes;
    detail.largest_free_bytes = largest;
    detail.free_objects = free_objects;
}

const char *gismo_error_message(void) { return message; }
void gismo_error_detail(gismo_detail *out) { *out = detail; }

const char *gismo_status_name(int status) {
    switch (status) {
    case GISMO_OK:
        return "GISMO_OK";
    case GISMO_EFULL:
        return "GISMO_EFULL";
    case GISMO_EGONE:
        return "GISMO_EGONE";
    case GISMO_ENOTSTORE:
        return "GISMO_ENOTSTORE";
    case GISMO_EINCOMPAT:
        return "GISMO_EINCOMPAT";
    case GISMO_ECORRUPT:
        return "GISMO_ECORRUPT";
    case GISMO_EFENCED:
        return "GISMO_EFENCED";
    case GISMO_EHOSTINUSE:
        return "GISMO_EHOSTINUSE";
    case GISMO_EMEDIA:
        return "GISMO_EMEDIA";
    case GISMO_ECLOSED:
        return "GISMO_ECLOSED";
    case GISMO_EINVAL:
        return "GISMO_EINVAL";
    case GISMO_ESYS:
        return "GISMO_ESYS";
    case GISMO_EEXIST:
        return "GISMO_EEXIST";
    case GISMO_ENOTFOUND:
        return "GISMO_ENOTFOUND";
    case GISMO_EPERM:
        return "GISMO_EPERM";
    case GISMO_EBUSY:
        return "GISMO_EBUSY";
    case GISMO_EUNSUPPORTED:
        return "GISMO_EUNSUPPORTED";
    default:
        return "GISMO_UNKNOWN";
    }
}

uint32_t gismo_abi_version(void) { return GISMO_ABI_VERSION; }

#ifndef GISMO_VERSION
#define GISMO_VERSION "0.0.0"
#endif
const char *gismo_version(void) { return GISMO_VERSION; }
