/* Sending: pieces that leave together, what waits in the ring, its high water, drain and limit. */
#define _GNU_SOURCE
#include "loop.h"

enum { HIGH_WATER = 8 * KIB, LIMIT = 256 * KIB };

static gev_limits small_limits(void)
{
    gev_limits limits = usual_limits();
    limits.write_high_water = HIGH_WATER;
    limits.write_limit = LIMIT;
    return limits;
}

/* Gives the connection `size` bytes more than the kernel takes, so that they wait; `data` is the
 * noise the peer will see, and `from` where in it the next byte is. */
static size_t fill(fixture *f, int64_t token, const uint8_t *data, size_t from, size_t size)
{
    while (!gev_conn_pending(f->loop, token)) {
        CHECK_EQUAL(send_bytes(f, token, data + from, KIB), 1);
        from += KIB;
    }
    size -= (size_t)gev_conn_pending(f->loop, token);
    CHECK_EQUAL(send_bytes(f, token, data + from, size), 1);
    return from + size;
}

static void pieces_keep_their_order_however_they_are_mixed(void)
{
    fixture f = open_loop();
    enum { CONNS = 3, PIECES = 300, LARGE = 9000 };
    int peers[CONNS];
    int64_t tokens[CONNS], pieces[2 * PIECES + 4];
    static uint8_t blob[PIECES * 40], expected[CONNS][PIECES * 40 + 2 * LARGE];
    size_t sizes[CONNS] = {0}, end = 0;
    uint8_t *data = noise(LARGE + PIECES);
    for (int i = 0; i < CONNS; i++)
        tokens[i] = tcp_pair(&f, &peers[i]);
    for (int i = 0; i < PIECES; i++) {
        int to = i / 2 * 7 % CONNS; /* two that touch, then another's */
        size_t size = (size_t)i % 40;
        memcpy(blob + end, data + i, size);
        memcpy(expected[to] + sizes[to], data + i, size);
        end += size;
        sizes[to] += size;
        pieces[2 * i] = tokens[to];
        pieces[2 * i + 1] = (int64_t)end;
    }
    /* Two large ones, in the middle and at the end, that belong to the same connection. */
    const uint8_t *const larges[] = {data, data + 1};
    int64_t *middle = pieces + PIECES, *last = pieces + 2 * PIECES + 2;
    memmove(middle + 2, middle, PIECES * sizeof *middle);
    size_t before = 0;
    for (int i = 0; i < PIECES / 2; i++)
        before += i / 2 * 7 % CONNS == 1 ? (size_t)i % 40 : 0;
    memmove(expected[1] + before + LARGE, expected[1] + before, sizes[1] - before);
    memcpy(expected[1] + before, data, LARGE);
    memcpy(expected[1] + sizes[1] + LARGE, data + 1, LARGE);
    middle[0] = last[0] = ~tokens[1];
    middle[1] = last[1] = LARGE;
    sizes[1] += 2 * LARGE;
    CHECK_EQUAL(gev_loop_send(f.loop, 2 * (PIECES + 2), pieces, blob, end, larges), CONNS);
    for (int i = 0; i < CONNS; i++) {
        CHECK_EQUAL(gev_conn_queued(f.loop, tokens[i]), sizes[i]);
        peer_reads(peers[i], expected[i], sizes[i]);
        close(peers[i]);
    }
    free(data);
    close_loop(&f);
}

/* More than the 64 pieces of one sendmsg, none of which touches its neighbour, over what the
 * kernel takes: the second call finds output waiting and must queue behind it. */
