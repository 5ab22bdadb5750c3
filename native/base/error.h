/* base/error.h - the error codes of the core.
 * Owner: nobody (constants). Functions return 0 or the negative of one of these. Kafka's codes
 * exist only in broker/, which maps this enum with one switch. */
#ifndef PST_BASE_ERROR_H
#define PST_BASE_ERROR_H

enum pst_err {
    PST_OK = 0,
    PST_ENOMEM = 1, /* memory refused by the allocator */
    PST_EIO,        /* read, write, flush or close failed: the log directory is offline */
    PST_ENOSPC,     /* ENOSPC or EDQUOT from a write; the partial bytes were cut back */
    PST_EMFILE,     /* out of descriptors */
    PST_ENOENT,     /* no such file, topic, partition, session ... */
    PST_EEXIST,     /* already there */
    PST_EINVAL,     /* an argument of ours that outside data decided */
    PST_ELIMIT,     /* a limit of the table of limits was met */
    PST_ECLOSED,    /* the object is closing or closed */
    PST_EAGAIN,     /* not now: queue it or ask again */
    PST_ETRUNC,     /* parser: bytes end early */
    PST_EMALFORMED, /* parser: bytes are not what they claim */
    PST_EVERSION,   /* unknown version or key */
    PST_ECRC,       /* checksum does not match */
    PST_EMAGIC,     /* record batch of another magic */
    PST_ETOOLARGE,  /* batch, record or frame over its limit */
    PST_ERECORD,    /* an invalid record (null key in a compacted topic, client control batch) */
    PST_ETIMESTAMP, /* timestamp outside the allowed range */
    PST_ECODEC,     /* unknown or unsupported compression */
    PST_EBOMB,      /* decompressed size over its limit */
    PST_EOFFSET,    /* offset out of range */
    PST_ESEQUENCE,  /* out of order sequence number */
    PST_EPRODUCEREPOCH, /* producer epoch older than the newest seen */
    PST_EDUPLICATE,     /* a duplicate of one of the last five batches (an answer, not a failure) */
    PST_ETXN,           /* transactional batch where transactions are not served */
    PST_ELEADEREPOCH,   /* leader epoch newer or older than ours */
    PST_ECORRUPT,       /* bytes on disk before the recovery point are damaged */
    PST_EOFFLINE,       /* log directory offline */
    PST_ELOCKED,        /* another process holds the log directory */
    PST_ENOTREADY,      /* not recovered yet */
    PST_EADDRINUSE,     /* listener: address in use */
    PST_ESYS,           /* any other failed system call */
    PST_ERR_COUNT
};

/* One English sentence fragment for `rc` (0 or negative); never NULL. */
const char *pst_strerror(int rc);

/* Maps errno of a failed system call to a negative PST_E*. */
int pst_err_from_errno(int err);

#define PST_TRY(expr)            \
    do {                         \
        int pst_try_rc = (expr); \
        if (pst_try_rc < 0) {    \
            return pst_try_rc;   \
        }                        \
    } while (0)

#endif
