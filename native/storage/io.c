/* storage/io.c - system calls that finish what they began. See storage_private.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "storage/storage_private.h"

int pst_storage__read_full(int fd, void *data, size_t size, int64_t pos) {
    uint8_t *at = data;
    while (size > 0) {
        ssize_t n = pread(fd, at, size, (off_t)pos);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return pst_err_from_errno(errno);
        }
        if (n == 0) {
            return -PST_ETRUNC;
        }
        at += n;
        size -= (size_t)n;
        pos += n;
    }
    return 0;
}

int64_t pst_storage__read_now(int fd, void *data, size_t size, int64_t pos, bool may_block) {
    for (;;) {
        struct iovec iov = {data, size};
        ssize_t n = may_block ? pread(fd, data, size, (off_t)pos)
                              : preadv2(fd, &iov, 1, (off_t)pos, RWF_NOWAIT);
        if (n >= 0) {
            return n;
        }
        if (errno == EINTR) {
            continue;
        }
        if (errno == EAGAIN) {
            return -PST_EAGAIN;
        }
        if (!may_block && (errno == EOPNOTSUPP || errno == EINVAL || errno == ENOSYS)) {
            may_block = true; /* this file system cannot tell: reading is all there is */
            continue;
        }
        return pst_err_from_errno(errno);
    }
}

int pst_storage__write_full(int fd, const void *data, size_t size, int64_t pos) {
    union {
        const void *in;
        void *out;
    } alias = {.in = data}; /* iovec has no const; pwritev only reads */
    struct iovec iov = {alias.out, size};
    return size == 0 ? 0 : pst_storage__pwritev_full(fd, &iov, 1, pos);
}

int pst_storage__pwritev_full(int fd, struct iovec *iov, int count, int64_t pos) {
    while (count > 0) {
        ssize_t n = pwritev(fd, iov, count, (off_t)pos);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            return errno == ENOSPC || errno == EDQUOT ? -PST_ENOSPC : -PST_EIO;
        }
        if (n == 0) {
            return -PST_EIO;
        }
        pos += n;
        size_t left = (size_t)n;
        while (count > 0 && left >= iov->iov_len) {
            left -= iov->iov_len;
            iov++;
            count--;
        }
        if (count > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + left;
            iov->iov_len -= left;
        }
    }
    return 0;
}

int pst_storage__write_file(int dirfd, const char *name, pst_slice bytes, bool sync) {
    int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        return pst_err_from_errno(errno);
    }
    int rc = pst_storage__write_full(fd, bytes.data, bytes.size, 0);
    if (rc == 0 && sync && fsync(fd) != 0) {
        rc = -PST_EIO;
    }
    if (close(fd) != 0 && rc == 0) {
        rc = -PST_EIO;
    }
    return rc;
}

int pst_storage__replace_file(int dirfd, const char *name, pst_slice bytes, bool sync) {
    char aside[PST_STORAGE__FILE_NAME_MAX + 8];
    int n = snprintf(aside, sizeof aside, "%s.tmp", name);
    if (n < 0 || (size_t)n >= sizeof aside) {
        return -PST_EINVAL;
    }
    int rc = pst_storage__write_file(dirfd, aside, bytes, sync);
    if (rc == 0 && renameat(dirfd, aside, dirfd, name) != 0) {
        rc = pst_err_from_errno(errno);
    }
    if (rc < 0) {
        (void)unlinkat(dirfd, aside, 0);
        return rc;
    }
    return sync && fsync(dirfd) != 0 ? -PST_EIO : 0;
}

int pst_storage__read_file(int dirfd, const char *name, pst_byte_buffer *out) {
    int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return pst_err_from_errno(errno);
    }
    int rc = 0;
    struct stat st;
    if (fstat(fd, &st) != 0) {
        rc = pst_err_from_errno(errno);
    } else if (!S_ISREG(st.st_mode)) {
        rc = -PST_EMALFORMED;
    } else if (st.st_size > 0) {
        rc = pst_byte_buffer_reserve(out, (size_t)st.st_size);
        if (rc == 0) {
            rc = pst_storage__read_full(fd, out->data + out->size, (size_t)st.st_size, 0);
        }
        if (rc == 0) {
            out->size += (size_t)st.st_size;
        }
    }
    close(fd);
    return rc;
}

void pst_storage__report(const char *format, ...) {
    char line[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    (void)fprintf(stderr, "penstock: %s\n", line);
}
