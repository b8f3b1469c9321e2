/* Input that was read and is cut later: one frame at a time, paused, choked, given back.
 */
#define _GNU_SOURCE
#include "input.h"

static void one_at_a_time(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths();
    framing.one_at_a_time = 1;
    int64_t token = framed_pair(&f, &framing, &peer);
    hears(&f, token, peer, "\0\0\0\1a\0\0\0\1b\0\0\0\2c", 15, "a|");
    poll_once(&f, -1);
    told(&f, token, "b|");
    peer_writes(peer, "d\0\0\0\1e", 6);
    poll_once(&f, -1); /* nothing more is kept whole; it is read again */
    told(&f, token, run_of(&f, token) ? "cd|" : "");
    if (!run_of(&f, token)) {
        poll_once(&f, -1);
        told(&f, token, "cd|");
    }
    poll_once(&f, -1);
    told(&f, token, "e|");
    CHECK_EQUAL(rings(&f), 0);
    close(peer);
    close_loop(&f);
}

/* As many as the table has room for, all of which are listed again while they are taken off. */
static void everybody_one_at_a_time(void)
{
    enum { CONNS = 64, FRAMES = 5 };
    fixture f = open_loop();
    int peers[CONNS], heard[CONNS] = {0};
    int64_t tokens[CONNS];
    gev_framing framing = {.kind = GEV_FIXED_SIZE, .size = 1, .one_at_a_time = 1};
    for (int i = 0; i < CONNS; i++) {
        tokens[i] = framed_pair(&f, &framing, &peers[i]);
        peer_writes(peers[i], "abcde", FRAMES);
    }
    for (int left = CONNS * FRAMES; left;) {
        poll_once(&f, -1);
        for (int i = 0; i < CONNS; i++) {
            const char frame[] = {"abcde"[heard[i]], '|', 0};
            if (!run_of(&f, tokens[i]))
                continue;
            told(&f, tokens[i], frame);
            heard[i]++;
            left--;
        }
    }
    for (int i = 0; i < CONNS; i++)
        close(peers[i]);
    close_loop(&f);
}

static void paused_while_bytes_are_kept(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths();
    framing.one_at_a_time = 1;
    int64_t token = framed_pair(&f, &framing, &peer);
    hears(&f, token, peer, "\0\0\0\1a\0\0\0\1b\0\0\0\1c", 15, "a|");
    CHECK_EQUAL(gev_conn_read(f.loop, token, 0), 0);
    peer_writes(peer, "\0\0\0\1d", 5);
    for (int i = 0; i < 3; i++) {
        poll_once(&f, 0);
        told(&f, token, "");
    }
    CHECK_EQUAL(gev_conn_read(f.loop, token, 1), 0);
    for (const char *frame = "b|\0c|"; frame[0]; frame += 3) {
        poll_once(&f, -1);
        told(&f, token, frame);
        if (frame[0] == 'c')
            break;
    }
    do
        poll_once(&f, -1);
    while (!run_of(&f, token));
    told(&f, token, "d|");
    close(peer);
    close_loop(&f);
}

static void choked_while_bytes_are_kept(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths();
    framing.one_at_a_time = 1;
    framing.dress = 0;
    int64_t token = framed_pair(&f, &framing, &peer);
    hears(&f, token, peer, "\0\0\0\1a\0\0\0\1b", 10, "a|");
    uint8_t *data = noise(2 * MIB);
    CHECK_EQUAL(send_bytes(&f, token, data, 2 * MIB), 1);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_HIGH_WATER);
    told(&f, token, "");
    for (size_t taken = 0; taken < 2 * MIB; taken += 4096) {
        peer_reads(peer, data + taken, 4096);
        if (gev_conn_pending(f.loop, token)) {
            poll_once(&f, 0);
            if (run_of(&f, token))
                CHECK(gev_conn_pending(f.loop, token) <= 32 * KIB);
        }
    }
    free(data);
    close(peer);
    close_loop(&f);
}

