/* test_poller.c: the wake-up, one interleaving at a time, and the poller's bounds.
 *
 * This program has an epoll_wait and a write of its own, in front of libc's. They make the system
 * call and count; and epoll_wait runs a hook just before the kernel is entered or just after it has
 * returned, which is where another thread's wake would be most awkward. So each row of the table in
 * poller_epoll.c is run on purpose and not by luck.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "gevffi.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static gev_poller *poller;
static atomic_int writes;            /* of any eventfd: nobody else here calls write(2) */
static atomic_int asleep;            /* epoll_wait is about to block */
static int last_timeout;             /* what epoll_wait was given */
static void (*before_wait)(void), (*after_wait)(void);
static int interrupt_wait;           /* fail with EINTR instead */

ssize_t write(int fd, const void *data, size_t size)
{
    atomic_fetch_add(&writes, 1);
    return syscall(SYS_write, fd, data, size);
}

int epoll_wait(int epfd, struct epoll_event *events, int room, int timeout)
{
    last_timeout = timeout;
    if (before_wait)
        before_wait();
    atomic_store(&asleep, timeout != 0);
    int ready = -1;
    if (interrupt_wait)
        errno = EINTR;
    else
        ready = (int)syscall(SYS_epoll_pwait, epfd, events, room, timeout, NULL, 0);
    int error = errno;
    if (after_wait)
        after_wait();
    errno = error;
    return ready;
}

static void wake(void)
{
    CHECK_EQUAL(gev_poller_wake(poller), 0);
}

static void open_poller(int room)
{
    CHECK_EQUAL(gev_poller_open(&poller, room), 0);
    atomic_store(&writes, 0);
    atomic_store(&asleep, 0);
    before_wait = after_wait = NULL;
    interrupt_wait = 0;
}

static void close_poller(void)
{
    gev_poller_close(poller);
    poller = NULL;
}

/* ---- wakes ----------------------------------------------------------------------------- */

static void a_wake_before_the_wait_costs_nothing_and_ends_it(void)
{
    open_poller(8);
    for (int i = 0; i < 1000; i++)
        wake();
    CHECK_EQUAL(gev_poller_wait(poller, -1), 0);
    CHECK_EQUAL(last_timeout, 0);
    CHECK_EQUAL(writes, 0);
    CHECK_EQUAL(gev_poller_wait(poller, 1), 0);
    CHECK_EQUAL(last_timeout, 1); /* spent */
    close_poller();
}

static void wake_often(void)
{
    for (int i = 0; i < 1000; i++)
        wake();
}

static void a_thousand_wakes_of_a_sleeper_cost_one_write(void)
{
    open_poller(8);
    before_wait = wake_often;
    CHECK_EQUAL(gev_poller_wait(poller, -1), 0);
    CHECK_EQUAL(last_timeout, -1);
    CHECK_EQUAL(writes, 1);
    before_wait = NULL;
    CHECK_EQUAL(gev_poller_wait(poller, 1), 0);
    CHECK_EQUAL(last_timeout, 1);
    close_poller();
}

static void wake_late(void)
{
    after_wait = NULL;
    wake();
}

/* Asked for when the kernel has returned but the flags still say "asleep": it may write, and then
 * the next wait ends too early; it must not be lost, nor come a second time. */
static void a_wake_as_the_wait_ends_comes_at_most_once_more(void)
{
    open_poller(8);
    after_wait = wake_late;
    CHECK_EQUAL(gev_poller_wait(poller, 1), 0);
    CHECK_EQUAL(writes, 1);
    CHECK_EQUAL(gev_poller_wait(poller, -1), 0);
    CHECK_EQUAL(last_timeout, -1);
    before_wait = wake;
    CHECK_EQUAL(gev_poller_wait(poller, -1), 0);
    CHECK_EQUAL(writes, 2);
    close_poller();
}

static void a_wake_outlives_an_interrupted_wait(void)
{
    open_poller(8);
    interrupt_wait = 1;
    wake();
    CHECK_EQUAL(gev_poller_wait(poller, -1), -EINTR);
    after_wait = wake_late;
    CHECK_EQUAL(gev_poller_wait(poller, -1), -EINTR);
    interrupt_wait = 0;
    CHECK_EQUAL(gev_poller_wait(poller, -1), 0);
    CHECK_EQUAL(last_timeout, 0);
    close_poller();
}

static void a_poller_that_only_looks_is_not_written_to(void)
{
    open_poller(8);
    before_wait = wake;
    CHECK_EQUAL(gev_poller_wait(poller, 0), 0);
    CHECK_EQUAL(writes, 0);
    close_poller();
}

static void *wait_for_ever(void *unused)
{
    (void)unused;
    CHECK_EQUAL(gev_poller_wait(poller, -1), 0);
    return NULL;
}

static void a_sleeping_thread_is_woken(void)
{
    pthread_t sleeper;
    open_poller(8);
    CHECK_EQUAL(pthread_create(&sleeper, NULL, wait_for_ever, NULL), 0);
    while (!atomic_load(&asleep))
        sched_yield();
    wake();
    CHECK_EQUAL(pthread_join(sleeper, NULL), 0);
    CHECK_EQUAL(writes, 1);
    close_poller();
}

enum { WAKERS = 4, WAKES = 20000 };
static atomic_int tasks;

static void *queue_and_wake(void *unused)
{
    (void)unused;
    for (int i = 0; i < WAKES; i++) {
        atomic_fetch_add(&tasks, 1);
        wake();
    }
    return NULL;
}

