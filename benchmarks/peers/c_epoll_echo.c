/*
 * The floor: an echo server that does nothing but the system calls an epoll echo needs.
 *
 * Level-triggered epoll, one thread, one read and one write a wake-up, one buffer for everybody.
 * No Python server can be expected to use less CPU a message; how near one comes is the figure.
 * Output the kernel does not take is kept, and reading from that connection stops until it is
 * gone: a floor that loses bytes or grows without bound would be no floor.
 */
#define _GNU_SOURCE
#include "c_epoll.h"

static void drop(struct connection *c)
{
    close(c->fd);
    free(c->unsent);
    free(c);
}

static void accept_all(int epoll, int listener)
{
    while (accept_one(epoll, listener) != NULL)
        ;
}

/* False when the connection is to be dropped. */
static bool echo(int epoll, struct connection *c, char *buffer)
{
    ssize_t got = read(c->fd, buffer, BUFFER);

    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    return put(epoll, c, buffer, (size_t)got);
}

int main(void)
{
    struct epoll_event listening = {.events = EPOLLIN, .data.ptr = NULL};
    struct epoll_event events[EVENTS];
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
                accept_all(epoll, listener);
            else if (!(c->unsent != NULL ? flush(epoll, c) : echo(epoll, c, buffer)))
                drop(c);
        }
    }
}
