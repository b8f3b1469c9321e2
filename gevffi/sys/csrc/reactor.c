/* reactor.c: a turn of the loop: wait, accept, read, flush; all of it in one call without the GIL.
 *
 * The arena is memory of the caller's. Reads are packed one behind the other from `start` on, each
 * at a multiple of 64 bytes, so that one connection's frame never shares a cache line with
 * another's and arrays made on it are aligned:
 *
 *   arena   start                                       used                 arena_size
 *   |-------|== read 0 ==|..|= read 1 =|..|== read 2 ==|----- free ----------|
 *
 * Events are served from a ready list. When the arena has no room for another good read, the turn
 * ends and the next one goes on in the list without a wait, so a full arena costs nobody its
 * place in the queue. A connection is read once a turn, up to its budget.
 */
#include "conn.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* ---- opening and closing ------------------------------------------------------------------- */

static int turn_open(gev_turn *turn, size_t room)
{
    /* A turn serves up to max_events events, and as many connections with kept input. */
    turn->frames = calloc(2 * room, 3 * sizeof *turn->frames);
    turn->runs = calloc(2 * room, GEV_RUN_NUMBERS * sizeof *turn->runs);
    turn->large = calloc(2 * room, sizeof *turn->large);
    turn->change_slot = calloc(room, sizeof *turn->change_slot);
    turn->change_what = calloc(room, sizeof *turn->change_what);
    turn->change_reason = calloc(room, sizeof *turn->change_reason);
    turn->accepted_fd = calloc(GEV_ACCEPT_ROOM, sizeof *turn->accepted_fd);
    turn->accepted_listener = calloc(GEV_ACCEPT_ROOM, sizeof *turn->accepted_listener);
    turn->accepted_size = calloc(GEV_ACCEPT_ROOM, sizeof *turn->accepted_size);
    turn->accepted_address = calloc(GEV_ACCEPT_ROOM, GEV_ADDRESS_ROOM);
    return turn->frames && turn->runs && turn->large && turn->change_slot && turn->change_what
                   && turn->change_reason
                   && turn->accepted_fd && turn->accepted_listener && turn->accepted_size
                   && turn->accepted_address
               ? 0
               : -ENOMEM;
}

static void turn_close(gev_turn *turn)
{
    free(turn->frames);
    free(turn->runs);
    free(turn->large);
    free(turn->starts);
    free(turn->change_slot);
    free(turn->change_what);
    free(turn->change_reason);
    free(turn->accepted_fd);
    free(turn->accepted_listener);
    free(turn->accepted_size);
    free(turn->accepted_address);
}

int gev_loop_open(gev_loop **result, const gev_limits *limits)
{
    if (!limits->pool || limits->max_events < 1 || limits->max_events > 65536
            || !limits->read_budget || limits->write_limit > 1u << 30 || limits->idle_ms < 0
            || limits->idle_ms > INT64_MAX / 2 || limits->first_byte_ms < 0
            || limits->first_byte_ms > INT64_MAX / 2)
        return -EINVAL;
    gev_loop *loop = calloc(1, sizeof *loop);
    if (!loop)
        return -ENOMEM;
    loop->limits = *limits;
    loop->free_slot = loop->first_changed = loop->last_changed = -1;
    loop->now = gev_now_ms();
    gev_idle_init(loop);
    int error = turn_open(&loop->turn, (size_t)limits->max_events);
    if (!error)
        error = gev_poller_open(&loop->poller, limits->max_events);
    if (error) {
        turn_close(&loop->turn);
        free(loop);
        return error;
    }
    loop->events = gev_poller_events(loop->poller);
    *result = loop;
    return 0;
}

void gev_loop_close(gev_loop *loop)
{
    for (int32_t slot = 0; slot < loop->capacity; slot++)
        if (loop->conns[slot].fd >= 0)
            gev_conn_close_now(loop, &loop->conns[slot], GEV_REASON_SHUTDOWN);
    gev_poller_close(loop->poller);
    turn_close(&loop->turn);
    free(loop->conns);
    free(loop->again);
    free(loop->framings);
    free(loop->listeners);
    free(loop->chain);
    free(loop->senders);
    free(loop->dressed);
    free(loop);
}

gev_turn *gev_loop_turn(gev_loop *loop)
{
    return &loop->turn;
}

void gev_loop_arena(gev_loop *loop, uint8_t *base, uint32_t size)
{
    loop->arena = base;
    loop->arena_size = size;
}

int gev_loop_wake(gev_loop *loop)
{
    return gev_poller_wake(loop->poller);
}

int gev_loop_watch(gev_loop *loop, int fd)
{
    return gev_poller_add(loop->poller, fd, GEV_WATCHED | (uint64_t)fd, GEV_READ);
}

void gev_loop_forked(gev_loop *loop)
{
    gev_poller_forked(loop->poller);
}

int64_t gev_loop_adopt(gev_loop *loop, int fd)
{
    gev_conn *conn;
    int error = gev_conn_open(loop, fd, 0, &conn);
    if (error)
        return error;
    gev_idle_await_first_byte(loop, conn);
    return gev_conn_token(loop, conn);
}

/* ---- connections ---------------------------------------------------------------------------- */

/* Reads and forgets, until the peer has ended. */
static void linger(gev_loop *loop, gev_conn *conn)
{
    uint8_t scratch[16384];
    for (size_t seen = 0; seen < loop->limits.read_budget; seen += sizeof scratch) {
        ssize_t got = gev_receive(loop, conn->fd, scratch, sizeof scratch);
        if (got == -EAGAIN)
            return;
        if (got <= 0) {
            gev_conn_close_now(loop, conn, conn->reason);
            return;
        }
    }
}

