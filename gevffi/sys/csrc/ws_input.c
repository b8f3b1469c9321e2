/* ws_input.c: a connection's WebSocket frames, and what is known of them from one read to the next.
 *
 * websocket.c cuts frames with a gev_ws at hand. A connection does not keep one, as it would be
 * carried about by all the others too; it keeps what cannot be had from its framing:
 *
 *     gev_ws             max_message_size  flags  message_size  done        opcode compressed utf8
 *                               │            │         │           │             └──────┼──────┘
 *     kept in              the framing's own  ─┘      ws_size    in_scanned     bits of a word
 *
 * Frames are unmasked where they lie, and the bytes of an unfinished frame as they come: `done` of
 * its payload are plain, the rest as it was sent. So wherever those bytes go, in_scanned goes with
 * them, and no other copy of them counts:
 *
 *     |header|key|==== plain ====|%%%% masked %%%%|       (kept.c moves it; cut.c writes back )
 *                 ◀─in_scanned──▶
 *
 * A large frame may be told and not be taken, and is told again later. Until it is taken all of it
 * counts as `done` and the message has not moved on, so that cutting it once more changes nothing.
 */
#include "conn.h"
#include "framing.h"

static gev_ws load(const gev_loop *loop, const gev_conn *conn)
{
    const gev_framing *framing = &loop->framings[conn->framing - 1];
    return (gev_ws){.max_message_size = framing->max_size, .flags = (uint8_t)framing->size,
                    .message_size = conn->ws_size, .done = conn->in_scanned,
                    .opcode = conn->ws_opcode, .compressed = conn->ws_compressed,
                    .utf8 = conn->ws_utf8};
}

/* All but `done`, which belongs to the bytes. */
static void store(gev_conn *conn, const gev_ws *ws)
{
    conn->ws_size = ws->message_size;
    conn->ws_opcode = ws->opcode & 15u;
    conn->ws_compressed = ws->compressed & 1u;
    conn->ws_utf8 = ws->utf8 & 63u;
}

/* What a cutter's answer is to cut.c: its errors are reasons, not close codes. */
static int64_t answer(int64_t length)
{
    if (length >= 0)
        return length;
    return length == -1009 ? GEV_CUT_TOO_LARGE : length == -1007 ? GEV_CUT_BAD_TEXT
                                                                 : GEV_CUT_MALFORMED;
}

int64_t gev_ws_cut_run(gev_loop *loop, gev_conn *conn, uint8_t *base, size_t size,
                       uint32_t *scanned, gev_cut *cut, size_t *done)
{
    gev_turn *turn = &loop->turn;
    gev_ws ws = load(loop, conn);
    int64_t length = 0;
    while (*done < size) {
        length = gev_ws_cut(&ws, base + *done, size - *done, cut);
        if (length <= 0)
            break;
        turn->starts[turn->cuts] = (int32_t)(turn->used + *done + cut->start);
        turn->ends[turn->cuts] = turn->starts[turn->cuts] + (int32_t)cut->size;
        turn->tags[turn->cuts] = (int32_t)cut->tag;
        turn->cuts++;
        *done += (size_t)length;
    }
    store(conn, &ws);
    *scanned = ws.done;
    return answer(length);
}

int64_t gev_ws_cut_large(gev_loop *loop, gev_conn *conn, gev_cut *cut)
{
    gev_ws ws = load(loop, conn), before = ws;
    int64_t length = gev_ws_cut(&ws, conn->in->base + conn->in_start, conn->in_size, cut);
    if (length > 0) {
        before.utf8 = ws.utf8;
        store(conn, &before);
        conn->in_scanned = cut->size;
    } else {
        store(conn, &ws);
        conn->in_scanned = ws.done;
    }
    return answer(length);
}

bool gev_ws_end_large(gev_loop *loop, gev_conn *conn, uint32_t total)
{
    gev_ws ws = load(loop, conn);
    gev_cut cut;
    if (gev_ws_cut(&ws, conn->in->base + conn->in_start, conn->in_size, &cut) != (int64_t)total)
        return false;
    store(conn, &ws);
    return true;
}
