/* Random sequences of everything that can be done to a loop, against a simple model.
 *
 * Each byte of a stream is a function of the stream and its place, so that bytes lost, doubled or
 * from another connection are seen at once, at both ends:
 *
 *      peer  ---- byte_at(id, place) ---->  frames       heard <= written, all of it at an EOF
 *      peer  <--- byte_at(~id, place) ----  loop_send    taken <= given, all of it after a close
 *
 * And every connection is told closed exactly once, and nothing is told of it afterwards. A failure
 * names its seed; `test_reactor_random SEED` runs that one alone.
 */
#define _GNU_SOURCE
#include "loop.h"

enum { CONNS = 24, STEPS = 1500, SEEDS = 40, PIECES = 200, BIGGEST = 60000 };

typedef struct model {
    int64_t token;
    int peer;               /* -1: the peer has closed */
    uint32_t id;
    bool tcp, paused, finishing, aborted, shut, peer_shut, peer_ended, eof_told, choked_told;
    int closed_told;
    int32_t reason;         /* once told closed */
    int32_t wanted;         /* reason given to the first close */
    size_t written, heard, given, taken, notify_at;
} model;

static fixture f;
static model conns[CONNS];
static uint32_t seed, state, ids;

static uint32_t any(uint32_t below)
{
    state = state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)state * below >> 32);
}

static uint8_t byte_at(uint32_t id, size_t place)
{
    uint32_t mixed = (id * 2654435761u) ^ ((uint32_t)place * 2246822519u);
    return (uint8_t)(mixed >> 13);
}

static void write_stream(uint8_t *to, uint32_t id, size_t from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        to[i] = byte_at(id, from + i);
}

static void check_stream(const uint8_t *data, uint32_t id, size_t from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        CHECK(data[i] == byte_at(id, from + i));
}

static void open_one(model *m)
{
    *m = (model){.id = ++ids, .tcp = any(3) == 0};
    m->token = m->tcp ? tcp_pair(&f, &m->peer) : unix_pair(&f, &m->peer);
    CHECK(fcntl(m->peer, F_SETFL, O_NONBLOCK) == 0);
}

/* ---- what a peer does -------------------------------------------------------------------- */

static void peer_sends(model *m)
{
    static uint8_t data[BIGGEST];
    size_t size = 1 + any(any(2) ? 100 : BIGGEST);
    if (m->peer < 0 || m->peer_shut)
        return;
    write_stream(data, m->id, m->written, size);
    ssize_t sent = send(m->peer, data, size, MSG_NOSIGNAL);
    if (sent > 0)
        m->written += (size_t)sent;
}

static void peer_receives(model *m)
{
    static uint8_t data[BIGGEST];
    if (m->peer < 0 || m->peer_ended)
        return;
    ssize_t got = recv(m->peer, data, 1 + any(BIGGEST), 0);
    if (got > 0) {
        check_stream(data, ~m->id, m->taken, (size_t)got);
        m->taken += (size_t)got;
        CHECK(m->taken <= m->given);
    } else {
        m->peer_ended = got == 0 || errno != EAGAIN;
    }
}

static void peer_leaves(model *m)
{
    if (m->peer < 0)
        return;
    if (any(2)) {
        CHECK(shutdown(m->peer, any(4) ? SHUT_WR : SHUT_RDWR) == 0 || errno == ENOTCONN);
        m->peer_shut = true;
    } else if (any(2)) {
        reset_peer(m->peer);
        m->peer = -1;
    } else {
        close(m->peer);
        m->peer = -1;
    }
}

/* ---- what we do -------------------------------------------------------------------------- */

/* The next `size` bytes for a connection; what is given to a closing one is dropped. */
static void give(model *m, uint8_t *to, size_t size)
{
    write_stream(to, ~m->id, m->given, size);
    if (!m->finishing && !m->shut)
        m->given += size;
}