static void a_long_chain_of_pieces_is_kept_in_order(void)
{
    fixture f = open_loop();
    enum { PIECES = 200, SIZE = 10000 };
    int peer, gone;
    int64_t token = unix_pair(&f, &peer), dropped = unix_pair(&f, &gone), pieces[4 * PIECES + 2];
    uint8_t *data = noise(2 * PIECES * SIZE);
    CHECK_EQUAL(gev_conn_abort(f.loop, dropped, GEV_REASON_LOCAL), 0);
    for (int i = 0; i < 2 * PIECES; i++) {
        pieces[2 * i] = i % 2 ? dropped : token;
        pieces[2 * i + 1] = (int64_t)SIZE * (i + 1);
    }
    const uint8_t *const large[] = {data};
    pieces[4 * PIECES] = ~dropped;
    pieces[4 * PIECES + 1] = SIZE;
    CHECK_EQUAL(gev_loop_send(f.loop, 4 * PIECES + 2, pieces, data, 2 * PIECES * SIZE, large), 1);
    CHECK(gev_conn_pending(f.loop, token) > 0);
    for (size_t i = 0; i < PIECES; i++) {
        if (gev_conn_pending(f.loop, token))
            poll_once(&f, 0);
        peer_reads(peer, data + 2 * i * SIZE, SIZE);
    }
    CHECK_EQUAL(gev_conn_pending(f.loop, token), 0);
    free(data);
    close(peer);
    close(gone);
    close_loop(&f);
}

/* What a turn has read leaves from the arena, with the next poll or before it, among other pieces;
 * and with a header, where the framing has one. */
static void a_frame_is_sent_back_from_where_it_lies(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    peer_writes(peer, "hello", 5);
    poll_once(&f, -1);
    CHECK_EQUAL(f.frames, 1);
    const int64_t numbers[] = {token, 1, ~0, token, 2, ~0};
    CHECK(gev_loop_poll(f.loop, 0, 1, 6, numbers, (const uint8_t *)"<>", 2, NULL) >= 0);
    peer_reads(peer, "<hello>hello", 12);
    CHECK_EQUAL(gev_conn_queued(f.loop, token), 12);
    peer_writes(peer, "you", 3);
    poll_once(&f, -1);
    gev_framing prefixed = {.kind = GEV_LENGTH_PREFIXED, .width = 1, .max_size = 100, .dress = 1};
    CHECK_EQUAL(gev_conn_frame(f.loop, token, gev_loop_framing(f.loop, &prefixed)), 0);
    CHECK_EQUAL(gev_loop_send(f.loop, 1, numbers + 2, NULL, 0, NULL), 1);
    peer_reads(peer, "\3you", 4);
    gev_conn_abort(f.loop, token, GEV_REASON_LOCAL);
    CHECK_EQUAL(gev_loop_send(f.loop, 1, numbers + 2, NULL, 0, NULL), 0);
    close(peer);
    close_loop(&f);
}

static void a_frame_that_there_is_not_is_refused(void)
{
    fixture f = open_loop();
    int peer;
    const int64_t second[] = {~1}, last[] = {INT32_MIN};
    (void)unix_pair(&f, &peer);
    peer_writes(peer, "hello", 5);
    poll_once(&f, -1);
    CHECK_EQUAL(gev_loop_send(f.loop, 1, second, NULL, 0, NULL), -EINVAL);
    CHECK_EQUAL(gev_loop_poll(f.loop, 0, 1, 1, last, NULL, 0, NULL), -EINVAL);
    close(peer);
    close_loop(&f);
}

static void nothing_to_send_is_fine(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer), piece[] = {token, 0};
    CHECK_EQUAL(gev_loop_send(f.loop, 0, NULL, NULL, 0, NULL), 0);
    CHECK_EQUAL(gev_loop_send(f.loop, 2, piece, (const uint8_t *)"", 0, NULL), 1);
    CHECK_EQUAL(send_bytes(&f, token, "", 0), 1);
    CHECK_EQUAL(gev_conn_queued(f.loop, token), 0);
    close(peer);
    close_loop(&f);
}

/* More waits than a socket buffer holds, in a ring that is nearly full, in sizes that share no factor
 * with the ring's: start and end cross its edge again and again. */
