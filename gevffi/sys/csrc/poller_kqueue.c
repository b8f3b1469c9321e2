/* poller_kqueue.c: kqueue(2) as the poller.
 *
 * A kqueue has filters, not descriptors: reading and writing are registered, reported and removed
 * each for itself. The poller's contract is in descriptors, so a table, indexed by descriptor, says
 * for each which filters it has, and puts together what one wait finds:
 *
 *      interest       filters
 *      READ           EVFILT_READ
 *      WRITE          EVFILT_WRITE
 *      READ, WRITE    both
 *      none           EVFILT_WRITE with EV_CLEAR, of which only the end is told
 *
 * The last row is there because errors and hang-ups are told to those too who want neither. EV_CLEAR
 * makes it tell a thing once: else it would say "writable" for ever. A filter that stays is never
 * touched, one that goes is deleted before another comes, so no change depends on what a system does
 * with EV_ADD for a filter it has.
 *
 * Ends: EV_EOF comes with the bytes before it still to be read, and at the reading side it also
 * stands for a peer that has only shut down its own. So there it is READ and nothing more; recv(2)
 * returns those bytes and then tells the end. At the writing side it is HANGUP. With an error in
 * fflags it is ERROR at either.
 *
 * The table also answers what EV_ADD would not: that a descriptor is in already. The kernel forgets
 * the filters of one that is closed, and says nothing; a descriptor that the table has and the kernel
 * does not was closed in between.
 *
 * Other threads end a wait through an EVFILT_USER filter. When to trigger it is decided by the two
 * flags of poller_epoll.c, whose table holds here word for word.
 */
#include "compat.h"
#include "gevffi.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/event.h>

#define MAX_ROOM ((int)(INT_MAX / sizeof(struct kevent)))
#define WAKE_IDENT 0
#define NO_TOKEN UINT64_MAX

enum { WATCH_READ = 1, WATCH_WRITE = 2, WATCH_END = 4 };

typedef struct watch {
    uint64_t token;
    uint32_t filters; /* WATCH_ bits that the kernel has; 0: the descriptor is not in */
    int32_t event;    /* during a wait: 1 + its place in `events`, 0 if it has none yet */
} watch;

struct gev_poller {
    int kq;           /* -1 in a forked child */
    int room;
    atomic_int wake_pending;
    atomic_int sleeping;
    watch *watches;   /* one for each descriptor below `watch_count` */
    size_t watch_count;
    struct kevent *raw; /* what the kernel says, `room` of them */
    gev_event *events;  /* the same by descriptor, translated */
};

/* ---- opening and closing ---------------------------------------------------------------- */

/* One change, and how it went. */
static int change(int kq, uintptr_t ident, int filter, int flags, uint32_t fflags)
{
    struct kevent one;
    EV_SET(&one, ident, (short)filter, (unsigned short)flags, fflags, 0, NULL);
    return kevent(kq, &one, 1, NULL, 0, NULL) < 0 ? -errno : 0;
}

int gev_poller_open(gev_poller **result, int room)
{
    *result = NULL;
    if (room < 1 || room > MAX_ROOM)
        return -EINVAL;
    gev_poller *poller = calloc(1, sizeof *poller);
    if (poller == NULL)
        return -ENOMEM;
    poller->kq = -1;
    poller->room = room;
    atomic_init(&poller->wake_pending, 0);
    atomic_init(&poller->sleeping, 0);

    int error = -ENOMEM;
    poller->raw = calloc((size_t)room, sizeof *poller->raw);
    poller->events = calloc((size_t)room, sizeof *poller->events);
    if (poller->raw == NULL || poller->events == NULL)
        goto failed;
    error = poller->kq = gev_kqueue();
    if (error < 0)
        goto failed;
    error = change(poller->kq, WAKE_IDENT, EVFILT_USER, EV_ADD | EV_CLEAR, 0);
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
    if (poller->kq >= 0)
        close(poller->kq);
    free(poller->watches);
    free(poller->events);
    free(poller->raw);
    free(poller);
}

