/* conn.c: the table of connections, and their interest in the poller.
 *
 * A slot is taken by gev_conn_open and goes free in two steps: closing shuts the descriptor and
 * lists GEV_CHANGE_CLOSED; the turn that reports it is the last to use the slot, and the next turn
 * frees it. So whatever Python still holds for a slot is dropped before the slot means another
 * connection, and the generation in the token catches what is dropped too late.
 */
#include "conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t gev_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t gev_now_ms(void)
{
    return gev_now_ns() / 1000000;
}

int64_t gev_conn_token(const gev_loop *loop, const gev_conn *conn)
{
    return (int64_t)conn->generation << 32 | (conn - loop->conns);
}

gev_conn *gev_conn_at(gev_loop *loop, int64_t token)
{
    int64_t slot = token & 0xffffffff;
    if (token < 0 || slot >= loop->capacity)
        return NULL;
    gev_conn *conn = &loop->conns[slot];
    if (conn->generation != token >> 32 || conn->fd < 0)
        return NULL;
    return conn;
}

static int grow(gev_loop *loop)
{
    int32_t capacity = loop->capacity ? loop->capacity : 32;
    if (capacity > INT32_MAX / 2 / (int32_t)sizeof(gev_conn))
        return -ENOMEM;
    capacity *= 2;
    gev_conn *conns = realloc(loop->conns, (size_t)capacity * sizeof *conns);
    if (!conns)
        return -ENOMEM;
    loop->conns = conns;
    int32_t *again = realloc(loop->again, 2 * (size_t)capacity * sizeof *again);
    if (!again)
        return -ENOMEM;
    loop->again = again;
    memset(conns + loop->capacity, 0, (size_t)(capacity - loop->capacity) * sizeof *conns);
    for (int32_t slot = capacity - 1; slot >= loop->capacity; slot--) {
        conns[slot].fd = -1;
        conns[slot].generation = 1;
        conns[slot].next = loop->free_slot;
        loop->free_slot = slot;
    }
    loop->capacity = capacity;
    return 0;
}

int gev_conn_open(gev_loop *loop, int fd, uint16_t state, gev_conn **result)
{
    if (loop->free_slot < 0) {
        int error = grow(loop);
        if (error)
            return error;
    }
    gev_conn *conn = &loop->conns[loop->free_slot];
    int64_t token = gev_conn_token(loop, conn);
    int interest = state & CONN_CONNECTING ? GEV_WRITE : GEV_READ;
    int error = gev_poller_add(loop->poller, fd, (uint64_t)token, interest);
    if (error)
        return error;
    gev_no_sigpipe(fd);
    loop->free_slot = conn->next;
    *conn = (gev_conn){
        .fd = fd, .generation = conn->generation, .state = state,
        .interest = (uint8_t)interest, .next = -1,
        .idle_next = -1, .idle_prev = -1, .idle_bucket = -1, .first_piece = -1,
        .active = gev_now_ms(),
    };
    if (!(state & CONN_CONNECTING)) /* how long that may take is Python's to say */
        gev_idle_add(loop, conn);
    *result = conn;
    return 0;
}

/* ---- interest ---------------------------------------------------------------------------- */

bool gev_conn_reads(const gev_conn *conn)
{
    return !(conn->state
             & (CONN_PAUSED | CONN_CHOKED | CONN_EOF | CONN_DRAINING | CONN_CLOSED | CONN_BAD));
}

void gev_conn_watch(gev_loop *loop, gev_conn *conn)
{
    if (conn->state & CONN_CLOSED)
        return;
    if ((conn->state & (CONN_AGAIN | CONN_LISTED)) == CONN_AGAIN && gev_conn_reads(conn))
        gev_input_list(loop, conn);
    int wanted = (gev_conn_reads(conn) || conn->state & CONN_LINGERING) ? GEV_READ : 0;
    if (conn->out_size || conn->state & CONN_CONNECTING)
        wanted |= GEV_WRITE;
    int error = 0;
    if (conn->state & CONN_UNWATCHED) {
        if (!wanted)
            return;
        uint64_t token = (uint64_t)gev_conn_token(loop, conn);
        error = gev_poller_add(loop->poller, conn->fd, token, wanted);
        conn->state &= (uint16_t)~CONN_UNWATCHED;
    } else if (wanted != conn->interest) {
        uint64_t token = (uint64_t)gev_conn_token(loop, conn);
        error = gev_poller_modify(loop->poller, conn->fd, token, conn->interest, wanted);
    }
    conn->interest = (uint8_t)wanted;
    if (error)
        gev_conn_close_now(loop, conn, GEV_REASON_NO_MEMORY);
}

