/* See load.h. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "clock.h"
#include "connection.h"

#define EVENTS 1024
#define GREETING 1 /* messages a connection exchanges before the traffic begins */
#define PATIENCE_NS 20000000000u /* what a server gets to send back the messages in flight */
#define WAIT_MS 50 /* the longest the loop sleeps before it looks at the clock again */

struct load {
    const struct options *options;
    struct window *window;
    struct shared shared;
    struct connection *connections;
    uint64_t *sent_at;   /* depth times for each connection */
    uint32_t *arrived;   /* the same */
    uint32_t audience;   /* connections on which each message comes back */
    bool flowing;        /* a message that comes back makes room for another */
    bool counting;       /* the window is open */
    unsigned unfinished; /* connections that have to get something back before a phase is over */
};

static void load_free(struct load *l)
{
    for (unsigned i = 0; l->connections != NULL && i < l->options->connections; i++)
        if (l->connections[i].fd >= 0)
            close(l->connections[i].fd);
    if (l->shared.epoll >= 0)
        close(l->shared.epoll);
    free(l->connections);
    free(l->sent_at);
    free(l->arrived);
    free(l->shared.out);
    free(l->shared.in);
    wire_free(&l->shared.wire);
}

static int load_init(struct load *l)
{
    const struct options *o = l->options;
    struct shared *s = &l->shared;
    int rc = wire_init(&s->wire, o->size, o->framed, o->websocket);

    if (rc < 0)
        return rc;
    s->depth = o->depth;
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (s->epoll < 0)
        return -errno;
    /* options.c bounds the three numbers, so that depth * connections fits; calloc checks the
     * products it makes itself. */
    s->out = calloc(o->depth, s->wire.out_size);
    s->in = malloc(RECEIVE_BYTES);
    l->connections = calloc(o->connections, sizeof *l->connections);
    l->sent_at = calloc((size_t)o->connections * o->depth, sizeof *l->sent_at);
    l->arrived = calloc((size_t)o->connections * o->depth, sizeof *l->arrived);
    if (s->out == NULL || s->in == NULL || l->connections == NULL || l->sent_at == NULL ||
        l->arrived == NULL)
        return -ENOMEM;
    l->audience = o->broadcast ? o->connections : 1;
    for (unsigned i = 0; i < o->connections; i++) {
        struct connection *c = &l->connections[i];

        c->fd = -1;
        c->id = i;
        c->sent_at = l->sent_at + (size_t)i * o->depth;
        c->arrived = l->arrived + (size_t)i * o->depth;
        c->source = o->broadcast ? &l->connections[o->connections - 1] : c;
    }
    return 0;
}

static int on_readable(struct load *l, struct connection *c)
{
    uint64_t depth = l->shared.depth;
    struct connection *source = c->source;
    int complete = connection_receive(c, &l->shared);
    uint64_t last = connection_complete(c, &l->shared);
    uint64_t first = last - (uint64_t)complete;

    if (complete <= 0)
        return complete;
    if (l->counting) {
        uint64_t now = now_ns();

        for (uint64_t number = first; number < last; number++)
            histogram_add(&l->window->latency, now - source->sent_at[number % depth]);
        l->window->messages += (uint64_t)complete;
    }
    if (!l->flowing) {
        l->unfinished -= last == source->allowed;
        return 0;
    }
    if (first == GREETING)
        l->unfinished--;
    for (uint64_t number = first; number < last; number++) {
        if (++source->arrived[number % depth] == l->audience) {
            source->arrived[number % depth] = 0;
            source->allowed++;
        }
    }
    return connection_send(source, &l->shared);
}

/* Wait once and serve what is ready. */
static int serve(struct load *l)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(l->shared.epoll, events, EVENTS, WAIT_MS);
    int rc = 0;

    if (n < 0)
        return errno == EINTR ? 0 : -errno;
    for (int i = 0; i < n && rc >= 0; i++) {
        struct connection *c = &l->connections[events[i].data.u32];

        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            rc = on_readable(l, c);
        if (rc >= 0 && (events[i].events & EPOLLOUT))
            rc = connection_send(c, &l->shared);
    }
    return rc;
}

