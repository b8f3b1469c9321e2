/* accept.c: the listeners of a loop.
 *
 * Accepted descriptors are handed to Python, which decides whose they are; gev_loop_adopt takes
 * one in. A turn has room for so many; when that is full, the turn ends, and the next one begins
 * with the listener that found none: a flood at one listener does not shut out another. Out of
 * descriptors (EMFILE and its kin), the listener is taken out of the poller until Python resumes
 * it, since a level-triggered listener that cannot accept would spin.
 */
#include "conn.h"

#include <errno.h>
#include <stdlib.h>

int gev_loop_listen(gev_loop *loop, int fd)
{
    int number = 0;
    while (number < loop->listener_count && loop->listeners[number].fd >= 0)
        number++;
    if (number == loop->listener_count) {
        gev_listener *more = realloc(loop->listeners, ((size_t)number + 1) * sizeof *more);
        if (!more)
            return -ENOMEM;
        loop->listeners = more;
        loop->listener_count++;
    }
    int error = gev_poller_add(loop->poller, fd, GEV_LISTENER | (uint64_t)number, GEV_READ);
    loop->listeners[number] = (gev_listener){.fd = error ? -1 : fd, .watched = !error};
    return error ? error : number;
}

static gev_listener *listener_at(gev_loop *loop, int number)
{
    if (number < 0 || number >= loop->listener_count || loop->listeners[number].fd < 0)
        return NULL;
    return &loop->listeners[number];
}

int gev_loop_unlisten(gev_loop *loop, int number)
{
    gev_listener *listener = listener_at(loop, number);
    if (!listener)
        return -EBADF;
    if (listener->watched)
        gev_poller_remove(loop->poller, listener->fd, GEV_READ);
    listener->fd = -1;
    return 0;
}

int gev_loop_resume_accept(gev_loop *loop, int number)
{
    gev_listener *listener = listener_at(loop, number);
    if (!listener)
        return -EBADF;
    if (listener->watched)
        return 0;
    int error = gev_poller_add(loop->poller, listener->fd, GEV_LISTENER | (uint64_t)number, GEV_READ);
    listener->watched = !error;
    return error;
}

void gev_accept_some(gev_loop *loop, int number)
{
    gev_listener *listener = listener_at(loop, number);
    gev_turn *turn = &loop->turn;
    /* A turn tells one accept_error; a second listener is ready again in the next. */
    if (!listener || turn->accept_error)
        return;
    while (turn->accepted < GEV_ACCEPT_ROOM) {
        uint32_t size = GEV_ADDRESS_ROOM;
        uint8_t *address = turn->accepted_address + (size_t)turn->accepted * GEV_ADDRESS_ROOM;
        int fd = gev_accept4(listener->fd, SOCK_NONBLOCK | SOCK_CLOEXEC, address, &size);
        if (fd >= 0) {
            turn->accepted_fd[turn->accepted] = fd;
            turn->accepted_listener[turn->accepted] = number;
            turn->accepted_size[turn->accepted] = size < GEV_ADDRESS_ROOM ? size : GEV_ADDRESS_ROOM;
            turn->accepted++;
        } else if (fd == -EAGAIN) {
            return;
        } else if (fd != -EINTR && fd != -ECONNABORTED && fd != -EPROTO) {
            if (turn->accept_error)
                return; /* one is told a turn; this listener is tried again in the next */
            gev_poller_remove(loop->poller, listener->fd, GEV_READ);
            listener->watched = false;
            turn->accept_error = -fd;
            turn->accept_listener = number;
            return;
        }
    }
}
