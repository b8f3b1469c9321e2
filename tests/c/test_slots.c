/* The table of connections: tokens and the slots they name, what is told of them, and that closing
 * the loop leaves nothing behind. */
#define _GNU_SOURCE
#include "conn.h"
#include "loop.h"

#include <dirent.h>

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
    int64_t tokens[CONNS];
    for (int i = 0; i < CONNS; i++) {
        tokens[i] = unix_pair(&f, &peers[i]);
        CHECK_EQUAL(slot_of(tokens[i]), i);
    }
    for (int i = 0; i < CONNS; i++)
        CHECK_EQUAL(gev_conn_abort(f.loop, tokens[i], GEV_REASON_LOCAL), 0);
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

int main(void)
{
    CHECK_TIME(20);
    RUN(an_old_token_reaches_nobody);
    RUN(changes_that_do_not_fit_come_later);
    RUN(closing_the_loop_closes_everything);
    RUN(a_slot_used_very_often_still_names_a_connection);
    return 0;
}
