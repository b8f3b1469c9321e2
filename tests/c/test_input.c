/* Input under a framing, through gev_loop_poll: runs, what is kept between reads, large frames in
 * rings of their own, what is given back, and what is dressed on the way out.
 */
#define _GNU_SOURCE
#include "loop.h"

enum { LENGTH = 4 };

static gev_framing lengths(void)
{
    return (gev_framing){.kind = GEV_LENGTH_PREFIXED, .dress = 1, .max_size = 64 * MIB,
                         .width = LENGTH, .strip = LENGTH};
}

static gev_framing lines(void)
{
    return (gev_framing){.kind = GEV_DELIMITED, .dress = 1, .max_size = 4 * MIB,
                         .delimiter_size = 2, .delimiter = "\r\n"};
}

static int64_t framed_pair(fixture *f, const gev_framing *framing, int *peer)
{
    int64_t token = unix_pair(f, peer);
    int number = gev_loop_framing(f->loop, framing);
    CHECK(number > 0);
    CHECK_EQUAL(gev_loop_framing(f->loop, framing), number);
    CHECK_EQUAL(gev_conn_frame(f->loop, token, number), 0);
    return token;
}

static uint64_t rings(const fixture *f)
{
    gev_pool_stats stats;
    gev_pool_read_stats(f->pool, &stats);
    return stats.used_rings;
}

/* The run of the last turn that came from `token`; NULL when there is none. */
static const int32_t *run_of(const fixture *f, int64_t token)
{
    const int32_t *found = NULL;
    for (int32_t i = 0; i < f->turn->run_count; i++)
        if (f->turn->runs[4 * i] == slot_of(token)) {
            CHECK(!found); /* a turn tells one run of a connection */
            found = f->turn->runs + 4 * i;
        }
    return found;
}

/* The last turn told these frames of `token`, written with a '|' behind each, and no others. */
static void told(const fixture *f, int64_t token, const char *frames)
{
    const int32_t *run = run_of(f, token);
    char seen[1024];
    size_t size = 0;
    for (int32_t i = run ? run[1] : 0; i < (run ? run[2] : 0); i++) {
        int32_t start = f->turn->starts[i], end = f->turn->ends[i];
        CHECK(0 <= start && start <= end && end <= run[3]);
        CHECK(size + (size_t)(end - start) + 2 < sizeof seen);
        memcpy(seen + size, f->arena + start, (size_t)(end - start));
        size += (size_t)(end - start);
        seen[size++] = '|';
    }
    seen[size] = 0;
    if (strcmp(seen, frames)) {
        fprintf(stderr, "told \"%s\", not \"%s\"\n", seen, frames);
        CHECK(!"these frames");
    }
}

static void hears(fixture *f, int64_t token, int peer, const char *bytes, size_t size,
                  const char *frames)
{
    peer_writes(peer, bytes, size);
    poll_once(f, -1);
    told(f, token, frames);
}

static void write_length(uint8_t *to, size_t size)
{
    for (int i = 0; i < LENGTH; i++)
        to[i] = (uint8_t)(size >> 8 * (LENGTH - 1 - i));
}

/* Writes all of it while turns are taken, until a large frame is told that is `payload`; returns its
 * ring. `more` bytes of what is written lie behind the frame. */
static gev_ring *take_large(fixture *f, int64_t token, int peer, const uint8_t *data, size_t size,
                            const uint8_t *payload, size_t payload_size)
{
    size_t done = 0;
    for (;;) {
        if (done < size) {
            ssize_t sent = send(peer, data + done, size - done < 60000 ? size - done : 60000,
                                MSG_NOSIGNAL | MSG_DONTWAIT);
            done += sent > 0 ? (size_t)sent : 0;
        }
        poll_once(f, done < size ? 0 : -1);
        CHECK_EQUAL(changes_of(f, token), 0);
        CHECK(!run_of(f, token));
        if (!f->turn->large_count)
            continue;
        CHECK_EQUAL(f->turn->large_count, 1);
        const gev_large *large = f->turn->large;
        CHECK_EQUAL(large->slot, slot_of(token));
        CHECK_EQUAL(large->size, payload_size);
        uint32_t start = large->start;
        gev_ring *ring = gev_conn_take_large(f->loop, token, large->total);
        CHECK(ring);
        CHECK(start + payload_size <= 2 * ring->size);
        CHECK(!memcmp(ring->base + start, payload, payload_size));
        while (done < size) {
            peer_writes(peer, data + done, size - done < 1000 ? size - done : 1000);
            done += size - done < 1000 ? size - done : 1000;
        }
        return ring;
    }
}

