/*
 * The load: many connections on one epoll set, and the window in which messages count.
 *
 *      greet        warm up            window                       drain
 *      ├────────────┼──────────────────┼────────────────────────────┼──────────┤
 *      connect,     all connections at │ count, latency             │ no new messages,
 *      one message  full depth         │                            │ all must come back
 *      each, one               server CPU clock             server CPU clock
 *      by one
 *
 * Connections are opened one by one, each with one message that must come back before the next
 * is opened, so that the server has taken them all when the traffic begins. A server that starts
 * a thread for each would otherwise still be starting them under full load, slowly, when the
 * window opens.
 *
 * Of a broadcast, the last connection alone sends, and a message counts for each connection on
 * which it comes back. It is the last one so that its greeting, too, comes back on all: a server
 * that has read from it has accepted everybody before.
 *
 * Messages that come back inside the window count, and the server's CPU clock is read at both of
 * its ends. A window that would be empty is longer, up to the first of them. The same number of
 * messages is in flight at either end, so what the server did for messages not counted cancels
 * out. The first thing that goes wrong ends the run: a figure from
 * a server that loses or changes bytes is worth nothing.
 */
#ifndef ECHOLOAD_LOAD_H
#define ECHOLOAD_LOAD_H

#include "options.h"
#include "window.h"

/* Run the load and fill the window. Returns 0 or -errno, the reason having gone to stderr. */
int load_run(const struct options *options, struct window *window);

#endif
