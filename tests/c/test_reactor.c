/* The turn of the loop: waiting, reading into the arena, and how a connection's end is told.
 * Accepting is in test_accept.c, output in test_output.c, closing from our side in
 * test_closing.c, idleness in test_idle.c. */
#define _GNU_SOURCE
#include "conn.h"
#include "loop.h"

#include <dirent.h>
#include <poll.h>

enum { MIN_READ = 65536 };   /* as in reactor.c */

static void frames_are_packed_and_aligned(void)
{
    fixture f = open_loop();
    int peers[5];
    int64_t tokens[5];
    char text[5][200];
    for (int i = 0; i < 5; i++) {
        tokens[i] = unix_pair(&f, &peers[i]);
        memset(text[i], 'a' + i, sizeof text[i]);
        peer_writes(peers[i], text[i], (size_t)(1 + 33 * i));
    }
    poll_from(&f, 128, -1);
    CHECK_EQUAL(f.frames, 5);
    uint32_t used = 128;
    for (int i = 0; i < 5; i++) {
        size_t size;
        const uint8_t *frame = frame_of(&f, tokens[i], &size);
        CHECK(frame && size == (size_t)(1 + 33 * i) && !memcmp(frame, text[i], size));
        CHECK_EQUAL(f.turn->frames[3 * i + 1], used);
        used += (uint32_t)(size + 63) & ~63u;
    }
    CHECK_EQUAL(f.turn->used, used);
    for (int i = 0; i < 5; i++)
        close(peers[i]);
    close_loop(&f);
}

/* The arena has room for one good read: each turn serves one event, and none waits anew. */
static void a_full_arena_ends_the_turn_and_the_next_goes_on(void)
{
    fixture f = open_loop();
    enum { PEERS = 8 };
    int peers[PEERS], heard[PEERS] = {0};
    int64_t tokens[PEERS];
    uint8_t *data = noise(1000);
    gev_loop_arena(f.loop, f.arena, MIN_READ);
    for (int i = 0; i < PEERS; i++) {
        tokens[i] = unix_pair(&f, &peers[i]);
        peer_writes(peers[i], data, 1000);
    }
    for (int turn = 0; turn < PEERS; turn++) {
        poll_once(&f, 0);
        CHECK_EQUAL(f.frames, 1);
        for (int i = 0; i < PEERS; i++)
            if (tokens[i] == f.turn->frames[0])
                heard[i]++;
        /* Whoever speaks again is not served twice before the others were served once. */
        peer_writes(peers[f.turn->frames[0]], data, 1000);
    }
    for (int i = 0; i < PEERS; i++) {
        CHECK_EQUAL(heard[i], 1);
        close(peers[i]);
    }
    free(data);
    close_loop(&f);
}

static void one_connection_reads_its_budget_in_a_turn(void)
{
    gev_limits limits = usual_limits();
    limits.read_budget = 1000;
    fixture f = open_loop_over(limits, MIB);
    int peer;
    size_t size;
    int64_t token = unix_pair(&f, &peer);
    uint8_t *data = noise(2500);
    peer_writes(peer, data, 2500);
    for (int turn = 0; turn < 3; turn++) {
        poll_once(&f, -1);
        const uint8_t *frame = frame_of(&f, token, &size);
        CHECK(frame && size == (turn < 2 ? 1000 : 500));
        CHECK(!memcmp(frame, data + 1000 * turn, size));
    }
    free(data);
    close(peer);
    close_loop(&f);
}

static void an_end_is_told_after_the_last_bytes(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = tcp_pair(&f, &peer);
    peer_writes(peer, "bye", 3);
    CHECK(shutdown(peer, SHUT_WR) == 0);
    wait_text(&f, token, "bye");
    CHECK_EQUAL(changes_of(&f, token), 0);
    CHECK_EQUAL(wait_for(&f, token, GEV_CHANGE_EOF), GEV_CHANGE_EOF);
    /* Half open now: nothing is ready any more, and we may still send. */
    poll_once(&f, 0);
    CHECK_EQUAL(f.frames + f.turn->changes, 0);
    CHECK_EQUAL(send_bytes(&f, token, "and you", 7), 1);
    peer_reads(peer, "and you", 7);
    CHECK_EQUAL(gev_conn_close(f.loop, token, GEV_REASON_EOF), 1);
    peer_sees_end(peer);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_CLOSED);
    CHECK_EQUAL(reason_of(&f, token), GEV_REASON_EOF);
    close(peer);
    close_loop(&f);
}

static void a_reset_closes(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = tcp_pair(&f, &peer);
    reset_peer(peer);
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_RESET);
    close_loop(&f);
}

/* EPOLLERR comes whether or not anybody asked for input. */
static void a_reset_closes_who_is_paused(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = tcp_pair(&f, &peer);
    CHECK_EQUAL(gev_conn_read(f.loop, token, 0), 0);
    reset_peer(peer);
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_RESET);
    close_loop(&f);
}

