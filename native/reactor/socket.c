/* reactor/socket.c - the system calls on a connection's socket. A secured transport goes between
 * these three functions and the kernel; nothing else in the room touches the descriptor's bytes.
 *
 * Owner: the reactor's thread. Layer: reactor. It knows nothing of frames. */
#include <errno.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include "base/error.h"
#include "reactor/reactor_private.h"

static ssize_t failed(void) {
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? -PST_EAGAIN : -PST_ECLOSED;
}

ssize_t pst_conn__socket_recv(pst_conn *conn, const struct iovec *iov, int count) {
    ssize_t got;
    if (count == 1) {
        got = recv(conn->fd, iov[0].iov_base, iov[0].iov_len, 0);
    } else {
        got = readv(conn->fd, iov, count);
    }
    return got >= 0 ? got : failed();
}

ssize_t pst_conn__socket_send(pst_conn *conn, const struct iovec *iov, int count, bool more) {
    int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);
    ssize_t sent;
    if (count == 1) {
        sent = send(conn->fd, iov[0].iov_base, iov[0].iov_len, flags);
    } else {
        struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)iov,
                                 .msg_iovlen = (size_t)count};
        sent = sendmsg(conn->fd, &message, flags);
    }
    return sent >= 0 ? sent : failed();
}

ssize_t pst_conn__socket_sendfile(pst_conn *conn, int fd, int64_t pos, size_t size) {
    /* There is no MSG_NOSIGNAL here: reactor threads block every signal. */
    off_t at = (off_t)pos;
    ssize_t sent = sendfile(conn->fd, fd, &at, size);
    return sent >= 0 ? sent : failed();
}
