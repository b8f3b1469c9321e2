/*
 * The floor of a broadcast: what one connection sends, it sends to each with a call of its own.
 *
 * Level-triggered epoll, one thread, one buffer for everybody: a read, and as many sends as there
 * are connections. Output the kernel does not take is kept, up to a limit, and reading from that
 * connection stops until it is gone. Nobody is dropped but by an event of its own, since others of
 * the same wait may still point to it; one that fails or falls too far behind is shut down, and
 * its event comes.
 */
#define _GNU_SOURCE
#include "c_epoll.h"

#define LIMIT ((size_t)16 * 1024 * 1024)

/* All connections, in no order. */
struct everybody {
    struct connection **all;
    size_t count, room;
};

static bool join(struct everybody *e, struct connection *c)
{
    if (e->count == e->room) {
        size_t room = e->room ? 2 * e->room : 64;
        struct connection **more = realloc(e->all, room * sizeof *more);

        if (more == NULL)
            return false;
        e->all = more;
        e->room = room;
    }
    e->all[e->count++] = c;
    return true;
}

static void drop(struct everybody *e, struct connection *c)
{
    size_t i = 0;

    while (i < e->count && e->all[i] != c)
        i++;
    if (i < e->count)
        e->all[i] = e->all[--e->count];
    close(c->fd);
    free(c->unsent);
    free(c);
}

static void accept_all(int epoll, int listener, struct everybody *e)
{
    struct connection *c;

    while ((c = accept_one(epoll, listener)) != NULL)
        if (!join(e, c))
            drop(e, c);
}

/* False when the connection that was read from is to be dropped. */
static bool broadcast(int epoll, struct connection *from, struct everybody *e, char *buffer)
{
    ssize_t got = read(from->fd, buffer, BUFFER);

    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    for (size_t i = 0; i < e->count; i++) {
        struct connection *c = e->all[i];
        bool fine = c->unsent == NULL                          ? put(epoll, c, buffer, (size_t)got)
                    : c->end - c->begin + (size_t)got <= LIMIT ? keep(epoll, c, buffer, (size_t)got)
                                                               : false;
        if (!fine)
            shutdown(c->fd, SHUT_RDWR);
    }
    return true;
}

int main(void)
{
    struct epoll_event listening = {.events = EPOLLIN, .data.ptr = NULL};
    struct epoll_event events[EVENTS];
    struct everybody everybody = {0};
    char *buffer = malloc(BUFFER);
    int listener = listen_on_loopback();
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (buffer == NULL || epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listening) != 0)
        die("epoll");
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);

        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;

            if (c == NULL)
                accept_all(epoll, listener, &everybody);
            else if (!(c->unsent != NULL ? flush(epoll, c)
                                         : broadcast(epoll, c, &everybody, buffer)))
                drop(&everybody, c);
        }
    }
}
