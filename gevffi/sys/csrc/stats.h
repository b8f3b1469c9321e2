/* stats.h: what a loop counts. Written by its thread alone, read by any (stats.c).
 *
 * Each counter has one writer, so an addition is a plain load, an add and a store; that the store
 * and the readers' loads are relaxed atomics costs nothing and keeps a reader from seeing half a
 * number. Nothing is ordered: a reader may see one counter ahead of another.
 */
#ifndef GEVFFI_STATS_H
#define GEVFFI_STATS_H

#include "gevffi.h"

typedef struct gev_stats {
    gev_loop_stats counts;
    int64_t turn_began;          /* nanoseconds; 0: not in a turn */
    int64_t received_carry;      /* corrections to be counted with the next messages */
    int64_t sent_carry;
} gev_stats;

/* Unsigned, so -(uint64_t)n takes n away again. */
static inline void gev_count(uint64_t *counter, uint64_t more)
{
    __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

/* Adds `more` and what is carried. A counter never goes back, so what would be less than nothing
 * is carried on. */
static inline void gev_count_carried(uint64_t *counter, int64_t more, int64_t *carry)
{
    more += *carry;
    *carry = more < 0 ? more : 0;
    if (more > 0)
        gev_count(counter, (uint64_t)more);
}

/* The turn is over, and the loop is about to wait for the next: returns the time, nanoseconds. */
int64_t gev_stats_turn_over(gev_stats *stats);

#endif
