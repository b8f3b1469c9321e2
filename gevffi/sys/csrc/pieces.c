/* pieces.c: what Python gathered in a turn, sorted by connection and dressed.
 *
 * gev_loop_send gets pieces in the order they were written, for any mix of connections. It first
 * links the pieces of each connection into a chain, so that they leave in one system call however
 * they were interleaved:
 *
 *   pieces    A0  B0  A1  C0  A2  B1            senders  A  B  C
 *   chain      2   5   4  -1  -1  -1            A: first 0, last 4; B: first 1, last 5; ...
 *
 * A connection with a framing gets a header or delimiter to each piece on the way. Neighbours in the
 * blob, or in the arena, become one link of a chain.
 */
#include "conn.h"
#include "framing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

/* Whether a piece is for a connection that is closing, or whose sending side is. */
static bool refused(gev_conn *conn, size_t size)
{
    if (gev_output_takes(conn))
        return false;
    conn->queued += size; /* never to be reached by `sent` */
    return true;
}

/* Adds a piece, dressed as the connection's framing has it, or as a WebSocket frame if it has a
 * `first` byte. A small one is copied behind its header, so that the frames of a connection lie in
 * one row; a large one goes by pointer between the two. */
static void add_piece(gev_loop *loop, gev_conn *conn, const uint8_t *base, size_t size,
                      uint8_t first, bool small)
{
    if (!conn)
        return;
    if (refused(conn, size))
        return;
    const gev_framing *framing = conn->framing ? &loop->framings[conn->framing - 1] : NULL;
    if (!first && (!framing || !framing->dress)) {
        link_piece(loop, conn, base, size);
        return;
    }
    uint8_t *out = loop->dressed + loop->dressed_size;
    size_t header = first ? (size_t)gev_ws_header(out, first, size, NULL)
                          : gev_framing_header(framing, size, out);
    size_t copied = small ? size : 0;
    if (copied) /* or there may be no blob */
        memcpy(out + header, base, copied);
    size_t trailer = first ? 0 : gev_framing_trailer(framing, out + header + copied);
    loop->dressed_size += header + copied + trailer;
    if (small) {
        link_piece(loop, conn, out, header + size + trailer);
    } else {
        link_piece(loop, conn, out, header);
        link_piece(loop, conn, base, size);
        link_piece(loop, conn, out + header, trailer);
    }
}

/* Room for the pieces that `count` numbers tell of: none is told by less than one, but for cuts that
 * go back, which may all be told by three. */
static int room_for(gev_loop *loop, int32_t count, size_t blob_size)
{
    size_t links = 3 * (size_t)count + (size_t)loop->turn.cuts;
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

/* `count` cuts of the last turn, from number `first` on, as they came. What dressing would put around
 * a payload is what it came with, so whole frames leave from where they were read, and those that
 * lie in a row leave as one piece. */
static int send_cuts_back(gev_loop *loop, gev_conn *conn, int64_t first, int64_t count)
{
    const gev_turn *turn = &loop->turn;
    if (count > turn->cuts || first > turn->cuts - count)
        return -EINVAL;
    if (!conn)
        return 0;
    if (!conn->framing)
        return -EINVAL;
    size_t header, trailer;
    gev_framing_around(&loop->framings[conn->framing - 1], &header, &trailer);
    for (int64_t i = first; i < first + count; i++) {
        size_t start = (size_t)turn->starts[i], end = (size_t)turn->ends[i] + trailer;
        if (start < header || end > loop->arena_size)
            return -EINVAL;
        size_t size = end - start + header;
        if (!refused(conn, size))
            link_piece(loop, conn, loop->arena + start - header, size);
    }
    return 0;
}

/* A frame of the last turn, as it came. */
static int send_back(gev_loop *loop, int32_t index)
{
    if (index >= loop->frames)
        return -EINVAL;
    const int32_t *frame = loop->turn.frames + 3 * (size_t)index;
    gev_conn *conn = &loop->conns[frame[0]]; /* its slot is not another's before the next turn */
    add_piece(loop, conn->fd < 0 ? NULL : conn, loop->arena + frame[1],
              (size_t)(frame[2] - frame[1]), 0, false);
    return 0;
}

/* The numbers are Python's; -EINVAL if they ask for more of the blob than there is. */
static int link_pieces(gev_loop *loop, int32_t count, const int64_t *numbers, const uint8_t *blob,
                       size_t blob_size, const uint8_t *const *large)
{
    size_t at = 0;
    int64_t pieces = 0, next_cut = 0;
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
        if (numbers[i] < 0) {
            int64_t cuts = ~numbers[i];
            if (token < 0 || !(token & GEV_SEND_RUN) || ++i == count || numbers[i] < next_cut)
                return -EINVAL;
            if (send_cuts_back(loop, gev_conn_at(loop, token & ~GEV_SEND_RUN), numbers[i], cuts))
                return -EINVAL;
            next_cut = numbers[i] + cuts; /* each once, or there is no room */
            pieces += cuts - 1;
            continue;
        }
        uint8_t first = (uint8_t)(numbers[i] >> GEV_FIRST_AT);
        size_t number = (size_t)(numbers[i] & (((int64_t)1 << GEV_FIRST_AT) - 1));
        if (first && !loop->framing_count)
            return -EINVAL; /* without a framing there is no room for headers */
        if (token < 0) {
            add_piece(loop, gev_conn_at(loop, ~token), *large++, number, first, false);
        } else if (token & GEV_SEND_RUN) {
            gev_conn *conn = gev_conn_at(loop, token & ~GEV_SEND_RUN);
            for (pieces--; number > 0 && i + 1 < count; number--, pieces++) {
                size_t size = (size_t)numbers[++i];
                if (size > blob_size - at)
                    return -EINVAL;
                add_piece(loop, conn, blob + at, size, first, true);
                at += size;
            }
        } else {
            if (number < at || number > blob_size)
                return -EINVAL;
            add_piece(loop, gev_conn_at(loop, token), blob + at, number - at, first, true);
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
    for (int32_t i = 0; i < loop->sender_count; i++)
        gev_output_chain(loop, &loop->conns[loop->senders[i]]);
    return error ? error : loop->sender_count;
}
