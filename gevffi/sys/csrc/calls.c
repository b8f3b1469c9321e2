/* calls.c: one system call at a time, with the three things that each caller would else repeat.
 *
 * 1. Any number of pieces. The kernel takes IOV_MAX at once, so more are done in turns. A turn that
 *    comes back short ends the call, and so does an error after earlier turns moved bytes: what was
 *    moved is the result, and the error shows up again on the next call.
 * 2. No SIGPIPE. sendmsg(2) has MSG_NOSIGNAL for sockets, on most systems; for pipes and the like
 *    the signal is blocked in this thread around writev(2), and the one that this write raised is
 *    taken back.
 * 3. -errno, so that nobody reads errno after something else has run.
 *
 *      pieces    [0 ........ IOV_MAX-1][IOV_MAX ...... 2*IOV_MAX-1][...]
 *      turns      one readv or writev    the next, if that was full
 */
#include "compat.h"
#include "gevffi.h"

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sys/uio.h>

/* ---- scatter and gather ---------------------------------------------------------------- */

static ssize_t result_of(ssize_t result)
{
    return result < 0 ? -errno : result;
}

/* The sum of the pieces' sizes, or -EINVAL (as the kernel says) when no ssize_t can count it. */
static ssize_t total_size(const gev_piece *pieces, size_t count)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].size > (size_t)SSIZE_MAX - total)
            return -EINVAL;
        total += pieces[i].size;
    }
    return (ssize_t)total;
}

/* Copies the first IOV_MAX pieces at most into `vector`; returns how many. */
static int fill(struct iovec *vector, const gev_piece *pieces, size_t count)
{
    int filled = count < IOV_MAX ? (int)count : IOV_MAX;
    for (int i = 0; i < filled; i++) {
        vector[i].iov_base = pieces[i].base;
        vector[i].iov_len = pieces[i].size;
    }
    return filled;
}

/* writev(2) for what sendmsg(2) is not for. A write to a broken pipe may move some bytes and raise
 * SIGPIPE all the same, so every short one looks for the signal. One that was pending before the
 * call stays: it is not ours. */
static ssize_t writev_quietly(int fd, const struct iovec *vector, int count, ssize_t wanted)
{
    sigset_t sigpipe, before, pending;
    sigemptyset(&sigpipe);
    sigaddset(&sigpipe, SIGPIPE);
    int error = pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
    if (error != 0)
        return -error;
    sigemptyset(&pending);
    sigpending(&pending);
    bool ours = !sigismember(&pending, SIGPIPE);

    ssize_t done = result_of(writev(fd, vector, count));
    if (ours && (done == -EPIPE || (done >= 0 && done < wanted)))
        gev_take_signal(&sigpipe, SIGPIPE);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return done;
}

ssize_t gev_readv(int fd, const gev_piece *pieces, size_t count)
{
    struct iovec vector[IOV_MAX];
    ssize_t total = total_size(pieces, count);
    if (total < 0)
        return total;
    if (total == 0)
        return result_of(readv(fd, vector, 0));
    ssize_t done = 0;
    for (size_t next = 0; next < count && done < total;) {
        /* A blocking descriptor must not keep back what earlier turns have read. */
        struct pollfd more = {.fd = fd, .events = POLLIN};
        if (done > 0 && poll(&more, 1, 0) <= 0)
            break;
        int turn = fill(vector, pieces + next, count - next);
        ssize_t wanted = total_size(pieces + next, (size_t)turn);
        ssize_t got = result_of(readv(fd, vector, turn));
        if (got < 0)
            return done > 0 ? done : got;
        done += got;
        next += (size_t)turn;
        if (got < wanted)
            break;
    }
    return done;
}

ssize_t gev_writev(int fd, const gev_piece *pieces, size_t count)
{
    struct iovec vector[IOV_MAX];
    ssize_t total = total_size(pieces, count);
    if (total < 0)
        return total;
    if (total == 0) /* checks the descriptor; sendmsg would send an empty datagram */
        return result_of(writev(fd, vector, 0));
    bool is_socket = GEV_QUIET_SENDMSG;
    ssize_t done = 0;
    for (size_t next = 0; next < count && done < total;) {
        int turn = fill(vector, pieces + next, count - next);
        ssize_t wanted = total_size(pieces + next, (size_t)turn);
        ssize_t sent = -ENOTSOCK;
        if (is_socket) {
            struct msghdr message = {.msg_iov = vector, .msg_iovlen = (size_t)turn};
            sent = result_of(sendmsg(fd, &message, MSG_NOSIGNAL));
        }
        if (sent == -ENOTSOCK) {
            is_socket = false;
            sent = writev_quietly(fd, vector, turn, wanted);
        }
        if (sent < 0)
            return done > 0 ? done : sent;
        done += sent;
        next += (size_t)turn;
        if (sent < wanted)
            break;
    }
    return done;
}

/* ---- accept4 --------------------------------------------------------------------------- */

int gev_accept4(int fd, int flags, uint8_t *address, uint32_t *size)
{
    socklen_t length = *size;
    int accepted = gev_accept(fd, (struct sockaddr *)address, &length, flags);
    if (accepted < 0)
        return -errno;
    *size = length < *size ? length : *size; /* the kernel names the length before truncation */
    gev_plain_address(address, *size);
    return accepted;
}