/* ---- small frames -------------------------------------------------------------------------- */

static void frames_of_a_read_and_halves(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths();
    int64_t token = framed_pair(&f, &framing, &peer);
    hears(&f, token, peer, "\0\0\0\1a\0\0\0\0\0\0\0\2bc", 15, "a||bc|");
    CHECK_EQUAL(rings(&f), 0);
    static const char stream[] = "\0\0\0\1a\0\0\0\0\0\0\0\2bc";
    for (size_t at = 1; at < 15; at++) {
        hears(&f, token, peer, stream, at, at < 5 ? "" : at < 9 ? "a|" : "a||");
        CHECK_EQUAL(rings(&f), at != 5 && at != 9);
        hears(&f, token, peer, stream + at, 15 - at, at < 5 ? "a||bc|" : at < 9 ? "|bc|" : "bc|");
        CHECK_EQUAL(rings(&f), 0);
    }
    for (size_t at = 0; at < 15; at++)
        hears(&f, token, peer, stream + at, 1,
              at == 4 ? "a|" : at == 8 ? "|" : at == 14 ? "bc|" : "");
    close(peer);
    close_loop(&f);
}

static void frames_before_the_end_of_the_stream(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lines();
    int64_t token = framed_pair(&f, &framing, &peer);
    peer_writes(peer, "one\r\ntwo\r\nthr", 13);
    close(peer);
    poll_once(&f, -1);
    told(&f, token, "one|two|");
    CHECK(wait_for(&f, token, GEV_CHANGE_EOF));
    CHECK_EQUAL(rings(&f), 1);
    close_loop(&f);
}

static void an_error_comes_after_the_frames_before_it(void)
{
    fixture f = open_loop();
    int peer, other;
    gev_framing framing = lengths();
    framing.max_size = 3;
    int64_t token = framed_pair(&f, &framing, &peer), fine = framed_pair(&f, &framing, &other);
    hears(&f, token, peer, "\0\0\0\1a\0\0\0\4more\0\0\0\1a", 18, "a|");
    CHECK_EQUAL(changes_of(&f, token), 0);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_BAD_FRAME);
    CHECK_EQUAL(reason_of(&f, token), GEV_REASON_FRAME_TOO_LARGE);
    CHECK_EQUAL(rings(&f), 0);
    peer_writes(peer, "\0\0\0\1a", 5);
    hears(&f, fine, other, "\0\0\0\1b", 5, "b|");
    poll_once(&f, 0);
    told(&f, token, "");
    CHECK_EQUAL(changes_of(&f, token), 0); /* said once */
    CHECK_EQUAL(send_bytes(&f, token, "bye", 3), 1);
    gev_conn_close(f.loop, token, GEV_REASON_FRAME_TOO_LARGE);
    peer_reads(peer, "\0\0\0\3bye", 7);
    close(peer);
    close(other);
    close_loop(&f);
}

static void an_error_is_none_under_the_next_framing(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths(), line = lines();
    framing.max_size = 3;
    int64_t token = framed_pair(&f, &framing, &peer);
    hears(&f, token, peer, "\0\0\0\1ahello\r\nyou\r\n", 17, "a|");
    CHECK_EQUAL(gev_conn_frame(f.loop, token, gev_loop_framing(f.loop, &line)), 0);
    poll_once(&f, 0);
    told(&f, token, "hello|you|");
    close(peer);
    close_loop(&f);
}

