/* The turn of the loop: waiting, reading into the arena, and how a connection's end is told.
 * Slots and tokens are in test_slots.c, accepting in test_accept.c, output in test_output.c, closing
 * from our side in test_closing.c, idleness in test_idle.c. */
#define _GNU_SOURCE
#include "conn.h"
#include "loop.h"

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
            if (slot_of(tokens[i]) == f.turn->frames[0])
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

static void a_wake_ends_the_wait(void)
{
    fixture f = open_loop();
    CHECK_EQUAL(gev_loop_wake(f.loop), 0);
    poll_once(&f, -1);
    CHECK_EQUAL(f.frames + f.turn->changes, 0);
    close_loop(&f);
}

static void limits_that_cannot_be_meant_are_refused(void)
{
    gev_pool *pool;
    gev_loop *loop;
    CHECK_EQUAL(gev_pool_open(&pool, MIB, 10, 0), 0);
    for (int i = 0; i < 10; i++) {
        gev_limits limits = usual_limits();
        limits.pool = pool;
        limits.max_events = i == 0 ? 0 : i == 1 ? 65537 : 65536;
        limits.read_budget = i == 2 ? 0 : 1; /* a read of nothing looks like the peer's end */
        limits.write_limit = i == 3 ? (1u << 30) + 1 : 1u << 30;
        limits.idle_ms = i == 4 ? -1 : i == 5 ? INT64_MAX : INT64_MAX / 2;
        limits.first_byte_ms = i == 6 ? -1 : i == 7 ? INT64_MAX : INT64_MAX / 2;
        if (i == 8)
            limits.pool = NULL;
        int error = gev_loop_open(&loop, &limits);
        CHECK_EQUAL(error, i == 9 ? 0 : -EINVAL);
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
    CHECK_EQUAL(gev_loop_poll(f.loop, ARENA - MIN_READ + 1, 1, 0, NULL, NULL, 0, NULL), -EINVAL);
    CHECK_EQUAL(gev_loop_poll(f.loop, ARENA + 1, 1, 0, NULL, NULL, 0, NULL), -EINVAL);
    CHECK_EQUAL(gev_loop_poll(f.loop, UINT32_MAX, 1, 0, NULL, NULL, 0, NULL), -EINVAL);
    gev_loop_arena(f.loop, f.arena, MIN_READ - 1);
    CHECK_EQUAL(gev_loop_poll(f.loop, 0, 1, 0, NULL, NULL, 0, NULL), -EINVAL);
    gev_loop_arena(f.loop, f.arena, 1u << 31); /* frames are told in 32-bit signed numbers */
    CHECK_EQUAL(gev_loop_poll(f.loop, 0, 1, 0, NULL, NULL, 0, NULL), -EINVAL);
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
    RUN(a_wake_ends_the_wait);
    RUN(limits_that_cannot_be_meant_are_refused);
    RUN(a_turn_without_room_in_the_arena_is_refused);
    return 0;
}
