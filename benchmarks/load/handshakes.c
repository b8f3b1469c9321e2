/* See handshakes.h. */
#define _GNU_SOURCE
#include "handshakes.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "connection.h"
#include "upgrade.h"

#define EVENTS 1024
#define PATIENCE_NS 20000000000u /* what a server gets to finish those under way */
#define WAIT_MS 50

#define CLOSE 0x88u
#define CLOSE_MAX (2u + 125u) /* what a Close frame without a mask takes at most */

/* Close, 1000 (RFC 6455, section 7.4.1), masked with 01 02 03 04. */
static const unsigned char close_frame[] = {CLOSE, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xE8 ^ 2};

struct visit {
    int fd;
    bool open;           /* upgraded, and asked to close */
    uint64_t began;
    size_t n;            /* bytes of the answer, or of the Close frame once it is open */
    unsigned char answer[ANSWER_BYTES];
};

struct handshakes {
    const struct options *options;
    struct window *window;
    struct visit *visits;
    int epoll;
    bool flowing;        /* one that ends makes room for another */
    bool counting;       /* the window is open */
    unsigned under_way;
};

static int complain(const char *what, int error)
{
    fprintf(stderr, "a handshake: %s: %s\n", what, strerror(error));
    return -error;
}

static int begin(struct handshakes *h, struct visit *v)
{
    ssize_t size = (ssize_t)strlen(upgrade_request);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = v};
    int rc = connection_socket(h->options->port);

    if (rc < 0)
        return rc;
    *v = (struct visit){.fd = rc, .began = now_ns()};
    if (send(v->fd, upgrade_request, (size_t)size, MSG_NOSIGNAL) != size)
        return complain("send", errno);
    if (epoll_ctl(h->epoll, EPOLL_CTL_ADD, v->fd, &event) != 0)
        return complain("epoll_ctl", errno);
    h->under_way++;
    return 0;
}

static int on_answer(struct handshakes *h, struct visit *v)
{
    int rc = upgrade_check((const char *)v->answer, v->n);

    if (rc <= 0)
        return rc < 0 ? complain("the server's answer is wrong", EPROTO) : 0;
    if (h->counting)
        histogram_add(&h->window->latency, now_ns() - v->began);
    v->open = true;
    v->n = 0;
    if (send(v->fd, close_frame, sizeof close_frame, MSG_NOSIGNAL) != sizeof close_frame)
        return complain("send", errno);
    return 0;
}

static int on_end(struct handshakes *h, struct visit *v)
{
    if (!v->open)
        return complain("closed by the server", ECONNRESET);
    if (v->n < 2 || v->answer[0] != CLOSE || v->answer[1] != v->n - 2)
        return complain("the Close frame was not answered as it should be", EPROTO);
    close(v->fd);
    v->fd = -1;
    h->under_way--;
    h->window->messages += h->counting;
    h->window->all_messages++;
    return h->flowing ? begin(h, v) : 0;
}

static int on_readable(struct handshakes *h, struct visit *v)
{
    ssize_t got = recv(v->fd, v->answer + v->n, sizeof v->answer - v->n, MSG_DONTWAIT);

    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : complain("recv", errno);
    if (got == 0)
        return on_end(h, v);
    v->n += (size_t)got;
    if (!v->open)
        return on_answer(h, v);
    return v->n > CLOSE_MAX ? complain("more came than a Close frame", EPROTO) : 0;
}

/* Serve for so long, or until nothing is under way. */
static int flow(struct handshakes *h, uint64_t ns)
{
    struct epoll_event events[EVENTS];
    uint64_t end = now_ns() + ns;

    while (h->under_way > 0 && now_ns() < end) {
        int n = epoll_wait(h->epoll, events, EVENTS, WAIT_MS);

        if (n < 0 && errno != EINTR)
            return complain("epoll_wait", errno);
        for (int i = 0; i < n; i++) {
            int rc = on_readable(h, events[i].data.ptr);

            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

/* Serve until one is over: a machine may be held up for as long as the window is. */
static int first(struct handshakes *h)
{
    uint64_t end = now_ns() + PATIENCE_NS;
    int rc = 0;

    while (rc >= 0 && h->window->messages == 0 && now_ns() < end)
        rc = flow(h, WAIT_MS * 1000000u);
    return rc;
}

static int run(struct handshakes *h)
{
    const struct options *o = h->options;
    int rc = 0;

    h->flowing = true;
    for (unsigned i = 0; i < o->connections && rc >= 0; i++)
        rc = begin(h, &h->visits[i]);
    if (rc < 0 || (rc = flow(h, o->warmup_ns)) < 0 || (rc = window_open(h->window, o->server)) < 0)
        return rc;
    h->counting = true;
    if ((rc = flow(h, o->window_ns)) < 0 || (rc = first(h)) < 0)
        return rc;
    h->counting = false;
    h->flowing = false;
    if ((rc = window_close(h->window, o->server)) < 0 || (rc = flow(h, PATIENCE_NS)) < 0)
        return rc;
    return h->under_way == 0 ? 0 : complain("not over", ETIMEDOUT);
}

int handshakes_run(const struct options *options, struct window *window)
{
    struct handshakes h = {.options = options, .window = window};
    int rc = -ENOMEM;

    h.epoll = epoll_create1(EPOLL_CLOEXEC);
    h.visits = calloc(options->connections, sizeof *h.visits);
    for (unsigned i = 0; h.visits != NULL && i < options->connections; i++)
        h.visits[i].fd = -1;
    if (h.epoll < 0 || h.visits == NULL)
        fprintf(stderr, "cannot prepare the load: %s\n", strerror(ENOMEM));
    else
        rc = run(&h);
    for (unsigned i = 0; h.visits != NULL && i < options->connections; i++)
        if (h.visits[i].fd >= 0)
            close(h.visits[i].fd);
    if (h.epoll >= 0)
        close(h.epoll);
    free(h.visits);
    return rc;
}
