/* base/file.h - counted descriptors and the ranges that responses hold of them.
 * Owner: counted. The descriptor closes when the last reference is dropped, so a range stays
 * readable after its file was unlinked or pushed out of the cache of descriptors (DESIGN 3, "File
 * ranges are counted"). Any thread may ref and unref. */
#ifndef PST_BASE_FILE_H
#define PST_BASE_FILE_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct pst_file {
    atomic_int refs; /* counted; release on unref, acquire before the close */
    int fd;
} pst_file;

typedef struct {
    pst_file *file; /* owned reference, or NULL for an empty range */
    int64_t pos;    /* byte place in the file */
    int64_t size;   /* bytes */
} pst_file_range;

/* Takes `fd` (also when it fails: then the descriptor is closed). *file_out starts with one
 * reference. */
int pst_file_create(int fd, pst_file **file_out);
pst_file *pst_file_ref(pst_file *file);
/* Returns -PST_EIO when this was the last reference and close failed, else 0. NULL is allowed. */
int pst_file_unref(pst_file *file);
/* References held now, for caches that must skip files in use. */
int pst_file_refs(const pst_file *file);

#endif
