/* poller_epoll.c: epoll(7) as the poller.
 *
 * The poller is the one contract that the reactor and gevffi.sys.Poller stand on: descriptors go in
 * under a 64-bit token, tokens come out with what they are ready for. It is level-triggered, so
 * whoever leaves bytes behind is told again, and nothing is lost by stopping half-way.
 *
 * Other threads end a wait through an eventfd(2) that is registered like any descriptor, under the
 * token UINT64_MAX. Writing it on every wake would cost the busy case, where the loop never sleeps,
 * two system calls for nothing; so two flags decide who writes:
 *
 *      the loop, in wait                          any thread, in wake
 *      -----------------                          -------------------
 *   1  sleeping = 1                            a  was = exchange(wake_pending, 1)
 *   2  wake_pending ? do not block             b  was == 0 and sleeping ? write the eventfd
 *   3  epoll_wait
 *   4  sleeping = 0
 *   5  exchange(wake_pending, 0)
 *
 * All of it is sequentially consistent. Either (a) comes before (2), and the loop does not block;
 * or (1) comes before (b), and the eventfd is written. A wake between (4) and (5) writes nothing
 * and need not: the wait is over, and (5), reading what (a) wrote, makes all that the waker did
 * before it visible to the loop. A wait that fails (a signal) skips (5), so that the wake ends the
 * next one. A waker that stops between (a) and (b) may write late; then one later wait returns 0
 * too early.
 */
#include "compat.h"
#include "gevffi.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#define WAKE_TOKEN UINT64_MAX
/* The kernel's own bound on one epoll_wait, EP_MAX_EVENTS. */
#define MAX_ROOM ((int)(INT_MAX / sizeof(struct epoll_event)))

/* ---- the poller ------------------------------------------------------------------------ */

struct gev_poller {
    int epfd;
    int wakefd;
    int room;
    atomic_int wake_pending;
    atomic_int sleeping;
    struct epoll_event *raw; /* what the kernel says, `room` of them */
    gev_event *events;       /* the same, translated */
};

int gev_poller_open(gev_poller **result, int room)
{
    *result = NULL;
    if (room < 1 || room > MAX_ROOM)
        return -EINVAL;
    gev_poller *poller = calloc(1, sizeof *poller);
    if (poller == NULL)
        return -ENOMEM;
    poller->epfd = -1;
    poller->wakefd = -1;
    poller->room = room;
    atomic_init(&poller->wake_pending, 0);
    atomic_init(&poller->sleeping, 0);

    int error = -ENOMEM;
    poller->raw = calloc((size_t)room, sizeof *poller->raw);
    poller->events = calloc((size_t)room, sizeof *poller->events);
    if (poller->raw == NULL || poller->events == NULL)
        goto failed;
    error = poller->epfd = gev_epoll_create(EPOLL_CLOEXEC);
    if (error < 0)
        goto failed;
    error = poller->wakefd = gev_eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (error < 0)
        goto failed;
    error = gev_epoll_ctl(poller->epfd, EPOLL_CTL_ADD, poller->wakefd, EPOLLIN, WAKE_TOKEN);
    if (error < 0)
        goto failed;
    *result = poller;
    return 0;

failed:
    gev_poller_close(poller);
    return error;
}

void gev_poller_close(gev_poller *poller)
{
    if (poller == NULL)
        return;
    if (poller->wakefd >= 0)
        close(poller->wakefd);
    if (poller->epfd >= 0)
        close(poller->epfd);
    free(poller->events);
    free(poller->raw);
    free(poller);
}

void gev_poller_forked(gev_poller *poller)
{
    close(poller->wakefd);
    close(poller->epfd);
    poller->wakefd = poller->epfd = -1;
}

/* ADD or MOD. Interest 0 stays registered: epoll reports errors and hang-ups all the same. */
static int control(gev_poller *poller, int operation, int fd, uint64_t token, int interest)
{
    if (token == WAKE_TOKEN || (interest & ~(GEV_READ | GEV_WRITE)) != 0)
        return -EINVAL;
    uint32_t events = 0;
    if (interest & GEV_READ)
        events |= EPOLLIN;
    if (interest & GEV_WRITE)
        events |= EPOLLOUT;
    return gev_epoll_ctl(poller->epfd, operation, fd, events, token);
}

int gev_poller_add(gev_poller *poller, int fd, uint64_t token, int interest)
{
    return control(poller, EPOLL_CTL_ADD, fd, token, interest);
}

int gev_poller_modify(gev_poller *poller, int fd, uint64_t token, int old_interest, int interest)
{
    (void)old_interest; /* kqueue's filters come and go one by one, epoll's set is replaced */
    return control(poller, EPOLL_CTL_MOD, fd, token, interest);
}

int gev_poller_remove(gev_poller *poller, int fd, int interest)
{
    (void)interest;
    return gev_epoll_ctl(poller->epfd, EPOLL_CTL_DEL, fd, 0, 0);
}

static uint32_t translate(uint32_t events)
{
    uint32_t ready = 0;
    if (events & EPOLLIN)
        ready |= GEV_READ;
    if (events & EPOLLOUT)
        ready |= GEV_WRITE;
    if (events & EPOLLERR)
        ready |= GEV_ERROR;
    if (events & EPOLLHUP)
        ready |= GEV_HANGUP;
    return ready;
}

int gev_poller_wait(gev_poller *poller, int timeout_ms)
{
    if (timeout_ms != 0) {
        atomic_store(&poller->sleeping, 1);
        if (atomic_load(&poller->wake_pending))
            timeout_ms = 0;
    }
    int ready = epoll_wait(poller->epfd, poller->raw, poller->room, timeout_ms);
    int error = errno;
    atomic_store(&poller->sleeping, 0);
    if (ready < 0)
        return -error;
    atomic_exchange(&poller->wake_pending, 0);

    int count = 0;
    for (int i = 0; i < ready; i++) {
        uint64_t token = poller->raw[i].data.u64;
        if (token == WAKE_TOKEN) {
            uint64_t wakes;
            int drained = gev_eventfd_read(poller->wakefd, &wakes);
            if (drained < 0 && drained != -EAGAIN && drained != -EINTR)
                return drained; /* still readable: going on would spin */
            continue;
        }
        poller->events[count].token = token;
        poller->events[count].ready = translate(poller->raw[i].events);
        poller->events[count].error = 0;
        count++;
    }
    return count;
}

const gev_event *gev_poller_events(const gev_poller *poller)
{
    return poller->events;
}

int gev_poller_wake(gev_poller *poller)
{
    if (atomic_exchange(&poller->wake_pending, 1) || !atomic_load(&poller->sleeping))
        return 0;
    if (poller->wakefd < 0) /* forked: nobody sleeps here */
        return 0;
    int error = gev_eventfd_write(poller->wakefd, 1);
    return error == -EAGAIN ? 0 : error; /* full, so it is readable already */
}
