/* Idle connections: closed when their time is over, never before, and found without a search.
 *
 * This program has a clock_gettime of its own, in front of libc's, whose time the tests move. */
#define _GNU_SOURCE
#include "conn.h"
#include "loop.h"

#include <time.h>

static int64_t clock_ms = 1000000007;

int clock_gettime(clockid_t clock, struct timespec *time)
{
    (void)clock;
    *time = (struct timespec){.tv_sec = clock_ms / 1000, .tv_nsec = clock_ms % 1000 * 1000000};
    return 0;
}

static fixture open_limited(int64_t idle_ms, int64_t first_byte_ms)
{
    gev_limits limits = usual_limits();
    limits.idle_ms = idle_ms;
    limits.first_byte_ms = first_byte_ms;
    return open_loop_over(limits, 4 * MIB);
}

static fixture open_idle(int64_t idle_ms)
{
    return open_limited(idle_ms, 0);
}

/* Takes a turn every `step` milliseconds until the connection closes; how long that took. */
static int64_t lasts_until(fixture *f, int64_t token, int64_t step, int32_t reason)
{
    int64_t from = clock_ms;
    while (!(changes_of(f, token) & GEV_CHANGE_CLOSED)) {
        clock_ms += step;
        poll_once(f, 0);
    }
    CHECK_EQUAL(reason_of(f, token), reason);
    return clock_ms - from;
}

static int64_t lasts(fixture *f, int64_t token, int64_t step)
{
    return lasts_until(f, token, step, GEV_REASON_IDLE);
}

static void silence_closes_in_time(void)
{
    int64_t idles[] = {1, 49, 50, 51, 1000, 51199, 51200, 51201, 200000};
    for (size_t i = 0; i < sizeof idles / sizeof *idles; i++) {
        fixture f = open_idle(idles[i]);
        int peer;
        int64_t token = unix_pair(&f, &peer);
        int64_t lasted = lasts(&f, token, 7);
        CHECK(lasted >= idles[i]);
        CHECK(lasted <= idles[i] + 100 + 7);
        peer_sees_end(peer);
        close(peer);
        close_loop(&f);
    }
}

static void bytes_in_and_out_keep_it_open(void)
{
    fixture f = open_idle(1000);
    int peer;
    int64_t token = unix_pair(&f, &peer);
    for (int i = 0; i < 200; i++) {
        clock_ms += 900;
        if (i % 2)
            peer_writes(peer, "in", 2);
        else
            send_bytes(&f, token, "out", 3);
        poll_once(&f, 0);
        CHECK_EQUAL(f.turn->changes, 0);
    }
    int64_t lasted = lasts(&f, token, 1);
    CHECK(lasted >= 1000 && lasted <= 1100);
    close(peer);
    close_loop(&f);
}

static void no_idle_time_is_for_ever(void)
{
    fixture f = open_idle(0);
    int peer;
    int64_t token = unix_pair(&f, &peer);
    clock_ms += 1000LL * 3600 * 24 * 365;
    poll_once(&f, 0);
    CHECK_EQUAL(f.turn->changes, 0);
    CHECK(gev_conn_fd(f.loop, token) >= 0);
    close(peer);
    close_loop(&f);
}

/* The loop was away for longer than the wheel is round: those whose time is over go, all of them,
 * and the others do not. */
static void a_long_absence_is_caught_up_with(void)
{
    enum { CONNS = 50 };
    fixture f = open_idle(120000);
    int peers[CONNS];
    int64_t tokens[CONNS];
    for (int i = 0; i < CONNS; i++) {
        tokens[i] = unix_pair(&f, &peers[i]);
        clock_ms += 2000;
        poll_once(&f, 0);
    }
    clock_ms += 60001; /* 160 s after the first, 62 s after the last: over for the first 21 */
    poll_once(&f, 0);
    for (int i = 0; i < CONNS; i++) {
        CHECK_EQUAL(changes_of(&f, tokens[i]), i < 21 ? GEV_CHANGE_CLOSED : 0);
        close(peers[i]);
    }
    close_loop(&f);
}

/* The wait never lasts beyond the next moment the wheel has to be looked at, and is not cut short
 * where there is none; nor does it end at once again and again. */
static void the_wait_ends_when_somebody_is_due(void)
{
    fixture f = open_idle(10000);
    int peer;
    CHECK_EQUAL(gev_idle_timeout(f.loop, -1), -1);
    CHECK_EQUAL(gev_idle_timeout(f.loop, 77), 77);
    int64_t token = unix_pair(&f, &peer), from = clock_ms;
    CHECK_EQUAL(gev_idle_timeout(f.loop, 0), 0);
    CHECK_EQUAL(gev_idle_timeout(f.loop, 77), 77);
    int waits = 0;
    do {
        int wait = gev_idle_timeout(f.loop, -1);
        CHECK(wait >= 0 && wait <= 10100);
        clock_ms += wait;
        waits++;
        poll_once(&f, 0);
    } while (!changes_of(&f, token));
    CHECK(clock_ms - from >= 10000 && clock_ms - from <= 10100);
    CHECK(waits <= 2);
    close(peer);
    close_loop(&f);
}

