/* reactor/listener.c - listening sockets, accepting, and the limits on connections.
 *
 * Owner: reactor 0 accepts and deals out round robin; the table of addresses has a lock of its own
 * (taken at accept and close only). Layer: reactor. One socket per listener, no SO_REUSEPORT: that
 * loses connections on restart. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "base/hash.h"
#include "reactor/reactor_private.h"

/* ---- listening ---- */

static int socket_listen(const struct addrinfo *address, bool dual) {
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
    if (fd < 0) {
        return -1;
    }
    int one = 1;
    int v6only = dual ? 0 : 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (address->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof v6only);
    }
    if (bind(fd, address->ai_addr, address->ai_addrlen) < 0 || listen(fd, 4096) < 0) {
        int err = errno;
        close(fd);
        errno = err;
        return -1;
    }
    return fd;
}

static int bound_port(int fd) {
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    memset(&address, 0, sizeof address);
    if (getsockname(fd, (struct sockaddr *)&address, &size) < 0) {
        return 0;
    }
    in_port_t port = address.ss_family == AF_INET6
                         ? ((const struct sockaddr_in6 *)&address)->sin6_port
                         : ((const struct sockaddr_in *)&address)->sin_port;
    return ntohs(port);
}

int pst_net__listen(const pst_net_listener *wanted, char *error_out, size_t error_size,
                    pst_reactor__listener *listener_out) {
    bool any = wanted->host == NULL || wanted->host[0] == '\0';
    char port[16];
    snprintf(port, sizeof port, "%d", wanted->port);
    struct addrinfo hints = {.ai_family = any ? AF_INET6 : AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    const char *host = any ? "::" : wanted->host;
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0) {
        snprintf(error_out, error_size, "cannot resolve the listener address %s: %s", host,
                 gai_strerror(rc));
        return -PST_EINVAL;
    }
    int fd = -1;
    errno = 0;
    for (const struct addrinfo *at = found; at != NULL && fd < 0; at = at->ai_next) {
        fd = socket_listen(at, any);
    }
    int err = errno;
    freeaddrinfo(found);
    if (fd < 0 && any && (err == EAFNOSUPPORT || err == EADDRNOTAVAIL)) { /* no IPv6 here */
        struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)wanted->port)};
        struct addrinfo at = {
            .ai_family = AF_INET, .ai_addr = (struct sockaddr *)&v4, .ai_addrlen = sizeof v4};
        fd = socket_listen(&at, false);
        err = errno;
    }
    if (fd < 0) {
        snprintf(error_out, error_size, "cannot listen on %s:%d: %s", any ? "*" : host,
                 wanted->port, strerror(err));
        return pst_err_from_errno(err);
    }
    listener_out->fd = fd;
    listener_out->port = bound_port(fd);
    listener_out->listener = wanted->listener;
    listener_out->requires_authentication = wanted->requires_authentication;
    return 0;
}

void pst_net__listeners_watch(pst_net *net, bool on) {
    for (int i = 0; i < net->listener_count; i++) {
        if (net->listeners[i].fd >= 0) {
            /* Listener ids have the top bit set: no reactor index reaches it. */
            struct epoll_event event = {.events = EPOLLIN,
                                        .data.u64 = UINT64_C(1) << 63 | (uint32_t)i};
            epoll_ctl(net->reactors[0].epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL,
                      net->listeners[i].fd, &event);
        }
    }
}

void pst_net__listeners_close(pst_net *net) {
    for (int i = 0; i < net->listener_count; i++) {
        if (net->listeners[i].fd >= 0) {
            if (net->reactors != NULL && net->reactors[0].epoll_fd >= 0) {
                epoll_ctl(net->reactors[0].epoll_fd, EPOLL_CTL_DEL, net->listeners[i].fd, NULL);
            }
            close(net->listeners[i].fd);
            net->listeners[i].fd = -1;
        }
    }
}

/* ---- limits ---- */

static bool counts_addresses(const pst_net *net) {
    int64_t most = net->limits.connections_per_address_max;
    return most > 0 && most < INT32_MAX;
}

static uint32_t address_slot(const pst_net *net, const uint8_t address[16]) {
    uint32_t mask = net->address_capacity - 1;
    uint32_t at = (uint32_t)pst_hash_bytes(address, 16, net->address_seed) & mask;
    while (net->addresses[at].count > 0 && memcmp(net->addresses[at].address, address, 16) != 0) {
        at = (at + 1) & mask;
    }
    return at;
}

static int addresses_grow(pst_net *net) {
    uint32_t capacity = net->address_capacity == 0 ? 64 : net->address_capacity * 2;
    pst_net__address *before = net->addresses;
    uint32_t count = net->address_capacity;
    pst_net__address *addresses = calloc(capacity, sizeof addresses[0]);
    if (addresses == NULL) {
        return -PST_ENOMEM;
    }
    net->addresses = addresses;
    net->address_capacity = capacity;
    for (uint32_t i = 0; i < count; i++) {
        if (before[i].count > 0) {
            addresses[address_slot(net, before[i].address)] = before[i];
        }
    }
    free(before);
    return 0;
}

