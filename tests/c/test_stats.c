/* What a loop counts: every number against what was done, and read by another thread meanwhile.
 *
 * This program has a clock_gettime of its own, in front of libc's, whose time the tests move; and
 * an epoll_wait, which lets it pass. */
#define _GNU_SOURCE
#include "conn.h"
#include "loop.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>

static int64_t clock_ns = 1000000007, wait_ns;

int clock_gettime(clockid_t clock, struct timespec *time)
{
    (void)clock;
    *time = (struct timespec){.tv_sec = clock_ns / 1000000000, .tv_nsec = clock_ns % 1000000000};
    return 0;
}

int epoll_wait(int epfd, struct epoll_event *events, int room, int timeout_ms)
{
    clock_ns += wait_ns;
    return (int)syscall(SYS_epoll_pwait, epfd, events, room, timeout_ms, NULL, (size_t)8);
}

static gev_loop_stats stats_of(fixture *f)
{
    gev_loop_stats stats;
    memset(&stats, 0xff, sizeof stats);
    gev_loop_read_stats(f->loop, &stats);
    return stats;
}

static void nothing_done_is_nothing_counted(void)
{
    fixture f = open_loop();
    gev_loop_stats zero = {0}, stats = stats_of(&f);
    CHECK(!memcmp(&stats, &zero, sizeof zero));
    close_loop(&f);
}

static void bytes_messages_and_events(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    for (int i = 1; i <= 5; i++) {
        peer_writes(peer, "12345", (size_t)i);
        poll_once(&f, -1);
        CHECK_EQUAL(f.frames, 1);
        /* The last turn's messages are counted when the next one begins. */
        CHECK_EQUAL(stats_of(&f).messages_received, i - 1);
        CHECK_EQUAL(stats_of(&f).bytes_received, i * (i + 1) / 2);
        CHECK_EQUAL(stats_of(&f).events, i);
        CHECK(send_bytes(&f, token, "abc", 3) == 1);
        CHECK_EQUAL(stats_of(&f).bytes_sent, 3 * i);
        CHECK_EQUAL(stats_of(&f).messages_sent, i);
        peer_reads(peer, "abc", 3);
    }
    poll_once(&f, 0);
    CHECK_EQUAL(stats_of(&f).messages_received, 5);
    CHECK_EQUAL(stats_of(&f).events, 5);
    CHECK_EQUAL(stats_of(&f).pending_bytes, 0);
    close(peer);
    close_loop(&f);
}

static void what_is_read_and_forgotten_counts_as_bytes(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = tcp_pair(&f, &peer);
    peer_writes(peer, "unread", 6);
    poll_once(&f, -1); /* it has arrived: */
    peer_writes(peer, "more", 4);
    while (recv(gev_conn_fd(f.loop, token), (char[4]){0}, 4, MSG_PEEK | MSG_DONTWAIT) != 4)
        ;
    CHECK_EQUAL(gev_conn_close(f.loop, token, GEV_REASON_LOCAL), 0);
    shutdown(peer, SHUT_WR);
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_LOCAL);
    CHECK_EQUAL(stats_of(&f).bytes_received, 10);
    CHECK_EQUAL(stats_of(&f).messages_received, 1);
    close(peer);
    close_loop(&f);
}

static void accepted_connections(void)
{
    fixture f = open_loop();
    struct sockaddr_in address;
    int listener = listening(&address), peers[7], accepted = 0;
    CHECK(gev_loop_listen(f.loop, listener) >= 0);
    for (int i = 0; i < 7; i++)
        peers[i] = connected_to(&address);
    while (accepted < 7) {
        poll_once(&f, -1);
        accepted += f.turn->accepted;
        CHECK_EQUAL(stats_of(&f).accepted, accepted);
        for (int i = 0; i < f.turn->accepted; i++)
            close(f.turn->accepted_fd[i]);
    }
    for (int i = 0; i < 7; i++)
        close(peers[i]);
    close(listener);
    close_loop(&f);
}

