/* Outgoing connections: how connect(2) ended, and that nothing is read before that is told. */
#define _GNU_SOURCE
#include "loop.h"

static int64_t begin(fixture *f, const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(fd >= 0);
    CHECK(connect(fd, (const struct sockaddr *)address, sizeof *address) == 0
          || errno == EINPROGRESS);
    int64_t token = gev_loop_adopt_connecting(f->loop, fd);
    CHECK(token >= 0);
    return token;
}

static int accepted(int listener)
{
    int fd;
    do
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    while (fd < 0 && errno == EAGAIN);
    CHECK(fd >= 0);
    return fd;
}

/* A listener whose queue is full, so that a connect takes for ever; `hog` fills it. */
static int deaf(struct sockaddr_in *address, int *hog)
{
    int listener = listening(address);
    CHECK(listen(listener, 0) == 0);
    *hog = connected_to(address);
    return listener;
}

static void the_first_bytes_wait_until_it_is_told(void)
{
    fixture f = open_loop();
    struct sockaddr_in address;
    int listener = listening(&address);
    int64_t token = begin(&f, &address);
    int peer = accepted(listener);
    peer_writes(peer, "early", 5);
    CHECK_EQUAL(wait_for(&f, token, GEV_CHANGE_CONNECTED), GEV_CHANGE_CONNECTED);
    CHECK_EQUAL(f.frames, 0);
    poll_once(&f, 0);
    CHECK_EQUAL(f.frames, 0);
    CHECK_EQUAL(f.turn->changes, 0);
    CHECK_EQUAL(gev_conn_read(f.loop, token, 1), 0);
    wait_text(&f, token, "early");
    CHECK_EQUAL(send_bytes(&f, token, "reply", 5), 1);
    peer_reads(peer, "reply", 5);
    close(peer);
    wait_for(&f, token, GEV_CHANGE_EOF);
    close(listener);
    close_loop(&f);
}

/* A turn that has no room for all changes tells some of them later; their bytes come later still. */
static void nor_do_they_overtake_a_change_that_is_told_late(void)
{
    gev_limits limits = usual_limits();
    limits.max_events = 1;
    fixture f = open_loop_over(limits, MIB);
    struct sockaddr_in address;
    int listener = listening(&address), peers[4];
    int64_t tokens[4], others[4];
    for (int i = 0; i < 4; i++) {
        int other;
        others[i] = unix_pair(&f, &other);
        close(other);
        tokens[i] = begin(&f, &address);
        peers[i] = accepted(listener);
        peer_writes(peers[i], "early", 5);
    }
    for (int i = 0; i < 4; i++)
        gev_conn_abort(f.loop, others[i], GEV_REASON_LOCAL);
    for (int told = 0; told < 8; told += f.turn->changes) {
        poll_once(&f, -1);
        CHECK_EQUAL(f.frames, 0);
    }
    for (int i = 0; i < 4; i++)
        CHECK_EQUAL(gev_conn_read(f.loop, tokens[i], 1), 0);
    int seen = 0;
    while (seen < 4) {
        poll_once(&f, -1);
        seen += f.frames;
    }
    for (int i = 0; i < 4; i++)
        close(peers[i]);
    close(listener);
    close_loop(&f);
}

static void what_a_peer_said_before_it_left_is_read(void)
{
    fixture f = open_loop();
    struct sockaddr_in address;
    int listener = listening(&address);
    int64_t token = begin(&f, &address);
    int peer = accepted(listener);
    peer_writes(peer, "bye", 3);
    close(peer);
    CHECK_EQUAL(wait_for(&f, token, GEV_CHANGE_CONNECTED), GEV_CHANGE_CONNECTED);
    CHECK_EQUAL(gev_conn_read(f.loop, token, 1), 0);
    wait_text(&f, token, "bye");
    wait_for(&f, token, GEV_CHANGE_EOF);
    close(listener);
    close_loop(&f);
}

