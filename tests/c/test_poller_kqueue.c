/* test_poller_kqueue.c: the poller over kqueue, and kqueue's bounds. See poller.h. */
#include "poller.h"

#include <dlfcn.h>
#include <sys/event.h>

static int changes;       /* of filters that read and write */
static uint16_t added;    /* the flags of the last one */

int kevent(int kq, const struct kevent *changelist, int count, struct kevent *events, int room,
           const struct timespec *timeout)
{
    int (*real)(int, const struct kevent *, int, struct kevent *, int, const struct timespec *);
    *(void **)&real = dlsym(RTLD_NEXT, "kevent");
    CHECK(real);
    if (count) {
        CHECK_EQUAL(count, 1);
        if (changelist->filter != EVFILT_USER) {
            changes++;
            added = changelist->flags;
        } else if (changelist->fflags & NOTE_TRIGGER) {
            atomic_fetch_add(&writes, 1);
        }
        return real(kq, changelist, count, events, room, timeout);
    }
    enter_wait(timeout ? (int)(timeout->tv_sec * 1000 + timeout->tv_nsec / 1000000) : -1);
    int ready = -1;
    if (interrupt_wait)
        errno = EINTR;
    else
        ready = real(kq, NULL, 0, events, room, timeout);
    return leave_wait(ready);
}

/* A filter that stays is not touched; reading and writing at once are two filters and one event. */
static void filters_come_and_go_one_by_one(void)
{
    int ends[2];
    open_poller(8);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    changes = 0;
    CHECK_EQUAL(gev_poller_add(poller, ends[0], 1, GEV_READ), 0);
    CHECK_EQUAL(changes, 1);
    CHECK_EQUAL(gev_poller_modify(poller, ends[0], 1, GEV_READ, GEV_READ | GEV_WRITE), 0);
    CHECK_EQUAL(changes, 2);
    CHECK_EQUAL(added, EV_ADD);
    CHECK_EQUAL(gev_poller_modify(poller, ends[0], 1, GEV_READ | GEV_WRITE, GEV_READ), 0);
    CHECK_EQUAL(changes, 3);
    CHECK_EQUAL(added, EV_DELETE);
    CHECK_EQUAL(gev_poller_modify(poller, ends[0], 1, GEV_READ, 0), 0);
    CHECK_EQUAL(changes, 5);
    CHECK_EQUAL(added, EV_ADD | EV_CLEAR);
    CHECK_EQUAL(gev_poller_remove(poller, ends[0], 0), 0);
    CHECK_EQUAL(changes, 6);
    close_poller();
    close(ends[0]);
    close(ends[1]);
}

/* Descriptors far apart share nothing in the table. */
static void descriptors_may_be_far_apart(void)
{
    int ends[2];
    open_poller(8);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    int far = fcntl(ends[1], F_DUPFD_CLOEXEC, 900);
    CHECK(far >= 900);
    CHECK_EQUAL(gev_poller_add(poller, ends[0], 1, GEV_READ), 0);
    CHECK_EQUAL(gev_poller_add(poller, far, 2, GEV_WRITE), 0);
    CHECK_EQUAL(gev_poller_remove(poller, 500, 0), -ENOENT);
    CHECK_EQUAL(gev_poller_remove(poller, INT32_MAX, 0), -ENOENT);
    CHECK_EQUAL(gev_poller_wait(poller, -1), 1);
    CHECK_EQUAL(gev_poller_events(poller)->token, 2);
    CHECK_EQUAL(send(far, "x", 1, 0), 1);
    CHECK_EQUAL(gev_poller_wait(poller, -1), 2);
    CHECK_EQUAL(gev_poller_remove(poller, far, GEV_WRITE), 0);
    CHECK_EQUAL(gev_poller_wait(poller, -1), 1);
    CHECK_EQUAL(gev_poller_events(poller)->token, 1);
    close_poller();
    close(far);
    close(ends[0]);
    close(ends[1]);
}

static void kqueue_bounds(void)
{
    gev_kernel_event event = {.filter = EVFILT_READ};
    int kq = gev_kqueue();
    CHECK(kq >= 0);
    CHECK(fcntl(kq, F_GETFD) & FD_CLOEXEC);
    CHECK_EQUAL(gev_kevent(kq, &event, -1, NULL, 0, 0), -EINVAL);
    CHECK_EQUAL(gev_kevent(kq, NULL, 0, &event, -1, 0), -EINVAL);
    CHECK_EQUAL(gev_kevent(kq, NULL, 0, &event, INT32_MAX, 0), -EINVAL);
    CHECK(gev_kevent(-1, NULL, 0, &event, 1, 0) < 0);
    close(kq);
}

int main(void)
{
    run_poller_tests();
    RUN(filters_come_and_go_one_by_one);
    RUN(descriptors_may_be_far_apart);
    RUN(kqueue_bounds);
    return 0;
}