/* The wait until the next bucket that has anybody, found by looking at all of them. */
static int searched_timeout(const gev_loop *loop)
{
    for (int64_t tick = loop->idle_tick + 1; tick <= loop->idle_tick + IDLE_BUCKETS; tick++)
        if (loop->idle_heads[tick % IDLE_BUCKETS] >= 0)
            return tick * IDLE_STEP_MS < clock_ms ? 0 : (int)(tick * IDLE_STEP_MS - clock_ms);
    return -1;
}

/* Half of many leave by themselves: the lists stay whole, and the next who is due is known. */
static void leaving_early_leaves_no_trace(void)
{
    enum { CONNS = 200 };
    fixture f = open_idle(300);
    int peers[CONNS], late_peers[CONNS], closed = 0, late = 0;
    int64_t tokens[CONNS];
    for (int i = 0; i < CONNS; i++) {
        tokens[i] = unix_pair(&f, &peers[i]);
        clock_ms += i % 3;
    }
    for (int i = 0; i < CONNS; i += 2)
        gev_conn_abort(f.loop, tokens[i * 7 % CONNS], GEV_REASON_LOCAL);
    while (closed < CONNS + late) {
        poll_once(&f, 0);
        closed += f.turn->changes;
        clock_ms += 10;
        CHECK_EQUAL(gev_idle_timeout(f.loop, -1), searched_timeout(f.loop));
        if (closed > CONNS / 2 && late < 5) {
            tokens[late] = unix_pair(&f, &late_peers[late]);
            late++;
            CHECK_EQUAL(gev_idle_timeout(f.loop, -1), searched_timeout(f.loop));
        }
    }
    CHECK_EQUAL(f.loop->idle_count, 0);
    CHECK_EQUAL(gev_idle_timeout(f.loop, -1), -1);
    for (int i = 0; i < late; i++)
        close(late_peers[i]);
    for (int i = 0; i < CONNS; i++)
        close(peers[i]);
    close_loop(&f);
}

/* The turn's callbacks took longer than the idle time; what they sent counts from then on. */
static void a_send_counts_when_it_is_made(void)
{
    fixture f = open_idle(1000);
    int peer;
    int64_t token = unix_pair(&f, &peer);
    poll_once(&f, 0);
    clock_ms += 2000;
    CHECK_EQUAL(send_bytes(&f, token, "at last", 7), 1);
    int64_t lasted = lasts(&f, token, 10);
    CHECK(lasted >= 1000 && lasted <= 1110);
    close(peer);
    close_loop(&f);
}

/* ---- the first byte ---------------------------------------------------------------------- */

static void never_a_byte_closes_in_time_whatever_we_send(void)
{
    int64_t limits[] = {1, 49, 50, 51, 1000, 51199, 51200, 51201, 200000};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        fixture f = open_limited(0, limits[i]);
        int peer;
        int64_t token = unix_pair(&f, &peer);
        CHECK_EQUAL(send_bytes(&f, token, "hello", 5), 1);
        clock_ms += limits[i] / 2;
        poll_once(&f, 0);
        CHECK_EQUAL(send_bytes(&f, token, "well?", 5), 1);
        int64_t lasted = lasts_until(&f, token, 7, GEV_REASON_TIMEOUT) + limits[i] / 2;
        CHECK(lasted >= limits[i]);
        CHECK(lasted <= limits[i] + 100 + 7);
        peer_reads(peer, "hellowell?", 10);
        peer_sees_end(peer);
        close(peer);
        close_loop(&f);
    }
}

/* And from then on nobody looks at the connection any more. */
static void one_byte_is_enough(void)
{
    fixture f = open_limited(0, 1000);
    int peer;
    int64_t token = unix_pair(&f, &peer);
    clock_ms += 999;
    peer_writes(peer, "x", 1);
    poll_once(&f, 0);
    CHECK_EQUAL(f.frames, 1);
    clock_ms += 1000;
    poll_once(&f, 0);
    clock_ms += 1000LL * 3600 * 24;
    poll_once(&f, 0);
    CHECK(gev_conn_fd(f.loop, token) >= 0);
    CHECK_EQUAL(f.loop->idle_count, 0);
    CHECK_EQUAL(gev_idle_timeout(f.loop, -1), -1);
    close(peer);
    close_loop(&f);
}

