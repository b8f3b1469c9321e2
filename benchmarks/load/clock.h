/*
 * The three clocks a measurement needs, in nanoseconds.
 *
 * The server's CPU clock is read here, by the load generator, and not by whoever started it: the
 * reading then falls on the very instant the window of counted messages opens and closes. The
 * kernel's process clock sums every thread the process ever had, those that have ended included
 * (clock_getcpuclockid(3), clock_gettime(2)), and needs no permission beyond a known process id.
 */
#ifndef ECHOLOAD_CLOCK_H
#define ECHOLOAD_CLOCK_H

#include <errno.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

static inline uint64_t clock_ns(clockid_t clock)
{
    struct timespec t = {0};

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* CPU time of this process. */
static inline uint64_t own_cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

/* CPU time of the process `pid`, into `*ns`. Returns 0, or -ESRCH when there is none. */
static inline int process_cpu_ns(pid_t pid, uint64_t *ns)
{
    clockid_t clock;
    struct timespec t;

    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return -ESRCH;
    *ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    return 0;
}

#endif
