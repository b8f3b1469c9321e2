/* Listeners: batches, and what becomes of them when accepting fails.
 *
 * This program has an accept4 and an accept of its own, in front of libc's, that can be told to fail:
 * the core calls one or the other. */
#define _GNU_SOURCE
#include "loop.h"

#include <sys/syscall.h>
#include <sys/un.h>

static int accept_fails_with;   /* errno, 0: it does not */
static int accepts;             /* calls */

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    accepts++;
    if (accept_fails_with) {
        errno = accept_fails_with;
        return -1;
    }
    return (int)syscall(SYS_accept4, fd, address, size, flags);
}

int accept(int fd, struct sockaddr *address, socklen_t *size)
{
    return accept4(fd, address, size, 0);
}

static void accepted_in_batches_with_their_addresses(void)
{
    enum { PEERS = 300 };
    fixture f = open_loop();
    struct sockaddr_in address, peer;
    int listener = listening(&address), number = gev_loop_listen(f.loop, listener), turns = 0;
    int peers[PEERS], seen = 0;
    for (int i = 0; i < PEERS; i++)
        peers[i] = connected_to(&address);
    for (; seen < PEERS; turns++) {
        poll_once(&f, -1);
        CHECK(f.turn->accepted > 0 && f.turn->accepted <= 128);
        CHECK_EQUAL(f.turn->accept_error, 0);
        for (int i = 0; i < f.turn->accepted; i++) {
            struct sockaddr_in told;
            socklen_t size = sizeof peer;
            int fd = f.turn->accepted_fd[i];
            CHECK_EQUAL(f.turn->accepted_listener[i], number);
            CHECK_EQUAL(f.turn->accepted_size[i], sizeof told);
            memcpy(&told, f.turn->accepted_address + 112 * i, sizeof told);
            CHECK(getsockname(peers[seen++], (struct sockaddr *)&peer, &size) == 0);
            CHECK(told.sin_port == peer.sin_port && told.sin_addr.s_addr == peer.sin_addr.s_addr);
            CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK && fcntl(fd, F_GETFD) & FD_CLOEXEC);
            close(fd);
        }
    }
    CHECK_EQUAL(turns, 3);
    for (int i = 0; i < PEERS; i++)
        close(peers[i]);
    CHECK_EQUAL(gev_loop_unlisten(f.loop, number), 0);
    close(listener);
    close_loop(&f);
}

/* sockaddr_un, the longest address there is. */
static void a_long_unix_address_fits(void)
{
    fixture f = open_loop();
    struct sockaddr_un address = {.sun_family = AF_UNIX}, client = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int peer = socket(AF_UNIX, SOCK_STREAM, 0);
    /* Abstract names: a zero byte and all the room there is. */
    memset(client.sun_path + 1, 'c', sizeof client.sun_path - 1);
    snprintf(client.sun_path + 1, 20, "client %d", getpid());
    CHECK(bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)) == 0);
    CHECK(listen(listener, 1) == 0);
    socklen_t size = sizeof address;
    CHECK(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    CHECK(bind(peer, (struct sockaddr *)&client, sizeof client) == 0);
    CHECK(connect(peer, (struct sockaddr *)&address, size) == 0);
    int number = gev_loop_listen(f.loop, listener);
    poll_once(&f, -1);
    CHECK_EQUAL(f.turn->accepted, 1);
    CHECK_EQUAL(f.turn->accepted_size[0], sizeof client);
    CHECK(!memcmp(f.turn->accepted_address, &client, sizeof client));
    close(f.turn->accepted_fd[0]);
    CHECK_EQUAL(gev_loop_unlisten(f.loop, number), 0);
    CHECK_EQUAL(gev_loop_unlisten(f.loop, number), -EBADF);
    CHECK_EQUAL(gev_loop_resume_accept(f.loop, number), -EBADF);
    CHECK_EQUAL(gev_loop_unlisten(f.loop, -1), -EBADF);
    close(peer);
    close(listener);
    close_loop(&f);
}

static void numbers_are_used_again_and_errors_take_none(void)
{
    fixture f = open_loop();
    struct sockaddr_in addresses[2];
    int first = listening(&addresses[0]), second = listening(&addresses[1]);
    CHECK_EQUAL(gev_loop_listen(f.loop, first), 0);
    CHECK_EQUAL(gev_loop_listen(f.loop, first), -EEXIST);
    CHECK_EQUAL(gev_loop_listen(f.loop, second), 1);
    CHECK_EQUAL(gev_loop_unlisten(f.loop, 0), 0);
    CHECK_EQUAL(gev_loop_listen(f.loop, first), 0);
    close_loop(&f);
    close(first);
    close(second);
}

/* A pause: nothing to do until resumed, then all that came meanwhile. */
static void a_listener_without_descriptors_rests(void)
{
    fixture f = open_loop();
    struct sockaddr_in address;
    int listener = listening(&address), number = gev_loop_listen(f.loop, listener);
    int peer = connected_to(&address);
    accept_fails_with = EMFILE;
    poll_once(&f, -1);
    CHECK_EQUAL(f.turn->accept_error, EMFILE);
    CHECK_EQUAL(f.turn->accept_listener, number);
    accept_fails_with = 0;
    accepts = 0;
    poll_once(&f, 0);
    CHECK_EQUAL(accepts + f.turn->accepted + f.turn->accept_error, 0);
    CHECK_EQUAL(gev_loop_resume_accept(f.loop, number), 0);
    CHECK_EQUAL(gev_loop_resume_accept(f.loop, number), 0);
    poll_once(&f, -1);
    CHECK_EQUAL(f.turn->accepted, 1);
    close(f.turn->accepted_fd[0]);
    CHECK_EQUAL(gev_loop_unlisten(f.loop, number), 0);
    close(peer);
    close(listener);
    close_loop(&f);
}

