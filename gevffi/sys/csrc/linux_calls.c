/* linux_calls.c: epoll(7) and eventfd(2), one call at a time. Built on Linux, whatever the poller.
 */
#include "compat.h"
#include "gevffi.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/* ---- epoll ------------------------------------------------------------------------------ */

/* The kernel's own bound on one epoll_wait, EP_MAX_EVENTS. */
#define MAX_ROOM ((int)(INT_MAX / sizeof(struct epoll_event)))

int gev_epoll_create(int flags)
{
    int epfd = epoll_create1(flags);
    return epfd < 0 ? -errno : epfd;
}

int gev_epoll_ctl(int epfd, int operation, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    return epoll_ctl(epfd, operation, fd, &event) < 0 ? -errno : 0;
}

int gev_epoll_wait(int epfd, uint32_t *events, uint64_t *data, int room, int timeout_ms)
{
    if (room < 1 || room > MAX_ROOM)
        return -EINVAL;
    struct epoll_event *raw = malloc((size_t)room * sizeof *raw);
    if (raw == NULL)
        return -ENOMEM;
    int count = epoll_wait(epfd, raw, room, timeout_ms);
    if (count < 0)
        count = -errno;
    for (int i = 0; i < count; i++) {
        events[i] = raw[i].events;
        data[i] = raw[i].data.u64;
    }
    free(raw);
    return count;
}

/* ---- eventfd ---------------------------------------------------------------------------- */

int gev_eventfd(unsigned int initial, int flags)
{
    int fd = eventfd(initial, flags);
    return fd < 0 ? -errno : fd;
}

/* An eventfd moves its eight bytes or none; any other count comes from something else. */
int gev_eventfd_read(int fd, uint64_t *value)
{
    ssize_t got = read(fd, value, sizeof *value);
    if (got < 0)
        return -errno;
    return got == sizeof *value ? 0 : -EINVAL;
}

int gev_eventfd_write(int fd, uint64_t value)
{
    ssize_t sent = write(fd, &value, sizeof value);
    if (sent < 0)
        return -errno;
    return sent == sizeof value ? 0 : -EINVAL;
}
