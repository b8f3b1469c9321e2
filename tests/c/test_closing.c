/* Closing from our side: what waits is sent, what the peer has received is not destroyed, and each
 * end is told once, with the reason that was first. */
#define _GNU_SOURCE
#include "loop.h"

enum { BULK = 4 * MIB };

static void a_close_with_nothing_waiting_is_done_at_once(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = tcp_pair(&f, &peer);
    CHECK_EQUAL(send_bytes(&f, token, "bye", 3), 1);
    CHECK_EQUAL(gev_conn_close(f.loop, token, GEV_REASON_IDLE), 1);
    CHECK_EQUAL(gev_conn_close(f.loop, token, GEV_REASON_LOCAL), -ENOTCONN);
    CHECK_EQUAL(send_bytes(&f, token, "late", 4), 0);
    peer_reads(peer, "bye", 3);
    peer_sees_end(peer);
    poll_once(&f, -1);
    CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_CLOSED);
    CHECK_EQUAL(reason_of(&f, token), GEV_REASON_IDLE);
    poll_once(&f, 0);
    CHECK_EQUAL(f.turn->changes, 0);
    close(peer);
    close_loop(&f);
}

/* A refused frame may be coming still, and a reset would destroy the answer to it. */
static void a_refusal_that_was_answered_lingers(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = tcp_pair(&f, &peer);
    CHECK_EQUAL(gev_conn_close(f.loop, token, GEV_REASON_PROTOCOL_ERROR), 1); /* without a word */
    close(peer);
    token = tcp_pair(&f, &peer);
    CHECK_EQUAL(send_bytes(&f, token, "no", 2), 1);
    CHECK_EQUAL(gev_conn_close(f.loop, token, GEV_REASON_PROTOCOL_ERROR), 0);
    peer_writes(peer, "more of it", 10);
    peer_reads(peer, "no", 2);
    peer_sees_end(peer);
    peer_writes(peer, "and more", 8);
    CHECK_EQUAL(shutdown(peer, SHUT_WR), 0);
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_PROTOCOL_ERROR);
    close(peer);
    close_loop(&f);
}

static void a_close_sends_what_waits(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = tcp_pair(&f, &peer);
    uint8_t *data = noise(BULK);
    size_t taken = 0;
    while (!gev_conn_pending(f.loop, token))
        CHECK_EQUAL(send_bytes(&f, token, data, BULK), 1);
    int64_t given = gev_conn_queued(f.loop, token);
    CHECK_EQUAL(gev_conn_close(f.loop, token, GEV_REASON_LOCAL), 0);
    CHECK_EQUAL(gev_conn_close(f.loop, token, GEV_REASON_SHUTDOWN), 0); /* too late to matter */
    CHECK_EQUAL(send_bytes(&f, token, "late", 4), 0);
    int32_t what = 0;
    while (!what && (int64_t)taken < given) {
        peer_reads(peer, data + taken % BULK, 32 * KIB);
        taken += 32 * KIB;
        poll_once(&f, 0);
        what = changes_of(&f, token) & GEV_CHANGE_CLOSED;
    }
    for (; (int64_t)taken < given; taken += 32 * KIB)
        peer_reads(peer, data + taken % BULK, 32 * KIB);
    peer_sees_end(peer);
    if (!what)
        wait_for(&f, token, GEV_CHANGE_CLOSED);
    CHECK_EQUAL(reason_of(&f, token), GEV_REASON_LOCAL);
    free(data);
    close(peer);
    close_loop(&f);
}

/* close(2) over unread input sends a reset, which takes our last bytes away from the peer. */
static void a_close_over_unread_input_lingers(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = tcp_pair(&f, &peer);
    uint8_t *data = noise(100 * KIB);
    CHECK_EQUAL(gev_conn_read(f.loop, token, 0), 0);
    peer_writes(peer, data, 100 * KIB);
    CHECK_EQUAL(send_bytes(&f, token, "refused", 7), 1);
    CHECK_EQUAL(gev_conn_close(f.loop, token, GEV_REASON_FRAME_TOO_LARGE), 0);
    peer_reads(peer, "refused", 7);
    peer_sees_end(peer);
    peer_writes(peer, data, 100 * KIB);
    poll_once(&f, -1);
    CHECK_EQUAL(f.frames + f.turn->changes, 0); /* read and forgotten */
    close(peer);
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_FRAME_TOO_LARGE);
    CHECK_EQUAL(f.frames, 0);
    free(data);
    close_loop(&f);
}

