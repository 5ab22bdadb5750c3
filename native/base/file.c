/* base/file.c - see file.h. */
#include "base/file.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/error.h"

int pst_file_create(int fd, pst_file **file_out) {
    *file_out = NULL;
    pst_file *file = malloc(sizeof *file);
    if (file == NULL) {
        close(fd);
        return -PST_ENOMEM;
    }
    atomic_init(&file->refs, 1);
    file->fd = fd;
    *file_out = file;
    return 0;
}

pst_file *pst_file_ref(pst_file *file) {
    int before = atomic_fetch_add_explicit(&file->refs, 1, memory_order_relaxed);
    PST_ASSERT(before > 0);
    return file;
}

int pst_file_unref(pst_file *file) {
    if (file == NULL) {
        return 0;
    }
    int before = atomic_fetch_sub_explicit(&file->refs, 1, memory_order_acq_rel);
    PST_ASSERT(before > 0);
    if (before > 1) {
        return 0;
    }
    int rc = close(file->fd) == 0 ? 0 : -PST_EIO;
    free(file);
    return rc;
}

int pst_file_refs(const pst_file *file) {
    return atomic_load_explicit(&file->refs, memory_order_relaxed);
}