/* ---- one at a time, paused, given back ------------------------------------------------------- */

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
    CHECK_EQUAL(gev_conn_unread(f.loop, token, (const uint8_t *)"v", 1, 1), 0);
    CHECK_EQUAL(gev_conn_frame(f.loop, token, gev_loop_framing(f.loop, &line)), 0);
    poll_once(&f, -1);
    told(&f, token, "wx|");
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

/* ---- large frames -------------------------------------------------------------------------- */

static void large_frames_by_length(void)
{
    static const size_t sizes[] = {32769, 65536, 200000, 262144, 262145, 3 * MIB + 7};
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths();
    int64_t token = framed_pair(&f, &framing, &peer);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *data = noise(LENGTH + sizes[i]);
        write_length(data, sizes[i]);
        peer_writes(peer, data, 6); /* so that none is whole in one read */
        poll_once(&f, -1);
        gev_ring *ring = take_large(&f, token, peer, data + 6, sizes[i] - 2, data + LENGTH,
                                    sizes[i]);
        CHECK_EQUAL(rings(&f), 1);
        gev_ring_give(ring);
        hears(&f, token, peer, "\0\0\0\1a", 5, "a|");
        CHECK_EQUAL(rings(&f), 0);
        free(data);
    }
    close(peer);
    close_loop(&f);
}

/* What a peer claims to send costs no more than what it sends. */
static void a_claim_is_not_believed(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths();
    framed_pair(&f, &framing, &peer);
    uint8_t head[LENGTH + 1] = {0};
    write_length(head, 60 * MIB);
    peer_writes(peer, head, sizeof head);
    poll_once(&f, -1);
    gev_pool_stats stats;
    gev_pool_read_stats(f.pool, &stats);
    CHECK(stats.used_bytes <= 256 * KIB);
    close(peer);
    close_loop(&f);
}

static void large_frames_by_delimiter(void)
{
    static const size_t sizes[] = {32 * KIB, 32769, 100000, 700000};
    fixture f = open_loop();
    int peer;
    gev_framing framing = lines();
    int64_t token = framed_pair(&f, &framing, &peer);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        /* Its first half is kept, so that it grows in a ring; "next" lies behind it. */
        size_t size = sizes[i];
        uint8_t *data = malloc(size + 9);
        CHECK(data);
        memset(data, 'x', size);
        memcpy(data + size, "\r\nnex\r\n", 7);
        size_t at = 0;
        while (at < 33 * KIB && at < size) {
            peer_writes(peer, data + at, 11 * KIB < size - at ? 11 * KIB : size - at);
            at += 11 * KIB < size - at ? 11 * KIB : size - at;
            poll_once(&f, -1);
            CHECK(!run_of(&f, token) && !f.turn->large_count);
        }
        if (size <= 32 * KIB) { /* put in front of the next read after all */
            peer_writes(peer, data + at, size + 7 - at);
            poll_once(&f, -1);
            const int32_t *run = run_of(&f, token);
            CHECK(run && run[2] - run[1] == 2);
            CHECK_EQUAL(f.turn->ends[run[1]] - f.turn->starts[run[1]], size);
        } else {
            gev_ring *ring = take_large(&f, token, peer, data + at, size + 7 - at, data, size);
            gev_ring_give(ring);
            do
                poll_once(&f, -1);
            while (!run_of(&f, token));
            told(&f, token, "nex|");
        }
        poll_once(&f, 0);
        CHECK_EQUAL(rings(&f), 0);
        free(data);
    }
    close(peer);
    close_loop(&f);
}