/* A kqueue is not inherited by fork(2): its number is free in the child, or somebody else's. */
void gev_poller_forked(gev_poller *poller)
{
    poller->kq = -1;
}

/* ---- filters ---------------------------------------------------------------------------- */

static uint32_t filters_for(int interest)
{
    uint32_t filters = 0;
    if (interest & GEV_READ)
        filters |= WATCH_READ;
    if (interest & GEV_WRITE)
        filters |= WATCH_WRITE;
    return filters ? filters : WATCH_END;
}

static int filter_of(uint32_t watched)
{
    return watched == WATCH_READ ? EVFILT_READ : EVFILT_WRITE;
}

/* Makes the kernel's filters `wanted`: out first, then in. Stops where it fails; `filters` is what
 * there is then. */
static int set_filters(gev_poller *poller, int fd, uint32_t wanted)
{
    watch *watched = &poller->watches[fd];
    for (uint32_t bit = WATCH_READ; bit <= WATCH_END; bit <<= 1) {
        if (!(watched->filters & ~wanted & bit))
            continue;
        watched->filters &= ~bit; /* it is gone too when the kernel says there is none */
        int error = change(poller->kq, (uintptr_t)fd, filter_of(bit), EV_DELETE, 0);
        if (error)
            return error;
    }
    for (uint32_t bit = WATCH_READ; bit <= WATCH_END; bit <<= 1) {
        if (!(wanted & ~watched->filters & bit))
            continue;
        int flags = bit == WATCH_END ? EV_ADD | EV_CLEAR : EV_ADD;
        int error = change(poller->kq, (uintptr_t)fd, filter_of(bit), flags, 0);
        if (error == -EFAULT && fcntl(fd, F_GETFD) < 0)
            error = -errno; /* libkqueue says EFAULT, whatever it is */
        if (error)
            return error;
        watched->filters |= bit;
    }
    return 0;
}

/* 0: the kernel has the descriptor's filters. -ENOENT, -EBADF: it was closed. */
static int still_there(gev_poller *poller, int fd)
{
    uint32_t filters = poller->watches[fd].filters;
    uint32_t lowest = filters & -filters;
    return change(poller->kq, (uintptr_t)fd, filter_of(lowest), EV_ENABLE, 0);
}

static int room_for(gev_poller *poller, int fd)
{
    size_t needed = (size_t)fd + 1, room = poller->watch_count ? poller->watch_count : 64;
    if (needed <= poller->watch_count)
        return 0;
    if (fcntl(fd, F_GETFD) < 0) /* not room for any number that somebody makes up */
        return -errno;
    while (room < needed)
        room *= 2;
    if (room > SIZE_MAX / sizeof(watch))
        return -ENOMEM;
    watch *watches = realloc(poller->watches, room * sizeof *watches);
    if (watches == NULL)
        return -ENOMEM;
    memset(watches + poller->watch_count, 0, (room - poller->watch_count) * sizeof *watches);
    poller->watches = watches;
    poller->watch_count = room;
    return 0;
}

static watch *watch_of(gev_poller *poller, uintptr_t fd)
{
    if (fd >= poller->watch_count || !poller->watches[fd].filters)
        return NULL;
    return &poller->watches[fd];
}

static bool wrong(uint64_t token, int interest)
{
    return token == NO_TOKEN || (interest & ~(GEV_READ | GEV_WRITE)) != 0;
}

int gev_poller_add(gev_poller *poller, int fd, uint64_t token, int interest)
{
    if (wrong(token, interest))
        return -EINVAL;
    if (fd < 0 || poller->kq < 0)
        return -EBADF;
    int error = room_for(poller, fd);
    if (error)
        return error;
    watch *watched = &poller->watches[fd];
    if (watched->filters && still_there(poller, fd) == 0)
        return -EEXIST;
    *watched = (watch){.token = token};
    error = set_filters(poller, fd, filters_for(interest));
    if (error)
        set_filters(poller, fd, 0);
    return error;
}

