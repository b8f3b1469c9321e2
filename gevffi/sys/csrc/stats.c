/* stats.c: how long turns take, and the counters as another thread reads them. */
#include "conn.h"

/* Nanoseconds: 10 us to 1 s, in steps of 1, 2.5 and 5. */
static const uint64_t BOUNDS[GEV_TURN_BUCKETS - 1] = {
    10000,    25000,    50000,    100000,    250000,    500000,    1000000,   2500000,
    5000000,  10000000, 25000000, 50000000,  100000000, 250000000, 500000000, 1000000000,
};

uint64_t gev_turn_bound(int bucket)
{
    return bucket < 0 ? 0 : bucket < GEV_TURN_BUCKETS - 1 ? BOUNDS[bucket] : UINT64_MAX;
}

int64_t gev_stats_turn_over(gev_stats *stats)
{
    int64_t now = gev_now_ns();
    if (stats->turn_began) {
        uint64_t took = (uint64_t)(now - stats->turn_began);
        int bucket = 0;
        while (bucket < GEV_TURN_BUCKETS - 1 && took > BOUNDS[bucket])
            bucket++;
        gev_count(&stats->counts.turns[bucket], 1);
        gev_count(&stats->counts.turn_ns, took);
        stats->turn_began = 0;
    }
    return now;
}

void gev_loop_recount(gev_loop *loop, int64_t received, int64_t sent)
{
    loop->stats.received_carry += received;
    loop->stats.sent_carry += sent;
}

void gev_loop_read_stats(gev_loop *loop, gev_loop_stats *stats)
{
    const uint64_t *from = (const uint64_t *)&loop->stats.counts;
    uint64_t *to = (uint64_t *)stats;
    _Static_assert(sizeof *stats % sizeof *to == 0, "nothing but counters");
    for (size_t i = 0; i < sizeof *stats / sizeof *to; i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}
