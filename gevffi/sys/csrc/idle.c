/* idle.c: closes connections that have been silent too long, or from the start, at no cost a
 * message; and those that have sent all they had to, when the peer has acknowledged it.
 *
 * Reading and sending only stamp gev_conn.active, and reading clears first_byte_due. A wheel of
 * 1024 buckets, 50 ms each, holds every connection once, in the bucket of the moment it is next to
 * be looked at:
 *
 *            idle_tick
 *   buckets  ... | now | +50 ms | +100 ms | ...          each a doubly linked list of slots
 *
 * When the moment comes and the connection has been active meanwhile, it moves on to
 * active + idle_ms, or to first_byte_due where that is set and earlier (or to the far end of the
 * wheel, if that is nearer). So a connection is touched once an idle time, however much it says,
 * and a turn costs the same for ten connections as for ten thousand. Nobody is closed early, and
 * nobody more than two steps (100 ms) late.
 *
 * No event tells of an acknowledgement, so a connection that waits for one (CONN_ACKING) is looked
 * at in every step.
 */
#include "conn.h"

#include <limits.h>

static const int64_t NEVER = INT64_MAX;

void gev_idle_init(gev_loop *loop)
{
    for (int i = 0; i < IDLE_BUCKETS; i++)
        loop->idle_heads[i] = -1;
    loop->idle_tick = gev_now_ms() / IDLE_STEP_MS;
}

/* The moment at which its silence is too long, and the reason to close it with then. */
static int64_t deadline(const gev_loop *loop, const gev_conn *conn, int *reason)
{
    int64_t due = loop->limits.idle_ms ? conn->active + loop->limits.idle_ms : NEVER;
    *reason = GEV_REASON_IDLE;
    /* One that has ended has said what it wanted to say, and a close has a deadline of its own. */
    if (conn->first_byte_due && conn->first_byte_due < due
            && !(conn->state & (CONN_EOF | CONN_DRAINING))) {
        due = conn->first_byte_due;
        *reason = GEV_REASON_TIMEOUT;
    }
    return due;
}

/* The step to look at it in, the first whose start is not before the deadline; 0: there is none. */
static int64_t due_tick(const gev_loop *loop, const gev_conn *conn)
{
    int64_t first = loop->idle_tick + 1, last = loop->idle_tick + IDLE_BUCKETS - 1;
    int reason;
    if (conn->state & CONN_ACKING)
        return first;
    int64_t due = deadline(loop, conn, &reason);
    if (due == NEVER)
        return 0;
    int64_t tick = due / IDLE_STEP_MS + 1;
    return tick < first ? first : tick < last ? tick : last;
}

void gev_idle_add(gev_loop *loop, gev_conn *conn)
{
    int64_t tick = due_tick(loop, conn);
    if (!tick)
        return;
    int32_t slot = (int32_t)(conn - loop->conns);
    int32_t bucket = (int32_t)(tick % IDLE_BUCKETS);
    int32_t head = loop->idle_heads[bucket];
    conn->idle_bucket = bucket;
    conn->idle_prev = -1;
    conn->idle_next = head;
    if (head >= 0)
        loop->conns[head].idle_prev = slot;
    loop->idle_heads[bucket] = slot;
    loop->idle_count++;
    if (tick < loop->idle_next)
        loop->idle_next = tick;
}

void gev_idle_remove(gev_loop *loop, gev_conn *conn)
{
    if (conn->idle_bucket < 0)
        return;
    if (conn->idle_prev >= 0)
        loop->conns[conn->idle_prev].idle_next = conn->idle_next;
    else
        loop->idle_heads[conn->idle_bucket] = conn->idle_next;
    if (conn->idle_next >= 0)
        loop->conns[conn->idle_next].idle_prev = conn->idle_prev;
    conn->idle_bucket = -1;
    loop->idle_count--;
}

void gev_idle_await_first_byte(gev_loop *loop, gev_conn *conn)
{
    if (!loop->limits.first_byte_ms)
        return;
    conn->first_byte_due = conn->active + loop->limits.first_byte_ms;
    gev_idle_remove(loop, conn);
    gev_idle_add(loop, conn);
}

/* Closes the connection if it is due. */
static void close_if_due(gev_loop *loop, gev_conn *conn)
{
    int reason;
    if (conn->state & CONN_ACKING) {
        if (!gev_conn_unacknowledged(conn))
            gev_conn_close_now(loop, conn, conn->reason);
    } else if (deadline(loop, conn, &reason) <= loop->now) {
        /* Its first byte may be there, but reading is paused or the loop is late. */
        if (reason == GEV_REASON_TIMEOUT && gev_conn_has_unread(conn))
            conn->first_byte_due = 0;
        else
            gev_conn_close_now(loop, conn, reason);
    }
}

static void look_at(gev_loop *loop, int32_t bucket)
{
    int32_t slot = loop->idle_heads[bucket];
    while (slot >= 0) {
        gev_conn *conn = &loop->conns[slot];
        slot = conn->idle_next;
        gev_idle_remove(loop, conn);
        close_if_due(loop, conn);
        if (!(conn->state & CONN_CLOSED))
            gev_idle_add(loop, conn);
    }
}

void gev_idle_expire(gev_loop *loop)
{
    int64_t now = loop->now / IDLE_STEP_MS;
    if (!loop->idle_count || now - loop->idle_tick >= IDLE_BUCKETS) {
        /* Nothing to find, or away for a whole turn of the wheel: look at each bucket once. */
        int64_t from = loop->idle_tick;
        loop->idle_tick = now;
        for (int i = 0; loop->idle_count && i < IDLE_BUCKETS; i++)
            look_at(loop, (int32_t)((from + i) % IDLE_BUCKETS));
        return;
    }
    while (loop->idle_tick < now) {
        loop->idle_tick++;
        look_at(loop, (int32_t)(loop->idle_tick % IDLE_BUCKETS));
    }
}

int gev_idle_timeout(gev_loop *loop, int timeout_ms)
{
    if (!loop->idle_count || timeout_ms == 0)
        return timeout_ms;
    /* On from where the search ended the last time, so that empty buckets are not passed again in
     * every turn. */
    int64_t tick = loop->idle_next > loop->idle_tick ? loop->idle_next : loop->idle_tick + 1;
    while (loop->idle_heads[tick % IDLE_BUCKETS] < 0)
        tick++;
    loop->idle_next = tick;
    int64_t wait = tick * IDLE_STEP_MS - gev_now_ms();
    if (wait < 0)
        wait = 0;
    if (wait > INT_MAX)
        wait = INT_MAX;
    return timeout_ms >= 0 && timeout_ms < wait ? timeout_ms : (int)wait;
}
