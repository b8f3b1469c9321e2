/*
 * A message on the wire: what goes out for it, and what has to come back.
 *
 *      raw          out ├─ payload ──────────────────────────────┤
 *                  back ├─ payload ──────────────────────────────┤
 *
 *      WebSocket    out ├─ header ─┼─ mask ─┼─ payload ^ mask ───┤
 *                  back ├─ header ─┼─ payload ──────────┤
 *                         2, 4, 10   4          bytes
 *
 * In a WebSocket a message is one unfragmented binary frame with its length in the fewest bytes,
 * masked on the way out and not on the way back (RFC 6455, section 5.2). The header that comes
 * back is therefore known to the byte, and checked like the payload: nothing is parsed. A server
 * that pings while a connection is under load fails the check; a run is shorter than any
 * keepalive.
 */
#ifndef ECHOLOAD_WIRE_H
#define ECHOLOAD_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pattern.h"

#define HEADER_MAX 10u

struct wire {
    struct pattern pattern; /* the payload */
    bool websocket;
    size_t head;            /* bytes of the header; 0 for raw */
    size_t out_size;        /* bytes of a message on its way out */
    size_t in_size;         /* and on its way back */
    unsigned char header[HEADER_MAX]; /* as it comes back */
};

/* Prepare messages with `size` bytes of payload. Returns 0 or -errno. */
int wire_init(struct wire *w, size_t size, bool framed, bool websocket);

void wire_free(struct wire *w);

/* Write message number `number` of connection `id` to `to`, which holds `out_size` bytes. */
void wire_write(const struct wire *w, uint32_t id, uint64_t number, unsigned char *to);

/*
 * Compare `n` bytes with what must come back for that message, from its byte `offset` on
 * (offset + n <= in_size). Returns how many are as they must be: `n`, unless one differs.
 */
size_t wire_match(const struct wire *w, uint32_t id, uint64_t number, size_t offset,
                  const unsigned char *bytes, size_t n);

#endif
