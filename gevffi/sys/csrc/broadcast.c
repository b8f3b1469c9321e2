/* broadcast.c: the same bytes to many connections, in one call.
 *
 *             data |======= size =======|        one buffer, the caller's, not copied
 *                    ^      ^      ^
 *   tokens   | A | B | C |                       send(2) to each in turn
 *
 * Everybody is sent to straight from the caller's buffer. Only for a connection that does not take
 * all of it, or for which older bytes wait, is the rest copied, behind these, into its own ring;
 * the limits of its output apply as for any other send (output.c). So one that does not read costs
 * itself and nobody else.
 *
 * The bytes leave as they are: whoever broadcasts has framed them, once for all.
 */
#include "conn.h"

#include <errno.h>

int gev_loop_broadcast(gev_loop *loop, int32_t count, const int64_t *tokens, const uint8_t *data,
                       size_t size)
{
    int reached = 0;
    if (count < 0)
        return -EINVAL;
    loop->now = gev_now_ms(); /* callbacks may have taken long since the turn read it */
    for (int32_t i = 0; i < count; i++) {
        gev_conn *conn = gev_conn_at(loop, tokens[i]);
        if (!conn || !gev_output_takes(conn))
            continue;
        gev_output_put(loop, conn, data, size);
        reached++;
    }
    gev_count(&loop->stats.counts.messages_sent, (uint64_t)reached);
    return reached;
}
