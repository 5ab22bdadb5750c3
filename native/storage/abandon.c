/* storage/abandon.c - what a forked child does with the storage it inherited: lets go of the locks.
 *
 * Owner: the only thread of the child. Layer: storage. Deliberately flushes nothing and takes no
 * mutex: another thread of the parent may have held it at the fork. */
#include <unistd.h>

#include "storage/storage_private.h"

void pst_storage_abandon(pst_storage *storage) {
    for (int i = 0; i < storage->dir_count; i++) {
        if (storage->dirs[i].lock_fd >= 0) {
            close(storage->dirs[i].lock_fd);
        }
    }
}