int gev_poller_modify(gev_poller *poller, int fd, uint64_t token, int old_interest, int interest)
{
    (void)old_interest; /* the table knows */
    if (wrong(token, interest))
        return -EINVAL;
    if (fd < 0 || poller->kq < 0)
        return -EBADF;
    watch *watched = watch_of(poller, (uintptr_t)fd);
    if (watched == NULL)
        return -ENOENT;
    uint32_t wanted = filters_for(interest);
    int error = watched->filters == wanted ? still_there(poller, fd)
                                           : set_filters(poller, fd, wanted);
    if (!error)
        watched->token = token;
    return error;
}

int gev_poller_remove(gev_poller *poller, int fd, int interest)
{
    (void)interest;
    if (fd < 0 || poller->kq < 0)
        return -EBADF;
    if (watch_of(poller, (uintptr_t)fd) == NULL)
        return -ENOENT;
    int error = set_filters(poller, fd, 0);
    poller->watches[fd].filters = 0;
    return error;
}

/* ---- waiting ---------------------------------------------------------------------------- */

static uint32_t translate(const struct kevent *event, uint32_t filters)
{
    uint32_t ready = 0;
    if (event->flags & EV_ERROR) /* the filter failed: nothing is ready */
        return GEV_ERROR;
    if (event->filter == EVFILT_READ)
        ready |= GEV_READ;
    else if (filters & WATCH_WRITE)
        ready |= GEV_WRITE;
    if (event->flags & EV_EOF && event->fflags)
        ready |= GEV_ERROR;
    else if (event->flags & EV_EOF && event->filter == EVFILT_WRITE)
        ready |= GEV_HANGUP;
    return ready;
}

/* Puts the first `ready` of `raw` together in `events`; returns how many those are. */
static int collect(gev_poller *poller, int ready)
{
    int count = 0;
    for (int i = 0; i < ready; i++) {
        const struct kevent *event = &poller->raw[i];
        watch *watched = event->filter == EVFILT_USER ? NULL : watch_of(poller, event->ident);
        uint32_t what = watched ? translate(event, watched->filters) : 0;
        if (!what)
            continue; /* a wake, or a WATCH_END that has not ended */
        if (!watched->event) {
            poller->events[count++] = (gev_event){.token = watched->token};
            watched->event = count;
        }
        poller->events[watched->event - 1].ready |= what;
        if (event->flags & EV_EOF && event->fflags)
            poller->events[watched->event - 1].error = (int32_t)event->fflags;
    }
    for (int i = 0; i < ready; i++) {
        watch *watched = watch_of(poller, poller->raw[i].ident);
        if (watched)
            watched->event = 0;
    }
    return count;
}

int gev_poller_wait(gev_poller *poller, int timeout_ms)
{
    if (poller->kq < 0)
        return -EBADF;
    if (timeout_ms != 0) {
        atomic_store(&poller->sleeping, 1);
        if (atomic_load(&poller->wake_pending))
            timeout_ms = 0;
    }
    struct timespec limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
    int ready = kevent(poller->kq, NULL, 0, poller->raw, poller->room,
                       timeout_ms < 0 ? NULL : &limit);
    int error = errno;
    atomic_store(&poller->sleeping, 0);
    if (ready < 0)
        return -error;
    atomic_exchange(&poller->wake_pending, 0);
    return collect(poller, ready);
}

const gev_event *gev_poller_events(const gev_poller *poller)
{
    return poller->events;
}

int gev_poller_wake(gev_poller *poller)
{
    if (atomic_exchange(&poller->wake_pending, 1) || !atomic_load(&poller->sleeping))
        return 0;
    if (poller->kq < 0) /* forked: nobody sleeps here */
        return 0;
    return change(poller->kq, WAKE_IDENT, EVFILT_USER, 0, NOTE_TRIGGER);
}
