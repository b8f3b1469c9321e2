/* compat.h: what one system calls differently from another, each under one name.
 *
 * Included first, since it also says which of the C library's names are wanted. All questions about
 * the system are asked here, and answered by what its headers define wherever that is possible; the
 * rest of the core has one text for all of them. What differs by more than a few lines has files of
 * its own, and the build chooses: poller_epoll.c or poller_kqueue.c, memory_linux.c or
 * memory_posix.c.
 *
 * GEV_PORTABLE, for tests, takes the other branch wherever Linux has both.
 */
#ifndef GEVFFI_COMPAT_H
#define GEVFFI_COMPAT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* accept4, memmem, memfd_create, fallocate; means nothing elsewhere */
#endif

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/sockios.h>
#elif defined(__FreeBSD__)
#include <sys/filio.h>
#endif

/* ---- names that are missing ------------------------------------------------------------- */

/* macOS has neither: they are the flags of gev_accept then, and nobody else's. */
#ifndef SOCK_CLOEXEC
#define SOCK_CLOEXEC 0x10000000
#endif
#ifndef SOCK_NONBLOCK
#define SOCK_NONBLOCK 0x20000000
#endif

/* Whether sendmsg can be told not to raise SIGPIPE; else a socket is told, by gev_no_sigpipe. Newer
 * headers of macOS have the flag, and older kernels take it without obeying. */
#if defined(__APPLE__) && defined(MSG_NOSIGNAL)
#undef MSG_NOSIGNAL
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#ifdef GEV_PORTABLE
#define GEV_QUIET_SENDMSG false
#else
#define GEV_QUIET_SENDMSG (MSG_NOSIGNAL != 0)
#endif

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif
#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0 /* FreeBSD reserves nothing for PROT_NONE anyway */
#endif

/* ---- sockets ---------------------------------------------------------------------------- */

/* accept4(2), or accept(2) and two fcntl(2). -1 and errno. */
static inline int gev_accept(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
#if defined(__APPLE__) || defined(GEV_PORTABLE)
    int accepted = accept(fd, address, size);
    if (accepted < 0)
        return -1;
    int status = fcntl(accepted, F_GETFL);
    /* Both ways: BSD hands the listener's O_NONBLOCK on. */
    int wanted = flags & SOCK_NONBLOCK ? status | O_NONBLOCK : status & ~O_NONBLOCK;
    if (status < 0 || fcntl(accepted, F_SETFL, wanted) < 0
            || (flags & SOCK_CLOEXEC && fcntl(accepted, F_SETFD, FD_CLOEXEC) < 0)) {
        int error = errno;
        close(accepted);
        errno = error;
        return -1;
    }
    return accepted;
#else
    return accept4(fd, address, size, flags);
#endif
}

/* BSD starts a `struct sockaddr` with its length, one byte, and the family, another. Linux has a
 * family of two bytes there; the rest of what we use is where it is. Makes it Linux's. */
static inline void gev_plain_address(uint8_t *address, socklen_t size)
{
#ifdef __linux__
    (void)address;
    (void)size;
#else
    if (size >= sizeof(uint16_t)) {
        uint16_t family = ((struct sockaddr *)address)->sa_family;
        memcpy(address, &family, sizeof family);
    }
#endif
}

/* No SIGPIPE from this socket, where sends cannot say so one by one. */
static inline void gev_no_sigpipe(int fd)
{
#ifdef SO_NOSIGPIPE
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#else
    (void)fd;
#endif
}

/* Bytes in the send queue: not sent, or not acknowledged. 0 where nobody knows. */
static inline int gev_unacknowledged(int fd)
{
    int bytes = 0;
#if defined(SO_NWRITE) /* macOS */
    socklen_t size = sizeof bytes;
    int error = getsockopt(fd, SOL_SOCKET, SO_NWRITE, &bytes, &size);
#elif defined(FIONWRITE) /* FreeBSD */
    int error = ioctl(fd, FIONWRITE, &bytes);
#elif defined(SIOCOUTQ) /* Linux, where an end that we sent counts too */
    int error = ioctl(fd, SIOCOUTQ, &bytes);
#else
    int error = ioctl(fd, TIOCOUTQ, &bytes);
#endif
    return error < 0 ? 0 : bytes;
}

/* ---- signals ---------------------------------------------------------------------------- */

/* Takes one back that is pending for this thread, which has it blocked; returns at once. */
static inline void gev_take_signal(const sigset_t *set, int number)
{
#if defined(__APPLE__) || defined(__OpenBSD__) || defined(GEV_PORTABLE)
    sigset_t pending;
    sigemptyset(&pending);
    if (sigpending(&pending) == 0 && sigismember(&pending, number))
        sigwait(set, &number);
#else
    const struct timespec now = {0, 0};
    (void)number;
    while (sigtimedwait(set, NULL, &now) < 0 && errno == EINTR)
        ;
#endif
}

#endif
