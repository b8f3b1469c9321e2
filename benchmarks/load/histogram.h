/*
 * A latency histogram with buckets of constant relative width.
 *
 * Values below 128 have a bucket each; above, every power of two is cut into 128 equal parts, so
 * a value read back is at most 0.8 % away from the one recorded, over the whole range of 64 bits,
 * and recording is a count-leading-zeros and an increment:
 *
 *      0 .. 127        128 .. 255        256 .. 511         512 .. 1023
 *    ├ 128 x 1 ─┤    ├ 128 x 1 ──┤    ├ 128 x 2 ───┤     ├ 128 x 4 ────┤   ...
 */
#ifndef ECHOLOAD_HISTOGRAM_H
#define ECHOLOAD_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BUCKETS (58 * 128)

struct histogram {
    uint64_t count;
    uint64_t max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* Record one value, in nanoseconds. */
void histogram_add(struct histogram *h, uint64_t ns);

/* The value below which the share `q` (0 to 1) of the values lies; 0 when nothing was recorded. */
double histogram_quantile(const struct histogram *h, double q);

#endif