void gev_conn_unwatch(gev_loop *loop, gev_conn *conn)
{
    gev_poller_remove(loop->poller, conn->fd, conn->interest);
    conn->interest = 0;
    conn->state |= CONN_UNWATCHED;
}

/* ---- changes ------------------------------------------------------------------------------- */

void gev_conn_changed(gev_loop *loop, gev_conn *conn, uint32_t change)
{
    if (!(conn->state & CONN_CHANGED)) {
        int32_t slot = (int32_t)(conn - loop->conns);
        conn->next = -1;
        if (loop->last_changed < 0)
            loop->first_changed = slot;
        else
            loop->conns[loop->last_changed].next = slot;
        loop->last_changed = slot;
        conn->state |= CONN_CHANGED;
    }
    conn->changes |= change;
}

void gev_conn_report_changes(gev_loop *loop)
{
    gev_turn *turn = &loop->turn;
    while (loop->first_changed >= 0 && turn->changes < loop->limits.max_events) {
        int32_t slot = loop->first_changed;
        gev_conn *conn = &loop->conns[slot];
        if (conn->changes) {
            turn->change_slot[turn->changes] = slot;
            turn->change_what[turn->changes] = (int32_t)conn->changes;
            turn->change_reason[turn->changes] = conn->reason;
            turn->changes++;
        }
        conn->changes = 0;
        conn->state &= (uint16_t)~CONN_CHANGED;
        loop->first_changed = conn->next;
        if (loop->first_changed < 0)
            loop->last_changed = -1;
    }
    loop->told = turn->changes;
}

void gev_conn_release_told(gev_loop *loop)
{
    for (int32_t i = 0; i < loop->told; i++) {
        if (!(loop->turn.change_what[i] & GEV_CHANGE_CLOSED))
            continue;
        gev_conn *conn = &loop->conns[loop->turn.change_slot[i]];
        conn->generation = conn->generation % 0x3fffffff + 1; /* 30 bits, and never 0 */
        conn->next = loop->free_slot;
        loop->free_slot = loop->turn.change_slot[i];
    }
    loop->told = 0;
}

/* ---- one connection at a time, for Python -------------------------------------------------- */

int gev_conn_read(gev_loop *loop, int64_t token, int on)
{
    gev_conn *conn = gev_conn_at(loop, token);
    if (!conn)
        return -ENOTCONN;
    if (on)
        conn->state &= (uint16_t)~CONN_PAUSED;
    else
        conn->state |= CONN_PAUSED;
    gev_conn_watch(loop, conn);
    return 0;
}

int64_t gev_conn_pending(gev_loop *loop, int64_t token)
{
    gev_conn *conn = gev_conn_at(loop, token);
    return conn ? (int64_t)conn->out_size : -ENOTCONN;
}

int64_t gev_conn_queued(gev_loop *loop, int64_t token)
{
    gev_conn *conn = gev_conn_at(loop, token);
    return conn ? (int64_t)conn->queued : -ENOTCONN;
}

int64_t gev_conn_sent(gev_loop *loop, int64_t token)
{
    int64_t slot = token & 0xffffffff;
    if (token < 0 || slot >= loop->capacity || loop->conns[slot].generation != token >> 32)
        return -ENOTCONN;
    return (int64_t)loop->conns[slot].sent;
}

int gev_conn_notify(gev_loop *loop, int64_t token, int64_t position)
{
    gev_conn *conn = gev_conn_at(loop, token);
    if (!conn)
        return -ENOTCONN;
    conn->notify_at = (uint64_t)position;
    if (conn->sent >= conn->notify_at) {
        conn->notify_at = 0;
        gev_conn_changed(loop, conn, GEV_CHANGE_SENT);
    }
    return 0;
}

int gev_conn_fd(gev_loop *loop, int64_t token)
{
    gev_conn *conn = gev_conn_at(loop, token);
    return conn ? conn->fd : -ENOTCONN;
}
