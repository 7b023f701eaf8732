/*
 * floor.h - keeps the highest glibc symbol of libgismo.so at 2.28 on any build machine.
 *
 * One libgismo.so is injected into other people's images, so it must load on every glibc from 2.28
 * (RHEL 8, Debian 10) on. A build on a newer glibc binds to the newest version of each symbol; glibc
 * 2.34 gave a new version to all that moved from libpthread, libdl and librt into libc, and 2.38 renamed
 * strtol and sscanf. This header, included before every source of the core by the build (-include), binds
 * them to the first version of the symbol, which every later glibc still has and treats alike.
 *
 * On glibc before 2.34 those symbols lie in libpthread.so.0 and libdl.so.2: the build names both as
 * needed (empty shells on newer systems).
 *
 * What is not listed here and is too new fails tests/unit/test_packaging.py, which names the symbol. To add:
 * a symbol with an older version goes here, one without (2.28 has no such function) goes to floor.c.
 */
#ifndef GISMO_GLIBC_FLOOR_H
#define GISMO_GLIBC_FLOOR_H

#define GISMO_BIND(name, version) __asm__(".symver " #name ", " #name "@GLIBC_" version);
#define GISMO_BIND_AS(name, old, version) __asm__(".symver " #name ", " #old "@GLIBC_" version);

/* 2.34: libpthread, libdl and librt became part of libc. */
GISMO_BIND(dladdr, "2.2.5")
GISMO_BIND(dlclose, "2.2.5")
GISMO_BIND(dlerror, "2.2.5")
GISMO_BIND(dlopen, "2.2.5")
GISMO_BIND(dlsym, "2.2.5")
GISMO_BIND(pthread_attr_getstack, "2.2.5")
GISMO_BIND(pthread_attr_setaffinity_np, "2.3.4")
GISMO_BIND(pthread_attr_setguardsize, "2.2.5")
GISMO_BIND(pthread_attr_setstack, "2.2.5")
GISMO_BIND(pthread_attr_setstacksize, "2.2.5")
GISMO_BIND(pthread_barrier_destroy, "2.2.5")
GISMO_BIND(pthread_barrier_init, "2.2.5")
GISMO_BIND(pthread_barrier_wait, "2.2.5")
GISMO_BIND(pthread_cancel, "2.2.5")
GISMO_BIND(pthread_condattr_setclock, "2.3.3")
GISMO_BIND(pthread_create, "2.2.5")
GISMO_BIND(pthread_detach, "2.2.5")
GISMO_BIND(pthread_getaffinity_np, "2.3.4")
GISMO_BIND(pthread_getattr_np, "2.2.5")
GISMO_BIND(pthread_getname_np, "2.12")
GISMO_BIND(pthread_getspecific, "2.2.5")
GISMO_BIND(pthread_join, "2.2.5")
GISMO_BIND(pthread_key_create, "2.2.5")
GISMO_BIND(pthread_key_delete, "2.2.5")
GISMO_BIND(pthread_kill, "2.2.5")
GISMO_BIND(pthread_mutex_timedlock, "2.2.5")
GISMO_BIND(pthread_mutex_trylock, "2.2.5")
GISMO_BIND(pthread_mutexattr_destroy, "2.2.5")
GISMO_BIND(pthread_mutexattr_init, "2.2.5")
GISMO_BIND(pthread_mutexattr_settype, "2.2.5")
GISMO_BIND(pthread_once, "2.2.5")
GISMO_BIND(pthread_rwlock_destroy, "2.2.5")
GISMO_BIND(pthread_rwlock_init, "2.2.5")
GISMO_BIND(pthread_rwlock_rdlock, "2.2.5")
GISMO_BIND(pthread_rwlock_tryrdlock, "2.2.5")
GISMO_BIND(pthread_rwlock_trywrlock, "2.2.5")
GISMO_BIND(pthread_rwlock_unlock, "2.2.5")
GISMO_BIND(pthread_rwlock_wrlock, "2.2.5")
GISMO_BIND(pthread_setaffinity_np, "2.3.4")
GISMO_BIND(pthread_setname_np, "2.12")
GISMO_BIND(pthread_setspecific, "2.2.5")
GISMO_BIND(pthread_sigmask, "2.2.5")
GISMO_BIND(pthread_spin_init, "2.2.5")
GISMO_BIND(pthread_spin_lock, "2.2.5")
GISMO_BIND(pthread_spin_trylock, "2.2.5")
GISMO_BIND(pthread_spin_unlock, "2.2.5")
GISMO_BIND(pthread_timedjoin_np, "2.3.3")
GISMO_BIND(pthread_tryjoin_np, "2.3.3")
GISMO_BIND(sem_destroy, "2.2.5")
GISMO_BIND(sem_init, "2.2.5")
GISMO_BIND(sem_post, "2.2.5")
GISMO_BIND(sem_timedwait, "2.2.5")
GISMO_BIND(sem_trywait, "2.2.5")
GISMO_BIND(sem_wait, "2.2.5")
GISMO_BIND(shm_open, "2.2.5")
GISMO_BIND(shm_unlink, "2.2.5")

/* 2.38: names of C23, which differ only in reading 0b... numbers. */
GISMO_BIND_AS(__isoc23_sscanf, __isoc99_sscanf, "2.7")
GISMO_BIND_AS(__isoc23_fscanf, __isoc99_fscanf, "2.7")
GISMO_BIND_AS(__isoc23_strtol, strtol, "2.2.5")
GISMO_BIND_AS(__isoc23_strtoll, strtoll, "2.2.5")
GISMO_BIND_AS(__isoc23_strtoul, strtoul, "2.2.5")
GISMO_BIND_AS(__isoc23_strtoull, strtoull, "2.2.5")

#undef GISMO_BIND
#undef GISMO_BIND_AS

#endif
