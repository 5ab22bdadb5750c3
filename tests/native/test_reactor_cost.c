/* What an echo costs: system calls per request (asserted) and CPU per request (printed), at depth 1
 * and 32. The calls of the reactor's threads are counted by standing in for libc's functions. */
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "test_reactor_support.h"

static _Thread_local bool counted_thread;
static atomic_llong calls;
static atomic_llong allocations;

static long counted(long rc) {
    if (counted_thread) {
        atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    }
    return rc;
}

ssize_t recv(int fd, void *data, size_t size, int flags) {
    return counted(syscall(SYS_recvfrom, fd, data, size, flags, NULL, NULL));
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    return counted(syscall(SYS_sendto, fd, data, size, flags, NULL, 0));
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    return counted(syscall(SYS_sendmsg, fd, message, flags));
}

ssize_t readv(int fd, const struct iovec *iov, int count) {
    return counted(syscall(SYS_readv, fd, iov, count));
}

ssize_t read(int fd, void *data, size_t size) {
    return counted(syscall(SYS_read, fd, data, size));
}

ssize_t write(int fd, const void *data, size_t size) {
    return counted(syscall(SYS_write, fd, data, size));
}

int epoll_wait(int fd, struct epoll_event *events, int most, int timeout) {
    return (int)counted(syscall(SYS_epoll_wait, fd, events, most, timeout));
}

int epoll_ctl(int fd, int op, int target, struct epoll_event *event) {
    return (int)counted(syscall(SYS_epoll_ctl, fd, op, target, event));
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
extern void *__libc_malloc(size_t size);

void *malloc(size_t size) {
    if (counted_thread) {
        atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    }
    return __libc_malloc(size);
}
#endif

static void count_thread(void *context, pst_reactor *reactor) {
    (void)context, (void)reactor;
    counted_thread = true;
}

static pst_reactor *reactor_seen;
static _Atomic int64_t cpu_ns;
static atomic_bool cpu_asked;

static void answer_cpu(void *context, pst_reactor *reactor) {
    (void)context;
    reactor_seen = reactor;
    if (atomic_load_explicit(&cpu_asked, memory_order_acquire)) {
        struct timespec ts;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
        atomic_store(&cpu_ns, ts.tv_sec * 1000000000 + ts.tv_nsec);
        atomic_store_explicit(&cpu_asked, false, memory_order_release);
    }
}

static void nothing(pst_note *note, pst_reactor *reactor) {
    (void)note, (void)reactor;
}

static int64_t reactor_cpu_ns(pst_net *net) {
    static pst_note note = {.run = nothing};
    atomic_store(&cpu_asked, true);
    pst_reactor_post(pst_net_reactor(net, 0), &note);
    WAIT_UNTIL(!atomic_load(&cpu_asked));
    return atomic_load(&cpu_ns);
}

enum { SIZE = 100, CONNECTIONS = 32 };

/* Keeps `depth` requests in flight on each connection for `rounds` rounds of one thread. */
static void measure(pst_net *net, int connections, int depth, int rounds, double most_calls) {
    int fds[CONNECTIONS];
    size_t burst_size = (size_t)depth * (SIZE + 4);
    uint8_t *burst = calloc(1, burst_size);
    uint8_t *back = malloc(burst_size);
    for (int i = 0; i < depth; i++) {
        put_size(burst + i * (SIZE + 4), SIZE);
    }
    for (int c = 0; c < connections; c++) {
        fds[c] = test_connect(net);
    }
    int64_t cpu = 0;
    long long calls_before = 0;
    long long allocations_before = 0;
    int64_t begin = 0;
    for (int round = -rounds / 10; round < rounds; round++) {
        if (round == 0) {
            cpu = reactor_cpu_ns(net);
            calls_before = atomic_load(&calls);
            allocations_before = atomic_load(&allocations);
            begin = pst_monotonic_ns();
        }
        for (int c = 0; c < connections; c++) {
            test_send(fds[c], burst, burst_size);
        }
        for (int c = 0; c < connections; c++) {
            CHECK(test_receive(fds[c], back, burst_size));
        }
    }
    int64_t wall = pst_monotonic_ns() - begin;
    double requests = (double)rounds * connections * depth;
    double each = (double)(atomic_load(&calls) - calls_before) / requests;
    long long allocated = atomic_load(&allocations) - allocations_before;
    cpu = reactor_cpu_ns(net) - cpu;
    printf(
        "%2d connections, depth %2d: %6.2f us of CPU and %5.3f calls per request, %7.0f "
        "requests/s, %lld allocations\n",
        connections, depth, (double)cpu / requests / 1000, each, requests * 1e9 / (double)wall,
        allocated);
    CHECK(each <= most_calls);
    CHECK(allocated <= 8); /* none a request; a burst larger than the warm-up saw may add a block */
    for (int c = 0; c < connections; c++) {
        close(fds[c]);
    }
    free(burst);
    free(back);
}

int main(void) {
    pst_net_handler handler = {
        .on_frame = echo_frame, .on_round_begin = count_thread, .on_round_end = answer_cpu};
    pst_net_limits limits = test_limits();
    pst_net *net = test_net(handler, limits, 1, NULL);
    /* A produce adds one pwritev; the bars are 4 and 1 in all. */
    measure(net, 1, 1, 5000, 3.01);
    measure(net, 32, 1, 1000, 3.01);
    measure(net, 32, 5, 400, 0.65);
    measure(net, 32, 32, 200, 0.25);
    pst_net_destroy(net);
    return 0;
}