/* A hang-up that nobody reads is reported by epoll for ever: it must not be waited for. */
static void a_hang_up_of_who_is_paused_does_not_spin(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    CHECK_EQUAL(gev_conn_read(f.loop, token, 0), 0);
    peer_writes(peer, "last", 4);
    close(peer);
    poll_once(&f, -1); /* takes it out */
    CHECK_EQUAL(f.turn->changes, 0);
    CHECK_EQUAL(gev_poller_wait(f.loop->poller, 0), 0);
    CHECK_EQUAL(gev_conn_read(f.loop, token, 1), 0);
    wait_text(&f, token, "last");
    wait_for(&f, token, GEV_CHANGE_EOF);
    close_loop(&f);
}

static void pausing_leaves_bytes_with_the_kernel(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = tcp_pair(&f, &peer);
    CHECK_EQUAL(gev_conn_read(f.loop, token, 0), 0);
    peer_writes(peer, "later", 5);
    struct pollfd input = {.fd = gev_conn_fd(f.loop, token), .events = POLLIN};
    CHECK(poll(&input, 1, -1) == 1);
    poll_once(&f, 0);
    CHECK_EQUAL(f.frames, 0);
    CHECK_EQUAL(gev_conn_read(f.loop, token, 1), 0);
    wait_text(&f, token, "later");
    close(peer);
    close_loop(&f);
}

static void an_old_token_reaches_nobody(void)
{
    fixture f = open_loop();
    int peer, next_peer;
    int64_t old = unix_pair(&f, &peer);
    CHECK_EQUAL(gev_conn_abort(f.loop, old, GEV_REASON_LOCAL), 0);
    /* Closed and not told yet: the slot is nobody else's. */
    int64_t other = unix_pair(&f, &next_peer);
    CHECK(slot_of(other) != slot_of(old));
    close(next_peer);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, old), GEV_CHANGE_CLOSED);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, old), 0);
    int64_t new = unix_pair(&f, &next_peer);
    CHECK(slot_of(new) == slot_of(old) && new != old);
    CHECK_EQUAL(gev_conn_close(f.loop, old, 0), -ENOTCONN);
    CHECK_EQUAL(gev_conn_abort(f.loop, old, 0), -ENOTCONN);
    CHECK_EQUAL(gev_conn_read(f.loop, old, 0), -ENOTCONN);
    CHECK_EQUAL(gev_conn_shutdown_write(f.loop, old), -ENOTCONN);
    CHECK_EQUAL(gev_conn_notify(f.loop, old, 0), -ENOTCONN);
    CHECK_EQUAL(gev_conn_pending(f.loop, old), -ENOTCONN);
    CHECK_EQUAL(gev_conn_queued(f.loop, old), -ENOTCONN);
    CHECK_EQUAL(gev_conn_fd(f.loop, old), -ENOTCONN);
    CHECK_EQUAL(gev_conn_fd(f.loop, -1), -ENOTCONN);
    CHECK_EQUAL(gev_conn_fd(f.loop, INT64_MAX), -ENOTCONN);
    CHECK_EQUAL(send_bytes(&f, old, "wrong", 5), 0);
    CHECK_EQUAL(send_bytes(&f, new, "right", 5), 1);
    peer_reads(next_peer, "right", 5);
    CHECK_EQUAL(gev_conn_queued(f.loop, new), 5);
    close(peer);
    close(next_peer);
    close_loop(&f);
}

/* More changes than a turn has room for: the rest come in the next ones, each once. */
static void changes_that_do_not_fit_come_later(void)
{
    gev_limits limits = usual_limits();
    limits.max_events = 7;
    fixture f = open_loop_over(limits, MIB);
    enum { CONNS = 100 };
    int peers[CONNS], told[CONNS] = {0};
    for (int i = 0; i < CONNS; i++)
        CHECK_EQUAL(slot_of(unix_pair(&f, &peers[i])), i);
    for (int i = 0; i < CONNS; i++)
        CHECK_EQUAL(gev_conn_abort(f.loop, i, GEV_REASON_LOCAL), 0);
    for (int turn = 0; turn < (CONNS + 6) / 7; turn++) {
        poll_once(&f, -1); /* does not block: there is something to tell */
        for (int i = 0; i < f.turn->changes; i++)
            told[f.turn->change_slot[i]]++;
    }
    for (int i = 0; i < CONNS; i++) {
        CHECK_EQUAL(told[i], 1);
        close(peers[i]);
    }
    close_loop(&f);
}

static void a_wake_ends_the_wait(void)
{
    fixture f = open_loop();
    CHECK_EQUAL(gev_loop_wake(f.loop), 0);
    poll_once(&f, -1);
    CHECK_EQUAL(f.frames + f.turn->changes, 0);
    close_loop(&f);
}

static int open_descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int count = 0;
    CHECK(folder);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count;
}

