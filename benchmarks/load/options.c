/* See options.h. */
#define _GNU_SOURCE
#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define USAGE \
    "usage: echoload -p PORT -s SERVER_PID -c CONNECTIONS -t SECONDS -w WARMUP_SECONDS " \
    "{-m BYTES -d DEPTH [-f | -W] [-b] | -H}\n"

/* The number in `text`, or -1 when it is none or lies outside `low` to `high`. */
static double number(const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);

    return end != text && *end == '\0' && value >= low && value <= high ? value : -1;
}

static double whole(const char *text, double low, double high)
{
    double value = number(text, low, high);

    return value == (double)(int64_t)value ? value : -1;
}

/* Store the value of option `-name`; returns it, or -1 when it makes no sense. */
static double store(struct options *o, int name, const char *text)
{
    double v = -1;

    switch (name) {
    case 'p': v = whole(text, 1, 65535); o->port = v > 0 ? (uint16_t)v : 0; break;
    case 's': v = whole(text, 1, 1 << 30); o->server = v > 0 ? (pid_t)v : 0; break;
    case 'c': v = whole(text, 1, 1 << 20); o->connections = v > 0 ? (unsigned)v : 0; break;
    case 'm': v = whole(text, 1, 1 << 26); o->size = v > 0 ? (size_t)v : 0; break;
    case 'd': v = whole(text, 1, 1 << 16); o->depth = v > 0 ? (unsigned)v : 0; break;
    case 't': v = number(text, 0.01, 3600); o->window_ns = v > 0 ? (uint64_t)(v * 1e9) : 0; break;
    case 'w': v = number(text, 0, 3600); o->warmup_ns = v > 0 ? (uint64_t)(v * 1e9) : 0; break;
    }
    return v;
}

int options_parse(struct options *o, int argc, char **argv)
{
    int name;

    *o = (struct options){0};
    while ((name = getopt(argc, argv, "p:s:c:m:d:t:w:fbWH")) != -1) {
        if (name == 'f') {
            o->framed = true;
        } else if (name == 'b') {
            o->broadcast = true;
        } else if (name == 'W') {
            o->websocket = true;
        } else if (name == 'H') {
            o->handshakes = true;
        } else if (name == '?') {
            fprintf(stderr, USAGE);
            return -EINVAL;
        } else if (store(o, name, optarg) < 0) {
            fprintf(stderr, "-%c: %s is out of range\n", name, optarg);
            return -EINVAL;
        }
    }
    bool messages = o->size || o->depth || o->framed || o->websocket || o->broadcast;
    bool whole = o->size && o->depth && !(o->framed && o->websocket);

    if (!o->port || !o->server || !o->connections || !o->window_ns || optind != argc ||
        !(o->handshakes ? !messages : whole)) {
        fprintf(stderr, USAGE);
        return -EINVAL;
    }
    if (o->framed && o->size < 4) {
        fprintf(stderr, "-m: a framed message has at least 4 bytes, not %zu\n", o->size);
        return -EINVAL;
    }
    return 0;
}