static void the_ring_wraps(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    uint8_t *data = noise(9 * MIB);
    size_t given = fill(&f, token, data, 0, 500 * KIB), taken = 0;
    while (given < 8 * MIB) {
        size_t waits = (size_t)gev_conn_pending(f.loop, token);
        peer_reads(peer, data + taken, 3001);
        taken += 3001;
        poll_once(&f, 0);
        size_t more = waits - (size_t)gev_conn_pending(f.loop, token);
        CHECK(gev_conn_pending(f.loop, token) > 0);
        CHECK_EQUAL(send_bytes(&f, token, data + given, more), 1);
        given += more;
        CHECK_EQUAL(gev_conn_queued(f.loop, token), given);
    }
    while (taken < given) {
        size_t size = given - taken < 5000 ? given - taken : 5000;
        poll_once(&f, 0);
        peer_reads(peer, data + taken, size);
        taken += size;
    }
    free(data);
    close(peer);
    close_loop(&f);
}

static void high_water_pauses_reading_until_half_is_gone(void)
{
    fixture f = open_loop_over(small_limits(), 16 * MIB);
    int peer;
    int64_t token = unix_pair(&f, &peer);
    uint8_t *data = noise(8 * MIB);
    size_t given = fill(&f, token, data, 0, HIGH_WATER), taken = 0;
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, token), 0); /* at the mark is not over it */
    CHECK_EQUAL(send_bytes(&f, token, data + given, 1), 1);
    given++;
    peer_writes(peer, "question", 8);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_HIGH_WATER);
    CHECK_EQUAL(f.frames, 0);
    int32_t what = 0;
    while (!(what & GEV_CHANGE_DRAINED)) {
        CHECK(gev_conn_pending(f.loop, token) > HIGH_WATER / 2);
        peer_reads(peer, data + taken, 500);
        taken += 500;
        poll_once(&f, 0);
        what = changes_of(&f, token);
        CHECK_EQUAL(f.frames, 0);
    }
    CHECK_EQUAL(what, GEV_CHANGE_DRAINED);
    CHECK(gev_conn_pending(f.loop, token) <= HIGH_WATER / 2);
    wait_text(&f, token, "question");
    peer_reads(peer, data + taken, given - taken);
    free(data);
    close(peer);
    close_loop(&f);
}

static void the_limit_closes_and_not_one_byte_before(void)
{
    fixture f = open_loop_over(small_limits(), 16 * MIB);
    int peer;
    int64_t token = unix_pair(&f, &peer);
    uint8_t *data = noise(8 * MIB);
    fill(&f, token, data, 0, LIMIT);
    CHECK_EQUAL(gev_conn_pending(f.loop, token), LIMIT);
    CHECK_EQUAL(send_bytes(&f, token, data, 1), 1);
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_SLOW_CONSUMER);
    free(data);
    close(peer);
    close_loop(&f);
}

static void an_exhausted_pool_closes_whom_it_cannot_serve(void)
{
    fixture f = open_loop_over(usual_limits(), 68 * KIB); /* while it grows, the old ring too */
    int peers[2];
    uint8_t *data = noise(8 * MIB);
    int64_t served = unix_pair(&f, &peers[0]), other = unix_pair(&f, &peers[1]);
    size_t given = fill(&f, served, data, 0, 60 * KIB);
    CHECK_EQUAL(send_bytes(&f, other, data, 4 * MIB), 1);
    CHECK_EQUAL(wait_closed(&f, other), GEV_REASON_NO_MEMORY);
    CHECK_EQUAL(changes_of(&f, served), 0);
    for (size_t taken = 0, size; taken < given; taken += size) {
        size = given - taken < 4096 ? given - taken : 4096;
        poll_once(&f, 0);
        peer_reads(peers[0], data + taken, size);
    }
    free(data);
    close(peers[0]);
    close(peers[1]);
    close_loop(&f);
}

