/* input.c: reads connections, cuts what was read into frames, and keeps what is unfinished.
 *
 * Without a framing a read is a frame. With one, the frames of a read are a *run*: entries of two
 * arrays, where each payload starts and ends in the arena.
 *
 *   arena    used                             end of the run
 *   |--------|kept|== frame ==|== frame ==|== frame ==|= rest =|--- free ---|
 *             start^      end^
 *
 * An unfinished frame is kept (kept.c). A small one is put in front of the next read, in the arena,
 * so that it is whole there when the rest has come; copying it costs less than the read. A large
 * one (GEV_KEPT_IN_ARENA bytes, or known to become as large) is read on where it is kept, and never
 * copied again: when it is whole, Python takes it over with its ring.
 */
#include "conn.h"
#include "framing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { ARENA_ALIGN = 64 };

/* ---- what is told --------------------------------------------------------------------------- */

static int cuts_for(gev_loop *loop, size_t more)
{
    gev_turn *turn = &loop->turn;
    size_t room = (size_t)turn->cut_room, wanted = (size_t)turn->cuts + more;
    if (wanted <= room)
        return 0;
    if (wanted < 2 * room)
        wanted = 2 * room;
    if (wanted > INT32_MAX / 2)
        return -ENOMEM;
    int32_t *cuts = malloc(3 * wanted * sizeof *cuts);
    if (!cuts)
        return -ENOMEM;
    if (turn->cuts) {
        memcpy(cuts, turn->starts, (size_t)turn->cuts * sizeof *cuts);
        memcpy(cuts + wanted, turn->ends, (size_t)turn->cuts * sizeof *cuts);
        memcpy(cuts + 2 * wanted, turn->tags, (size_t)turn->cuts * sizeof *cuts);
    }
    free(turn->starts);
    turn->starts = cuts;
    turn->ends = cuts + wanted;
    turn->tags = cuts + 2 * wanted;
    turn->cut_room = (int32_t)wanted;
    turn->cuts_moved++;
    return 0;
}

int32_t *gev_loop_take_cuts(gev_loop *loop)
{
    int32_t *cuts = loop->turn.starts;
    loop->turn.starts = loop->turn.ends = loop->turn.tags = NULL;
    loop->turn.cuts = 0;
    loop->turn.cut_room = 0;
    return cuts;
}

void gev_free_cuts(int32_t *cuts)
{
    free(cuts);
}

static void advance(gev_loop *loop, size_t size)
{
    gev_turn *turn = &loop->turn;
    turn->used += ((uint32_t)size + ARENA_ALIGN - 1) & ~(uint32_t)(ARENA_ALIGN - 1);
    if (turn->used > loop->arena_size)
        turn->used = loop->arena_size;
}

static void tell_frame(gev_loop *loop, gev_conn *conn, size_t size)
{
    int32_t *frame = loop->turn.frames + 3 * (size_t)loop->frames++;
    frame[0] = (int32_t)(conn - loop->conns);
    frame[1] = (int32_t)loop->turn.used;
    frame[2] = (int32_t)(loop->turn.used + size);
    advance(loop, size);
}

static void tell_large(gev_loop *loop, gev_conn *conn, const gev_cut *cut, uint32_t total)
{
    gev_large *large = &loop->turn.large[loop->turn.large_count++];
    *large = (gev_large){.slot = (int32_t)(conn - loop->conns),
                         .start = conn->in_start + cut->start, .size = cut->size, .total = total,
                         .tag = cut->tag};
}

static void bad_frame(gev_loop *loop, gev_conn *conn, int64_t error)
{
    gev_input_drop(conn);
    conn->state |= CONN_BAD;
    conn->state &= (uint16_t)~CONN_AGAIN;
    conn->reason = (uint8_t)-error;
    gev_conn_changed(loop, conn, error == GEV_CUT_BAD_TEXT
                                     ? GEV_CHANGE_BAD_FRAME | GEV_CHANGE_BAD_TEXT
                                     : GEV_CHANGE_BAD_FRAME);
    gev_conn_watch(loop, conn);
}

/* ---- cutting -------------------------------------------------------------------------------- */

/* Cuts the `size` bytes at the arena's `used` into a run; returns how many bytes the frames took,
 * or -errno. What follows is up to the caller, as is an error, left in `*error`: behind frames it
 * counts only when they were handled, for the connection may have another framing by then, which
 * takes those bytes for something else. */
static ssize_t cut_run(gev_loop *loop, gev_conn *conn, size_t size, uint32_t *scanned,
                       uint32_t *need, int64_t *error)
{
    gev_turn *turn = &loop->turn;
    const gev_framing *framing = &loop->framings[conn->framing - 1];
    uint8_t *base = loop->arena + turn->used;
    size_t done = 0;
    int64_t length = 0;
    int32_t first = turn->cuts;
    gev_cut cut = {0};
    if (cuts_for(loop, size / gev_framing_least(framing) + 1))
        return -ENOMEM;
    if (framing->kind == GEV_WEBSOCKET)
        length = gev_ws_cut_run(loop, conn, base, size, scanned, &cut, &done);
    else while (done < size) {
        length = gev_framing_cut(framing, base + done, size - done, scanned, &cut);
        if (length <= 0)
            break;
        turn->starts[turn->cuts] = (int32_t)(turn->used + done + cut.start);
        turn->ends[turn->cuts] = turn->starts[turn->cuts] + (int32_t)cut.size;
        turn->cuts++;
        done += (size_t)length;
        *scanned = 0;
        if (framing->one_at_a_time)
            break;
    }
    *need = length == 0 && done < size ? cut.need : 0;
    *error = length < 0 ? length : 0;
    if (turn->cuts > first) {
        int32_t *run = turn->runs + 4 * (size_t)turn->run_count++;
        run[0] = (int32_t)(conn - loop->conns);
        run[1] = first;
        run[2] = turn->cuts;
        run[3] = (int32_t)(turn->used + done);
        advance(loop, size);
    }
    return (ssize_t)done;
}