/* Pending bytes come and go: kept, flushed, dropped by an abort, dropped by a broken peer. */
static void pending_bytes(void)
{
    fixture f = open_loop();
    int peers[3];
    int64_t tokens[3];
    uint8_t *data = noise(MIB);
    uint64_t pending = 0;
    for (int i = 0; i < 3; i++) {
        tokens[i] = unix_pair(&f, &peers[i]);
        CHECK_EQUAL(send_bytes(&f, tokens[i], data, MIB), 1);
        CHECK(gev_conn_pending(f.loop, tokens[i]) > 0);
        pending += (uint64_t)gev_conn_pending(f.loop, tokens[i]);
        CHECK_EQUAL(stats_of(&f).pending_bytes, pending);
        CHECK_EQUAL(stats_of(&f).bytes_sent + pending, (i + 1) * MIB);
    }
    CHECK_EQUAL(gev_conn_abort(f.loop, tokens[0], GEV_REASON_LOCAL), 0);
    for (int i = 1; i < 3; i++)
        CHECK(gev_conn_pending(f.loop, tokens[i]) > 0);
    pending = (uint64_t)(gev_conn_pending(f.loop, tokens[1]) + gev_conn_pending(f.loop, tokens[2]));
    CHECK_EQUAL(stats_of(&f).pending_bytes, pending);
    for (size_t got = 0; got < MIB; got += 4096) {
        peer_reads(peers[1], data + got, 4096);
        poll_once(&f, 0);
        pending = (uint64_t)(gev_conn_pending(f.loop, tokens[1])
                             + gev_conn_pending(f.loop, tokens[2]));
        CHECK_EQUAL(stats_of(&f).pending_bytes, pending);
    }
    CHECK_EQUAL(gev_conn_pending(f.loop, tokens[1]), 0);
    CHECK(pending > 0);
    close(peers[2]);
    wait_for(&f, tokens[2], GEV_CHANGE_CLOSED);
    CHECK_EQUAL(stats_of(&f).pending_bytes, 0);
    close(peers[0]);
    close(peers[1]);
    free(data);
    close_loop(&f);
}

static void corrections_are_counted_with_the_next_and_never_count_down(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    /* One frame that was ten messages, one that was none, and two from nowhere. */
    int64_t more[] = {9, -1, 1}, counted[] = {10, 10, 12};
    for (int i = 0; i < 3; i++) {
        peer_writes(peer, "x", 1);
        poll_once(&f, -1);
        gev_loop_recount(f.loop, more[i], 0);
        poll_once(&f, 0);
        CHECK_EQUAL(stats_of(&f).messages_received, counted[i]);
    }
    /* Three pieces too many were announced before there were any. */
    int64_t seen[] = {0, 0, 0, 1, 2};
    gev_loop_recount(f.loop, 0, -3);
    for (int i = 0; i < 5; i++) {
        CHECK_EQUAL(send_bytes(&f, token, "y", 1), 1);
        CHECK_EQUAL(stats_of(&f).messages_sent, seen[i]);
    }
    close(peer);
    close_loop(&f);
}

static void turns_by_how_long_they_took(void)
{
    fixture f = open_loop();
    poll_once(&f, 0);
    uint64_t sum = 0;
    for (int bucket = 0; bucket < GEV_TURN_BUCKETS; bucket++) {
        bool last = bucket == GEV_TURN_BUCKETS - 1;
        uint64_t low = bucket ? gev_turn_bound(bucket - 1) + 1 : 0;
        uint64_t high = last ? 100 * low : gev_turn_bound(bucket);
        CHECK(low <= high);
        for (int i = 0; i < 2; i++) {
            clock_ns += (int64_t)(i ? high : low);
            sum += i ? high : low;
            poll_once(&f, 0);
            gev_loop_stats stats = stats_of(&f);
            CHECK_EQUAL(stats.turns[bucket], i + 1);
            CHECK_EQUAL(stats.turn_ns, sum);
        }
    }
    CHECK_EQUAL(gev_turn_bound(GEV_TURN_BUCKETS - 1), UINT64_MAX);
    CHECK_EQUAL(gev_turn_bound(-1), 0);
    close_loop(&f);
}

