/*
 * compat.h - binds to old versions of the thread symbols, so that one wheel runs from glibc 2.28 on.
 *
 * glibc 2.34 moved libpthread into libc and gave the moved symbols a new default version. A library linked on Debian
 * 12 would ask for pthread_create@GLIBC_2.34 and not load on an older system, although the old version is still there
 * under its old name. Include this file wherever one of these is called; what is not listed (pthread_once,
 * pthread_join, pthread_sigmask, pthread_mutex_*) is to be avoided or added here. Check: objdump -T libgismo.so.
 *
 * Before glibc 2.34 these live in libpthread.so.0, which the process has loaded anyway (every Python has).
 */
#ifndef GISMO_COMPAT_H
#define GISMO_COMPAT_H

/* The sanitizers interpose their own unversioned symbols. */
#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
__asm__(".symver pthread_create,pthread_create@GLIBC_2.2.5");
__asm__(".symver pthread_attr_setstacksize,pthread_attr_setstacksize@GLIBC_2.2.5");
__asm__(".symver pthread_join,pthread_join@GLIBC_2.2.5");
__asm__(".symver pthread_detach,pthread_detach@GLIBC_2.2.5");
__asm__(".symver pthread_sigmask,pthread_sigmask@GLIBC_2.2.5");
__asm__(".symver pthread_once,pthread_once@GLIBC_2.2.5");
#endif

#endif