static void closing_the_loop_closes_everything(void)
{
    int before = open_descriptors(), peers[4];
    fixture f = open_loop();
    int64_t tokens[4];
    uint8_t *data = noise(4 * MIB);
    for (int i = 0; i < 4; i++)
        tokens[i] = unix_pair(&f, &peers[i]);
    peer_writes(peers[0], "unread", 6);
    send_bytes(&f, tokens[1], data, 4 * MIB);
    CHECK(gev_conn_pending(f.loop, tokens[1]) > 0);
    send_bytes(&f, tokens[2], data, 4 * MIB);
    CHECK_EQUAL(gev_conn_close(f.loop, tokens[2], GEV_REASON_LOCAL), 0);
    gev_conn_abort(f.loop, tokens[3], GEV_REASON_LOCAL);
    close_loop(&f);
    for (int i = 0; i < 4; i++)
        close(peers[i]);
    free(data);
    CHECK_EQUAL(open_descriptors(), before);
}

/* After 2^30 connections in one slot the generation must not grow into the bit of a token that
 * names listeners. */
static void a_slot_used_very_often_still_names_a_connection(void)
{
    fixture f = open_loop();
    int peer;
    size_t size;
    int64_t token = unix_pair(&f, &peer);
    gev_conn_abort(f.loop, token, GEV_REASON_LOCAL);
    close(peer);
    wait_closed(&f, token);
    f.loop->conns[slot_of(token)].generation = (1u << 30) - 1;
    poll_once(&f, 0);
    token = unix_pair(&f, &peer);
    peer_writes(peer, "x", 1);
    poll_once(&f, -1);
    CHECK(frame_of(&f, token, &size));
    close(peer);
    close_loop(&f);
}

static void limits_that_cannot_be_meant_are_refused(void)
{
    gev_pool *pool;
    gev_loop *loop;
    CHECK_EQUAL(gev_pool_open(&pool, MIB, 10, 0), 0);
    for (int i = 0; i < 8; i++) {
        gev_limits limits = usual_limits();
        limits.pool = pool;
        limits.max_events = i == 0 ? 0 : i == 1 ? 65537 : 65536;
        limits.read_budget = i == 2 ? 0 : 1; /* a read of nothing looks like the peer's end */
        limits.write_limit = i == 3 ? (1u << 30) + 1 : 1u << 30;
        limits.idle_ms = i == 4 ? -1 : i == 5 ? INT64_MAX : INT64_MAX / 2;
        if (i == 6)
            limits.pool = NULL;
        int error = gev_loop_open(&loop, &limits);
        CHECK_EQUAL(error, i == 7 ? 0 : -EINVAL);
    }
    gev_loop_close(loop);
    gev_pool_close(pool);
}

/* It could never serve anybody, so it would return at once for ever; or write past the end. */
static void a_turn_without_room_in_the_arena_is_refused(void)
{
    fixture f = open_loop();
    int peer;
    unix_pair(&f, &peer);
    peer_writes(peer, "x", 1);
    CHECK_EQUAL(gev_loop_poll(f.loop, ARENA - MIN_READ + 1, 0), -EINVAL);
    CHECK_EQUAL(gev_loop_poll(f.loop, ARENA + 1, 0), -EINVAL);
    CHECK_EQUAL(gev_loop_poll(f.loop, UINT32_MAX, 0), -EINVAL);
    gev_loop_arena(f.loop, f.arena, MIN_READ - 1);
    CHECK_EQUAL(gev_loop_poll(f.loop, 0, 0), -EINVAL);
    gev_loop_arena(f.loop, f.arena, 1u << 31); /* frames are told in 32-bit signed numbers */
    CHECK_EQUAL(gev_loop_poll(f.loop, 0, 0), -EINVAL);
    gev_loop_arena(f.loop, f.arena, ARENA);
    poll_from(&f, ARENA - MIN_READ, 0);
    CHECK_EQUAL(f.frames, 1);
    close(peer);
    close_loop(&f);
}

int main(void)
{
    CHECK_TIME(20);
    RUN(frames_are_packed_and_aligned);
    RUN(a_full_arena_ends_the_turn_and_the_next_goes_on);
    RUN(one_connection_reads_its_budget_in_a_turn);
    RUN(an_end_is_told_after_the_last_bytes);
    RUN(a_reset_closes);
    RUN(a_reset_closes_who_is_paused);
    RUN(a_hang_up_of_who_is_paused_does_not_spin);
    RUN(pausing_leaves_bytes_with_the_kernel);
    RUN(an_old_token_reaches_nobody);
    RUN(changes_that_do_not_fit_come_later);
    RUN(a_wake_ends_the_wait);
    RUN(closing_the_loop_closes_everything);
    RUN(a_slot_used_very_often_still_names_a_connection);
    RUN(limits_that_cannot_be_meant_are_refused);
    RUN(a_turn_without_room_in_the_arena_is_refused);
    return 0;
}
