/* Broadcast: the same bytes to many, some of whom are gone, closing, or do not read. */
#define _GNU_SOURCE
#include "loop.h"

enum { CONNS = 20, SIZE = 10007 };

static void everybody_gets_every_byte(void)
{
    fixture f = open_loop();
    int peers[CONNS];
    int64_t tokens[CONNS];
    uint8_t *data = noise(SIZE);
    for (int i = 0; i < CONNS; i++)
        tokens[i] = i % 2 ? tcp_pair(&f, &peers[i]) : unix_pair(&f, &peers[i]);
    CHECK_EQUAL(gev_loop_broadcast(f.loop, CONNS, tokens, data, SIZE), CONNS);
    CHECK_EQUAL(gev_loop_broadcast(f.loop, CONNS, tokens, data, 1), CONNS);
    for (int i = 0; i < CONNS; i++) {
        CHECK_EQUAL(gev_conn_queued(f.loop, tokens[i]), SIZE + 1);
        CHECK_EQUAL(gev_conn_sent(f.loop, tokens[i]), SIZE + 1);
        CHECK_EQUAL(gev_conn_pending(f.loop, tokens[i]), 0);
        peer_reads(peers[i], data, SIZE);
        peer_reads(peers[i], data, 1);
        close(peers[i]);
    }
    free(data);
    close_loop(&f);
}

static void nobody_and_nothing_are_fine(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    CHECK_EQUAL(gev_loop_broadcast(f.loop, 0, NULL, (const uint8_t *)"x", 1), 0);
    CHECK_EQUAL(gev_loop_broadcast(f.loop, 1, &token, NULL, 0), 1);
    CHECK_EQUAL(gev_loop_broadcast(f.loop, -1, &token, (const uint8_t *)"x", 1), -EINVAL);
    CHECK_EQUAL(gev_conn_queued(f.loop, token), 0);
    close(peer);
    close_loop(&f);
}

/* No token but that of an open connection reaches anybody. */
static void the_gone_and_the_closing_are_passed_over(void)
{
    fixture f = open_loop();
    int peers[5], late;
    int64_t tokens[8];
    for (int i = 0; i < 5; i++)
        tokens[i] = unix_pair(&f, &peers[i]);
    CHECK_EQUAL(gev_conn_abort(f.loop, tokens[0], GEV_REASON_LOCAL), 0);
    peer_writes(peers[1], "unread", 6); /* so the close lingers */
    CHECK_EQUAL(gev_conn_close(f.loop, tokens[1], GEV_REASON_LOCAL), 0);
    CHECK_EQUAL(gev_conn_shutdown_write(f.loop, tokens[2]), 0);
    close(peers[3]); /* not known yet: the first send finds out */
    tokens[5] = -1;
    tokens[6] = (int64_t)1 << 40 | 4;
    tokens[7] = INT64_MAX;
    CHECK_EQUAL(gev_loop_broadcast(f.loop, 8, tokens, (const uint8_t *)"hello", 5), 2);
    CHECK_EQUAL(gev_loop_broadcast(f.loop, 8, tokens, (const uint8_t *)"again", 5), 1);
    peer_reads(peers[4], "helloagain", 10);
    peer_sees_end(peers[0]);
    peer_sees_end(peers[1]);
    peer_sees_end(peers[2]);
    poll_once(&f, 0);
    poll_once(&f, 0);
    int64_t reused = unix_pair(&f, &late); /* the slot of one that is gone, not its token */
    CHECK(slot_of(reused) == slot_of(tokens[0]) || slot_of(reused) == slot_of(tokens[3]));
    CHECK_EQUAL(gev_loop_broadcast(f.loop, 8, tokens, (const uint8_t *)"more", 4), 1);
    CHECK_EQUAL(gev_conn_queued(f.loop, reused), 0);
    for (int i = 0; i < 5; i++)
        if (i != 3)
            close(peers[i]);
    close(late);
    close_loop(&f);
}

