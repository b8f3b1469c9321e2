/* loop.h: what the tests of the loop share: a loop with an arena, connections with their peers,
 * and waiting for what a turn reports.
 *
 *     loop under test  <-- token --  socket pair or loopback TCP  -- fd -->  the test
 *
 * Every wait is bounded by CHECK_TIME alone, so that a slow machine fails nothing.
 */
#ifndef LOOP_H
#define LOOP_H

#include "check.h"
#include "gevffi.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

enum { KIB = 1024, MIB = 1024 * KIB, ARENA = 256 * KIB };

/* A loop, its pool and its arena; `turn` and `frames` are what the last poll found. */
typedef struct fixture {
    gev_pool *pool;
    gev_loop *loop;
    gev_turn *turn;
    int32_t frames;
    uint8_t *arena;
    gev_limits limits;
} fixture;

/* Limits that no test runs into by accident; `pool` is filled in by open_loop. */
static inline gev_limits usual_limits(void)
{
    return (gev_limits){.max_events = 64, .read_budget = 64 * KIB, .write_high_water = 64 * KIB,
                        .write_limit = 16 * MIB};
}

static inline fixture open_loop_over(gev_limits limits, uint64_t pool_bytes)
{
    fixture f = {.limits = limits};
    CHECK_EQUAL(gev_pool_open(&f.pool, pool_bytes, 10000, MIB), 0);
    f.limits.pool = f.pool;
    CHECK_EQUAL(gev_loop_open(&f.loop, &f.limits), 0);
    f.turn = gev_loop_turn(f.loop);
    CHECK(!posix_memalign((void **)&f.arena, 64, ARENA));
    gev_loop_arena(f.loop, f.arena, ARENA);
    return f;
}

static inline fixture open_loop(void)
{
    return open_loop_over(usual_limits(), 256 * MIB);
}

/* Closes all, and sees that every ring came back. */
static inline void close_loop(fixture *f)
{
    gev_pool_stats stats;
    gev_loop_close(f->loop);
    settle();
    gev_pool_read_stats(f->pool, &stats);
    CHECK_EQUAL(stats.used_rings, 0);
    gev_pool_close(f->pool);
    free(f->arena);
}

/* ---- connections ------------------------------------------------------------------------- */

static inline int64_t adopt(fixture *f, int fd)
{
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    int64_t token = gev_loop_adopt(f->loop, fd);
    CHECK(token >= 0);
    return token;
}

/* A connection over a Unix socket pair; its peer blocks. */
static inline int64_t unix_pair(fixture *f, int *peer)
{
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    *peer = ends[1];
    return adopt(f, ends[0]);
}

/* A socket that listens on a free port of 127.0.0.1. */
static inline int listening(struct sockaddr_in *address)
{
    socklen_t size = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(fd >= 0);
    *address = (struct sockaddr_in){.sin_family = AF_INET};
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(fd, (struct sockaddr *)address, sizeof *address) == 0);
    CHECK(listen(fd, 512) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)address, &size) == 0);
    return fd;
}