static void given_back_in_front_of_what_is_kept(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths(), line = lines();
    int64_t token = framed_pair(&f, &framing, &peer);
    hears(&f, token, peer, "\0\0\0\1a\0\0\0\1b\0\0\0\1c\0\0\0\3d", 20, "a|b|c|");
    const int32_t *run = run_of(&f, token);
    uint32_t from = (uint32_t)f.turn->starts[run[1] + 1] - LENGTH;
    CHECK_EQUAL(gev_conn_unread(f.loop, token, f.arena + from, (uint32_t)run[3] - from, 0), 0);
    hears(&f, token, peer, "ef", 2, "b|c|");
    do
        poll_once(&f, -1);
    while (!run_of(&f, token));
    told(&f, token, "def|");
    CHECK_EQUAL(gev_conn_unread(f.loop, token, NULL, 0, 0), 0);
    CHECK_EQUAL(gev_conn_unread(f.loop, token, (const uint8_t *)"x\r\ny\r", 5, 0), 0);
    CHECK_EQUAL(gev_conn_unread(f.loop, token, (const uint8_t *)"w", 1, 0), 0);
    CHECK_EQUAL(gev_conn_unread(f.loop, token, (const uint8_t *)"v", 1, 7), -EINVAL);
    CHECK_EQUAL(gev_conn_unread(f.loop, token, (const uint8_t *)"v", 1, 6), 0);
    CHECK_EQUAL(gev_conn_unread(f.loop, token, (const uint8_t *)"u", 1, 1), 0);
    CHECK_EQUAL(gev_conn_frame(f.loop, token, gev_loop_framing(f.loop, &line)), 0);
    poll_once(&f, -1);
    told(&f, token, "wux|");
    hears(&f, token, peer, "\r\n", 2, "y\rv|");
    CHECK_EQUAL(gev_conn_frame(f.loop, token, 99), -EINVAL);
    CHECK_EQUAL(gev_conn_frame(f.loop, token, -1), -EINVAL);
    close(peer);
    close_loop(&f);
}

/* A handler that pauses at each message gives the rest of the run back for each: a little of it is
 * cut again then, not all of it. */
static void given_back_after_each_frame(void)
{
    enum { FRAME = LENGTH + 4, COUNT = 7000, LARGE = 1000 };
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths();
    int64_t token = framed_pair(&f, &framing, &peer);
    uint8_t *data = calloc(1, COUNT * FRAME + LENGTH + LARGE), *at = data;
    CHECK(data);
    for (uint8_t i = 0; at < data + COUNT * FRAME; at += FRAME, i++) {
        write_length(at, FRAME - LENGTH);
        memset(at + LENGTH, i, FRAME - LENGTH);
    }
    write_length(at, LARGE);
    peer_writes(peer, data, COUNT * FRAME + LENGTH + LARGE);
    int32_t first = 0, most = 0;
    for (int i = 0; i <= COUNT; i++) {
        do
            poll_once(&f, -1);
        while (!run_of(&f, token));
        const int32_t *run = run_of(&f, token);
        int32_t start = f.turn->starts[run[1]], end = f.turn->ends[run[1]];
        CHECK_EQUAL(end - start, i < COUNT ? FRAME - LENGTH : LARGE);
        CHECK(i == COUNT || f.arena[start] == (uint8_t)i);
        if (i == 0)
            first = run[2] - run[1];
        else if (most < run[2] - run[1])
            most = run[2] - run[1];
        CHECK_EQUAL(gev_conn_unread(f.loop, token, f.arena + end, (size_t)(run[3] - end), 0), 0);
    }
    CHECK(first > 1000);
    CHECK(most > 1 && most <= 256 / FRAME);
    CHECK_EQUAL(rings(&f), 0);
    free(data);
    close(peer);
    close_loop(&f);
}

/* What was given back once, and no more, comes in parts that double. */
static void given_back_once(void)
{
    enum { SIZE = 60000, FRAME = 100 };
    fixture f = open_loop();
    int peer;
    gev_framing framing = {.kind = GEV_FIXED_SIZE, .size = FRAME};
    int64_t token = framed_pair(&f, &framing, &peer);
    uint8_t *data = noise(SIZE);
    peer_writes(peer, data, SIZE);
    poll_once(&f, -1);
    const int32_t *run = run_of(&f, token);
    int32_t whole = (run[2] - run[1]) * FRAME, told_before = 0;
    CHECK_EQUAL(gev_conn_unread(f.loop, token, f.arena + f.turn->starts[run[1]], (size_t)whole, 0),
                0);
    for (int32_t done = 0, turns = 0; done < SIZE;) {
        poll_once(&f, -1);
        run = run_of(&f, token);
        if (!run)
            continue;
        CHECK(!memcmp(f.arena + f.turn->starts[run[1]], data + done,
                      (size_t)((run[2] - run[1]) * FRAME)));
        done += (run[2] - run[1]) * FRAME;
        CHECK(++turns < 12);
        CHECK(done == SIZE || run[2] - run[1] > told_before);
        told_before = run[2] - run[1];
    }
    CHECK_EQUAL(rings(&f), 0);
    free(data);
    close(peer);
    close_loop(&f);
}

