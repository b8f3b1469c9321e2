/* kqueue_calls.c: kqueue(2), one call at a time. Built with poller_kqueue.c.
 *
 * `struct kevent` has other types on every system, so that Python sees gev_kernel_event instead.
 * Some systems (macOS, libkqueue) answer with the flags that a filter was added with, others without:
 * those that only ask for something are taken out of an answer, and left in the echo of a change,
 * which has EV_ERROR.
 */
#include "compat.h"
#include "gevffi.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/event.h>

#define MAX_ROOM ((int)(INT_MAX / sizeof(struct kevent)))

enum { ACTIONS = EV_ADD | EV_DELETE | EV_ENABLE | EV_DISABLE | EV_RECEIPT };

int gev_kqueue(void)
{
    int kq = kqueue();
    if (kq < 0)
        return -errno;
    if (fcntl(kq, F_SETFD, FD_CLOEXEC) < 0) {
        int error = errno;
        close(kq);
        return -error;
    }
    return kq;
}

int gev_kevent(int kq, const gev_kernel_event *changes, int count, gev_kernel_event *events,
               int room, int timeout_ms)
{
    if (count < 0 || count > MAX_ROOM || room < 0 || room > MAX_ROOM - count)
        return -EINVAL;
    struct timespec limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
    struct kevent *raw = calloc((size_t)count + (size_t)room + 1, sizeof *raw);
    if (raw == NULL)
        return -ENOMEM;
    struct kevent *found = raw + count;
    for (int i = 0; i < count; i++)
        EV_SET(&raw[i], changes[i].ident, (short)changes[i].filter, (unsigned short)changes[i].flags,
               changes[i].fflags, (intptr_t)changes[i].data, (void *)changes[i].udata);
    int ready = kevent(kq, raw, count, found, room, timeout_ms < 0 ? NULL : &limit);
    if (ready < 0)
        ready = -errno;
    for (int i = 0; i < ready; i++) {
        uint32_t flags = found[i].flags;
        events[i] = (gev_kernel_event){
            .ident = found[i].ident, .filter = found[i].filter,
            .flags = flags & EV_ERROR ? flags : flags & ~(uint32_t)ACTIONS,
            .fflags = found[i].fflags, .data = found[i].data, .udata = (uintptr_t)found[i].udata,
        };
    }
    free(raw);
    return ready;
}
