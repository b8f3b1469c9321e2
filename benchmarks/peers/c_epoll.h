/*
 * What the two C floors share: a listening socket, and connections that keep what the kernel does
 * not take.
 */
#ifndef C_EPOLL_H
#define C_EPOLL_H

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

static inline bool watch(int epoll, struct connection *c, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = c};

    return epoll_ctl(epoll, operation, c->fd, &event) == 0;
}

/* A new connection, watched; NULL when there is none, or no room for one. */
static inline struct connection *accept_one(int epoll, int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct connection *c;
    int on = 1;

    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
            perror("accept4");
        return NULL;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL) {
        close(fd);
        return NULL;
    }
    c->fd = fd;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (!watch(epoll, c, EPOLL_CTL_ADD, EPOLLIN)) {
        close(fd);
        free(c);
        return NULL;
    }
    return c;
}

/* Each of the following returns false when the connection is to be dropped. */

/* Keep bytes behind those that wait; until all are gone, only writing is watched. */
static inline bool keep(int epoll, struct connection *c, const char *bytes, size_t n)
{
    bool first = c->unsent == NULL;
    char *more;

    if (c->begin > 0)
        memmove(c->unsent, c->unsent + c->begin, c->end - c->begin);
    c->end -= c->begin;
    c->begin = 0;
    more = realloc(c->unsent, c->end + n);
    if (more == NULL)
        return false;
    memcpy(more + c->end, bytes, n);
    c->unsent = more;
    c->end += n;
    return !first || watch(epoll, c, EPOLL_CTL_MOD, EPOLLOUT);
}

static inline bool flush(int epoll, struct connection *c)
{
    ssize_t n = send(c->fd, c->unsent + c->begin, c->end - c->begin, MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->begin += (size_t)n;
    if (c->begin < c->end)
        return true;
    free(c->unsent);
    c->unsent = NULL;
    c->begin = c->end = 0;
    return watch(epoll, c, EPOLL_CTL_MOD, EPOLLIN);
}

/* Send, and keep what is not taken. */
static inline bool put(int epoll, struct connection *c, const char *bytes, size_t n)
{
    ssize_t sent = send(c->fd, bytes, n, MSG_NOSIGNAL);

    if (sent == (ssize_t)n)
        return true;
    if (sent < 0) {
        if (errno != EAGAIN && errno != EINTR)
            return false;
        sent = 0;
    }
    return keep(epoll, c, bytes + sent, n - (size_t)sent);
}

static inline _Noreturn void die(const char *call)
{
    perror(call);
    exit(1);
}

/* A listening socket on a free port of 127.0.0.1, which is said on stdout. */
static inline int listen_on_loopback(void)
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

#endif
