/* base/error.c - texts of the error codes and the mapping from errno. */
#include "base/error.h"

#include <errno.h>

static const char *const texts[PST_ERR_COUNT] = {
    [PST_OK] = "success",
    [PST_ENOMEM] = "out of memory",
    [PST_EIO] = "input/output error",
    [PST_ENOSPC] = "no space left on device",
    [PST_EMFILE] = "too many open files",
    [PST_ENOENT] = "not found",
    [PST_EEXIST] = "exists already",
    [PST_EINVAL] = "invalid argument",
    [PST_ELIMIT] = "limit reached",
    [PST_ECLOSED] = "closed",
    [PST_EAGAIN] = "not now",
    [PST_ETRUNC] = "truncated input",
    [PST_EMALFORMED] = "malformed input",
    [PST_EVERSION] = "unsupported version",
    [PST_ECRC] = "checksum mismatch",
    [PST_EMAGIC] = "unsupported record format",
    [PST_ETOOLARGE] = "too large",
    [PST_ERECORD] = "invalid record",
    [PST_ETIMESTAMP] = "invalid timestamp",
    [PST_ECODEC] = "unsupported compression type",
    [PST_EBOMB] = "decompressed size over the limit",
    [PST_EOFFSET] = "offset out of range",
    [PST_ESEQUENCE] = "out of order sequence number",
    [PST_EPRODUCEREPOCH] = "invalid producer epoch",
    [PST_EDUPLICATE] = "duplicate batch",
    [PST_ETXN] = "invalid transaction state",
    [PST_ELEADEREPOCH] = "leader epoch mismatch",
    [PST_ECORRUPT] = "stored data is corrupt",
    [PST_EOFFLINE] = "log directory is offline",
    [PST_ELOCKED] = "log directory is in use by another process",
    [PST_ENOTREADY] = "not ready",
    [PST_EADDRINUSE] = "address in use",
    [PST_ESYS] = "system call failed",
};

const char *pst_strerror(int rc) {
    int index = rc < 0 ? -rc : rc;
    if (index >= PST_ERR_COUNT || texts[index] == 0) {
        return "unknown error";
    }
    return texts[index];
}

int pst_err_from_errno(int err) {
    switch (err) {
        case 0:
            return 0;
        case ENOMEM:
            return -PST_ENOMEM;
        case ENOSPC:
        case EDQUOT:
            return -PST_ENOSPC;
        case EMFILE:
        case ENFILE:
            return -PST_EMFILE;
        case ENOENT:
            return -PST_ENOENT;
        case EEXIST:
            return -PST_EEXIST;
        case EADDRINUSE:
            return -PST_EADDRINUSE;
        case EIO:
            return -PST_EIO;
        default:
            return -PST_ESYS;
    }
}