/* One accept_error is told in a turn; the second listener must not be lost over it. */
static void of_two_listeners_without_descriptors_both_are_told(void)
{
    fixture f = open_loop();
    struct sockaddr_in addresses[2];
    int listeners[2], peers[2], accepted = 0;
    for (int i = 0; i < 2; i++) {
        listeners[i] = listening(&addresses[i]);
        CHECK_EQUAL(gev_loop_listen(f.loop, listeners[i]), i);
        peers[i] = connected_to(&addresses[i]);
    }
    accept_fails_with = ENFILE;
    poll_once(&f, -1);
    CHECK_EQUAL(f.turn->accept_error, ENFILE);
    int first = f.turn->accept_listener;
    poll_once(&f, -1);
    CHECK_EQUAL(f.turn->accept_error, ENFILE);
    CHECK_EQUAL(f.turn->accept_listener, 1 - first);
    accept_fails_with = 0;
    for (int i = 0; i < 2; i++)
        CHECK_EQUAL(gev_loop_resume_accept(f.loop, i), 0);
    while (accepted < 2) {
        poll_once(&f, -1);
        for (int i = 0; i < f.turn->accepted; i++, accepted++)
            close(f.turn->accepted_fd[i]);
    }
    close_loop(&f);
    for (int i = 0; i < 2; i++) {
        close(peers[i]);
        close(listeners[i]);
    }
}

/* What a security module or a seccomp filter answers it answers for ever, and takes no connection
 * off the queue. */
static void a_listener_that_may_not_accept_rests_too(void)
{
    fixture f = open_loop();
    struct sockaddr_in address;
    int listener = listening(&address), number = gev_loop_listen(f.loop, listener);
    int peer = connected_to(&address);
    accept_fails_with = EPERM;
    poll_once(&f, -1);
    CHECK_EQUAL(f.turn->accept_error, EPERM);
    CHECK_EQUAL(f.turn->accept_listener, number);
    accept_fails_with = 0;
    close(peer);
    close(listener);
    close_loop(&f);
}

/* However many wait at one listener, the others have their turn. */
static void a_flood_at_one_listener_does_not_shut_out_another(void)
{
    enum { LISTENERS = 3, FLOOD = 500 };
    fixture f = open_loop();
    struct sockaddr_in addresses[LISTENERS];
    int listeners[LISTENERS], peers[FLOOD + LISTENERS], from[LISTENERS] = {0}, opened = 0;
    for (int i = 0; i < LISTENERS; i++) {
        listeners[i] = listening(&addresses[i]);
        CHECK_EQUAL(gev_loop_listen(f.loop, listeners[i]), i);
    }
    for (; opened < FLOOD; opened++)
        peers[opened] = connected_to(&addresses[0]);
    for (int i = 1; i < LISTENERS; i++)
        peers[opened++] = connected_to(&addresses[i]);
    for (int turn = 0; turn < LISTENERS; turn++) { /* a share of each is taken before another */
        poll_once(&f, -1);
        for (int i = 0; i < f.turn->accepted; i++) {
            from[f.turn->accepted_listener[i]]++;
            close(f.turn->accepted_fd[i]);
        }
    }
    for (int i = 1; i < LISTENERS; i++)
        CHECK_EQUAL(from[i], 1);
    CHECK(from[0] >= 128);
    for (int i = 0; i < opened; i++)
        close(peers[i]);
    for (int i = 0; i < LISTENERS; i++)
        close(listeners[i]);
    close_loop(&f);
}

/* The turn ends with the listener that found no place, and the next one begins with it; if that has
 * left meanwhile, its event means nothing. */
static void a_listener_that_waits_its_turn_may_leave(void)
{
    fixture f = open_loop();
    struct sockaddr_in addresses[2];
    int listeners[2], peers[140];
    for (int i = 0; i < 2; i++) {
        listeners[i] = listening(&addresses[i]);
        CHECK_EQUAL(gev_loop_listen(f.loop, listeners[i]), i);
    }
    for (int i = 0; i < 140; i++)
        peers[i] = connected_to(&addresses[i == 139]);
    poll_once(&f, -1);
    CHECK_EQUAL(f.turn->accepted, 128);
    for (int i = 0; i < 128; i++)
        close(f.turn->accepted_fd[i]);
    CHECK_EQUAL(gev_loop_unlisten(f.loop, 1), 0);
    poll_once(&f, 0);
    CHECK_EQUAL(f.turn->accepted + f.turn->accept_error, 0);
    poll_once(&f, -1);
    CHECK_EQUAL(f.turn->accepted, 11);
    for (int i = 0; i < 11; i++)
        close(f.turn->accepted_fd[i]);
    for (int i = 0; i < 140; i++)
        close(peers[i]);
    for (int i = 0; i < 2; i++)
        close(listeners[i]);
    close_loop(&f);
}

int main(void)
{
    CHECK_TIME(20);
    RUN(accepted_in_batches_with_their_addresses);
    RUN(a_long_unix_address_fits);
    RUN(numbers_are_used_again_and_errors_take_none);
    RUN(a_listener_without_descriptors_rests);
    RUN(of_two_listeners_without_descriptors_both_are_told);
    RUN(a_listener_that_may_not_accept_rests_too);
    RUN(a_flood_at_one_listener_does_not_shut_out_another);
    RUN(a_listener_that_waits_its_turn_may_leave);
    return 0;
}