static bool address_enter(pst_net *net, const uint8_t address[16]) {
    if (net->address_count * 2 >= net->address_capacity && addresses_grow(net) < 0) {
        return false;
    }
    pst_net__address *entry = &net->addresses[address_slot(net, address)];
    if (entry->count >= (uint64_t)net->limits.connections_per_address_max) {
        return false;
    }
    if (entry->count++ == 0) {
        memcpy(entry->address, address, 16);
        net->address_count++;
    }
    return true;
}

/* Backward-shift deletion keeps every probe chain unbroken without tombstones. */
static void address_leave(pst_net *net, const uint8_t address[16]) {
    uint32_t mask = net->address_capacity - 1;
    uint32_t hole = address_slot(net, address);
    PST_ASSERT(net->addresses[hole].count > 0);
    if (--net->addresses[hole].count > 0) {
        return;
    }
    net->address_count--;
    for (uint32_t at = (hole + 1) & mask; net->addresses[at].count > 0; at = (at + 1) & mask) {
        uint32_t home =
            (uint32_t)pst_hash_bytes(net->addresses[at].address, 16, net->address_seed) & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            net->addresses[hole] = net->addresses[at];
            net->addresses[at].count = 0;
            hole = at;
        }
    }
}

bool pst_net__admit(pst_net *net, const uint8_t address[16]) {
    int64_t before = atomic_fetch_add_explicit(&net->connections, 1, memory_order_relaxed);
    bool admitted = before < net->limits.connections_max;
    if (admitted && counts_addresses(net)) {
        pthread_mutex_lock(&net->address_lock);
        admitted = address_enter(net, address);
        pthread_mutex_unlock(&net->address_lock);
    }
    if (!admitted) {
        atomic_fetch_sub_explicit(&net->connections, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&net->refused, 1, memory_order_relaxed);
    }
    return admitted;
}

void pst_net__leave(pst_net *net, const uint8_t address[16]) {
    atomic_fetch_sub_explicit(&net->connections, 1, memory_order_relaxed);
    if (counts_addresses(net)) {
        pthread_mutex_lock(&net->address_lock);
        address_leave(net, address);
        pthread_mutex_unlock(&net->address_lock);
    }
}

/* ---- accepting ---- */

typedef struct { /* owner: reactor 0, then the reactor it is posted to */
    pst_note note;
    int fd;
    int listener;
    bool authenticated;
    uint8_t address[16];
} handover;

static void handover_run(pst_note *note, pst_reactor *reactor) {
    handover *h = PST_CONTAINER_OF(note, handover, note);
    pst_conn__open(reactor, h->fd, h->listener, h->authenticated, h->address);
    free(h);
}

static void deal_out(pst_net *net, int fd, const pst_reactor__listener *listener,
                     const uint8_t address[16]) {
    pst_reactor *target = &net->reactors[net->next_reactor];
    net->next_reactor = (net->next_reactor + 1) % net->reactor_count;
    bool authenticated = !listener->requires_authentication;
    if (target->index == 0) {
        pst_conn__open(target, fd, listener->listener, authenticated, address);
        return;
    }
    handover *h = malloc(sizeof *h);
    if (h == NULL) {
        close(fd);
        pst_net__leave(net, address);
        return;
    }
    h->note.run = handover_run;
    h->fd = fd;
    h->listener = listener->listener;
    h->authenticated = authenticated;
    memcpy(h->address, address, sizeof h->address);
    pst_reactor_post(target, &h->note);
}

static void address_of(const struct sockaddr_storage *from, uint8_t address[16]) {
    memset(address, 0, 16);
    if (from->ss_family == AF_INET6) {
        memcpy(address, &((const struct sockaddr_in6 *)from)->sin6_addr, 16);
    } else {
        address[10] = address[11] = 0xff;
        memcpy(address + 12, &((const struct sockaddr_in *)from)->sin_addr, 4);
    }
}

void pst_net__accept(pst_reactor *reactor, int listener_index) {
    pst_net *net = reactor->net;
    const pst_reactor__listener *listener = &net->listeners[listener_index];
    for (int i = 0; i < PST_ACCEPTS_PER_ROUND && listener->fd >= 0; i++) {
        struct sockaddr_storage from;
        socklen_t size = sizeof from;
        int fd =
            accept4(listener->fd, (struct sockaddr *)&from, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                pst_net__listeners_watch(net, false);
                pst_timer_arm(reactor, &reactor->accept_timer,
                              reactor->now_ms + PST_ACCEPT_PAUSE_MS);
                return;
            }
            if (errno == EAGAIN) {
                return;
            }
            continue; /* the peer went away first */
        }
        uint8_t address[16];
        address_of(&from, address);
        if (!pst_net__admit(net, address)) {
            close(fd);
            continue;
        }
        deal_out(net, fd, listener, address);
    }
}

void pst_net__accept_timer_fire(pst_timer *timer, pst_reactor *reactor) {
    (void)timer;
    pst_net__listeners_watch(reactor->net, true);
}
