/* The command line of the load generator, checked once, so that nobody after it has to. */
#ifndef ECHOLOAD_OPTIONS_H
#define ECHOLOAD_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct options {
    uint16_t port;        /* -p  on 127.0.0.1, the only host there is */
    pid_t server;         /* -s  process whose CPU clock is read */
    unsigned connections; /* -c */
    size_t size;          /* -m  bytes in a message */
    unsigned depth;       /* -d  messages in flight on a connection */
    uint64_t window_ns;   /* -t  given in seconds */
    uint64_t warmup_ns;   /* -w  given in seconds */
    bool framed;          /* -f  messages carry a 4-byte big-endian length prefix */
    bool broadcast;       /* -b  what one connection sends comes back on all of them */
    bool websocket;       /* -W  connections are WebSockets, messages are binary frames */
    bool handshakes;      /* -H  no messages: WebSockets are opened and closed, -c at a time */
};

/* Read the arguments. Returns 0, or -EINVAL after naming the wrong one on stderr. */
int options_parse(struct options *o, int argc, char **argv);

#endif
