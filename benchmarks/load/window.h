/*
 * The window in which messages count: what is in it, and the clocks at both of its ends.
 *
 * The difference of each clock between the two ends is what is kept.
 */
#ifndef ECHOLOAD_WINDOW_H
#define ECHOLOAD_WINDOW_H

#include <stdint.h>
#include <sys/types.h>

#include "histogram.h"

struct window {
    uint64_t messages;
    uint64_t all_messages;    /* came back while it was not open, too */
    uint64_t ns;              /* how long it was open */
    uint64_t server_cpu_ns;
    uint64_t client_cpu_ns;
    struct histogram latency;
};

/* Both return 0, or -errno after saying why: the process `server` is gone, nothing came back. */
int window_open(struct window *w, pid_t server);
int window_close(struct window *w, pid_t server);

#endif
