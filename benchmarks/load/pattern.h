/*
 * The bytes of a message, made so that a wrong one cannot pass for a right one.
 *
 *      0                       8                                    size
 *      ├─ stamp ───────────────┼─ noise, from a shifting start ────┤
 *
 * The stamp is a hash of the connection and the message number; the noise is a fixed run of
 * random bytes that begins at one of 256 places, chosen by the same hash. A server that mixes up
 * two connections, repeats or skips a message, or pastes the middle of one message into another
 * is caught, not only one that changes a byte. With framing, the first four bytes of the stamp
 * are the length of what follows them, big-endian. Nothing is stored per message: what must come
 * back is computed again when it does.
 */
#ifndef ECHOLOAD_PATTERN_H
#define ECHOLOAD_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pattern {
    size_t size;          /* bytes in a message, its length prefix included */
    bool framed;
    unsigned char *noise; /* size + 256 bytes */
};

/* Prepare messages of `size` bytes (at least 1; at least 4 if framed). Returns 0 or -errno. */
int pattern_init(struct pattern *p, size_t size, bool framed);

void pattern_free(struct pattern *p);

/* Write message number `number` of connection `id` to `to`, which holds `size` bytes. */
void pattern_write(const struct pattern *p, uint32_t id, uint64_t number, unsigned char *to);

/*
 * Compare `n` bytes with that message from its byte `offset` on (offset + n <= size).
 * Returns how many bytes are as they must be: `n`, unless one differs.
 */
size_t pattern_match(const struct pattern *p, uint32_t id, uint64_t number, size_t offset,
                     const unsigned char *bytes, size_t n);

#endif
