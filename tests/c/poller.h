/* poller.h: the tests of the poller's contract, the wake-up one interleaving at a time.
 *
 * A program that includes this has, in front of libc's or libkqueue's, a function of its own for the
 * call that waits and for the one that ends a wait. They make the call and count; and the first runs
 * a hook just before the kernel is entered or just after it has returned, which is where another
 * thread's wake would be most awkward. So each row of the table in poller_epoll.c is run on purpose
 * and not by luck.
 */
#ifndef POLLER_H
#define POLLER_H

#include "compat.h"

#include "check.h"
#include "gevffi.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/wait.h>

static gev_poller *poller;
static atomic_int writes;            /* calls that end a wait */
static atomic_int asleep;            /* the call that waits is about to block */
static int last_timeout;             /* what it was given, milliseconds; -1: for ever */
static void (*before_wait)(void), (*after_wait)(void);
static int interrupt_wait;           /* fail with EINTR instead */

/* Around the call that waits; the second returns what it returned. */
static void enter_wait(int timeout)
{
    last_timeout = timeout;
    if (before_wait)
        before_wait();
    atomic_store(&asleep, timeout != 0);
}

static int leave_wait(int ready)
{
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
    settle();
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

/* Every interest to every other: what is told is what is wanted, and the rest is not. */
static void interest_changes_exactly(void)
{
    int ends[2];
    open_poller(8);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    CHECK_EQUAL(send(ends[1], "x", 1, 0), 1);
    for (int from = 0; from < 4; from++)
        for (int to = 0; to < 4; to++) {
            CHECK_EQUAL(gev_poller_add(poller, ends[0], 1, from), 0);
            CHECK_EQUAL(gev_poller_add(poller, ends[0], 2, to), -EEXIST);
            CHECK_EQUAL(gev_poller_modify(poller, ends[0], 3, from, to), 0);
            for (int twice = 0; twice < 2; twice++) { /* level-triggered */
                CHECK_EQUAL(gev_poller_wait(poller, to ? -1 : 0), to != 0);
                CHECK(!to || gev_poller_events(poller)->token == 3);
                CHECK_EQUAL(to ? (int)gev_poller_events(poller)->ready : 0, to);
            }
            CHECK_EQUAL(gev_poller_remove(poller, ends[0], to), 0);
            CHECK_EQUAL(gev_poller_wait(poller, 0), 0);
            CHECK_EQUAL(gev_poller_modify(poller, ends[0], 3, to, from), -ENOENT);
        }
    close_poller();
    close(ends[0]);
    close(ends[1]);
}

/* The peer has ended; what it sent before is there first, and then its end, at each interest. */
static void an_end_does_not_hide_what_came_before_it(void)
{
    int ends[2];
    char text[8];
    open_poller(8);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    CHECK_EQUAL(gev_poller_add(poller, ends[0], 1, GEV_READ), 0);
    CHECK_EQUAL(send(ends[1], "last", 4, 0), 4);
    close(ends[1]);
    for (int left = 4; left >= 0; left -= 2) {
        CHECK_EQUAL(gev_poller_wait(poller, -1), 1);
        CHECK(gev_poller_events(poller)->ready & GEV_READ);
        CHECK(!(gev_poller_events(poller)->ready & GEV_ERROR));
        CHECK_EQUAL(recv(ends[0], text, 2, 0), left ? 2 : 0);
    }
    CHECK_EQUAL(gev_poller_modify(poller, ends[0], 1, GEV_READ, GEV_WRITE), 0);
    CHECK_EQUAL(gev_poller_wait(poller, -1), 1);
    CHECK(gev_poller_events(poller)->ready & GEV_HANGUP);
    close_poller();
    close(ends[0]);
}

/* One that has only shut its own side down has not hung up. */
static void half_an_end_is_no_hang_up(void)
{
    int ends[2];
    open_poller(8);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    CHECK_EQUAL(shutdown(ends[1], SHUT_WR), 0);
    CHECK_EQUAL(gev_poller_add(poller, ends[0], 1, 0), 0);
    CHECK_EQUAL(gev_poller_wait(poller, 0), 0);
    CHECK_EQUAL(gev_poller_modify(poller, ends[0], 1, 0, GEV_READ | GEV_WRITE), 0);
    CHECK_EQUAL(gev_poller_wait(poller, -1), 1);
    CHECK_EQUAL(gev_poller_events(poller)->ready, GEV_READ | GEV_WRITE);
    close_poller();
    close(ends[0]);
    close(ends[1]);
}

static void a_forked_poller_lets_go(void)
{
    int ends[2];
    open_poller(8);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    CHECK_EQUAL(gev_poller_add(poller, ends[0], 1, GEV_READ), 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        gev_poller_forked(poller);
        CHECK_EQUAL(gev_poller_wait(poller, -1), -EBADF);
        CHECK_EQUAL(gev_poller_add(poller, ends[1], 1, GEV_READ), -EBADF);
        CHECK_EQUAL(gev_poller_modify(poller, ends[0], 1, GEV_READ, 0), -EBADF);
        CHECK_EQUAL(gev_poller_remove(poller, ends[0], GEV_READ), -EBADF);
        before_wait = after_wait = NULL;
        CHECK_EQUAL(gev_poller_wake(poller), 0);
        gev_poller_close(poller);
        open_poller(8);
        CHECK_EQUAL(gev_poller_add(poller, ends[0], 7, GEV_WRITE), 0);
        CHECK_EQUAL(gev_poller_wait(poller, -1), 1);
        CHECK_EQUAL(gev_poller_events(poller)->token, 7);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_EQUAL(send(ends[1], "x", 1, 0), 1);
    CHECK_EQUAL(gev_poller_wait(poller, -1), 1);
    CHECK_EQUAL(gev_poller_events(poller)->token, 1);
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
    CHECK_EQUAL(gev_poller_open(&none, 0), -EINVAL);
    CHECK(none == NULL);
    CHECK_EQUAL(gev_poller_open(&none, INT32_MAX), -EINVAL);
    gev_poller_close(NULL);
    open_poller(8);
    CHECK_EQUAL(gev_poller_add(poller, 0, UINT64_MAX, GEV_READ), -EINVAL);
    CHECK_EQUAL(gev_poller_add(poller, 0, 1, GEV_ERROR), -EINVAL);
    CHECK_EQUAL(gev_poller_add(poller, -1, 1, GEV_READ), -EBADF);
    CHECK_EQUAL(gev_poller_modify(poller, 0, UINT64_MAX, 0, GEV_READ), -EINVAL);
    CHECK_EQUAL(gev_poller_add(poller, 0x7fffff00, 1, GEV_READ), -EBADF);
    close_poller();
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

static void run_poller_tests(void)
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
    RUN(interest_changes_exactly);
    RUN(interest_can_go_and_come_back);
    RUN(an_end_does_not_hide_what_came_before_it);
    RUN(half_an_end_is_no_hang_up);
    RUN(a_forked_poller_lets_go);
    RUN(what_is_out_of_bounds_is_refused);
    RUN(a_poller_that_finds_no_descriptor_leaves_none_open);
}

#endif