static void hung_up(gev_loop *loop, gev_conn *conn, uint32_t ready)
{
    if (ready & GEV_ERROR) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        gev_conn_close_now(loop, conn, gev_reason_of(error));
    } else if (!conn->out_size) {
        /* Both sides have ended, but nobody wants to read what is left: the poller would report
         * it for ever. Resuming to read brings it back. */
        gev_conn_unwatch(loop, conn);
    }
}

static void serve(gev_loop *loop, const gev_event *event)
{
    if (event->token & GEV_WATCHED) {
        uint8_t dropped[64];
        (void)!recv((int)(event->token & 0xffffffff), dropped, sizeof dropped, MSG_DONTWAIT);
        return;
    }
    if (event->token & GEV_LISTENER) {
        gev_accept_some(loop, (int)(event->token & 0xffffffff));
        return;
    }
    gev_conn *conn = gev_conn_at(loop, (int64_t)event->token);
    if (!conn)
        return;
    if (conn->state & CONN_CONNECTING) {
        gev_conn_connected(loop, conn, event->error);
        return;
    }
    /* An error that the poller has taken from the socket, a send would not tell any more. A hang-up
     * may come without writability (unix(7)); sending is how its output ends then. */
    if (event->error && !(conn->state & CONN_LINGERING))
        gev_output_broken(loop, conn, event->error);
    else if (event->ready & (GEV_WRITE | GEV_HANGUP))
        gev_output_flush(loop, conn);
    if (conn->fd < 0 || !(event->ready & (GEV_READ | GEV_HANGUP | GEV_ERROR)))
        return;
    if (event->ready & GEV_ERROR && !(conn->state & CONN_BROKEN)) {
        conn->state |= CONN_BROKEN; /* what came before is read; the end behind it is a reset */
        if (gev_conn_reads(conn))
            conn->reason = GEV_REASON_RESET;
    }
    if (conn->state & CONN_LINGERING)
        linger(loop, conn);
    else if (gev_conn_reads(conn))
        gev_input_read(loop, conn);
    else if (event->ready & (GEV_HANGUP | GEV_ERROR))
        hung_up(loop, conn, event->ready);
}

/* Whether the turn has room for what the event brings; if not, the next one begins with it. */
static bool has_room(const gev_loop *loop, const gev_event *event)
{
    if (event->token & GEV_LISTENER)
        return loop->turn.accepted < GEV_ACCEPT_ROOM;
    return loop->arena_size - loop->turn.used >= GEV_MIN_READ;
}

/* ---- the turn ------------------------------------------------------------------------------- */

/* The messages of the last turn. Counted when the caller is done with them, since it knows what
 * became of the frames (gev_loop_recount). */
static void count_messages(gev_loop *loop)
{
    gev_count_carried(&loop->stats.counts.messages_received, loop->messages,
                      &loop->stats.received_carry);
}

/* How long to wait from `now` until `due`, both in nanoseconds; 0 is never. */
static int timeout_ms(int64_t now, int64_t due)
{
    int64_t left = due > now ? (due - now - 1) / 1000000 + 1 : 0;
    return !due ? -1 : left < INT_MAX ? (int)left : INT_MAX;
}

int gev_loop_poll(gev_loop *loop, uint32_t start, int64_t due, int32_t count, const void *numbers,
                  const uint8_t *blob, size_t blob_size, const uint8_t *const *large)
{
    gev_turn *turn = &loop->turn;
    if (start > loop->arena_size || loop->arena_size - start < GEV_MIN_READ
            || loop->arena_size > INT32_MAX)
        return -EINVAL;
    int sent = count ? gev_loop_send(loop, count, numbers, blob, blob_size, large) : 0;
    if (sent < 0)
        return sent;
    int64_t now = gev_stats_turn_over(&loop->stats);
    count_messages(loop);
    loop->messages = 0;
    gev_conn_release_told(loop);
    loop->frames = turn->changes = turn->accepted = turn->accept_error = 0;
    turn->run_count = turn->cuts = turn->large_count = 0;
    turn->used = start;
    if (loop->served == loop->ready) {
        bool at_once = loop->first_changed >= 0 || loop->again_count;
        int timeout = gev_idle_timeout(loop, at_once ? 0 : timeout_ms(now, due));
        int ready = gev_poller_wait(loop->poller, timeout);
        if (ready < 0 && ready != -EINTR)
            return ready;
        loop->served = 0;
        loop->ready = ready < 0 ? 0 : ready;
        now = gev_now_ns();
    }
    loop->stats.turn_began = now;
    loop->now = now / 1000000;
    int before = loop->served;
    if (loop->again_count)
        gev_input_again(loop);
    while (loop->served < loop->ready && has_room(loop, &loop->events[loop->served]))
        serve(loop, &loop->events[loop->served++]);
    gev_idle_expire(loop);
    gev_conn_report_changes(loop);
    gev_count(&loop->stats.counts.events, (uint64_t)(loop->served - before));
    gev_count(&loop->stats.counts.accepted, (uint64_t)turn->accepted);
    loop->messages = loop->frames + turn->cuts + turn->large_count;
    bool more = turn->changes || turn->accepted || turn->accept_error || turn->large_count;
    return loop->frames + (more ? GEV_MORE : 0) + (turn->run_count ? GEV_RUNS : 0)
           + (due && due <= now ? GEV_DUE : 0);
}
