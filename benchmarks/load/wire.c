/* See wire.h. */
#include "wire.h"

#include <errno.h>
#include <string.h>

#define FIN_BINARY 0x82u
#define MASKED 0x80u
#define MASK 4u

/* Write the header of a binary frame of `size` bytes. Returns how many bytes that took. */
static size_t header_write(size_t size, unsigned char header[HEADER_MAX])
{
    unsigned width = size < 126 ? 0 : size < 65536 ? 2 : 8;

    header[0] = FIN_BINARY;
    header[1] = (unsigned char)(width == 0 ? size : width == 2 ? 126 : 127);
    for (unsigned i = 0; i < width; i++)
        header[2 + i] = (unsigned char)((uint64_t)size >> (8 * (width - 1 - i)));
    return 2 + width;
}

/* A mask for each message, without a zero byte: where nothing is unmasked, every byte is wrong. */
static uint32_t mask_of(uint32_t id, uint64_t number)
{
    uint64_t x = (number + ((uint64_t)id << 40) + 1) * 0x9E3779B97F4A7C15u;

    return (uint32_t)(x >> 32) | 0x01010101u;
}

static void mask_apply(unsigned char *bytes, size_t n, uint32_t mask)
{
    uint64_t wide = (uint64_t)mask << 32 | mask;
    unsigned char narrow[MASK];
    size_t i = 0;

    for (; i + sizeof wide <= n; i += sizeof wide) {
        uint64_t word;

        memcpy(&word, bytes + i, sizeof word);
        word ^= wide;
        memcpy(bytes + i, &word, sizeof word);
    }
    memcpy(narrow, &mask, MASK);
    for (; i < n; i++)
        bytes[i] ^= narrow[i % MASK];
}

int wire_init(struct wire *w, size_t size, bool framed, bool websocket)
{
    if (size > SIZE_MAX - HEADER_MAX - MASK)
        return -EINVAL;
    w->websocket = websocket;
    w->head = websocket ? header_write(size, w->header) : 0;
    w->in_size = w->head + size;
    w->out_size = w->in_size + (websocket ? MASK : 0);
    return pattern_init(&w->pattern, size, framed);
}

void wire_free(struct wire *w)
{
    pattern_free(&w->pattern);
}

void wire_write(const struct wire *w, uint32_t id, uint64_t number, unsigned char *to)
{
    if (w->websocket) {
        uint32_t mask = mask_of(id, number);

        memcpy(to, w->header, w->head);
        to[1] |= MASKED;
        memcpy(to + w->head, &mask, MASK);
        to += w->head + MASK;
        pattern_write(&w->pattern, id, number, to);
        mask_apply(to, w->pattern.size, mask);
    } else {
        pattern_write(&w->pattern, id, number, to);
    }
}

size_t wire_match(const struct wire *w, uint32_t id, uint64_t number, size_t offset,
                  const unsigned char *bytes, size_t n)
{
    size_t done = 0;

    for (; done < n && offset + done < w->head; done++)
        if (bytes[done] != w->header[offset + done])
            return done;
    if (done == n)
        return n;
    return done + pattern_match(&w->pattern, id, number, offset + done - w->head, bytes + done,
                                n - done);
}