static void a_large_line_over_its_limit(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lines();
    framing.max_size = 100000;
    int64_t token = framed_pair(&f, &framing, &peer);
    uint8_t *data = malloc(200000);
    CHECK(data);
    memset(data, 'x', 200000);
    size_t sent = 0;
    while (!changes_of(&f, token)) {
        CHECK(sent < 200000);
        peer_writes(peer, data, 5000);
        sent += 5000;
        poll_once(&f, -1);
    }
    CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_BAD_FRAME);
    CHECK_EQUAL(reason_of(&f, token), GEV_REASON_FRAME_TOO_LARGE);
    CHECK_EQUAL(sent, 105000);
    CHECK_EQUAL(rings(&f), 0);
    free(data);
    close(peer);
    close_loop(&f);
}

/* Nobody takes it, as the connection is paused: told again when it is resumed. */
static void a_large_frame_is_told_until_it_is_taken(void)
{
    enum { SIZE = 50000 };
    fixture f = open_loop();
    int peer;
    gev_framing framing = {.kind = GEV_FIXED_SIZE, .size = SIZE};
    int64_t token = framed_pair(&f, &framing, &peer);
    uint8_t *data = noise(SIZE + 1);
    peer_writes(peer, data, 10);
    poll_once(&f, -1);
    peer_writes(peer, data + 10, SIZE - 10);
    do
        poll_once(&f, -1);
    while (!f.turn->large_count);
    uint32_t total = f.turn->large->total;
    CHECK_EQUAL(total, SIZE);
    CHECK_EQUAL(gev_conn_read(f.loop, token, 0), 0);
    CHECK(!gev_conn_take_large(f.loop, token, total));
    poll_once(&f, 0);
    CHECK_EQUAL(f.turn->large_count, 0);
    CHECK_EQUAL(gev_conn_read(f.loop, token, 1), 0);
    poll_once(&f, -1);
    if (!f.turn->large_count) { /* it fits into the arena by now */
        const int32_t *run = run_of(&f, token);
        CHECK(run && run[2] == run[1] + 1);
        CHECK(!memcmp(f.arena + f.turn->starts[run[1]], data, SIZE));
    } else {
        gev_ring_give(gev_conn_take_large(f.loop, token, total));
    }
    poll_once(&f, 0);
    CHECK_EQUAL(rings(&f), 0);
    free(data);
    close(peer);
    close_loop(&f);
}

static void no_memory_for_a_frame_costs_its_connection(void)
{
    fixture f = open_loop_over(usual_limits(), 1 * MIB);
    int peer, other;
    gev_framing framing = lengths();
    int64_t token = framed_pair(&f, &framing, &peer), fine = framed_pair(&f, &framing, &other);
    uint8_t *data = noise(4 * MIB);
    write_length(data, 4 * MIB - LENGTH);
    size_t done = 0;
    while (!changes_of(&f, token)) {
        ssize_t sent = send(peer, data + done, 50000, MSG_NOSIGNAL | MSG_DONTWAIT);
        done += sent > 0 ? (size_t)sent : 0;
        CHECK(done < 3 * MIB);
        poll_once(&f, 0);
    }
    CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_CLOSED);
    CHECK_EQUAL(reason_of(&f, token), GEV_REASON_NO_MEMORY);
    hears(&f, fine, other, "\0\0\0\1b", 5, "b|");
    free(data);
    close(peer);
    close(other);
    close_loop(&f);
}

/* ---- dressing ------------------------------------------------------------------------------ */