/* One does not read, another does, and what the first has not taken is in order behind what it had
 * before; at the limit it closes, alone. */
static void who_does_not_read_keeps_and_then_closes(void)
{
    enum { LIMIT = MIB, PIECE = 16 * KIB };
    gev_limits limits = usual_limits();
    limits.write_limit = LIMIT;
    fixture f = open_loop_over(limits, 256 * MIB);
    int slow, quick;
    int64_t tokens[2] = {unix_pair(&f, &slow), unix_pair(&f, &quick)};
    uint8_t *data = noise(4 * LIMIT);
    size_t given = 3;
    memcpy(data, "abc", given);
    CHECK_EQUAL(send_bytes(&f, tokens[0], data, given), 1);
    for (; gev_conn_pending(f.loop, tokens[0]) <= LIMIT - 2 * PIECE; given += PIECE) {
        CHECK_EQUAL(gev_loop_broadcast(f.loop, 2, tokens, data + given, PIECE), 2);
        peer_reads(quick, data + given, PIECE);
        CHECK_EQUAL(gev_conn_pending(f.loop, tokens[1]), 0);
    }
    size_t room = LIMIT - (size_t)gev_conn_pending(f.loop, tokens[0]);
    CHECK_EQUAL(gev_loop_broadcast(f.loop, 2, tokens, data + given, room), 2);
    CHECK_EQUAL(gev_conn_pending(f.loop, tokens[0]), LIMIT);
    peer_reads(quick, data + given, room);
    given += room;
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, tokens[0]), GEV_CHANGE_HIGH_WATER);
    for (size_t taken = 0; taken < given - LIMIT; taken += KIB) {
        size_t more = given - LIMIT - taken < KIB ? given - LIMIT - taken : KIB;
        peer_reads(slow, data + taken, more);
    }
    uint8_t *before = data + given - LIMIT;
    poll_once(&f, 0); /* the kernel takes some more */
    size_t left = (size_t)gev_conn_pending(f.loop, tokens[0]);
    CHECK(left < LIMIT);
    peer_reads(slow, before, LIMIT - left);
    CHECK_EQUAL(gev_loop_broadcast(f.loop, 2, tokens, data, LIMIT - left), 2);
    CHECK_EQUAL(gev_conn_pending(f.loop, tokens[0]), LIMIT);
    peer_reads(quick, data, LIMIT - left);
    CHECK_EQUAL(gev_loop_broadcast(f.loop, 2, tokens, data, 1), 2);
    peer_reads(quick, data, 1);
    poll_once(&f, 0);
    CHECK(changes_of(&f, tokens[0]) & GEV_CHANGE_CLOSED);
    CHECK_EQUAL(reason_of(&f, tokens[0]), GEV_REASON_SLOW_CONSUMER);
    CHECK_EQUAL(changes_of(&f, tokens[1]), 0);
    CHECK_EQUAL(gev_loop_broadcast(f.loop, 2, tokens, data, 1), 1);
    peer_reads(quick, data, 1);
    free(data);
    close(slow);
    close(quick);
    close_loop(&f);
}

/* A position that somebody waits for is reached by the bytes up to there, not by those behind. */
static void notify_counts_what_is_broadcast(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    CHECK_EQUAL(gev_conn_notify(f.loop, token, 6), 0);
    CHECK_EQUAL(gev_loop_broadcast(f.loop, 1, &token, (const uint8_t *)"12345", 5), 1);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, token), 0);
    CHECK_EQUAL(gev_loop_broadcast(f.loop, 1, &token, (const uint8_t *)"6", 1), 1);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_SENT);
    close(peer);
    close_loop(&f);
}

int main(void)
{
    CHECK_TIME(20);
    RUN(everybody_gets_every_byte);
    RUN(nobody_and_nothing_are_fine);
    RUN(the_gone_and_the_closing_are_passed_over);
    RUN(who_does_not_read_keeps_and_then_closes);
    RUN(notify_counts_what_is_broadcast);
    return 0;
}
