/*
 * The load of handshakes: WebSockets that are opened, closed, and opened again.
 *
 *      connect     request      101 and key checked     Close          Close, end of stream
 *      ├───────────┼────────────┼───────────────────────┼──────────────┼──▶ the next one
 *                  └─────── latency ────────┘
 *
 * A fixed number is under way at any time. One counts when all of this has happened: it was
 * answered as RFC 6455 says (section 4.2.2), its Close frame was answered with one, and the
 * server ended the connection (section 7.1.1). Anything else ends the run.
 */
#ifndef ECHOLOAD_HANDSHAKES_H
#define ECHOLOAD_HANDSHAKES_H

#include "options.h"
#include "window.h"

/* Run the load and fill the window. Returns 0 or -errno, the reason having gone to stderr. */
int handshakes_run(const struct options *options, struct window *window);

#endif
