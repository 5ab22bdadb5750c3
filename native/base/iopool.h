/* base/iopool.h - a fixed pool of threads for work that may block: opening, rolling, flushing,
 * recompression, cold reads, recovery, deletion.
 * Owner: the engine creates and destroys it; any thread submits. Jobs start in the order of their
 * submission and may run at the same time. Threads block every signal. */
#ifndef PST_BASE_IOPOOL_H
#define PST_BASE_IOPOOL_H

#include "base/list.h"

typedef struct pst_iopool pst_iopool;

/* Embedded in the caller's own operation; belongs to the pool from submit until `run` is called. */
typedef struct pst_job {
    pst_list link;
    void (*run)(struct pst_job *job); /* may free the job */
} pst_job;

int pst_iopool_create(int thread_count, pst_iopool **pool_out);
/* Runs every job submitted so far, then ends the threads. Jobs may still submit others while it
 * drains. */
void pst_iopool_destroy(pst_iopool *pool);
void pst_iopool_submit(pst_iopool *pool, pst_job *job);

typedef struct {
    int threads;
    int queued;  /* jobs waiting now */
    int running; /* jobs running now */
} pst_iopool_statistics;
void pst_iopool_get_statistics(pst_iopool *pool, pst_iopool_statistics *statistics_out);

#endif