static void send_to_many(void)
{
    static uint8_t blob[PIECES * BIGGEST], larges[PIECES][BIGGEST];
    const uint8_t *addresses[PIECES];
    int64_t pieces[2 * PIECES];
    int count = (int)any(any(4) ? 10 : PIECES), large = 0;
    size_t end = 0;
    for (int i = 0; i < count; i++) {
        model *m = &conns[any(any(2) ? CONNS : 2)];
        size_t size = any(any(20) ? 300 : BIGGEST);
        if (any(10)) {
            give(m, blob + end, size);
            end += size;
            pieces[2 * i] = m->token;
            pieces[2 * i + 1] = (int64_t)end;
        } else {
            give(m, larges[large], size);
            addresses[large] = larges[large];
            large++;
            pieces[2 * i] = ~m->token;
            pieces[2 * i + 1] = (int64_t)size;
        }
    }
    CHECK(gev_loop_send(f.loop, 2 * count, pieces, blob, end, addresses) >= 0);
}

static void do_to_one(model *m)
{
    int gone = gev_conn_fd(f.loop, m->token) < 0 ? -ENOTCONN : 0, result;
    switch (any(12)) {
    case 0:
        m->wanted = m->finishing ? m->wanted : GEV_REASON_PROTOCOL_ERROR;
        result = gev_conn_close(f.loop, m->token, GEV_REASON_PROTOCOL_ERROR);
        CHECK(gone ? result == gone : result >= 0);
        m->finishing = true;
        break;
    case 1:
        CHECK_EQUAL(gev_conn_abort(f.loop, m->token, GEV_REASON_TIMEOUT), gone);
        m->aborted |= !gone;
        m->finishing = true;
        break;
    case 2:
        CHECK_EQUAL(gev_conn_shutdown_write(f.loop, m->token), gone);
        m->shut = true;
        break;
    case 3:
        if (m->notify_at)
            break; /* one at a time */
        m->notify_at = m->given + 1 + any(1000);
        CHECK_EQUAL(gev_conn_notify(f.loop, m->token, (int64_t)m->notify_at), gone);
        break;
    default:
        m->paused = any(2);
        CHECK_EQUAL(gev_conn_read(f.loop, m->token, !m->paused), gone);
    }
}

/* ---- a turn ------------------------------------------------------------------------------ */

static model *model_of(int32_t slot)
{
    for (int i = 0; i < CONNS; i++)
        if (slot_of(conns[i].token) == slot && !conns[i].closed_told)
            return &conns[i];
    return NULL;
}

static void check_frames(void)
{
    int32_t last = 0;
    for (int32_t i = 0; i < f.frames; i++) {
        const int32_t *frame = f.turn->frames + 3 * i;
        model *m = model_of(frame[0]);
        CHECK(m && !m->paused && !m->finishing && !m->eof_told);
        CHECK(frame[1] >= last && frame[1] < frame[2] && (uint32_t)frame[2] <= f.turn->used);
        last = frame[2];
        size_t size = (size_t)(frame[2] - frame[1]);
        check_stream(f.arena + frame[1], m->id, m->heard, size);
        m->heard += size;
        CHECK(m->heard <= m->written);
    }
}

static void check_changes(void)
{
    for (int32_t i = 0; i < f.turn->changes; i++) {
        model *m = model_of(f.turn->change_slot[i]);
        int32_t what = f.turn->change_what[i];
        CHECK(m && what);
        if (what & GEV_CHANGE_EOF) {
            CHECK(!m->eof_told && m->heard == m->written);
            CHECK(m->peer_shut || m->peer < 0);
            m->eof_told = true;
        }
        if (what & GEV_CHANGE_HIGH_WATER) {
            CHECK(!m->choked_told);
            m->choked_told = true;
        }
        if (what & GEV_CHANGE_DRAINED) {
            CHECK(m->choked_told);
            m->choked_told = false;
        }
        if (what & GEV_CHANGE_SENT) {
            CHECK(m->notify_at && m->notify_at <= m->given);
            m->notify_at = 0;
        }
        if (what & GEV_CHANGE_CLOSED) {
            m->closed_told++;
            m->reason = f.turn->change_reason[i];
            CHECK(!m->aborted || m->reason == GEV_REASON_TIMEOUT);
            CHECK(m->aborted || !m->finishing || !m->wanted || m->reason == m->wanted
                  || m->reason == GEV_REASON_SLOW_CONSUMER || m->reason == GEV_REASON_RESET
                  || m->reason == GEV_REASON_EOF || m->reason == GEV_REASON_NO_MEMORY);
        }
    }
}

