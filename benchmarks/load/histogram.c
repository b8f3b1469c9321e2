/* See histogram.h. */
#include "histogram.h"

#include <stddef.h>

static size_t bucket_of(uint64_t ns)
{
    if (ns < 128)
        return (size_t)ns;
    unsigned exponent = 63u - (unsigned)__builtin_clzll(ns);
    return (size_t)(exponent - 6) * 128 + (size_t)((ns >> (exponent - 7)) & 127);
}

static double bucket_middle(size_t i)
{
    if (i < 128)
        return (double)i;
    double width = (double)(1ull << (i / 128 - 1));
    return (double)(128 + i % 128) * width + width / 2;
}

void histogram_add(struct histogram *h, uint64_t ns)
{
    h->count++;
    h->buckets[bucket_of(ns)]++;
    if (ns > h->max)
        h->max = ns;
}

double histogram_quantile(const struct histogram *h, double q)
{
    uint64_t wanted = (uint64_t)(q * (double)h->count + 0.5);
    uint64_t seen = 0;

    if (wanted < 1)
        wanted = 1;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= wanted)
            return bucket_middle(i);
    }
    return 0;
}
