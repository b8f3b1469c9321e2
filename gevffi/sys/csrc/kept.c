/* kept.c: input that was read and not delivered yet; and the list of those to be cut again.
 *
 * A connection keeps the unfinished frame at the end of a read, in a ring from the pool:
 *
 *   in->base       in_start          in_start + in_size
 *   |--------------|==== kept ========|--- free ---|       (and the same again, mirrored)
 *
 * For a large frame the ring is made as large as the frame will be. But what a peer claims to be
 * sending is not believed at once: it starts at FIRST_ROOM and grows with what really comes.
 *
 * Some bytes are there to be cut without a read: after gev_conn_unread, gev_conn_frame, a large
 * frame, or where frames are wanted one at a time. Such a connection is CONN_AGAIN, and listed in
 * gev_loop.again as long as it may be read. Until they are cut nothing more is read from it.
 *
 * What gev_conn_unread gives back goes in front of what is kept, without moving that, and is cut
 * again in parts: 256 bytes first, then twice as many each time. So a handler that gives
 * the rest of a run back at each of its messages has a part cut and copied for each, not the rest.
 */
#include "conn.h"
#include "framing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 65536 };     /* of the ring for a large frame, before more has come */

void gev_input_drop(gev_conn *conn)
{
    if (conn->in)
        gev_ring_give(conn->in);
    conn->in = NULL;
    conn->in_start = conn->in_size = conn->in_scanned = conn->in_need = 0;
}

static size_t room_for(size_t size, size_t need)
{
    size_t room = 4 * size > FIRST_ROOM ? 4 * size : FIRST_ROOM;
    return need <= size ? size : need < room ? need : room;
}

int gev_input_keep(gev_loop *loop, gev_conn *conn, const uint8_t *data, size_t size, size_t need)
{
    size_t room = room_for(size, need);
    if (conn->in && conn->in->size < room) {
        gev_ring_give(conn->in);
        conn->in = NULL;
    }
    if (!conn->in) {
        int error = gev_pool_take(loop->limits.pool, room, &conn->in);
        if (error) {
            conn->in = NULL;
            return error;
        }
    }
    memcpy(conn->in->base, data, size);
    conn->in_start = 0;
    conn->in_size = (uint32_t)size;
    return 0;
}

int gev_input_grow(gev_loop *loop, gev_conn *conn)
{
    gev_ring *old = conn->in;
    if (old->size - conn->in_size >= GEV_KEPT_IN_ARENA
            || (conn->in_need && conn->in_need <= old->size))
        return 0;
    size_t size = conn->in_need ? room_for(conn->in_size, conn->in_need)
                                : 2 * ((size_t)conn->in_size + GEV_KEPT_IN_ARENA);
    gev_ring *ring;
    int error = gev_pool_take(loop->limits.pool, size, &ring);
    if (error)
        return error;
    memcpy(ring->base, old->base + conn->in_start, conn->in_size);
    gev_ring_give(old);
    conn->in = ring;
    conn->in_start = 0;
    return 0;
}

/* ---- to be cut again ------------------------------------------------------------------------ */

void gev_input_mark(gev_loop *loop, gev_conn *conn)
{
    conn->state |= CONN_AGAIN;
    gev_conn_watch(loop, conn);
}

void gev_input_list(gev_loop *loop, gev_conn *conn)
{
    loop->again[loop->again_count++] = (int32_t)(conn - loop->conns);
    conn->state |= CONN_LISTED;
}

void gev_input_unlist(gev_loop *loop, gev_conn *conn)
{
    int32_t slot = (int32_t)(conn - loop->conns), i = 0;
    while (loop->again[i] != slot)
        i++;
    loop->again_count--;
    memmove(loop->again + i, loop->again + i + 1,
            (size_t)(loop->again_count - i) * sizeof *loop->again);
    conn->state &= (uint16_t)~CONN_LISTED;
}

/* ---- for Python ----------------------------------------------------------------------------- */

