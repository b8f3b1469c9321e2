/* input.c: reads connections.
 *
 * A read goes into the arena and is cut there. What was kept of the read before, an unfinished frame,
 * is put in front of it, so that it is whole there when the rest has come; copying it costs less than
 * the read.
 *
 *   arena    used
 *   |--------|kept|== read ==|--- free ---|
 *
 * A large frame (GEV_KEPT_IN_ARENA bytes, or known to become as large) is read on where it is kept,
 * and never copied again: when it is whole, Python takes it over with its ring.
 *
 *   ring     in_start           in_start + in_size         in_start + in_need
 *   |--------|==== kept ========|== read ==|--- free ------|
 */
#include "conn.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

ssize_t gev_receive(gev_loop *loop, int fd, uint8_t *into, size_t room)
{
    ssize_t got;
    do {
        got = recv(fd, into, room, 0);
    } while (got < 0 && errno == EINTR);
    if (got > 0)
        gev_count(&loop->stats.counts.bytes_received, (uint64_t)got);
    return got < 0 ? -errno : got;
}

static void ended(gev_loop *loop, gev_conn *conn, ssize_t got)
{
    if (got == -EAGAIN)
        return;
    if (got < 0) {
        gev_conn_close_now(loop, conn, gev_reason_of((int)-got));
    } else if (conn->state & CONN_BROKEN) {
        gev_conn_close_now(loop, conn, conn->reason);
    } else if (conn->state & CONN_WRITE_SHUT) {
        gev_conn_close_now(loop, conn, GEV_REASON_EOF);
    } else {
        conn->state |= CONN_EOF;
        gev_conn_changed(loop, conn, GEV_CHANGE_EOF);
        gev_conn_watch(loop, conn);
    }
}

/* Reads on in the ring, up to the end of the frame where that is known. */
static void read_large(gev_loop *loop, gev_conn *conn)
{
    if (gev_input_grow(loop, conn)) {
        gev_conn_close_now(loop, conn, GEV_REASON_NO_MEMORY);
        return;
    }
    size_t room = conn->in->size - conn->in_size;
    if (conn->in_need && room > conn->in_need - conn->in_size)
        room = conn->in_need - conn->in_size;
    if (!conn->in_need && room > GEV_KEPT_IN_ARENA)
        room = GEV_KEPT_IN_ARENA; /* what lies behind the frame will be copied */
    if (room > loop->limits.read_budget)
        room = loop->limits.read_budget;
    size_t end = (conn->in_start + conn->in_size) & (conn->in->size - 1);
    ssize_t got = gev_receive(loop, conn->fd, conn->in->base + end, room);
    if (got > 0) {
        conn->active = loop->now;
        conn->first_byte_due = 0;
        conn->in_size += (uint32_t)got;
        gev_cut_large(loop, conn);
    } else {
        ended(loop, conn, got);
    }
}

void gev_input_read(gev_loop *loop, gev_conn *conn)
{
    if (conn->state & CONN_AGAIN)
        return;
    if (conn->in_size > GEV_KEPT_IN_ARENA || conn->in_need > GEV_KEPT_IN_ARENA) {
        read_large(loop, conn);
        return;
    }
    uint8_t *at = loop->arena + loop->turn.used;
    size_t kept = conn->in_size;
    size_t room = loop->arena_size - loop->turn.used - kept;
    if (room > loop->limits.read_budget)
        room = loop->limits.read_budget;
    ssize_t got = gev_receive(loop, conn->fd, at + kept, room);
    if (got <= 0) {
        ended(loop, conn, got);
        return;
    }
    conn->active = loop->now;
    conn->first_byte_due = 0;
    if (!conn->framing) {
        gev_tell_frame(loop, conn, (size_t)got);
        return;
    }
    if (kept)
        memcpy(at, conn->in->base + conn->in_start, kept);
    gev_cut_read(loop, conn, kept + (size_t)got);
}

void gev_input_again(gev_loop *loop)
{
    int32_t count = loop->again_count, i = 0;
    if (count > loop->limits.max_events)
        count = loop->limits.max_events;
    while (i < count && loop->arena_size - loop->turn.used >= GEV_MIN_READ) {
        gev_conn *conn = &loop->conns[loop->again[i]];
        loop->again[i++] = -1;
        conn->state &= (uint16_t)~CONN_LISTED;
        if (!gev_conn_reads(conn))
            continue; /* listed again when it may be read */
        conn->state &= (uint16_t)~CONN_AGAIN;
        if (conn->in_size)
            gev_cut_kept(loop, conn);
    }
    loop->again_count -= i;
    memmove(loop->again, loop->again + i, (size_t)loop->again_count * sizeof *loop->again);
}