static void what_is_sent_is_dressed(void)
{
    fixture f = open_loop();
    int peers[3];
    gev_framing with_length = lengths(), with_end = lines();
    int64_t lengthy = framed_pair(&f, &with_length, &peers[0]);
    int64_t line = framed_pair(&f, &with_end, &peers[1]), raw = unix_pair(&f, &peers[2]);
    uint8_t *data = noise(20000);
    const uint8_t *const large[] = {data, data + 1, data + 2};
    const int64_t numbers[] = {
        lengthy, 1, raw, 2, line, 3,
        lengthy + GEV_SEND_RUN, 3, 2, 0, 1,
        line + GEV_SEND_RUN, 2, 0, 1,
        raw + GEV_SEND_RUN, 2, 1, 1,
        ~lengthy, 9000, ~raw, 9000, ~line, 9000,
        lengthy, 10, line, 10, raw, 11,
    };
    const uint8_t blob[] = "abcdefghijk";
    CHECK_EQUAL(gev_loop_send(f.loop, sizeof numbers / sizeof *numbers, numbers, blob, 11, large), 3);
    peer_reads(peers[0], "\0\0\0\1a\0\0\0\2de\0\0\0\0\0\0\0\1f\0\0\x23\x28", 24);
    peer_reads(peers[0], data, 9000);
    peer_reads(peers[0], "\0\0\0\1j", 5);
    peer_reads(peers[1], "c\r\n\r\ng\r\n", 8);
    peer_reads(peers[1], data + 2, 9000);
    peer_reads(peers[1], "\r\n\r\n", 4);
    peer_reads(peers[2], "bhi", 3);
    peer_reads(peers[2], data + 1, 9000);
    peer_reads(peers[2], "k", 1);
    CHECK_EQUAL(gev_conn_queued(f.loop, lengthy), 24 + 9000 + 5);
    free(data);
    for (int i = 0; i < 3; i++)
        close(peers[i]);
    close_loop(&f);
}

static void a_run_that_asks_for_more_than_there_is(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths();
    int64_t token = framed_pair(&f, &framing, &peer);
    const int64_t too_large[] = {token + GEV_SEND_RUN, 2, 2, 2};
    CHECK_EQUAL(gev_loop_send(f.loop, 4, too_large, (const uint8_t *)"abc", 3, NULL), -EINVAL);
    const int64_t negative[] = {token + GEV_SEND_RUN, 1, -1};
    CHECK_EQUAL(gev_loop_send(f.loop, 3, negative, (const uint8_t *)"abc", 3, NULL), -EINVAL);
    const int64_t too_many[] = {token + GEV_SEND_RUN, 1000, 1};
    CHECK_EQUAL(gev_loop_send(f.loop, 3, too_many, (const uint8_t *)"abc", 3, NULL), 1);
    close(peer);
    close_loop(&f);
}

/* What the kernel does not take is kept dressed; all arrives, in order. */
static void dressed_pieces_that_wait(void)
{
    enum { PIECES = 3000, SIZE = 1001 };
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths();
    int64_t token = framed_pair(&f, &framing, &peer);
    uint8_t *data = noise(PIECES * SIZE);
    int64_t numbers[2 + PIECES] = {token + GEV_SEND_RUN, PIECES};
    for (int i = 0; i < PIECES; i++)
        numbers[2 + i] = SIZE;
    CHECK_EQUAL(gev_loop_send(f.loop, 2 + PIECES, numbers, data, PIECES * SIZE, NULL), 1);
    CHECK(gev_conn_pending(f.loop, token) > 0);
    for (int i = 0; i < PIECES; i++) {
        peer_reads(peer, "\0\0\3\xe9", 4);
        peer_reads(peer, data + i * SIZE, SIZE);
        poll_once(&f, 0);
    }
    CHECK_EQUAL(gev_conn_pending(f.loop, token), 0);
    free(data);
    close(peer);
    close_loop(&f);
}

int main(void)
{
    CHECK_TIME(50);
    RUN(frames_of_a_read_and_halves);
    RUN(frames_before_the_end_of_the_stream);
    RUN(an_error_comes_after_the_frames_before_it);
    RUN(an_error_is_none_under_the_next_framing);
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
    RUN(large_frames_by_length);
    RUN(a_claim_is_not_believed);
    RUN(large_frames_by_delimiter);
    RUN(a_large_line_over_its_limit);
    RUN(a_large_frame_is_told_until_it_is_taken);
    RUN(no_memory_for_a_frame_costs_its_connection);
    RUN(what_is_sent_is_dressed);
    RUN(a_run_that_asks_for_more_than_there_is);
    RUN(dressed_pieces_that_wait);
    return 0;
}
