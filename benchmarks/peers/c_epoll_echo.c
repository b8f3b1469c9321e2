/*
 * The floor: an echo server that does nothing but the system calls an epoll echo needs.
 *
 * Level-triggered epoll, one thread, one read and one write a wake-up, one buffer for everybody.
 * No Python server can be expected to use less CPU a message; how near one comes is the figure.
 * Output the kernel does not take is kept, and reading from that connection stops until it is
 * gone: a floor that loses bytes or grows without bound would be no floor.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER ((size_t)64 * 1024)
#define EVENTS 1024
#define BACKLOG 4096

/*
 *      0            begin                  end
 *      ├─ written ──┼── waits to be sent ──┤     unsent: NULL when nothing waits
 */
struct connection {
    int fd;
    char *unsent;
    size_t begin, end;
};

static bool watch(int epoll, struct connection *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};

    return epoll_ctl(epoll, operation, c->fd, &event) == 0;
}

static void drop(struct connection *c)
{
    close(c->fd);
    free(c->unsent);
    free(c);
}

static void accept_all(int epoll, int listener)
{
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        int on = 1;

        if (c == NULL) {
            close(fd);
            return;
        }
        c->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (!watch(epoll, c, EPOLL_CTL_ADD, EPOLLIN))
            drop(c);
    }
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
        perror("accept4");
}

/* Each of the following returns false when the connection is to be dropped. */

static bool keep(int epoll, struct connection *c, const char *bytes, size_t n)
{
    c->unsent = malloc(n);
    if (c->unsent == NULL)
        return false;
    memcpy(c->unsent, bytes, n);
    c->begin = 0;
    c->end = n;
    return watch(epoll, c, EPOLL_CTL_MOD, EPOLLOUT);
}

static bool flush(int epoll, struct connection *c)
{
    ssize_t n = send(c->fd, c->unsent + c->begin, c->end - c->begin, MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->begin += (size_t)n;
    if (c->begin < c->end)
        return true;
    free(c->unsent);
    c->unsent = NULL;
    return watch(epoll, c, EPOLL_CTL_MOD, EPOLLIN);
}

static bool echo(int epoll, struct connection *c, char *buffer)
{
    ssize_t got = read(c->fd, buffer, BUFFER);
    ssize_t sent;

    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    sent = send(c->fd, buffer, (size_t)got, MSG_NOSIGNAL);
    if (sent == got)
        return true;
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR)
            return false;
        sent = 0;
    }
    return keep(epoll, c, buffer + sent, (size_t)(got - sent));
}

static _Noreturn void die(const char *call)
{
    perror(call);
    exit(1);
}

static int listen_on_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die("socket");
    if (bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0)
        die("listen");
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
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
