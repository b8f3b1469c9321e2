/* See connection.h. */
#define _GNU_SOURCE
#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "clock.h"
#include "upgrade.h"

#define CONNECT_SECONDS 5

static int complain(const struct connection *c, const char *what, int error)
{
    fprintf(stderr, "connection %" PRIu32 ": %s: %s\n", c->id, what, strerror(error));
    return -error;
}

static int watch(const struct connection *c, const struct shared *s, int operation)
{
    struct epoll_event event = {
        .events = EPOLLIN | (c->wants_write ? (uint32_t)EPOLLOUT : 0u),
        .data.u32 = c->id,
    };

    return epoll_ctl(s->epoll, operation, c->fd, &event) == 0 ? 0 : complain(c, "epoll_ctl", errno);
}

int connection_socket(uint16_t port)
{
    /* A connect that hangs ends with EINPROGRESS after the send timeout, socket(7). */
    struct timeval patience = {.tv_sec = CONNECT_SECONDS};
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
        connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int error = errno == EINPROGRESS ? ETIMEDOUT : errno;
    fprintf(stderr, "connect: %s\n", strerror(error));
    if (fd >= 0)
        close(fd);
    return -error;
}

int connection_open(struct connection *c, const struct shared *s, uint16_t port)
{
    int rc = connection_socket(port);

    if (rc < 0)
        return rc;
    c->fd = rc;
    if (s->wire.websocket && (rc = upgrade(c->fd)) < 0)
        return complain(c, "the upgrade to a WebSocket failed", -rc);
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0)
        return complain(c, "fcntl", errno);
    return watch(c, s, EPOLL_CTL_ADD);
}

int connection_send(struct connection *c, const struct shared *s)
{
    size_t size = s->wire.out_size;
    uint64_t first = c->sent / size;
    uint64_t end = c->allowed * size;
    size_t begun = (size_t)(c->sent % size); /* bytes of the first message that are out already */
    uint64_t now = now_ns();
    unsigned char *to = s->out;
    ssize_t taken;

    if (c->sent == end)
        return 0;
    for (uint64_t number = first; number < c->allowed; number++, to += size) {
        wire_write(&s->wire, c->id, number, to);
        if (number > first || begun == 0)
            c->sent_at[number % s->depth] = now;
    }
    taken = send(c->fd, s->out + begun, (size_t)(end - c->sent), MSG_NOSIGNAL);
    if (taken < 0) {
        if (errno != EAGAIN && errno != EINTR)
            return complain(c, "send", errno);
        taken = 0;
    }
    c->sent += (uint64_t)taken;
    if (c->wants_write != (c->sent < end)) {
        c->wants_write = !c->wants_write;
        return watch(c, s, EPOLL_CTL_MOD);
    }
    return 0;
}

/* How many bytes can have come back at most: of a message that is half out, no more than is out. */
static uint64_t returnable(const struct connection *c, const struct shared *s)
{
    const struct wire *w = &s->wire;
    uint64_t begun = c->sent % w->out_size;

    return c->sent / w->out_size * w->in_size + (begun < w->in_size ? begun : w->in_size);
}

int connection_receive(struct connection *c, const struct shared *s)
{
    size_t size = s->wire.in_size;
    uint64_t before = connection_complete(c, s);
    ssize_t got = read(c->fd, s->in, RECEIVE_BYTES);

    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : complain(c, "read", errno);
    if (got == 0)
        return complain(c, "closed by the server", ECONNRESET);
    if (c->received + (uint64_t)got > returnable(c->source, s))
        return complain(c, "more came back than was sent", EBADMSG);
    for (size_t at = 0; at < (size_t)got;) {
        uint64_t number = c->received / size;
        size_t offset = (size_t)(c->received % size);
        size_t part = size - offset < (size_t)got - at ? size - offset : (size_t)got - at;
        size_t right = wire_match(&s->wire, c->source->id, number, offset, s->in + at, part);

        if (right < part) {
            fprintf(stderr, "connection %" PRIu32 ": message %" PRIu64 " came back with byte %zu "
                    "of %zu wrong\n", c->id, number, offset + right, size);
            return -EBADMSG;
        }
        at += part;
        c->received += part;
    }
    return (int)(connection_complete(c, s) - before);
}