static void the_earlier_limit_closes(void)
{
    struct { int64_t idle, first; int32_t reason; } cases[] = {
        {300, 5000, GEV_REASON_IDLE}, {5000, 300, GEV_REASON_TIMEOUT},
        {60000, 300, GEV_REASON_TIMEOUT}, {300, 60000, GEV_REASON_IDLE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f = open_limited(cases[i].idle, cases[i].first);
        int peer;
        int64_t token = unix_pair(&f, &peer);
        int64_t lasted = lasts_until(&f, token, 1, cases[i].reason);
        CHECK(lasted >= 300 && lasted <= 400);
        close(peer);
        close_loop(&f);
    }
}

static void after_the_first_byte_silence_counts(void)
{
    fixture f = open_limited(5000, 300);
    int peer;
    int64_t token = unix_pair(&f, &peer);
    clock_ms += 200;
    peer_writes(peer, "x", 1);
    poll_once(&f, 0);
    int64_t lasted = lasts(&f, token, 1);
    CHECK(lasted >= 5000 && lasted <= 5100);
    close(peer);
    close_loop(&f);
}

/* It has come, if not to us: reading is paused. The idle time, long over too, may have it. */
static void a_first_byte_that_is_unread_counts(void)
{
    for (int64_t idle = 0; idle <= 400; idle += 400) {
        fixture f = open_limited(idle, 300);
        int peer;
        int64_t token = unix_pair(&f, &peer);
        CHECK_EQUAL(gev_conn_read(f.loop, token, 0), 0);
        peer_writes(peer, "x", 1);
        clock_ms += 360;
        poll_once(&f, 0);
        CHECK_EQUAL(f.turn->changes, 0);
        clock_ms += 10000;
        poll_once(&f, 0);
        CHECK_EQUAL(changes_of(&f, token), idle ? GEV_CHANGE_CLOSED : 0);
        if (!idle) {
            CHECK_EQUAL(gev_conn_read(f.loop, token, 1), 0);
            wait_text(&f, token, "x");
        }
        close(peer);
        close_loop(&f);
    }
}

/* The loop was away for longer than the wheel is round. The byte that is there saves the connection
 * from the one limit, and the other closes it in the next step, not a turn of the wheel later. */
static void being_late_for_both_limits_puts_nothing_off(void)
{
    fixture f = open_limited(51500, 50000);
    int peer;
    int64_t token = unix_pair(&f, &peer);
    CHECK_EQUAL(gev_conn_read(f.loop, token, 0), 0);
    peer_writes(peer, "x", 1);
    clock_ms += 200000;
    poll_once(&f, 0);
    CHECK(changes_of(&f, token) || lasts(&f, token, 1) <= 100);
    CHECK_EQUAL(reason_of(&f, token), GEV_REASON_IDLE);
    close(peer);
    close_loop(&f);
}

/* A peer that has ended has said what it had to say, and a close has its own deadline. */
static void those_who_have_ended_need_not_speak(void)
{
    fixture f = open_limited(0, 300);
    int peers[2];
    int64_t ended = unix_pair(&f, &peers[0]), closing = unix_pair(&f, &peers[1]);
    uint8_t *much = noise(MIB);
    CHECK(shutdown(peers[0], SHUT_WR) == 0);
    CHECK_EQUAL(wait_for(&f, ended, GEV_CHANGE_EOF), GEV_CHANGE_EOF);
    CHECK_EQUAL(send_bytes(&f, closing, much, MIB), 1);
    CHECK_EQUAL(gev_conn_close(f.loop, closing, GEV_REASON_LOCAL), 0);
    for (int i = 0; i < 100; i++) {
        clock_ms += 100;
        poll_once(&f, 0);
        CHECK(!(changes_of(&f, ended) & GEV_CHANGE_CLOSED));
        CHECK(!(changes_of(&f, closing) & GEV_CHANGE_CLOSED));
    }
    CHECK_EQUAL(f.loop->idle_count, 0);
    free(much);
    close(peers[0]);
    close(peers[1]);
    close_loop(&f);
}

int main(void)
{
    CHECK_TIME(20);
    RUN(silence_closes_in_time);
    RUN(bytes_in_and_out_keep_it_open);
    RUN(no_idle_time_is_for_ever);
    RUN(a_long_absence_is_caught_up_with);
    RUN(the_wait_ends_when_somebody_is_due);
    RUN(leaving_early_leaves_no_trace);
    RUN(a_send_counts_when_it_is_made);
    RUN(never_a_byte_closes_in_time_whatever_we_send);
    RUN(one_byte_is_enough);
    RUN(the_earlier_limit_closes);
    RUN(after_the_first_byte_silence_counts);
    RUN(a_first_byte_that_is_unread_counts);
    RUN(being_late_for_both_limits_puts_nothing_off);
    RUN(those_who_have_ended_need_not_speak);
    return 0;
}
