/* output.c: sends what Python gathered in a turn, and keeps what the kernel does not take.
 *
 * gev_loop_send gets pieces in the order they were written, for any mix of connections. It first
 * links the pieces of each connection into a chain, so that they leave in one system call however
 * they were interleaved:
 *
 *   pieces    A0  B0  A1  C0  A2  B1            senders  A  B  C
 *   chain      2   5   4  -1  -1  -1            A: first 0, last 4; B: first 1, last 5; ...
 *
 * A connection with a framing gets a header or delimiter to each piece on the way.
 *
 * Neighbours in the blob become one link of a chain. What the kernel does not take waits in a ring
 * from the pool, where a write event finds it; while anything waits, later pieces queue behind it.
 *
 *   out->base          out_start          out_start + out_size
 *   |------------------|==== unsent ======|---- free ----|  (and the same again, mirrored)
 *
 * sendmsg(2) rather than writev(2): it is the same call with MSG_NOSIGNAL.
 */
#include "conn.h"
#include "framing.h"

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
static void broken(gev_loop *loop, gev_conn *conn, int error)
{
    gev_output_drop(loop, conn);
    conn->state |= CONN_BROKEN;
    conn->state &= (uint16_t)~CONN_CHOKED;
    if (gev_conn_reads(conn))
        gev_conn_watch(loop, conn);
    else
        gev_conn_close_now(loop, conn, gev_reason_of(error));
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
                broken(s->loop, conn, errno);
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

/* ---- the pieces of a turn ------------------------------------------------------------------ */

/* Adds a piece to the connection's chain, to the last one where they touch. */
static void link_piece(gev_loop *loop, gev_conn *conn, const uint8_t *base, size_t size)
{
    gev_link *last = conn->first_piece < 0 ? NULL : &loop->chain[conn->last_piece];
    if (last && last->base + last->size == base) {
        last->size += size;
        return;
    }
    int32_t i = loop->chain_count++;
    loop->chain[i] = (gev_link){.base = base, .size = size, .next = -1};
    if (conn->first_piece < 0) {
        conn->first_piece = i;
        loop->senders[loop->sender_count++] = (int32_t)(conn - loop->conns);
    } else {
        loop->chain[conn->last_piece].next = i;
    }
    conn->last_piece = i;
}

/* A piece, dressed as the connection's framing has it. A small one is copied behind its header, so
 * that the frames of a connection lie in one row; a large one goes by pointer between the two. */
static void add_piece(gev_loop *loop, gev_conn *conn, const uint8_t *base, size_t size, bool small)
{
    if (!conn)
        return;
    if (!gev_output_takes(conn)) {
        conn->queued += size; /* never to be reached by `sent` */
        return;
    }
    const gev_framing *framing = conn->framing ? &loop->framings[conn->framing - 1] : NULL;
    if (!framing || !framing->dress) {
        link_piece(loop, conn, base, size);
        return;
    }
    uint8_t *out = loop->dressed + loop->dressed_size;
    size_t header = gev_framing_header(framing, size, out);
    size_t copied = small ? size : 0;
    if (copied) /* or there may be no blob */
        memcpy(out + header, base, copied);
    size_t trailer = gev_framing_trailer(framing, out + header + copied);
    loop->dressed_size += header + copied + trailer;
    if (small) {
        link_piece(loop, conn, out, header + size + trailer);
    } else {
        link_piece(loop, conn, out, header);
        link_piece(loop, conn, base, size);
        link_piece(loop, conn, out + header, trailer);
    }
}

/* A piece as the payload of a WebSocket frame; `small` as in add_piece. */
static void add_ws_frame(gev_loop *loop, gev_conn *conn, const uint8_t *base, size_t size,
                         uint8_t first, bool small)
{
    if (!conn)
        return;
    if (!gev_output_takes(conn)) {
        conn->queued += size;
        return;
    }
    uint8_t *out = loop->dressed + loop->dressed_size;
    size_t header = (size_t)gev_ws_header(out, first, size, NULL);
    size_t copied = small ? size : 0;
    if (copied)
        memcpy(out + header, base, copied);
    loop->dressed_size += header + copied;
    link_piece(loop, conn, out, header + copied);
    if (!small)
        link_piece(loop, conn, base, size);
}

/* Room for the pieces that `count` numbers tell of, none of which is told by less than one. */
static int room_for(gev_loop *loop, int32_t count, size_t blob_size)
{
    size_t links = 3 * (size_t)count;
    size_t dressed = loop->framing_count ? blob_size + GEV_DRESS_ROOM * (size_t)count : 0;
    if (links > loop->chain_room) {
        gev_link *chain = realloc(loop->chain, links * sizeof *chain);
        if (!chain)
            return -ENOMEM;
        loop->chain = chain;
        int32_t *senders = realloc(loop->senders, links * sizeof *senders);
        if (!senders)
            return -ENOMEM;
        loop->senders = senders;
        loop->chain_room = links;
    }
    if (dressed > loop->dressed_room) {
        uint8_t *more = realloc(loop->dressed, dressed);
        if (!more)
            return -ENOMEM;
        loop->dressed = more;
        loop->dressed_room = dressed;
    }
    return 0;
}

/* A frame of the last turn, as it came. */
static int send_back(gev_loop *loop, int32_t index)
{
    if (index >= loop->frames)
        return -EINVAL;
    const int32_t *frame = loop->turn.frames + 3 * (size_t)index;
    gev_conn *conn = &loop->conns[frame[0]]; /* the slot is free again in the next turn */
    if (conn->fd >= 0)
        add_piece(loop, conn, loop->arena + frame[1], (size_t)(frame[2] - frame[1]), false);
    return 0;
}

/* A piece, as a WebSocket frame if it has a `first` byte. */
static void add(gev_loop *loop, int64_t token, const uint8_t *base, size_t size, uint8_t first,
                bool small)
{
    if (first)
        add_ws_frame(loop, gev_conn_at(loop, token), base, size, first, small);
    else
        add_piece(loop, gev_conn_at(loop, token), base, size, small);
}

/* The numbers are Python's; -EINVAL if they ask for more of the blob than there is. */
static int link_pieces(gev_loop *loop, int32_t count, const int64_t *numbers, const uint8_t *blob,
                       size_t blob_size, const uint8_t *const *large)
{
    size_t at = 0;
    int64_t pieces = 0;
    for (int32_t i = 0; i < count; i++) {
        int64_t token = numbers[i];
        pieces++;
        if (token < 0 && token >= INT32_MIN) { /* no generation is 0, so this is no ~token */
            if (send_back(loop, (int32_t)~token))
                return -EINVAL;
            continue;
        }
        if (++i == count)
            break;
        uint8_t first = (uint8_t)(numbers[i] >> GEV_FIRST_AT);
        size_t number = (size_t)(numbers[i] & (((int64_t)1 << GEV_FIRST_AT) - 1));
        if (numbers[i] < 0 || (first && !loop->framing_count))
            return -EINVAL; /* without a framing there is no room for headers */
        if (token < 0) {
            add(loop, ~token, *large++, number, first, false);
        } else if (token & GEV_SEND_RUN) {
            for (pieces--; number > 0 && i + 1 < count; number--, pieces++) {
                size_t size = (size_t)numbers[++i];
                if (size > blob_size - at)
                    return -EINVAL;
                add(loop, token & ~GEV_SEND_RUN, blob + at, size, first, true);
                at += size;
            }
        } else {
            if (number < at || number > blob_size)
                return -EINVAL;
            add(loop, token, blob + at, number - at, first, true);
            at = number;
        }
    }
    gev_count_carried(&loop->stats.counts.messages_sent, pieces, &loop->stats.sent_carry);
    return 0;
}

int gev_loop_send(gev_loop *loop, int32_t count, const void *numbers, const uint8_t *blob,
                  size_t blob_size, const uint8_t *const *large)
{
    int error = room_for(loop, count, blob_size);
    if (error)
        return error;
    loop->now = gev_now_ms(); /* callbacks may have taken long since the turn read it */
    loop->sender_count = loop->chain_count = 0;
    loop->dressed_size = 0;
    error = link_pieces(loop, count, numbers, blob, blob_size, large);
    sender s = {.loop = loop};
    for (int32_t i = 0; i < loop->sender_count; i++) {
        s.conn = &loop->conns[loop->senders[i]];
        s.count = 0;
        s.size = 0;
        int32_t piece = s.conn->first_piece;
        bool open = true;
        s.conn->first_piece = -1;
        for (; piece >= 0 && open; piece = loop->chain[piece].next)
            open = gather(&s, loop->chain[piece].base, loop->chain[piece].size);
        if (open && s.count)
            put(&s);
    }
    return error ? error : loop->sender_count;
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
            broken(loop, conn, errno);
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
