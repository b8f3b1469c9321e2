/* input.h: connections under a framing, and what a turn tells of them. For the tests of input. */
#ifndef INPUT_H
#define INPUT_H

#include "loop.h"

enum { LENGTH = 4 };

static inline gev_framing lengths(void)
{
    return (gev_framing){.kind = GEV_LENGTH_PREFIXED, .dress = 1, .max_size = 64 * MIB,
                         .width = LENGTH, .strip = LENGTH};
}

static inline gev_framing lines(void)
{
    return (gev_framing){.kind = GEV_DELIMITED, .dress = 1, .max_size = 4 * MIB,
                         .delimiter_size = 2, .delimiter = "\r\n"};
}

static inline int64_t framed_pair(fixture *f, const gev_framing *framing, int *peer)
{
    int64_t token = unix_pair(f, peer);
    int number = gev_loop_framing(f->loop, framing);
    CHECK(number > 0);
    CHECK_EQUAL(gev_loop_framing(f->loop, framing), number);
    CHECK_EQUAL(gev_conn_frame(f->loop, token, number), 0);
    return token;
}

static inline uint64_t rings(const fixture *f)
{
    gev_pool_stats stats;
    gev_pool_read_stats(f->pool, &stats);
    return stats.used_rings;
}

/* The run of the last turn that came from `token`; NULL when there is none. */
static inline const int32_t *run_of(const fixture *f, int64_t token)
{
    const int32_t *found = NULL;
    for (int32_t i = 0; i < f->turn->run_count; i++)
        if (f->turn->runs[GEV_RUN_NUMBERS * i] == slot_of(token)) {
            CHECK(!found); /* a turn tells one run of a connection */
            found = f->turn->runs + GEV_RUN_NUMBERS * i;
        }
    return found;
}

/* The last turn told these frames of `token`, written with a '|' behind each, and no others. */
static inline void told(const fixture *f, int64_t token, const char *frames)
{
    const int32_t *run = run_of(f, token);
    char seen[1024];
    size_t size = 0;
    for (int32_t i = run ? run[1] : 0; i < (run ? run[2] : 0); i++) {
        int32_t start = f->turn->starts[i], end = f->turn->ends[i];
        CHECK(0 <= start && start <= end && end <= run[3]);
        if (i == run[1])
            CHECK(run[4] == start && run[5] == end);
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

static inline void hears(fixture *f, int64_t token, int peer, const char *bytes, size_t size,
                  const char *frames)
{
    peer_writes(peer, bytes, size);
    poll_once(f, -1);
    told(f, token, frames);
}

static inline void write_length(uint8_t *to, size_t size)
{
    for (int i = 0; i < LENGTH; i++)
        to[i] = (uint8_t)(size >> 8 * (LENGTH - 1 - i));
}

#endif