int gev_loop_framing(gev_loop *loop, const gev_framing *framing)
{
    int error = gev_framing_check(framing);
    if (error)
        return error;
    for (int32_t i = 0; i < loop->framing_count; i++)
        if (!memcmp(&loop->framings[i], framing, sizeof *framing))
            return i + 1;
    if (loop->framing_count == UINT16_MAX)
        return -ENOSPC;
    gev_framing *more = realloc(loop->framings, ((size_t)loop->framing_count + 1) * sizeof *more);
    if (!more)
        return -ENOMEM;
    loop->framings = more;
    loop->framings[loop->framing_count++] = *framing;
    return loop->framing_count;
}

int gev_conn_frame(gev_loop *loop, int64_t token, int framing)
{
    gev_conn *conn = gev_conn_at(loop, token);
    if (framing < 0 || framing > loop->framing_count)
        return -EINVAL;
    if (!conn)
        return -ENOTCONN;
    conn->framing = (uint16_t)framing;
    conn->in_scanned = conn->in_need = conn->ws_size = 0;
    conn->ws_utf8 = conn->ws_opcode = conn->ws_compressed = 0;
    if (conn->in_size)
        gev_input_mark(loop, conn);
    return 0;
}

/* Puts what was taken off it back, where there is room; false: there is none. */
static bool put_in_front(gev_conn *conn, const uint8_t *data, size_t size)
{
    if (!conn->in || size > conn->in->size - conn->in_size)
        return false;
    conn->in_start = (conn->in_start - (uint32_t)size) & (uint32_t)(conn->in->size - 1);
    conn->in_size += (uint32_t)size;
    conn->in_scanned = conn->in_need = 0;
    memcpy(conn->in->base + conn->in_start, data, size);
    return true;
}

int gev_conn_unread(gev_loop *loop, int64_t token, const uint8_t *data, size_t size, size_t skip)
{
    gev_conn *conn = gev_conn_at(loop, token);
    if (!conn)
        return -ENOTCONN;
    if (size > (size_t)INT32_MAX - conn->in_size || skip > conn->in_size
            || (gev_is_ws(loop, conn) && conn->in_scanned))
        return -EINVAL;
    if (!size)
        return 0;
    if (skip || !put_in_front(conn, data, size)) {
        gev_ring *ring;
        int error = gev_pool_take(loop->limits.pool, size + conn->in_size, &ring);
        if (error) {
            gev_conn_close_now(loop, conn, GEV_REASON_NO_MEMORY);
            return error;
        }
        size_t kept = conn->in_size;
        if (skip)
            memcpy(ring->base, conn->in->base + conn->in_start, skip);
        memcpy(ring->base + skip, data, size);
        if (kept > skip)
            memcpy(ring->base + skip + size, conn->in->base + conn->in_start + skip, kept - skip);
        gev_input_drop(conn);
        conn->in = ring;
        conn->in_size = (uint32_t)(size + kept);
    }
    conn->in_part = GEV_FIRST_PART;
    gev_input_mark(loop, conn);
    return 0;
}

int64_t gev_conn_kept(gev_loop *loop, int64_t token)
{
    gev_conn *conn = gev_conn_at(loop, token);
    return conn ? conn->in_size : 0;
}

gev_ring *gev_conn_take_large(gev_loop *loop, int64_t token, uint32_t total)
{
    gev_conn *conn = gev_conn_at(loop, token);
    if (!conn || !gev_conn_reads(conn) || total > conn->in_size)
        return NULL;
    if (gev_is_ws(loop, conn) && !gev_ws_end_large(loop, conn, total))
        return NULL;
    gev_ring *ring = conn->in;
    uint32_t start = conn->in_start + total, rest = conn->in_size - total;
    conn->in = NULL;
    gev_input_drop(conn);
    if (rest
        && gev_input_keep(loop, conn, ring->base + (start & (uint32_t)(ring->size - 1)), rest, 0))
        gev_conn_close_now(loop, conn, GEV_REASON_NO_MEMORY);
    return ring;
}