/* The last task of all is served only if its wake was not lost; else the alarm ends the wait. */
static void no_wake_is_lost_in_a_storm(void)
{
    pthread_t wakers[WAKERS];
    open_poller(8);
    atomic_store(&tasks, 0);
    for (int i = 0; i < WAKERS; i++)
        CHECK_EQUAL(pthread_create(&wakers[i], NULL, queue_and_wake, NULL), 0);
    for (int served = 0; served < WAKERS * WAKES;) {
        CHECK_EQUAL(gev_poller_wait(poller, -1), 0);
        served += atomic_exchange(&tasks, 0);
    }
    for (int i = 0; i < WAKERS; i++)
        CHECK_EQUAL(pthread_join(wakers[i], NULL), 0);
    close_poller();
}

/* ---- events ---------------------------------------------------------------------------- */

static void a_wake_takes_no_event_away(void)
{
    int ends[2];
    open_poller(1);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    CHECK_EQUAL(gev_poller_add(poller, ends[0], UINT64_MAX - 1, GEV_WRITE), 0);
    before_wait = wake;
    int seen = 0;
    for (int i = 0; i < 4; i++)
        seen += gev_poller_wait(poller, -1);
    CHECK(seen >= 2); /* the wake and the event take turns in the one place there is */
    const gev_event *event = gev_poller_events(poller);
    CHECK(event->token == UINT64_MAX - 1);
    CHECK_EQUAL(event->ready, GEV_WRITE);
    close_poller();
    close(ends[0]);
    close(ends[1]);
}

static void interest_can_go_and_come_back(void)
{
    int ends[2];
    open_poller(8);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    CHECK_EQUAL(gev_poller_add(poller, ends[0], 5, GEV_READ | GEV_WRITE), 0);
    CHECK_EQUAL(gev_poller_modify(poller, ends[0], 5, GEV_READ | GEV_WRITE, 0), 0);
    CHECK_EQUAL(gev_poller_wait(poller, 0), 0);
    CHECK_EQUAL(gev_poller_modify(poller, ends[0], 6, 0, GEV_READ), 0);
    CHECK_EQUAL(send(ends[1], "x", 1, 0), 1);
    CHECK_EQUAL(gev_poller_wait(poller, -1), 1);
    CHECK_EQUAL(gev_poller_events(poller)->token, 6);
    CHECK_EQUAL(gev_poller_events(poller)->ready, GEV_READ);
    close(ends[1]);
    CHECK_EQUAL(gev_poller_modify(poller, ends[0], 6, GEV_READ, 0), 0);
    CHECK_EQUAL(gev_poller_wait(poller, -1), 1);
    CHECK_EQUAL(gev_poller_events(poller)->ready, GEV_HANGUP);
    CHECK_EQUAL(gev_poller_remove(poller, ends[0], 0), 0);
    CHECK_EQUAL(gev_poller_wait(poller, 0), 0);
    CHECK_EQUAL(gev_poller_remove(poller, ends[0], 0), -ENOENT);
    close_poller();
    close(ends[0]);
}

static void what_is_out_of_bounds_is_refused(void)
{
    gev_poller *none = (gev_poller *)1;
    uint32_t events;
    uint64_t data;
    CHECK_EQUAL(gev_poller_open(&none, 0), -EINVAL);
    CHECK(none == NULL);
    CHECK_EQUAL(gev_poller_open(&none, INT32_MAX), -EINVAL);
    gev_poller_close(NULL);
    open_poller(8);
    CHECK_EQUAL(gev_poller_add(poller, 0, UINT64_MAX, GEV_READ), -EINVAL);
    CHECK_EQUAL(gev_poller_add(poller, 0, 1, GEV_ERROR), -EINVAL);
    CHECK_EQUAL(gev_poller_add(poller, -1, 1, GEV_READ), -EBADF);
    CHECK_EQUAL(gev_poller_modify(poller, 0, UINT64_MAX, 0, GEV_READ), -EINVAL);
    close_poller();
    CHECK_EQUAL(gev_epoll_wait(-1, &events, &data, 0, 0), -EINVAL);
    CHECK_EQUAL(gev_epoll_wait(-1, &events, &data, INT32_MAX, 0), -EINVAL);
    CHECK_EQUAL(gev_epoll_wait(-1, &events, &data, 1, 0), -EBADF);
}

/* Opening fails at each step in turn, and what was opened before is closed again. */
static void a_poller_that_finds_no_descriptor_leaves_none_open(void)
{
    int last = dup(0);
    CHECK(last >= 0);
    close(last);
    struct rlimit limit, low;
    CHECK_EQUAL(getrlimit(RLIMIT_NOFILE, &limit), 0);
    for (int spare = 0; spare < 2; spare++) {
        low = limit;
        low.rlim_cur = (rlim_t)(last + spare);
        CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &low), 0);
        CHECK_EQUAL(gev_poller_open(&poller, 8), -EMFILE);
        CHECK(poller == NULL);
        CHECK_EQUAL(setrlimit(RLIMIT_NOFILE, &limit), 0);
        CHECK_EQUAL(dup(0), last);
        close(last);
    }
}

int main(void)
{
    CHECK_TIME(20);
    RUN(a_wake_before_the_wait_costs_nothing_and_ends_it);
    RUN(a_thousand_wakes_of_a_sleeper_cost_one_write);
    RUN(a_wake_as_the_wait_ends_comes_at_most_once_more);
    RUN(a_wake_outlives_an_interrupted_wait);
    RUN(a_poller_that_only_looks_is_not_written_to);
    RUN(a_sleeping_thread_is_woken);
    RUN(no_wake_is_lost_in_a_storm);
    RUN(a_wake_takes_no_event_away);
    RUN(interest_can_go_and_come_back);
    RUN(what_is_out_of_bounds_is_refused);
    RUN(a_poller_that_finds_no_descriptor_leaves_none_open);
    return 0;
}
