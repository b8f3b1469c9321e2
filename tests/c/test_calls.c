/* test_calls.c: what calls.c promises and Python cannot show: overflow, signals, threads. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "gevffi.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static void sizes_that_no_count_can_hold_are_refused(void)
{
    char byte;
    gev_piece pieces[3] = {{&byte, 1}, {&byte, SIZE_MAX / 2}, {&byte, SIZE_MAX}};
    CHECK_EQUAL(gev_readv(-1, pieces, 2), -EINVAL);
    CHECK_EQUAL(gev_writev(-1, pieces, 2), -EINVAL);
    CHECK_EQUAL(gev_readv(-1, pieces + 2, 1), -EINVAL);
    CHECK_EQUAL(gev_writev(-1, pieces, 3), -EINVAL);
    CHECK_EQUAL(gev_writev(-1, pieces, 1), -EBADF);
}

static void no_pieces_may_be_no_array(void)
{
    int ends[2];
    CHECK_EQUAL(pipe(ends), 0);
    CHECK_EQUAL(gev_readv(ends[0], NULL, 0), 0);
    CHECK_EQUAL(gev_writev(ends[1], NULL, 0), 0);
    CHECK_EQUAL(gev_readv(-1, NULL, 0), -EBADF);
    CHECK_EQUAL(gev_writev(-1, NULL, 0), -EBADF);
    close(ends[0]);
    close(ends[1]);
}

/* Pieces of 0 to 2 bytes, one turn more than full, one whole turn of them empty. */
static void many_pieces_keep_their_order(void)
{
    enum { COUNT = 4 * IOV_MAX + 3 };
    static gev_piece pieces[COUNT];
    static uint8_t sent[2 * COUNT], got[2 * COUNT];
    int ends[2];
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    size_t total = 0;
    for (size_t i = 0; i < COUNT; i++) {
        size_t size = i / IOV_MAX == 1 ? 0 : i % 3;
        pieces[i] = (gev_piece){sent + total, size};
        total += size;
    }
    for (size_t i = 0; i < total; i++)
        sent[i] = (uint8_t)(i * 31);
    CHECK_EQUAL(gev_writev(ends[0], pieces, COUNT), total);
    for (size_t i = 0; i < COUNT; i++)
        pieces[i].base = got + ((uint8_t *)pieces[i].base - sent);
    CHECK_EQUAL(gev_readv(ends[1], pieces, COUNT), total);
    CHECK(memcmp(sent, got, total) == 0);
    CHECK_EQUAL(gev_readv(ends[1], pieces, COUNT), -EAGAIN);
    close(ends[0]);
    CHECK_EQUAL(gev_readv(ends[1], pieces, COUNT), 0);
    close(ends[1]);
}

/* What the first IOV_MAX pieces took must not be kept back until more comes. */
static void a_later_turn_of_a_blocking_read_does_not_wait(void)
{
    static uint8_t bytes[IOV_MAX + 1];
    static gev_piece pieces[IOV_MAX + 1];
    int ends[2];
    CHECK_EQUAL(pipe(ends), 0);
    CHECK_EQUAL(write(ends[1], bytes, IOV_MAX), IOV_MAX);
    for (size_t i = 0; i <= IOV_MAX; i++)
        pieces[i] = (gev_piece){bytes + i, 1};
    CHECK_EQUAL(gev_readv(ends[0], pieces, IOV_MAX + 1), IOV_MAX);
    close(ends[0]);
    close(ends[1]);
}

static void *read_a_little_and_close(void *argument)
{
    int fd = *(int *)argument;
    char some[4096];
    CHECK_EQUAL(read(fd, some, sizeof some), sizeof some);
    close(fd);
    return NULL;
}

