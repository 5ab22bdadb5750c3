/* base/iopool.c - see iopool.h. One queue under one mutex: jobs are milliseconds, not microseconds.
 */
#include "base/iopool.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/error.h"

struct pst_iopool { /* owner: `lock` */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pst_list jobs;
    int queued;
    int running;
    bool stopping;
    int thread_count;
    pthread_t threads[];
};

static void *thread_main(void *arg) {
    pst_iopool *pool = arg;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        pst_list *link = pst_list_pop_front(&pool->jobs);
        if (link == NULL) {
            /* A running job may still submit another, so a stopping pool waits for the last one. */
            if (pool->stopping && pool->running == 0) {
                break;
            }
            pthread_cond_wait(&pool->wake, &pool->lock);
            continue;
        }
        pool->queued--;
        pool->running++;
        pthread_mutex_unlock(&pool->lock);
        pst_job *job = PST_CONTAINER_OF(link, pst_job, link);
        job->run(job);
        pthread_mutex_lock(&pool->lock);
        pool->running--;
        if (pool->stopping && pool->running == 0) {
            pthread_cond_broadcast(&pool->wake);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static int start_threads(pst_iopool *pool, int wanted) {
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int started = 0;
    while (started < wanted &&
           pthread_create(&pool->threads[started], NULL, thread_main, pool) == 0) {
        started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pool->thread_count = started;
    return started == wanted ? 0 : -PST_ESYS;
}

int pst_iopool_create(int thread_count, pst_iopool **pool_out) {
    *pool_out = NULL;
    pst_iopool *pool = calloc(1, sizeof *pool + (size_t)thread_count * sizeof pool->threads[0]);
    if (pool == NULL) {
        return -PST_ENOMEM;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pst_list_init(&pool->jobs);
    int rc = start_threads(pool, thread_count);
    if (rc < 0) {
        pst_iopool_destroy(pool);
        return rc;
    }
    *pool_out = pool;
    return 0;
}

void pst_iopool_destroy(pst_iopool *pool) {
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->thread_count; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void pst_iopool_submit(pst_iopool *pool, pst_job *job) {
    pthread_mutex_lock(&pool->lock);
    pst_list_push_back(&pool->jobs, &job->link);
    pool->queued++;
    pthread_cond_signal(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

void pst_iopool_get_statistics(pst_iopool *pool, pst_iopool_statistics *statistics_out) {
    pthread_mutex_lock(&pool->lock);
    statistics_out->threads = pool->thread_count;
    statistics_out->queued = pool->queued;
    statistics_out->running = pool->running;
    pthread_mutex_unlock(&pool->lock);
}
