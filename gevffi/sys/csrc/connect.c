/* connect.c: outgoing connections, from connect(2) under way to a connection like any other.
 *
 * Python makes the socket and calls connect(2), which does not wait; what is left is to hear how it
 * ended. The poller tells by writability, SO_ERROR tells the rest (connect(2), EINPROGRESS):
 *
 *   gev_loop_adopt_connecting
 *            |
 *       CONNECTING, PAUSED --writable, no error--> PAUSED: GEV_CHANGE_CONNECTED
 *            |                                        |
 *            |  error: GEV_CHANGE_CLOSED,             |  gev_conn_read, once Python
 *            v  its reason is the errno               v  has made a Connection of it
 *          closed                                    open
 *
 * It stays paused until Python has heard of it: changes may be reported a turn late, and its first
 * bytes must not come before it.
 *
 * A socket that connects to a free port of its own machine may be given that very port as its own,
 * and then TCP connects it to itself (simultaneous open, RFC 9293 3.5). Nobody listens there, so
 * that is a refusal; it is reset, or its TIME-WAIT would keep a server from taking the port.
 */
#include "conn.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

int64_t gev_loop_adopt_connecting(gev_loop *loop, int fd)
{
    gev_conn *conn;
    int error = gev_conn_open(loop, fd, CONN_CONNECTING | CONN_PAUSED, &conn);
    return error ? error : gev_conn_token(loop, conn);
}

/* 0, or what makes the end of connect(2) a failure. */
static int outcome(int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
        return errno;
    if (error)
        return error;
    struct sockaddr_storage ours = {0}, theirs = {0};
    socklen_t our_size = sizeof ours, their_size = sizeof theirs;
    if (getsockname(fd, (struct sockaddr *)&ours, &our_size) < 0
            || getpeername(fd, (struct sockaddr *)&theirs, &their_size) < 0)
        return errno;
    bool to_itself = ours.ss_family != AF_UNIX && our_size == their_size
                     && memcmp(&ours, &theirs, our_size) == 0;
    return to_itself ? ECONNREFUSED : 0;
}

void gev_conn_connected(gev_loop *loop, gev_conn *conn, int error)
{
    if (!error)
        error = outcome(conn->fd);
    if (error) {
        gev_conn_abort(loop, gev_conn_token(loop, conn), error);
        return;
    }
    conn->state &= (uint16_t)~CONN_CONNECTING;
    conn->active = loop->now;
    gev_idle_add(loop, conn);
    gev_conn_changed(loop, conn, GEV_CHANGE_CONNECTED);
    gev_conn_watch(loop, conn);
}
