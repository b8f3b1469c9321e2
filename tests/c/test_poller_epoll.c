/* test_poller_epoll.c: the poller over epoll, and epoll's bounds. See poller.h. */
#include "poller.h"

#include <sys/epoll.h>
#include <sys/syscall.h>

/* Of an eventfd: nobody else here calls write(2). */
ssize_t write(int fd, const void *data, size_t size)
{
    atomic_fetch_add(&writes, 1);
    return syscall(SYS_write, fd, data, size);
}

int epoll_wait(int epfd, struct epoll_event *events, int room, int timeout)
{
    enter_wait(timeout);
    int ready = -1;
    if (interrupt_wait)
        errno = EINTR;
    else
        ready = (int)syscall(SYS_epoll_pwait, epfd, events, room, timeout, NULL, 0);
    return leave_wait(ready);
}

static void epoll_bounds(void)
{
    uint32_t events;
    uint64_t data;
    CHECK_EQUAL(gev_epoll_wait(-1, &events, &data, 0, 0), -EINVAL);
    CHECK_EQUAL(gev_epoll_wait(-1, &events, &data, INT32_MAX, 0), -EINVAL);
    CHECK_EQUAL(gev_epoll_wait(-1, &events, &data, 1, 0), -EBADF);
}

int main(void)
{
    run_poller_tests();
    RUN(epoll_bounds);
    return 0;
}
