/*
 * One connection of the load: a stream of numbered messages out, the same stream back; or, of a
 * broadcast, the stream that another connection sends, its source.
 *
 * A connection is three numbers: how many messages it may send, how many bytes of them it has
 * sent, and how many bytes have come back (wire.h says how large a message is either way).
 *
 *      0            received            sent            allowed      (the last two: the source's)
 *      ├─ came back ───┼── in flight ─────┼── to be sent ──┤
 *
 * `allowed` is moved by the caller: first to `depth` messages, then one message further for each
 * that came back to all who get it, which keeps `depth` messages in flight. Whatever goes wrong is
 * said on stderr where it is noticed and comes back as -errno.
 */
#ifndef ECHOLOAD_CONNECTION_H
#define ECHOLOAD_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire.h"

/* What the connections of a load have in common. */
struct shared {
    struct wire wire;
    uint64_t depth;      /* messages in flight on a connection */
    int epoll;
    unsigned char *out;  /* depth messages: where a write is put together */
    unsigned char *in;   /* RECEIVE_BYTES: where a read lands */
};

#define RECEIVE_BYTES ((size_t)256 * 1024)

struct connection {
    int fd;
    uint32_t id;
    bool wants_write;    /* the kernel's buffer is full: EPOLLOUT is armed */
    uint64_t received;   /* bytes */
    uint64_t sent;       /* bytes */
    uint64_t allowed;    /* messages */
    uint64_t *sent_at;   /* depth times: message s was begun at sent_at[s % depth] */
    uint32_t *arrived;   /* depth times: so many have got message s, at arrived[s % depth] */
    struct connection *source; /* whose messages come here: its own, but for a broadcast */
};

/* How many messages have come back whole. */
static inline uint64_t connection_complete(const struct connection *c, const struct shared *s)
{
    return c->received / s->wire.in_size;
}

/*
 * Connect to 127.0.0.1:`port`. Returns a descriptor that blocks, a few seconds at most, or -errno
 * after saying why.
 */
int connection_socket(uint16_t port);

/*
 * Connect to 127.0.0.1:`port`, upgrade if it is to be a WebSocket, and join the epoll set; all from
 * `c->id` on that is given is set.
 */
int connection_open(struct connection *c, const struct shared *s, uint16_t port);

/* Send as much of what is allowed as the kernel takes; arm EPOLLOUT for the rest. */
int connection_send(struct connection *c, const struct shared *s);

/*
 * Read once and check every byte. Returns how many messages became complete, or -errno:
 * -EBADMSG for a wrong byte, -ECONNRESET when the server closed.
 */
int connection_receive(struct connection *c, const struct shared *s);

#endif