static void notify_tells_when_the_kernel_has_it_all(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    uint8_t *data = noise(8 * MIB);
    CHECK_EQUAL(send_bytes(&f, token, data, 10), 1);
    CHECK_EQUAL(gev_conn_notify(f.loop, token, gev_conn_queued(f.loop, token)), 0);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_SENT);
    size_t given = fill(&f, token, data, 10, 20 * KIB), taken = 0;
    int64_t position = (int64_t)given - 10 * KIB;
    CHECK_EQUAL(gev_conn_notify(f.loop, token, position), 0);
    int32_t what = 0;
    while (!what) {
        CHECK((int64_t)given - gev_conn_pending(f.loop, token) < position);
        peer_reads(peer, data + taken, 1000);
        taken += 1000;
        poll_once(&f, 0);
        what = changes_of(&f, token);
    }
    CHECK_EQUAL(what, GEV_CHANGE_SENT);
    CHECK((int64_t)given - gev_conn_pending(f.loop, token) >= position);
    free(data);
    close(peer);
    close_loop(&f);
}

/* The peer is gone for writing, but what it said before is still delivered. */
static void a_failed_send_leaves_the_input(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    peer_writes(peer, "farewell", 8);
    close(peer);
    CHECK_EQUAL(send_bytes(&f, token, "anybody?", 8), 1);
    CHECK_EQUAL(send_bytes(&f, token, "hello?", 6), 0);
    wait_text(&f, token, "farewell");
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_RESET);
    close_loop(&f);
}

static void notify_may_ask_for_bytes_not_given_yet(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    CHECK_EQUAL(gev_conn_notify(f.loop, token, 10), 0);
    CHECK_EQUAL(send_bytes(&f, token, "123456789", 9), 1);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, token), 0);
    CHECK_EQUAL(send_bytes(&f, token, "0", 1), 1);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_SENT);
    close(peer);
    close_loop(&f);
}

/* A send that fails takes no byte, so nobody is told that it did. */
static void notify_does_not_tell_of_lost_bytes(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    CHECK_EQUAL(send_bytes(&f, token, "heard", 5), 1);
    peer_reads(peer, "heard", 5);
    CHECK_EQUAL(shutdown(peer, SHUT_RD), 0);
    CHECK_EQUAL(send_bytes(&f, token, "lost", 4), 1);
    CHECK_EQUAL(gev_conn_notify(f.loop, token, 9), 0);
    CHECK_EQUAL(gev_conn_queued(f.loop, token), 9);
    CHECK_EQUAL(gev_conn_sent(f.loop, token), 5);
    CHECK_EQUAL(gev_conn_pending(f.loop, token), 0);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, token), 0);
    peer_writes(peer, "still here", 10);
    wait_text(&f, token, "still here");
    close(peer);
    CHECK_EQUAL(wait_for(&f, token, -1), GEV_CHANGE_CLOSED);
    CHECK_EQUAL(reason_of(&f, token), GEV_REASON_RESET);
    close_loop(&f);
}

int main(void)
{
    CHECK_TIME(20);
    RUN(pieces_keep_their_order_however_they_are_mixed);
    RUN(a_long_chain_of_pieces_is_kept_in_order);
    RUN(a_frame_is_sent_back_from_where_it_lies);
    RUN(a_frame_that_there_is_not_is_refused);
    RUN(nothing_to_send_is_fine);
    RUN(the_ring_wraps);
    RUN(high_water_pauses_reading_until_half_is_gone);
    RUN(the_limit_closes_and_not_one_byte_before);
    RUN(an_exhausted_pool_closes_whom_it_cannot_serve);
    RUN(notify_tells_when_the_kernel_has_it_all);
    RUN(a_failed_send_leaves_the_input);
    RUN(notify_may_ask_for_bytes_not_given_yet);
    RUN(notify_does_not_tell_of_lost_bytes);
    return 0;
}
