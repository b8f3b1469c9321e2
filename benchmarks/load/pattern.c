/* See pattern.h. */
#include "pattern.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STAMP 8u
#define SHIFTS 256u

/* The finaliser of splitmix64: every bit of the input moves every bit of the output. */
static uint64_t mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static uint64_t key_of(uint32_t id, uint64_t number)
{
    return mix(number ^ ((uint64_t)id << 40));
}

static size_t stamp_size(const struct pattern *p)
{
    return p->size < STAMP ? p->size : STAMP;
}

static void stamp_write(const struct pattern *p, uint64_t key, unsigned char stamp[STAMP])
{
    memcpy(stamp, &key, STAMP);
    if (p->framed) {
        size_t payload = p->size - 4;
        for (int i = 0; i < 4; i++)
            stamp[i] = (unsigned char)(payload >> (24 - 8 * i));
    }
}

static const unsigned char *noise_at(const struct pattern *p, uint64_t key)
{
    return p->noise + (key >> 32) % SHIFTS;
}

/* How many leading bytes of `a` and `b` are the same. */
static size_t same(const unsigned char *a, const unsigned char *b, size_t n)
{
    size_t i = 0;

    if (memcmp(a, b, n) == 0)
        return n;
    while (a[i] == b[i])
        i++;
    return i;
}

int pattern_init(struct pattern *p, size_t size, bool framed)
{
    uint64_t x = 1;

    if (size < (framed ? 4u : 1u) || size > SIZE_MAX - SHIFTS)
        return -EINVAL;
    p->size = size;
    p->framed = framed;
    p->noise = malloc(size + SHIFTS);
    if (p->noise == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < size + SHIFTS; i++) {
        x = mix(x);
        p->noise[i] = (unsigned char)x;
    }
    return 0;
}

void pattern_free(struct pattern *p)
{
    free(p->noise);
    p->noise = NULL;
}

void pattern_write(const struct pattern *p, uint32_t id, uint64_t number, unsigned char *to)
{
    uint64_t key = key_of(id, number);
    size_t head = stamp_size(p);
    unsigned char stamp[STAMP];

    stamp_write(p, key, stamp);
    memcpy(to, stamp, head);
    memcpy(to + head, noise_at(p, key), p->size - head);
}

size_t pattern_match(const struct pattern *p, uint32_t id, uint64_t number, size_t offset,
                     const unsigned char *bytes, size_t n)
{
    uint64_t key = key_of(id, number);
    size_t head = stamp_size(p);
    size_t done = 0;

    if (offset < head) {
        unsigned char stamp[STAMP];
        size_t part = head - offset < n ? head - offset : n;

        stamp_write(p, key, stamp);
        done = same(bytes, stamp + offset, part);
        if (done < part)
            return done;
    }
    return done + same(bytes + done, noise_at(p, key) + (offset + done - head), n - done);
}
