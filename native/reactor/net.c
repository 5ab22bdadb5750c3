/* reactor/net.c - creates, stops and counts the reactors.
 *
 * Owner: the thread that created the net (the engine's). Layer: reactor. */
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "reactor/reactor_private.h"

static int reactor_init(pst_net *net, int index) {
    pst_reactor *reactor = &net->reactors[index];
    reactor->net = net;
    reactor->index = index;
    reactor->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    reactor->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    reactor->staging_size = (size_t)net->limits.round_staging_size;
    reactor->staging = malloc(reactor->staging_size);
    if (reactor->epoll_fd < 0 || reactor->wake_fd < 0 || reactor->staging == NULL) {
        return reactor->staging == NULL ? -PST_ENOMEM : -PST_EMFILE;
    }
    pst_list_init(&reactor->ready);
    pst_list_init(&reactor->flush);
    pst_list_init(&reactor->starved);
    pst_list_init(&reactor->dead);
    pst_list_init(&reactor->exchanges_free);
    pst_list_init(&reactor->conns_free);
    reactor->pool_note.run = pst_reactor__run_pool_note;
    reactor->stop_note.run = pst_reactor__run_stop_note;
    reactor->start_note.run = pst_reactor__run_start_note;
    pst_timer_init(&reactor->accept_timer, pst_net__accept_timer_fire);
    pst_reactor__buffers_init(reactor);
    reactor->now_ms = pst_monotonic_ms();
    reactor->wall_ms = pst_wall_ms();
    pst_reactor__wheel_init(&reactor->wheel, reactor->now_ms);
    atomic_store_explicit(&reactor->epoch, 1, memory_order_relaxed);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = 0};
    return epoll_ctl(reactor->epoll_fd, EPOLL_CTL_ADD, reactor->wake_fd, &event) < 0 ? -PST_ESYS
                                                                                     : 0;
}

