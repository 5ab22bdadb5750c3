/* storage/lock.h - a mutex of four bytes, so that a log can afford three of them.
 * Owner: the struct that embeds it. Uncontended: one compare-and-set each way, no system call.
 * Deliberately not recursive, not robust, and without priority inheritance. */
#ifndef PST_STORAGE_LOCK_H
#define PST_STORAGE_LOCK_H

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline void pst_storage__relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* 0 free, 1 held, 2 held and somebody may sleep. A zeroed struct is free. */
typedef struct {
    atomic_uint state;
} pst_storage__lock;

static inline bool pst_storage__lock_try(pst_storage__lock *lock) {
    unsigned expected = 0;
    return atomic_compare_exchange_strong_explicit(&lock->state, &expected, 1, memory_order_acquire,
                                                   memory_order_relaxed);
}

static inline void pst_storage__lock_acquire(pst_storage__lock *lock) {
    if (__builtin_expect(pst_storage__lock_try(lock), 1)) {
        return;
    }
    for (int i = 0; i < 64; i++) {
        pst_storage__relax();
        if (atomic_load_explicit(&lock->state, memory_order_relaxed) == 0 &&
            pst_storage__lock_try(lock)) {
            return;
        }
    }
    while (atomic_exchange_explicit(&lock->state, 2, memory_order_acquire) != 0) {
        (void)syscall(SYS_futex, &lock->state, FUTEX_WAIT_PRIVATE, 2, NULL, NULL, 0);
    }
}

static inline void pst_storage__lock_release(pst_storage__lock *lock) {
    if (atomic_exchange_explicit(&lock->state, 0, memory_order_release) == 2) {
        (void)syscall(SYS_futex, &lock->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}

#endif