/* More is kept than the arena has room for. */
static void kept_input_that_overflows_the_arena(void)
{
    enum { SIZE = ARENA + 100 * KIB };
    fixture f = open_loop();
    int peer;
    gev_framing framing = {.kind = GEV_FIXED_SIZE, .size = 1000};
    int64_t token = framed_pair(&f, &framing, &peer);
    uint8_t *data = noise(SIZE);
    size_t heard = 0;
    CHECK_EQUAL(gev_conn_unread(f.loop, token, data, SIZE, 0), 0);
    for (bool back = true; heard < SIZE / 1000 * 1000; back = !back) {
        poll_once(&f, -1);
        const int32_t *run = run_of(&f, token);
        CHECK(run);
        int32_t last = back ? run[1] + 1 : run[2];
        for (int32_t i = run[1]; i < last; i++, heard += 1000)
            CHECK(!memcmp(f.arena + f.turn->starts[i], data + heard, 1000));
        if (last < run[2]) {
            uint32_t from = (uint32_t)f.turn->starts[last];
            CHECK_EQUAL(gev_conn_unread(f.loop, token, f.arena + from, (uint32_t)run[3] - from, 0), 0);
        }
    }
    free(data);
    close(peer);
    close_loop(&f);
}

static void without_a_framing_it_is_told_as_it_is(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths();
    int64_t token = framed_pair(&f, &framing, &peer);
    hears(&f, token, peer, "\0\0\0\1a\0\0\0\2b", 10, "a|");
    CHECK_EQUAL(gev_conn_frame(f.loop, token, 0), 0);
    size_t size = 0;
    poll_once(&f, 0);
    const uint8_t *frame = frame_of(&f, token, &size);
    CHECK(frame && size == 5 && !memcmp(frame, "\0\0\0\2b", 5));
    CHECK_EQUAL(rings(&f), 0);
    peer_writes(peer, "raw", 3);
    wait_text(&f, token, "raw");
    close(peer);
    close_loop(&f);
}

static void closed_while_listed(void)
{
    fixture f = open_loop();
    int peers[3];
    int64_t tokens[3];
    gev_framing framing = lengths();
    framing.one_at_a_time = 1;
    for (int i = 0; i < 3; i++) {
        tokens[i] = framed_pair(&f, &framing, &peers[i]);
        hears(&f, tokens[i], peers[i], "\0\0\0\1a\0\0\0\1b", 10, "a|");
        CHECK_EQUAL(gev_conn_read(f.loop, tokens[i], 0), 0);
    }
    for (int i = 0; i < 3; i++)
        CHECK_EQUAL(gev_conn_read(f.loop, tokens[i], 1), 0);
    CHECK_EQUAL(gev_conn_abort(f.loop, tokens[1], GEV_REASON_LOCAL), 0);
    gev_conn_close(f.loop, tokens[0], GEV_REASON_LOCAL);
    CHECK_EQUAL(gev_conn_unread(f.loop, tokens[1], (const uint8_t *)"x", 1, 0), -ENOTCONN);
    CHECK_EQUAL(gev_conn_frame(f.loop, tokens[1], 0), -ENOTCONN);
    CHECK(!gev_conn_take_large(f.loop, tokens[1], 1));
    poll_once(&f, 0);
    told(&f, tokens[0], "");
    told(&f, tokens[1], "");
    told(&f, tokens[2], "b|");
    CHECK_EQUAL(rings(&f), 0);
    for (int i = 0; i < 3; i++)
        close(peers[i]);
    close_loop(&f);
}

static void a_loop_closes_with_bytes_kept(void)
{
    fixture f = open_loop();
    int peer, other;
    gev_framing framing = lengths();
    framing.one_at_a_time = 1;
    int64_t token = framed_pair(&f, &framing, &peer);
    hears(&f, token, peer, "\0\0\0\1a\0\0\0\1b", 10, "a|");
    token = framed_pair(&f, &framing, &other);
    peer_writes(other, "\0\0\1\0a", 5);
    poll_once(&f, -1);
    close(peer);
    close(other);
    close_loop(&f);
}

int main(void)
{
    CHECK_TIME(50);
    RUN(one_at_a_time);
    RUN(everybody_one_at_a_time);
    RUN(paused_while_bytes_are_kept);
    RUN(choked_while_bytes_are_kept);
    RUN(given_back_in_front_of_what_is_kept);
    RUN(given_back_after_each_frame);
    RUN(given_back_once);
    RUN(kept_input_that_overflows_the_arena);
    RUN(without_a_framing_it_is_told_as_it_is);
    RUN(closed_while_listed);
    RUN(a_loop_closes_with_bytes_kept);
    return 0;
}
