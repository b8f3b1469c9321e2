/*
 * echoload: a closed-loop load generator for TCP and WebSocket echo servers on this machine, and for
 * servers that send what they read to all connections (-b).
 *
 * It opens CONNECTIONS connections to 127.0.0.1:PORT, keeps DEPTH messages of BYTES bytes in
 * flight on each, checks every byte that comes back, and prints one line of JSON. One thread, so
 * that it can be pinned to one core and leave the other to the server. It says how much of its
 * core it used: at 100 % the rate is the client's limit, and only the server's CPU time a message
 * still compares servers.
 *
 *      options.c      what was asked for
 *      load.c         the load of messages: connections, traffic, drain
 *      connection.c   one stream of messages
 *      wire.c         a message with what goes around it
 *      pattern.c      the bytes of a message
 *      handshakes.c   the other load: WebSockets that are opened and closed
 *      upgrade.c      the opening handshake
 *      window.c       what counts, and the clocks
 *      histogram.c    latencies
 *
 * Latency runs from just before the write that began a message to just after the read that
 * completed it, on each connection that gets it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "handshakes.h"
#include "load.h"
#include "options.h"

static void print(const struct window *w)
{
    const struct histogram *h = &w->latency;

    printf("{\"messages\": %" PRIu64 ", \"all_messages\": %" PRIu64 ", \"window_seconds\": %.9f, "
           "\"server_cpu_seconds\": %.9f, \"client_cpu_seconds\": %.9f, \"p50_us\": %.2f, "
           "\"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f}\n",
           w->messages, w->all_messages, (double)w->ns / 1e9, (double)w->server_cpu_ns / 1e9,
           (double)w->client_cpu_ns / 1e9, histogram_quantile(h, 0.5) / 1e3,
           histogram_quantile(h, 0.99) / 1e3, histogram_quantile(h, 0.999) / 1e3,
           (double)h->max / 1e3);
}

int main(int argc, char **argv)
{
    struct options options;
    struct window *window;
    int failed;

    if (options_parse(&options, argc, argv) < 0)
        return 2;
    window = calloc(1, sizeof *window);
    if (window == NULL) {
        perror("calloc");
        return 1;
    }
    failed = (options.handshakes ? handshakes_run : load_run)(&options, window) < 0;
    if (!failed)
        print(window);
    free(window);
    return failed;
}