static int threads_start(pst_net *net) {
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = 0;
    for (int i = 0; i < net->reactor_count && rc == 0; i++) {
        pst_reactor *reactor = &net->reactors[i];
        if (pthread_create(&reactor->thread, NULL, pst_reactor__main, reactor) != 0) {
            rc = -PST_ESYS;
        } else {
            reactor->thread_started = true;
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static int net_init(pst_net *net, const pst_net_settings *settings, char *error_out,
                    size_t error_size) {
    net->limits = settings->limits;
    net->handler = settings->handler;
    net->iopool = settings->iopool;
    pthread_mutex_init(&net->overdraft.lock, NULL);
    pthread_mutex_init(&net->address_lock, NULL);
    if (getrandom(&net->address_seed, sizeof net->address_seed, GRND_NONBLOCK) < 0) {
        net->address_seed = (uint64_t)pst_monotonic_ns();
    }
    net->listeners = calloc((size_t)settings->listener_count + 1, sizeof net->listeners[0]);
    net->reactors = aligned_alloc(
        64, ((size_t)settings->reactor_count * sizeof(pst_reactor) + 63) & ~(size_t)63);
    net->overdraft.best = calloc((size_t)settings->reactor_count, sizeof net->overdraft.best[0]);
    if (net->listeners == NULL || net->reactors == NULL || net->overdraft.best == NULL) {
        return -PST_ENOMEM;
    }
    memset(net->reactors, 0, (size_t)settings->reactor_count * sizeof(pst_reactor));
    for (int i = 0; i < settings->reactor_count; i++) {
        net->reactors[i].epoll_fd = -1;
        net->reactors[i].wake_fd = -1;
        net->overdraft.best[i] = -1;
    }
    for (int i = 0; i < settings->listener_count; i++) {
        PST_TRY(
            pst_net__listen(&settings->listeners[i], error_out, error_size, &net->listeners[i]));
        net->listener_count++;
    }
    for (int i = 0; i < settings->reactor_count; i++) {
        net->reactor_count++;
        PST_TRY(reactor_init(net, i));
    }
    return threads_start(net);
}

int pst_net_create(const pst_net_settings *settings, char *error_out, size_t error_size,
                   pst_net **net_out) {
    *net_out = NULL;
    PST_ASSERT(settings->reactor_count > 0 && settings->reactor_count < 128);
    PST_ASSERT(settings->limits.round_staging_size >= PST_READ_MINIMUM);
    if (error_size > 0) {
        error_out[0] = '\0';
    }
    pst_net *net = calloc(1, sizeof *net);
    if (net == NULL) {
        return -PST_ENOMEM;
    }
    int rc = net_init(net, settings, error_out, error_size);
    if (rc < 0) {
        if (error_size > 0 && error_out[0] == '\0') {
            strncat(error_out, pst_strerror(rc), error_size - 1);
        }
        pst_net_destroy(net);
        return rc;
    }
    *net_out = net;
    return 0;
}

int pst_net_port(const pst_net *net, int listener_index) {
    PST_ASSERT(listener_index >= 0 && listener_index < net->listener_count);
    return net->listeners[listener_index].port;
}

int pst_net_start(pst_net *net) {
    if (!net->started && !net->stopped) {
        net->started = true;
        pst_reactor_post(&net->reactors[0], &net->reactors[0].start_note);
    }
    return 0;
}

void pst_net_stop(pst_net *net, int64_t grace_ms) {
    if (net->stopped) {
        return;
    }
    net->stopped = true;
    net->grace_ms = grace_ms;
    for (int i = 0; i < net->reactor_count; i++) {
        if (net->reactors[i].thread_started) {
            pst_reactor_post(&net->reactors[i], &net->reactors[i].stop_note);
        }
    }
    for (int i = 0; i < net->reactor_count; i++) {
        if (net->reactors[i].thread_started) {
            pthread_join(net->reactors[i].thread, NULL);
            net->reactors[i].thread_started = false;
        }
    }
    pst_net_run_notes(net);
}

void pst_net_run_notes(pst_net *net) {
    PST_ASSERT(net->stopped);
    bool ran = true;
    while (ran) { /* a note may post another to a reactor that was looked at already */
        ran = false;
        for (int i = 0; i < net->reactor_count; i++) {
            pst_reactor *reactor = &net->reactors[i];
            if (atomic_load_explicit(&reactor->mailbox, memory_order_acquire) != NULL) {
                ran = true;
                reactor->stopping = true;
                pst_reactor__set_current(reactor);
                pst_reactor__drain_mailbox(reactor);
                pst_reactor__set_current(NULL);
            }
        }
    }
}

void pst_net_abandon(pst_net *net) {
    for (int i = 0; i < net->listener_count; i++) {
        if (net->listeners[i].fd >= 0) {
            close(net->listeners[i].fd);
        }
    }
    for (int i = 0; i < net->reactor_count; i++) {
        close(net->reactors[i].epoll_fd);
        close(net->reactors[i].wake_fd);
    }
}

static void reactor_fini(pst_reactor *reactor) {
    if (reactor->epoll_fd >= 0) {
        close(reactor->epoll_fd);
    }
    if (reactor->wake_fd >= 0) {
        close(reactor->wake_fd);
    }
    if (reactor->ready.next != NULL) { /* initialised to the end */
        pst_reactor__buffers_fini(reactor);
        pst_conn__table_fini(reactor);
        pst_reactor__exchanges_fini(reactor);
    }
    free(reactor->copy_scratch);
    free(reactor->staging);
}

void pst_net_destroy(pst_net *net) {
    if (net == NULL) {
        return;
    }
    pst_net_stop(net, 0);
    for (int i = 0; i < net->reactor_count; i++) {
        while (atomic_load_explicit(&net->reactors[i].posters, memory_order_acquire) > 0) {
            sched_yield();
        }
    }
    pst_net__listeners_close(net);
    for (int i = 0; i < net->reactor_count; i++) {
        reactor_fini(&net->reactors[i]);
    }
    pthread_mutex_destroy(&net->overdraft.lock);
    pthread_mutex_destroy(&net->address_lock);
    free(net->overdraft.best);
    free(net->addresses);
    free(net->reactors);
    free(net->listeners);
    free(net);
}

int pst_net_reactor_count(const pst_net *net) {
    return net->reactor_count;
}

pst_reactor *pst_net_reactor(pst_net *net, int index) {
    PST_ASSERT(index >= 0 && index < net->reactor_count);
    return &net->reactors[index];
}

pst_reactor *pst_token_reactor(pst_net *net, pst_token token) {
    return pst_net_reactor(net, (int)(token.conn >> 56));
}

void pst_net_get_statistics(pst_net *net, pst_net_statistics *statistics_out) {
    pst_net_statistics s = {0};
    for (int i = 0; i < net->reactor_count; i++) {
        pst_reactor__counters *c = &net->reactors[i].counters;
        s.connections += atomic_load_explicit(&c->connections, memory_order_relaxed);
        s.accepted += atomic_load_explicit(&c->accepted, memory_order_relaxed);
        s.frames += atomic_load_explicit(&c->frames, memory_order_relaxed);
        s.bytes_in += atomic_load_explicit(&c->bytes_in, memory_order_relaxed);
        s.bytes_out += atomic_load_explicit(&c->bytes_out, memory_order_relaxed);
        s.rounds += atomic_load_explicit(&c->rounds, memory_order_relaxed);
        s.closed_slow += atomic_load_explicit(&c->closed_slow, memory_order_relaxed);
        s.cold_ranges += atomic_load_explicit(&c->cold_ranges, memory_order_relaxed);
    }
    s.refused = atomic_load_explicit(&net->refused, memory_order_relaxed);
    s.frame_pool_used = atomic_load_explicit(&net->pool_used, memory_order_relaxed);
    *statistics_out = s;
}