/* The kernel raises SIGPIPE for this write too, though it returns a count. */
static void a_pipe_that_breaks_half_way_returns_the_progress(void)
{
    static char data[1 << 20];
    int ends[2];
    pthread_t reader;
    sigset_t pending;
    CHECK_EQUAL(pipe(ends), 0);
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    CHECK_EQUAL(pthread_create(&reader, NULL, read_a_little_and_close, &ends[0]), 0);
    gev_piece piece = {data, sizeof data};
    ssize_t sent = gev_writev(ends[1], &piece, 1);
    CHECK_EQUAL(pthread_join(reader, NULL), 0);
    CHECK(sent >= 4096 && sent < (ssize_t)sizeof data);
    CHECK_EQUAL(gev_writev(ends[1], &piece, 1), -EPIPE);
    CHECK_EQUAL(sigpending(&pending), 0);
    CHECK(!sigismember(&pending, SIGPIPE));
    close(ends[1]);
}

static void a_sigpipe_of_somebody_else_stays_pending(void)
{
    int ends[2];
    sigset_t sigpipe, pending, mask;
    CHECK_EQUAL(pipe(ends), 0);
    close(ends[0]);
    sigemptyset(&sigpipe);
    sigaddset(&sigpipe, SIGPIPE);
    CHECK_EQUAL(pthread_sigmask(SIG_BLOCK, &sigpipe, NULL), 0);
    CHECK_EQUAL(raise(SIGPIPE), 0);
    gev_piece piece = {(void *)"x", 1};
    CHECK_EQUAL(gev_writev(ends[1], &piece, 1), -EPIPE);
    CHECK_EQUAL(sigpending(&pending), 0);
    CHECK(sigismember(&pending, SIGPIPE));
    CHECK_EQUAL(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
    CHECK(sigismember(&mask, SIGPIPE));
    CHECK_EQUAL(sigwaitinfo(&sigpipe, NULL), SIGPIPE);
    CHECK_EQUAL(pthread_sigmask(SIG_UNBLOCK, &sigpipe, NULL), 0);
    close(ends[1]);
}

/* Neither more than `*size` bytes written, nor a length past them. */
static void an_address_without_room_is_cut(void)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof name;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQUAL(bind(listener, (struct sockaddr *)&name, sizeof name), 0);
    CHECK_EQUAL(listen(listener, 1), 0);
    CHECK_EQUAL(getsockname(listener, (struct sockaddr *)&name, &length), 0);
    CHECK_EQUAL(connect(client, (struct sockaddr *)&name, length), 0);
    uint8_t address[8] = {[4] = 0xaa, 0xaa, 0xaa, 0xaa};
    uint32_t size = 4;
    int fd = gev_accept4(listener, SOCK_CLOEXEC | SOCK_NONBLOCK, address, &size);
    CHECK(fd >= 0);
    CHECK_EQUAL(size, 4);
    CHECK(memcmp(address + 4, "\xaa\xaa\xaa\xaa", 4) == 0);
    CHECK_EQUAL(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    CHECK_EQUAL(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    close(fd);
    close(client);
    close(listener);
}

static void an_eventfd_moves_eight_bytes_or_none(void)
{
    uint64_t value = 0;
    int fd = gev_eventfd(7, EFD_NONBLOCK | EFD_CLOEXEC), ends[2];
    CHECK(fd >= 0);
    CHECK_EQUAL(gev_eventfd_read(fd, &value), 0);
    CHECK_EQUAL(value, 7);
    CHECK_EQUAL(gev_eventfd_read(fd, &value), -EAGAIN);
    CHECK_EQUAL(gev_eventfd_write(fd, UINT64_MAX), -EINVAL);
    close(fd);
    CHECK_EQUAL(gev_eventfd_read(fd, &value), -EBADF);
    CHECK_EQUAL(pipe(ends), 0);
    CHECK_EQUAL(write(ends[1], "abc", 3), 3);
    CHECK_EQUAL(gev_eventfd_read(ends[0], &value), -EINVAL);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    CHECK_TIME(20);
    RUN(sizes_that_no_count_can_hold_are_refused);
    RUN(no_pieces_may_be_no_array);
    RUN(many_pieces_keep_their_order);
    RUN(a_later_turn_of_a_blocking_read_does_not_wait);
    RUN(a_pipe_that_breaks_half_way_returns_the_progress);
    RUN(a_sigpipe_of_somebody_else_stays_pending);
    RUN(an_address_without_room_is_cut);
    RUN(an_eventfd_moves_eight_bytes_or_none);
    return 0;
}