static void check_pending(void)
{
    gev_loop_stats stats;
    uint64_t pending = 0;
    for (int i = 0; i < CONNS; i++) {
        int64_t size = gev_conn_pending(f.loop, conns[i].token);
        pending += size > 0 ? (uint64_t)size : 0;
    }
    gev_loop_read_stats(f.loop, &stats);
    CHECK_EQUAL(stats.pending_bytes, pending);
}

static void take_turn(void)
{
    poll_from(&f, any(2) ? 64 * any(1000) : ARENA - 65536 - 64 * any(1000), 0);
    check_frames();
    check_changes();
    check_pending();
}

/* Both ends are done with: nothing may be missing where nothing failed. TCP may lose the end of a
 * stream when the peer goes on sending to a closed socket, so it is not asked. */
static void finish_one(model *m)
{
    CHECK_EQUAL(m->closed_told, 1);
    bool whole = !m->aborted && (m->reason == GEV_REASON_EOF || m->reason == m->wanted);
    while (m->peer >= 0 && !m->peer_ended)
        peer_receives(m);
    if (whole && m->wanted && m->peer >= 0 && !m->peer_shut && !m->tcp)
        CHECK_EQUAL(m->taken, m->given);
    if (m->peer >= 0)
        close(m->peer);
}

static void replace_closed(void)
{
    for (int i = 0; i < CONNS; i++)
        if (conns[i].closed_told && any(4) == 0) {
            finish_one(&conns[i]);
            open_one(&conns[i]);
        }
}

static void run_seed(void)
{
    state = seed * 747796405u + 1;
    gev_limits limits = usual_limits();
    limits.max_events = 1 + (int32_t)any(40);
    limits.read_budget = 1 + any(any(2) ? 1000 : 100000);
    limits.write_high_water = any(200000);
    limits.write_limit = 50000 + any(any(2) ? 100000 : 10000000);
    f = open_loop_over(limits, any(2) ? 128 * KIB : 256 * MIB);
    for (int i = 0; i < CONNS; i++)
        open_one(&conns[i]);
    for (int step = 0; step < STEPS; step++) {
        model *m = &conns[any(CONNS)];
        uint32_t what = any(100);
        if (what < 25)
            peer_sends(m);
        else if (what < 55)
            peer_receives(m);
        else if (what < 57)
            peer_leaves(m);
        else if (what < 65)
            send_to_many();
        else if (what < 72)
            do_to_one(m);
        else if (what < 75)
            replace_closed();
        else
            take_turn();
    }
    /* Everybody goes: some by us, then all by the peers. */
    for (int i = 0; i < CONNS; i++)
        if (any(2) && gev_conn_close(f.loop, conns[i].token, GEV_REASON_SHUTDOWN) >= 0) {
            conns[i].wanted = conns[i].finishing ? conns[i].wanted : GEV_REASON_SHUTDOWN;
            conns[i].finishing = true;
        }
    for (int left = CONNS; left;) {
        left = CONNS;
        for (int i = 0; i < CONNS; i++) {
            model *m = &conns[i];
            left -= m->closed_told;
            peer_receives(m);
            if (m->peer >= 0 && !m->peer_shut)
                shutdown(m->peer, SHUT_WR);
            m->peer_shut = true;
            m->paused = m->closed_told != 0;
            gev_conn_read(f.loop, m->token, 1);
            if (m->eof_told && !m->finishing)
                gev_conn_shutdown_write(f.loop, m->token);
        }
        take_turn();
    }
    for (int i = 0; i < CONNS; i++)
        finish_one(&conns[i]);
    close_loop(&f);
}

int main(int count, char **arguments)
{
    CHECK_TIME(50);
    uint32_t last = count > 1 ? (uint32_t)atoi(arguments[1]) : SEEDS;
    for (seed = count > 1 ? last : 1; seed <= last; seed++) {
        fprintf(stderr, "seed %u\n", seed);
        run_seed();
    }
    return 0;
}
