/* output.c: sends what a connection has to send, and keeps what the kernel does not take.
 *
 * What the kernel does not take waits in a ring from the pool, where a write event finds it; while
 * anything waits, later pieces queue behind it.
 *
 *   out->base          out_start          out_start + out_size
 *   |------------------|==== unsent ======|---- free ----|  (and the same again, mirrored)
 *
 * sendmsg(2) rather than writev(2): it is the same call with MSG_NOSIGNAL.
 */
#include "conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { OUTPUT_PIECES = 64 };   /* in one sendmsg; a longer chain takes several */

typedef struct sender {
    gev_loop *loop;
    gev_conn *conn;
    struct iovec pieces[OUTPUT_PIECES];
    int count;
    size_t size;
} sender;

void gev_output_drop(gev_loop *loop, gev_conn *conn)
{
    gev_count(&loop->stats.counts.pending_bytes, -(uint64_t)conn->out_size);
    if (conn->out)
        gev_ring_give(conn->out);
    conn->out = NULL;
    conn->out_start = 0;
    conn->out_size = 0;
}

/* A send failed for good. What the peer sent before it left is still to be read, so the connection
 * closes when reading has come to its end; at once where nobody reads. */
void gev_output_broken(gev_loop *loop, gev_conn *conn, int error)
{
    gev_output_drop(loop, conn);
    conn->state |= CONN_BROKEN;
    conn->state &= (uint16_t)~CONN_CHOKED;
    if (gev_conn_reads(conn)) {
        conn->reason = (uint8_t)gev_reason_of(error); /* told once: recv will say "end" */
        gev_conn_watch(loop, conn);
    } else {
        gev_conn_close_now(loop, conn, gev_reason_of(error));
    }
}

/* After the kernel took `sent` bytes. */
static void progressed(gev_loop *loop, gev_conn *conn, size_t sent)
{
    conn->active = loop->now;
    conn->sent += sent;
    gev_count(&loop->stats.counts.bytes_sent, sent);
    if (conn->notify_at && conn->sent >= conn->notify_at) {
        conn->notify_at = 0;
        gev_conn_changed(loop, conn, GEV_CHANGE_SENT);
    }
    if (conn->state & CONN_CHOKED && conn->out_size <= loop->limits.write_high_water / 2) {
        conn->state &= (uint16_t)~CONN_CHOKED;
        gev_conn_changed(loop, conn, GEV_CHANGE_DRAINED);
    }
}

/* Makes room for `more` bytes behind the unsent ones. */
static int reserve(gev_loop *loop, gev_conn *conn, size_t more)
{
    size_t needed = conn->out_size + more;
    if (conn->out && needed <= conn->out->size)
        return 0;
    gev_ring *ring;
    int error = gev_pool_take(loop->limits.pool, needed, &ring);
    if (error)
        return error;
    if (conn->out) {
        memcpy(ring->base, conn->out->base + conn->out_start, conn->out_size);
        gev_ring_give(conn->out);
    }
    conn->out = ring;
    conn->out_start = 0;
    return 0;
}

/* Keeps the pieces from byte `done` on. */
static void keep(sender *s, size_t done)
{
    gev_loop *loop = s->loop;
    gev_conn *conn = s->conn;
    size_t rest = s->size - done;
    if (rest > loop->limits.write_limit - conn->out_size) {
        gev_conn_close_now(loop, conn, GEV_REASON_SLOW_CONSUMER);
        return;
    }
    if (reserve(loop, conn, rest)) {
        gev_conn_close_now(loop, conn, GEV_REASON_NO_MEMORY);
        return;
    }
    for (int i = 0; i < s->count; i++) {
        size_t size = s->pieces[i].iov_len;
        size_t skip = done < size ? done : size;
        done -= skip;
        size_t end = (conn->out_start + conn->out_size) & (conn->out->size - 1);
        memcpy(conn->out->base + end, (uint8_t *)s->pieces[i].iov_base + skip, size - skip);
        conn->out_size += (uint32_t)(size - skip);
    }
    gev_count(&loop->stats.counts.pending_bytes, rest);
    if (conn->out_size > loop->limits.write_high_water && !(conn->state & CONN_CHOKED)) {
        conn->state |= CONN_CHOKED;
        /* A drain that nobody has heard of yet did not happen: high water and drain take turns. */
        if (conn->changes & GEV_CHANGE_DRAINED)
            conn->changes &= ~(uint32_t)GEV_CHANGE_DRAINED;
        else
            gev_conn_changed(loop, conn, GEV_CHANGE_HIGH_WATER);
    }
    gev_conn_watch(loop, conn);
}

/* Sends the gathered pieces; false once the connection takes no more. */
static bool put(sender *s)
{
    gev_conn *conn = s->conn;
    ssize_t sent = 0;
    conn->queued += s->size;
    if (!conn->out_size && s->size) {
        struct msghdr message = {.msg_iov = s->pieces, .msg_iovlen = (size_t)s->count};
        do {
            if (s->count == 1)
                sent = send(conn->fd, s->pieces[0].iov_base, s->size, MSG_NOSIGNAL);
            else
                sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
        } while (sent < 0 && errno == EINTR);
        if (sent < 0) {
            if (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM) {
                gev_output_broken(s->loop, conn, errno);
                return false;
            }
            sent = 0;
        }
        if (sent)
            progressed(s->loop, conn, (size_t)sent);
    }
    if ((size_t)sent < s->size)
        keep(s, (size_t)sent);
    s->count = 0;
    s->size = 0;
    return !(conn->state & CONN_CLOSED);
}

void gev_output_put(gev_loop *loop, gev_conn *conn, const uint8_t *data, size_t size)
{
    sender s; /* not zeroed: 64 pieces, and this is done for each connection of a broadcast */
    s.loop = loop;
    s.conn = conn;
    s.pieces[0] = (struct iovec){.iov_base = (void *)data, .iov_len = size};
    s.count = 1;
    s.size = size;
    put(&s);
}

/* Adds a piece; false once the connection takes no more. */
static bool gather(sender *s, const uint8_t *base, size_t size)
{
    if (!size)
        return true;
    if (s->count == OUTPUT_PIECES && !put(s))
        return false;
    s->pieces[s->count++] = (struct iovec){.iov_base = (void *)base, .iov_len = size};
    s->size += size;
    return true;
}

void gev_output_chain(gev_loop *loop, gev_conn *conn)
{
    sender s;
    s.loop = loop;
    s.conn = conn;
    s.count = 0;
    s.size = 0;
    int32_t piece = conn->first_piece;
    bool open = true;
    conn->first_piece = -1;
    for (; piece >= 0 && open; piece = loop->chain[piece].next)
        open = gather(&s, loop->chain[piece].base, loop->chain[piece].size);
    if (open && s.count)
        put(&s);
}

void gev_output_flush(gev_loop *loop, gev_conn *conn)
{
    if (!conn->out_size)
        return;
    ssize_t sent;
    do {
        sent = send(conn->fd, conn->out->base + conn->out_start, conn->out_size, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        if (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM)
            gev_output_broken(loop, conn, errno);
        return;
    }
    conn->out_start = (conn->out_start + (uint32_t)sent) & (uint32_t)(conn->out->size - 1);
    conn->out_size -= (uint32_t)sent;
    gev_count(&loop->stats.counts.pending_bytes, -(uint64_t)sent);
    if (!conn->out_size)
        gev_output_drop(loop, conn);
    progressed(loop, conn, (size_t)sent);
    if (!conn->out_size)
        gev_conn_drained(loop, conn);
    gev_conn_watch(loop, conn);
}
