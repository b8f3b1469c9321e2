/*
 * The opening handshake of a WebSocket (RFC 6455, section 4), as little of it as a load needs.
 *
 * The key is the one of the RFC's own example, the same for every connection, so that the answer
 * to it is a constant and nothing has to be hashed. It makes no difference to a server, which
 * cannot know and has to compute it every time.
 */
#ifndef ECHOLOAD_UPGRADE_H
#define ECHOLOAD_UPGRADE_H

#include <stddef.h>

/* The most a server may answer with. */
#define ANSWER_BYTES 2048

/* The request. */
extern const char upgrade_request[];

/*
 * Look at an answer of which `n` bytes have come, at most ANSWER_BYTES. Returns 1 when it is the
 * one expected, 0 when it is not complete, -EPROTO when it is anything else, which includes a
 * server that says more than it was asked.
 */
int upgrade_check(const char *answer, size_t n);

/* Upgrade a connected socket that blocks. Returns 0 or -errno. */
int upgrade(int fd);

#endif