static void waits_are_left_out(void)
{
    fixture f = open_loop();
    poll_once(&f, 0);
    for (int i = 1; i <= 3; i++) {
        clock_ns += 1000;
        wait_ns = 3600 * (int64_t)1000000000;
        poll_once(&f, 0);
        wait_ns = 0;
        CHECK_EQUAL(stats_of(&f).turn_ns, 1000 * i);
        CHECK_EQUAL(stats_of(&f).turns[0], i);
    }
    close_loop(&f);
}

/* Where the ready list is served in several turns, there is a wait before the first one only. */
static void turns_without_a_wait_are_turns_too(void)
{
    enum { PEERS = 5 };
    fixture f = open_loop();
    int peers[PEERS];
    int32_t frames = 0;
    for (int i = 0; i < PEERS; i++) {
        unix_pair(&f, &peers[i]);
        peer_writes(peers[i], "x", 1);
    }
    for (int turn = 0; turn < PEERS; turn++) {
        poll_from(&f, ARENA - 65536, 0); /* room for one read */
        frames += f.frames;
        CHECK_EQUAL(stats_of(&f).events, turn + 1);
        CHECK_EQUAL(stats_of(&f).turn_ns, 1000 * turn);
        clock_ns += 1000;
        wait_ns = 1000000;
    }
    wait_ns = 0;
    CHECK_EQUAL(frames, PEERS);
    poll_once(&f, 0);
    CHECK_EQUAL(stats_of(&f).turns[0], PEERS);
    for (int i = 0; i < PEERS; i++)
        close(peers[i]);
    close_loop(&f);
}

/* ---- from another thread ------------------------------------------------------------------- */

typedef struct reader {
    fixture *f;
    atomic_bool stop;
    uint64_t reads;
} reader;

static void *read_on(void *argument)
{
    reader *r = argument;
    gev_loop_stats before = {0};
    do {
        gev_loop_stats now = stats_of(r->f);
        CHECK(now.bytes_received >= before.bytes_received);
        CHECK(now.bytes_sent >= before.bytes_sent);
        CHECK(now.messages_received >= before.messages_received);
        CHECK(now.messages_sent >= before.messages_sent);
        CHECK(now.events >= before.events);
        before = now;
        r->reads++;
    } while (!atomic_load(&r->stop));
    return NULL;
}

static void another_thread_reads_while_the_loop_works(void)
{
    enum { ROUNDS = 20000 };
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer);
    reader r = {.f = &f};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, read_on, &r) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        peer_writes(peer, "hello", 5);
        wait_text(&f, token, "hello");
        CHECK_EQUAL(send_bytes(&f, token, "hello", 5), 1);
        peer_reads(peer, "hello", 5);
    }
    poll_once(&f, 0);
    atomic_store(&r.stop, true);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(r.reads > 0);
    CHECK_EQUAL(stats_of(&f).bytes_received, 5 * ROUNDS);
    CHECK_EQUAL(stats_of(&f).bytes_sent, 5 * ROUNDS);
    CHECK_EQUAL(stats_of(&f).messages_received, ROUNDS);
    CHECK_EQUAL(stats_of(&f).messages_sent, ROUNDS);
    close(peer);
    close_loop(&f);
}

int main(void)
{
    CHECK_TIME(50);
    RUN(nothing_done_is_nothing_counted);
    RUN(bytes_messages_and_events);
    RUN(what_is_read_and_forgotten_counts_as_bytes);
    RUN(accepted_connections);
    RUN(pending_bytes);
    RUN(corrections_are_counted_with_the_next_and_never_count_down);
    RUN(turns_by_how_long_they_took);
    RUN(waits_are_left_out);
    RUN(turns_without_a_wait_are_turns_too);
    RUN(another_thread_reads_while_the_loop_works);
    return 0;
}