static void a_refusal_has_its_errno(void)
{
    fixture f = open_loop();
    struct sockaddr_in address;
    close(listening(&address));
    int64_t token = begin(&f, &address);
    CHECK_EQUAL(wait_for(&f, token, GEV_CHANGE_CLOSED), GEV_CHANGE_CLOSED);
    CHECK_EQUAL(reason_of(&f, token), ECONNREFUSED);
    CHECK_EQUAL(gev_conn_fd(f.loop, token), -ENOTCONN);
    close_loop(&f);
}

static void a_reset_before_anybody_looked_is_a_failure_too(void)
{
    fixture f = open_loop();
    struct sockaddr_in address;
    int listener = listening(&address);
    int64_t token = begin(&f, &address);
    reset_peer(accepted(listener));
    CHECK_EQUAL(wait_closed(&f, token), ECONNRESET);
    close(listener);
    close_loop(&f);
}

/* RFC 9293 3.5: a connect to a free port from that very port opens a connection to itself. */
static void a_socket_connected_to_itself_is_refused(void)
{
    fixture f = open_loop();
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    CHECK(connect(fd, (struct sockaddr *)&address, size) == 0 || errno == EINPROGRESS);
    int64_t token = gev_loop_adopt_connecting(f.loop, fd);
    CHECK(token >= 0);
    CHECK_EQUAL(wait_closed(&f, token), ECONNREFUSED);
    /* It leaves no TIME-WAIT that keeps others from the port. */
    int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(other, (struct sockaddr *)&address, sizeof address) == 0);
    close(other);
    close_loop(&f);
}

static void one_that_takes_for_ever_is_given_up(void)
{
    fixture f = open_loop();
    struct sockaddr_in address;
    int hog, listener = deaf(&address, &hog);
    int64_t token = begin(&f, &address), other = begin(&f, &address);
    poll_once(&f, 0);
    CHECK_EQUAL(f.turn->changes, 0);
    CHECK_EQUAL(gev_conn_abort(f.loop, token, ETIMEDOUT), 0);
    CHECK_EQUAL(wait_closed(&f, token), ETIMEDOUT);
    CHECK(gev_conn_fd(f.loop, other) >= 0);
    close_loop(&f); /* with the other one on its way */
    close(hog);
    close(listener);
}

/* Silence counts from when it is open. */
static void connecting_is_not_idling(void)
{
    gev_limits limits = usual_limits();
    limits.idle_ms = 60;
    fixture f = open_loop_over(limits, MIB);
    struct sockaddr_in address;
    int hog, listener = deaf(&address, &hog), peer;
    int64_t token = begin(&f, &address);
    int64_t idle = unix_pair(&f, &peer);
    CHECK_EQUAL(wait_closed(&f, idle), GEV_REASON_IDLE);
    poll_once(&f, 100); /* and the one after it would be by now */
    CHECK(gev_conn_fd(f.loop, token) >= 0);
    close(peer);

    int quick = listening(&address);
    token = begin(&f, &address);
    peer = accepted(quick);
    CHECK_EQUAL(wait_for(&f, token, GEV_CHANGE_CONNECTED), GEV_CHANGE_CONNECTED);
    CHECK_EQUAL(wait_closed(&f, token), GEV_REASON_IDLE);
    close(peer);
    close(quick);
    close_loop(&f);
    close(hog);
    close(listener);
}

int main(void)
{
    CHECK_TIME(20);
    RUN(the_first_bytes_wait_until_it_is_told);
    RUN(nor_do_they_overtake_a_change_that_is_told_late);
    RUN(what_a_peer_said_before_it_left_is_read);
    RUN(a_refusal_has_its_errno);
    RUN(a_reset_before_anybody_looked_is_a_failure_too);
    RUN(a_socket_connected_to_itself_is_refused);
    RUN(one_that_takes_for_ever_is_given_up);
    RUN(connecting_is_not_idling);
    return 0;
}
