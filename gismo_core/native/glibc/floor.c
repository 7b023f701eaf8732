/*
 * floor.c - functions that glibc 2.28 does not have under these names (see floor.h).
 *
 * Hidden in the library, so they serve the core alone and hide nothing from the program around it.
 * glibc 2.33 made stat and its kin functions of their own; before they were macros over __xstat. On x86-64
 * the kernel's struct stat is the C library's, so the system call is the whole function.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define FLOOR __attribute__((visibility("hidden")))

_Static_assert(sizeof(struct stat) == 144, "struct stat of the x86-64 kernel");

FLOOR int fstatat(int dirfd, const char *restrict path, struct stat *restrict out, int flags) {
    return (int)syscall(SYS_newfstatat, dirfd, path, out, flags);
}

FLOOR int stat(const char *restrict path, struct stat *restrict out) {
    return (int)syscall(SYS_newfstatat, AT_FDCWD, path, out, 0);
}

FLOOR int lstat(const char *restrict path, struct stat *restrict out) {
    return (int)syscall(SYS_newfstatat, AT_FDCWD, path, out, AT_SYMLINK_NOFOLLOW);
}

FLOOR int fstat(int fd, struct stat *out) { return (int)syscall(SYS_fstat, fd, out); }

/* 2.30 */
FLOOR pid_t gettid(void) { return (pid_t)syscall(SYS_gettid); }