/* Serve for so long. */
static int flow(struct load *l, uint64_t ns)
{
    uint64_t end = now_ns() + ns;
    int rc = 0;

    while (rc >= 0 && now_ns() < end)
        rc = serve(l);
    return rc;
}

/* Serve until no connection is unfinished. */
static int settle(struct load *l)
{
    uint64_t end = now_ns() + PATIENCE_NS;
    int rc = 0;

    while (rc >= 0 && l->unfinished > 0 && now_ns() < end)
        rc = serve(l);
    if (rc >= 0 && l->unfinished > 0) {
        fprintf(stderr, "%u connections did not get their messages back\n", l->unfinished);
        return -ETIMEDOUT;
    }
    return rc;
}

static int greet(struct load *l)
{
    int rc = 0;

    for (unsigned i = 0; i < l->options->connections && rc >= 0; i++) {
        struct connection *c = &l->connections[i];

        rc = connection_open(c, &l->shared, l->options->port);
        if (c->source != c)
            continue;
        c->allowed = GREETING;
        l->unfinished = l->audience;
        if (rc >= 0 && (rc = connection_send(c, &l->shared)) >= 0)
            rc = settle(l);
    }
    return rc;
}

static int warm_up(struct load *l)
{
    int rc = 0;

    l->flowing = true;
    l->unfinished = l->options->connections;
    for (unsigned i = 0; i < l->options->connections && rc >= 0; i++) {
        struct connection *c = &l->connections[i];

        if (c->source != c)
            continue;
        c->allowed += l->shared.depth;
        rc = connection_send(c, &l->shared);
    }
    if (rc < 0 || (rc = flow(l, l->options->warmup_ns)) < 0)
        return rc;
    return settle(l);
}

/* Serve until something has come back: a machine may be held up for as long as the window is. */
static int first(struct load *l)
{
    uint64_t end = now_ns() + PATIENCE_NS;
    int rc = 0;

    while (rc >= 0 && l->window->messages == 0 && now_ns() < end)
        rc = serve(l);
    return rc;
}

static int count(struct load *l)
{
    int rc = window_open(l->window, l->options->server);

    l->counting = true;
    if (rc < 0 || (rc = flow(l, l->options->window_ns)) < 0 || (rc = first(l)) < 0)
        return rc;
    l->counting = false;
    return window_close(l->window, l->options->server);
}

static int drain(struct load *l)
{
    size_t size = l->shared.wire.out_size;
    int rc = 0;

    l->flowing = false;
    for (unsigned i = 0; i < l->options->connections && rc >= 0; i++) {
        struct connection *c = &l->connections[i], *source = c->source;

        /* finish the message begun, no more */
        source->allowed = (source->sent + size - 1) / size;
        l->unfinished += connection_complete(c, &l->shared) < source->allowed;
        rc = connection_send(source, &l->shared);
    }
    return rc < 0 ? rc : settle(l);
}

static int run(struct load *l)
{
    int rc;

    if ((rc = greet(l)) < 0 || (rc = warm_up(l)) < 0 || (rc = count(l)) < 0 ||
        (rc = drain(l)) < 0)
        return rc;
    for (unsigned i = 0; i < l->options->connections; i++)
        l->window->all_messages += connection_complete(&l->connections[i], &l->shared);
    return 0;
}

int load_run(const struct options *options, struct window *window)
{
    struct load l = {.options = options, .window = window, .shared.epoll = -1};
    int rc = load_init(&l);

    if (rc < 0)
        fprintf(stderr, "cannot prepare the load: %s\n", strerror(-rc));
    else
        rc = run(&l);
    load_free(&l);
    return rc;
}
