/* cut.c: cuts what was read into frames, and tells of them.
 *
 * Without a framing a read is a frame. With one, the frames of a read are a *run*: entries of two
 * arrays, where each payload starts and ends in the arena.
 *
 *   arena    used                             end of the run
 *   |--------|kept|== frame ==|== frame ==|== frame ==|= rest =|--- free ---|
 *             start^      end^
 *
 * The rest, an unfinished frame, is kept (kept.c). A large frame is cut in the ring that it is read
 * into (input.c), which Python takes over when it is whole.
 */
#include "conn.h"
#include "framing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

static void advance(gev_loop *loop, size_t size)
{
    gev_turn *turn = &loop->turn;
    turn->used += ((uint32_t)size + ARENA_ALIGN - 1) & ~(uint32_t)(ARENA_ALIGN - 1);
    if (turn->used > loop->arena_size)
        turn->used = loop->arena_size;
}

void gev_tell_frame(gev_loop *loop, gev_conn *conn, size_t size)
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
        int32_t *run = turn->runs + GEV_RUN_NUMBERS * (size_t)turn->run_count++;
        run[0] = (int32_t)(conn - loop->conns);
        run[1] = first;
        run[2] = turn->cuts;
        run[3] = (int32_t)(turn->used + done);
        run[4] = turn->starts[first];
        run[5] = turn->ends[first];
        run[6] = turn->tags[first];
        advance(loop, size);
    }
    return (ssize_t)done;
}

/* Cuts what was kept and what was read behind it, `size` bytes together, and keeps the rest. */
void gev_cut_read(gev_loop *loop, gev_conn *conn, size_t size)
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
void gev_cut_large(gev_loop *loop, gev_conn *conn)
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

/* Cuts what is kept, as far as it fits into the arena, and no more than a little of it where only
 * one frame is wanted, or the rest was given back: it would be copied again for the next one.
 * Whoever gets something out of it stays CONN_AGAIN, so that it is not read in the same turn too: a
 * turn tells one run of a connection. */
void gev_cut_kept(gev_loop *loop, gev_conn *conn)
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
            gev_tell_frame(loop, conn, size);
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
        gev_cut_large(loop, conn);
}