/* Cuts what was kept and what was read behind it, `size` bytes together, and keeps the rest. */
static void cut_read(gev_loop *loop, gev_conn *conn, size_t size)
{
    uint8_t *base = loop->arena + loop->turn.used;
    uint32_t scanned = conn->in_scanned, need;
    int64_t error;
    ssize_t done = cut_run(loop, conn, size, &scanned, &need, &error);
    if (done < 0) {
        gev_conn_close_now(loop, conn, GEV_REASON_NO_MEMORY);
        return;
    }
    if (error && !done) {
        bad_frame(loop, conn, error);
        return;
    }
    size_t rest = size - (size_t)done;
    if (!rest) {
        gev_input_drop(conn);
        return;
    }
    if (gev_input_keep(loop, conn, base + done, rest, need)) {
        gev_conn_close_now(loop, conn, GEV_REASON_NO_MEMORY);
        return;
    }
    conn->in_scanned = error && !gev_is_ws(loop, conn) ? 0 : scanned;
    conn->in_need = need;
    /* A bad frame is bad when those before it were handled: they may change the framing. */
    if (done && (error || loop->framings[conn->framing - 1].one_at_a_time))
        gev_input_mark(loop, conn);
}

/* Cuts the frame that is read in its ring; it may have become whole. */
static void cut_large(gev_loop *loop, gev_conn *conn)
{
    gev_cut cut = {0};
    int64_t length = gev_is_ws(loop, conn)
                         ? gev_ws_cut_large(loop, conn, &cut)
                         : gev_framing_cut(&loop->framings[conn->framing - 1],
                                           conn->in->base + conn->in_start, conn->in_size,
                                           &conn->in_scanned, &cut);
    if (length < 0) {
        bad_frame(loop, conn, length);
    } else if (length > 0) {
        tell_large(loop, conn, &cut, (uint32_t)length);
        gev_input_mark(loop, conn); /* for what follows it, and should nobody take it */
    } else {
        conn->in_need = cut.need;
    }
}

/* ---- reading -------------------------------------------------------------------------------- */

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
        cut_large(loop, conn);
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
        tell_frame(loop, conn, (size_t)got);
        return;
    }
    if (kept)
        memcpy(at, conn->in->base + conn->in_start, kept);
    cut_read(loop, conn, kept + (size_t)got);
}

/* ---- cutting again -------------------------------------------------------------------------- */

/* Cuts what is kept, as far as it fits into the arena, and no more than a little of it where only
 * one frame is wanted, or the rest was given back: it would be copied again for the next one.
 * Whoever gets something out of it stays CONN_AGAIN, so that it is not read in the same turn too: a
 * turn tells one run of a connection. */
static void cut_kept(gev_loop *loop, gev_conn *conn)
{
    size_t kept = conn->in_size;
    size_t most = loop->arena_size - loop->turn.used, size;
    uint32_t need = 0;
    int64_t error = 0;
    ssize_t done;
    if (conn->framing && loop->framings[conn->framing - 1].one_at_a_time
            && most > GEV_KEPT_IN_ARENA)
        most = GEV_KEPT_IN_ARENA;
    if (most > kept)
        most = kept;
    uint8_t *base = loop->arena + loop->turn.used;
    bool websocket = gev_is_ws(loop, conn);
    if (websocket)
        conn->in_part = 0; /* a part that is cut in vain is unmasked */
    do {
        size_t part = (size_t)1 << conn->in_part;
        size = conn->framing && conn->in_part && most > part ? part : most;
        conn->in_part = conn->in_part && 2 * part <= GEV_KEPT_IN_ARENA ? conn->in_part + 1u : 0;
        memcpy(base, conn->in->base + conn->in_start, size);
        if (conn->framing) {
            done = cut_run(loop, conn, size, &conn->in_scanned, &need, &error);
        } else {
            tell_frame(loop, conn, size);
            done = (ssize_t)size;
        }
    } while (!done && !error && size < most);
    if (done < 0) {
        gev_conn_close_now(loop, conn, GEV_REASON_NO_MEMORY);
        return;
    }
    if (error && !done) {
        bad_frame(loop, conn, error);
        return;
    }
    if (websocket) /* a part of the rest is unmasked */
        memcpy(conn->in->base + conn->in_start + done, base + done, size - (size_t)done);
    else if (error)
        conn->in_scanned = 0;
    conn->in_start = (conn->in_start + (uint32_t)done) & (uint32_t)(conn->in->size - 1);
    conn->in_size -= (uint32_t)done;
    conn->in_need = need;
    if (!conn->in_size)
        gev_input_drop(conn);
    if (done)
        gev_input_mark(loop, conn);
    else if (size < kept)
        cut_large(loop, conn);
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
            cut_kept(loop, conn);
    }
    loop->again_count -= i;
    memmove(loop->again, loop->again + i, (size_t)loop->again_count * sizeof *loop->again);
}
