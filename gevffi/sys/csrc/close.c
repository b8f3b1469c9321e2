/* close.c: how connections close, at once or when they have sent everything.
 *
 * A close that drains goes through these states:
 *
 *   open --close--> DRAINING --output gone--> nothing unread, all acknowledged: closed
 *                                             else shutdown(SHUT_WR), and
 *              something unread, or refused: LINGERING --the peer ends--> closed
 *                 something unacknowledged: LINGERING, ACKING --it is, or the peer ends--> closed
 *
 * Lingering is there because close(2) answers input, unread or still to come, with a reset, and a
 * reset destroys what is in our send queue and, with some peers, what they have received but not
 * read (RFC 1122 4.2.2.13, RFC 9112 9.6). Its deadline is Python's.
 */
#include "conn.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

int gev_reason_of(int error)
{
    return error == ETIMEDOUT ? GEV_REASON_TIMEOUT : GEV_REASON_RESET;
}

void gev_conn_close_now(gev_loop *loop, gev_conn *conn, int reason)
{
    if (conn->state & CONN_CLOSED)
        return;
    /* Out of the poller by hand: close(2) alone leaves the registration behind when the
     * descriptor was duplicated, by a fork for one. */
    if (!(conn->state & CONN_UNWATCHED))
        gev_poller_remove(loop->poller, conn->fd, conn->interest);
    close(conn->fd);
    conn->fd = -1;
    gev_output_drop(loop, conn);
    gev_input_drop(conn);
    gev_idle_remove(loop, conn);
    if (conn->state & CONN_LISTED)
        gev_input_unlist(loop, conn);
    /* A close under way has its reason; but EOF claims that all was sent. */
    if (!(conn->state & CONN_DRAINING) || conn->reason == GEV_REASON_EOF)
        conn->reason = (uint8_t)reason;
    conn->state |= CONN_CLOSED;
    gev_conn_changed(loop, conn, GEV_CHANGE_CLOSED);
}

static void shut_write(gev_conn *conn)
{
    if (!(conn->state & CONN_WRITE_SHUT))
        shutdown(conn->fd, SHUT_WR);
    conn->state |= CONN_WRITE_SHUT;
}

bool gev_conn_has_unread(const gev_conn *conn)
{
    char byte;
    return recv(conn->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

bool gev_conn_unacknowledged(const gev_conn *conn)
{
    return gev_unacknowledged(conn->fd) > 0;
}

/* Whether the peer is being told that its input is no good. It may well be in the middle of sending
 * it, which is more than anything here can see. */
static bool refused(const gev_conn *conn)
{
    return conn->queued
           && (conn->reason == GEV_REASON_PROTOCOL_ERROR
               || conn->reason == GEV_REASON_FRAME_TOO_LARGE);
}

void gev_conn_drained(gev_loop *loop, gev_conn *conn)
{
    if (conn->state & CONN_HALF_CLOSING)
        shut_write(conn);
    if (!(conn->state & CONN_DRAINING)) {
        if (conn->state & CONN_WRITE_SHUT && conn->state & CONN_EOF)
            gev_conn_close_now(loop, conn, GEV_REASON_EOF);
        return;
    }
    if (!(conn->state & (CONN_EOF | CONN_BROKEN))) {
        uint16_t lingers = refused(conn) || gev_conn_has_unread(conn) ? CONN_LINGERING
                           : gev_conn_unacknowledged(conn)          ? CONN_LINGERING | CONN_ACKING
                                                                    : 0;
        if (lingers) {
            shut_write(conn);
            conn->state |= lingers;
            gev_conn_watch(loop, conn);
            if (lingers & CONN_ACKING) {
                gev_idle_remove(loop, conn);
                gev_idle_add(loop, conn);
            }
            return;
        }
    }
    gev_conn_close_now(loop, conn, conn->reason);
}

int gev_conn_finish(gev_loop *loop, gev_conn *conn, int reason)
{
    if (!(conn->state & CONN_DRAINING)) {
        conn->reason = (uint8_t)reason;
        conn->state |= CONN_DRAINING;
        gev_input_drop(conn);
        if (conn->out_size)
            gev_conn_watch(loop, conn);
        else
            gev_conn_drained(loop, conn);
    }
    return conn->state & CONN_CLOSED ? 1 : 0;
}

/* ---- for Python ----------------------------------------------------------------------------- */

int gev_conn_close(gev_loop *loop, int64_t token, int reason)
{
    gev_conn *conn = gev_conn_at(loop, token);
    return conn ? gev_conn_finish(loop, conn, reason) : -ENOTCONN;
}

int gev_conn_abort(gev_loop *loop, int64_t token, int reason)
{
    gev_conn *conn = gev_conn_at(loop, token);
    if (!conn)
        return -ENOTCONN;
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    conn->state &= (uint16_t)~CONN_DRAINING; /* this reason is the true one */
    gev_conn_close_now(loop, conn, reason);
    return 0;
}

int gev_conn_give_up(gev_loop *loop, int64_t token, int reason)
{
    gev_conn *conn = gev_conn_at(loop, token);
    if (!conn || !(conn->state & CONN_LINGERING))
        return gev_conn_abort(loop, token, reason);
    gev_conn_close_now(loop, conn, conn->reason);
    return 0;
}

int gev_conn_shutdown_write(gev_loop *loop, int64_t token)
{
    gev_conn *conn = gev_conn_at(loop, token);
    if (!conn)
        return -ENOTCONN;
    if (conn->state & CONN_DRAINING)
        return 0; /* shuts it down by itself */
    conn->state |= CONN_HALF_CLOSING;
    if (!conn->out_size)
        gev_conn_drained(loop, conn);
    return 0;
}