static inline int connected_to(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    CHECK(fd >= 0);
    CHECK(connect(fd, (const struct sockaddr *)address, sizeof *address) == 0);
    CHECK(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    return fd;
}

/* A connection over loopback TCP; its peer blocks. */
static inline int64_t tcp_pair(fixture *f, int *peer)
{
    struct sockaddr_in address;
    int listener = listening(&address);
    *peer = connected_to(&address);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(fd >= 0);
    close(listener);
    return adopt(f, fd);
}

/* Ends the peer's side with a reset. */
static inline void reset_peer(int peer)
{
    struct linger reset = {.l_onoff = 1};
    CHECK(setsockopt(peer, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
    close(peer);
}

/* ---- what a turn says -------------------------------------------------------------------- */

static inline int32_t slot_of(int64_t token)
{
    return (int32_t)(token & 0xffffffff);
}

static inline void poll_from(fixture *f, uint32_t start, int timeout_ms)
{
    int64_t due = timeout_ms < 0 ? 0 : gev_now_ns() + (int64_t)timeout_ms * 1000000;
    int found = gev_loop_poll(f->loop, start, due, 0, NULL, NULL, 0, NULL);
    CHECK(found >= 0);
    f->frames = found & (GEV_RUNS - 1);
    bool more = f->turn->changes || f->turn->accepted || f->turn->accept_error
                || f->turn->large_count;
    CHECK_EQUAL(more, !!(found & GEV_MORE));
    CHECK_EQUAL(f->turn->run_count > 0, !!(found & GEV_RUNS));
}

static inline void poll_once(fixture *f, int timeout_ms)
{
    poll_from(f, 0, timeout_ms);
}

/* GEV_CHANGE_ bits of the last turn; more than one entry for a slot is an error. */
static inline int32_t changes_of(const fixture *f, int64_t token)
{
    int32_t what = 0;
    for (int32_t i = 0; i < f->turn->changes; i++)
        if (f->turn->change_slot[i] == slot_of(token)) {
            CHECK(!what);
            what = f->turn->change_what[i];
        }
    return what;
}

static inline int32_t reason_of(const fixture *f, int64_t token)
{
    for (int32_t i = 0; i < f->turn->changes; i++)
        if (f->turn->change_slot[i] == slot_of(token))
            return f->turn->change_reason[i];
    return -1;
}

/* Takes turns until one reports any of `bits`; returns all it reports. */
static inline int32_t wait_for(fixture *f, int64_t token, int32_t bits)
{
    do
        poll_once(f, -1);
    while (!(changes_of(f, token) & bits));
    return changes_of(f, token);
}

/* Takes turns until the connection closes, and returns why. */
static inline int32_t wait_closed(fixture *f, int64_t token)
{
    wait_for(f, token, GEV_CHANGE_CLOSED);
    return reason_of(f, token);
}

/* The frame of the last turn that came from `token`; NULL when there is none. */
static inline const uint8_t *frame_of(const fixture *f, int64_t token, size_t *size)
{
    for (const int32_t *frame = f->turn->frames; frame < f->turn->frames + 3 * f->frames; frame += 3)
        if (frame[0] == slot_of(token)) {
            *size = (size_t)(frame[2] - frame[1]);
            return f->arena + frame[1];
        }
    return NULL;
}

/* Takes turns until the connection has received exactly `text`, nothing else. */
static inline void wait_text(fixture *f, int64_t token, const char *text)
{
    for (size_t left = strlen(text); left;) {
        size_t size = 0;
        poll_once(f, -1);
        const uint8_t *frame = frame_of(f, token, &size);
        CHECK(!frame || (size <= left && !memcmp(frame, text, size)));
        text += size;
        left -= size;
    }
}

/* ---- output ------------------------------------------------------------------------------ */

static inline int send_bytes(fixture *f, int64_t token, const void *data, size_t size)
{
    const int64_t piece[] = {~token, (int64_t)size};
    const uint8_t *const large[] = {data};
    return gev_loop_send(f->loop, 2, piece, NULL, 0, large);
}

static inline void peer_writes(int peer, const void *data, size_t size)
{
    CHECK_EQUAL(send(peer, data, size, MSG_NOSIGNAL), (ssize_t)size);
}

/* Reads exactly `size` bytes at the peer; they must be `data`. */
static inline void peer_reads(int peer, const void *data, size_t size)
{
    uint8_t *into = malloc(size);
    CHECK(into);
    CHECK_EQUAL(recv(peer, into, size, MSG_WAITALL), (ssize_t)size);
    CHECK(!memcmp(into, data, size));
    free(into);
}

/* The peer sees the end of the stream. */
static inline void peer_sees_end(int peer)
{
    char byte;
    CHECK_EQUAL(recv(peer, &byte, 1, 0), 0);
}

/* Bytes of which no long stretch repeats. */
static inline uint8_t *noise(size_t size)
{
    uint8_t *data = malloc(size);
    CHECK(data);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    return data;
}

#endif
