/* See window.h. */
#include "window.h"

#include <errno.h>
#include <stdio.h>

#include "clock.h"

/* Add the clocks, or take them away: unsigned, so `sign` is 1 or the largest number, minus one. */
static int turn(struct window *w, pid_t pid, uint64_t sign)
{
    uint64_t server;
    int rc = process_cpu_ns(pid, &server);

    if (rc < 0) {
        fprintf(stderr, "the server, process %d, is gone\n", (int)pid);
        return rc;
    }
    w->server_cpu_ns += sign * server;
    w->client_cpu_ns += sign * own_cpu_ns();
    w->ns += sign * now_ns();
    return 0;
}

int window_open(struct window *w, pid_t server)
{
    return turn(w, server, (uint64_t)-1);
}

int window_close(struct window *w, pid_t server)
{
    int rc = turn(w, server, 1);

    if (rc < 0)
        return rc;
    if (w->messages == 0) {
        fprintf(stderr, "no message came back while the window was open\n");
        return -ETIMEDOUT;
    }
    return 0;
}