static void an_abort_resets_and_its_reason_counts(void)
{
    fixture f = open_loop();
    int peer;
    char byte;
    int64_t token = tcp_pair(&f, &peer);
    uint8_t *data = noise(BULK);
    while (!gev_conn_pending(f.loop, token))
        CHECK_EQUAL(send_bytes(&f, token, data, BULK), 1);
    CHECK_EQUAL(gev_conn_close(f.loop, token, GEV_REASON_LOCAL), 0);
    CHECK_EQUAL(gev_conn_abort(f.loop, token, GEV_REASON_TIMEOUT), 0);
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_TIMEOUT);
    ssize_t got;
    do
        got = recv(peer, &byte, 1, 0);
    while (got > 0);
    CHECK(got < 0 && errno == ECONNRESET);
    free(data);
    close(peer);
    close_loop(&f);
}

static void half_a_close_waits_for_the_output_and_then_for_the_peer(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    uint8_t *data = noise(BULK);
    CHECK_EQUAL(send_bytes(&f, token, data, BULK), 1);
    CHECK_EQUAL(gev_conn_shutdown_write(f.loop, token), 0);
    CHECK_EQUAL(send_bytes(&f, token, "late", 4), 0);
    for (size_t taken = 0; taken < BULK; taken += 32 * KIB) {
        poll_once(&f, 0);
        peer_reads(peer, data + taken, 32 * KIB);
    }
    peer_sees_end(peer);
    peer_writes(peer, "got it", 6);
    wait_text(&f, token, "got it");
    CHECK_EQUAL(shutdown(peer, SHUT_WR), 0);
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_EOF);
    free(data);
    close(peer);
    close_loop(&f);
}

static void half_a_close_after_the_peers_is_a_whole_one(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = tcp_pair(&f, &peer);
    CHECK_EQUAL(shutdown(peer, SHUT_WR), 0);
    wait_for(&f, token, GEV_CHANGE_EOF);
    CHECK_EQUAL(gev_conn_shutdown_write(f.loop, token), 0);
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_EOF);
    peer_sees_end(peer);
    close(peer);
    close_loop(&f);
}

/* A hang-up has taken the connection out of the poller; a close must still come to its end. */
static void a_close_after_a_hang_up_reads_the_rest_away(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    CHECK_EQUAL(gev_conn_read(f.loop, token, 0), 0);
    peer_writes(peer, "unread", 6);
    close(peer);
    poll_once(&f, -1);
    CHECK_EQUAL(f.turn->changes, 0);
    CHECK_EQUAL(gev_conn_close(f.loop, token, GEV_REASON_LOCAL), 0);
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_LOCAL);
    CHECK_EQUAL(f.frames, 0);
    close_loop(&f);
}

/* On a Unix socket a hang-up can come without writability: the peer has shut both sides down and
 * read nothing. What waits will never leave, so it must not be waited for. */
static void a_hang_up_ends_a_close_that_waits_to_send(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    uint8_t *data = noise(BULK);
    CHECK_EQUAL(send_bytes(&f, token, data, BULK), 1);
    CHECK_EQUAL(gev_conn_close(f.loop, token, GEV_REASON_LOCAL), 0);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_HIGH_WATER);
    CHECK_EQUAL(shutdown(peer, SHUT_RDWR), 0);
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_LOCAL);
    free(data);
    close(peer);
    close_loop(&f);
}

/* Our side is shut already while it lingers; closing early would send the reset. */
static void shutting_down_does_not_cut_lingering_short(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = tcp_pair(&f, &peer);
    CHECK_EQUAL(gev_conn_read(f.loop, token, 0), 0);
    peer_writes(peer, "unread", 6);
    CHECK_EQUAL(gev_conn_close(f.loop, token, GEV_REASON_LOCAL), 0);
    poll_once(&f, -1); /* reads it away */
    CHECK_EQUAL(gev_conn_shutdown_write(f.loop, token), 0);
    poll_once(&f, 0);
    CHECK_EQUAL(f.turn->changes, 0);
    peer_sees_end(peer);
    close(peer);
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_LOCAL);
    close_loop(&f);
}

int main(void)
{
    CHECK_TIME(20);
    RUN(a_close_with_nothing_waiting_is_done_at_once);
    RUN(a_refusal_that_was_answered_lingers);
    RUN(a_close_sends_what_waits);
    RUN(a_close_over_unread_input_lingers);
    RUN(an_abort_resets_and_its_reason_counts);
    RUN(half_a_close_waits_for_the_output_and_then_for_the_peer);
    RUN(half_a_close_after_the_peers_is_a_whole_one);
    RUN(a_close_after_a_hang_up_reads_the_rest_away);
    RUN(a_hang_up_ends_a_close_that_waits_to_send);
    RUN(shutting_down_does_not_cut_lingering_short);
    return 0;
}
