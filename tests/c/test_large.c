/* Large frames, which are read in rings of their own. */
#define _GNU_SOURCE
#include "input.h"

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

/* The same with one that was searched farther than the arena is long: it is cut again by a part that
 * ends before that, and nothing behind the part is looked at. */
static void a_large_line_is_told_until_it_is_taken(void)
{
    enum { SIZE = 3 * ARENA };
    fixture f = open_loop();
    int peer;
    gev_framing framing = lines();
    int64_t token = framed_pair(&f, &framing, &peer);
    uint8_t *data = malloc(SIZE + 2);
    CHECK(data);
    memset(data, 'x', SIZE);
    memcpy(data + SIZE, "\r\n", 2);
    for (size_t sent = 0; !f.turn->large_count;) {
        size_t size = SIZE + 2 - sent < 20000 ? SIZE + 2 - sent : 20000;
        if (size)
            peer_writes(peer, data + sent, size);
        sent += size;
        poll_once(&f, -1);
    }
    CHECK_EQUAL(gev_conn_read(f.loop, token, 0), 0);
    CHECK(!gev_conn_take_large(f.loop, token, f.turn->large->total));
    CHECK_EQUAL(gev_conn_read(f.loop, token, 1), 0);
    poll_once(&f, -1);
    CHECK_EQUAL(changes_of(&f, token), 0);
    CHECK(!run_of(&f, token));
    CHECK_EQUAL(f.turn->large_count, 1);
    CHECK_EQUAL(f.turn->large->size, SIZE);
    gev_ring *ring = gev_conn_take_large(f.loop, token, f.turn->large->total);
    CHECK(ring && !memcmp(ring->base + f.turn->large->start, data, SIZE));
    gev_ring_give(ring);
    hears(&f, token, peer, "next\r\n", 6, "next|");
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

int main(void)
{
    CHECK_TIME(50);
    RUN(large_frames_by_length);
    RUN(a_claim_is_not_believed);
    RUN(large_frames_by_delimiter);
    RUN(a_large_line_over_its_limit);
    RUN(a_large_frame_is_told_until_it_is_taken);
    RUN(a_large_line_is_told_until_it_is_taken);
    RUN(no_memory_for_a_frame_costs_its_connection);
    return 0;
}
