/* Small frames, through gev_loop_poll: the runs that a turn tells, and what is dressed on the way out.
 */
#define _GNU_SOURCE
#include "input.h"

/* ---- small frames -------------------------------------------------------------------------- */

static void frames_of_a_read_and_halves(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths();
    int64_t token = framed_pair(&f, &framing, &peer);
    hears(&f, token, peer, "\0\0\0\1a\0\0\0\0\0\0\0\2bc", 15, "a||bc|");
    CHECK_EQUAL(rings(&f), 0);
    static const char stream[] = "\0\0\0\1a\0\0\0\0\0\0\0\2bc";
    for (size_t at = 1; at < 15; at++) {
        hears(&f, token, peer, stream, at, at < 5 ? "" : at < 9 ? "a|" : "a||");
        CHECK_EQUAL(rings(&f), at != 5 && at != 9);
        hears(&f, token, peer, stream + at, 15 - at, at < 5 ? "a||bc|" : at < 9 ? "|bc|" : "bc|");
        CHECK_EQUAL(rings(&f), 0);
    }
    for (size_t at = 0; at < 15; at++)
        hears(&f, token, peer, stream + at, 1,
              at == 4 ? "a|" : at == 8 ? "|" : at == 14 ? "bc|" : "");
    close(peer);
    close_loop(&f);
}

static void frames_before_the_end_of_the_stream(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lines();
    int64_t token = framed_pair(&f, &framing, &peer);
    peer_writes(peer, "one\r\ntwo\r\nthr", 13);
    close(peer);
    poll_once(&f, -1);
    told(&f, token, "one|two|");
    CHECK(wait_for(&f, token, GEV_CHANGE_EOF));
    CHECK_EQUAL(rings(&f), 1);
    close_loop(&f);
}

static void an_error_comes_after_the_frames_before_it(void)
{
    fixture f = open_loop();
    int peer, other;
    gev_framing framing = lengths();
    framing.max_size = 3;
    int64_t token = framed_pair(&f, &framing, &peer), fine = framed_pair(&f, &framing, &other);
    hears(&f, token, peer, "\0\0\0\1a\0\0\0\4more\0\0\0\1a", 18, "a|");
    CHECK_EQUAL(changes_of(&f, token), 0);
    poll_once(&f, 0);
    CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_BAD_FRAME);
    CHECK_EQUAL(reason_of(&f, token), GEV_REASON_FRAME_TOO_LARGE);
    CHECK_EQUAL(rings(&f), 0);
    peer_writes(peer, "\0\0\0\1a", 5);
    hears(&f, fine, other, "\0\0\0\1b", 5, "b|");
    poll_once(&f, 0);
    told(&f, token, "");
    CHECK_EQUAL(changes_of(&f, token), 0); /* said once */
    CHECK_EQUAL(send_bytes(&f, token, "bye", 3), 1);
    gev_conn_close(f.loop, token, GEV_REASON_FRAME_TOO_LARGE);
    peer_reads(peer, "\0\0\0\3bye", 7);
    close(peer);
    close(other);
    close_loop(&f);
}

static void an_error_is_none_under_the_next_framing(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths(), line = lines();
    framing.max_size = 3;
    int64_t token = framed_pair(&f, &framing, &peer);
    hears(&f, token, peer, "\0\0\0\1ahello\r\nyou\r\n", 17, "a|");
    CHECK_EQUAL(gev_conn_frame(f.loop, token, gev_loop_framing(f.loop, &line)), 0);
    poll_once(&f, 0);
    told(&f, token, "hello|you|");
    close(peer);
    close_loop(&f);
}

/* ---- dressing ------------------------------------------------------------------------------ */

static void what_is_sent_is_dressed(void)
{
    fixture f = open_loop();
    int peers[3];
    gev_framing with_length = lengths(), with_end = lines();
    int64_t lengthy = framed_pair(&f, &with_length, &peers[0]);
    int64_t line = framed_pair(&f, &with_end, &peers[1]), raw = unix_pair(&f, &peers[2]);
    uint8_t *data = noise(20000);
    const uint8_t *const large[] = {data, data + 1, data + 2};
    const int64_t numbers[] = {
        lengthy, 1, raw, 2, line, 3,
        lengthy + GEV_SEND_RUN, 3, 2, 0, 1,
        line + GEV_SEND_RUN, 2, 0, 1,
        raw + GEV_SEND_RUN, 2, 1, 1,
        ~lengthy, 9000, ~raw, 9000, ~line, 9000,
        lengthy, 10, line, 10, raw, 11,
    };
    const uint8_t blob[] = "abcdefghijk";
    CHECK_EQUAL(gev_loop_send(f.loop, sizeof numbers / sizeof *numbers, numbers, blob, 11, large), 3);
    peer_reads(peers[0], "\0\0\0\1a\0\0\0\2de\0\0\0\0\0\0\0\1f\0\0\x23\x28", 24);
    peer_reads(peers[0], data, 9000);
    peer_reads(peers[0], "\0\0\0\1j", 5);
    peer_reads(peers[1], "c\r\n\r\ng\r\n", 8);
    peer_reads(peers[1], data + 2, 9000);
    peer_reads(peers[1], "\r\n\r\n", 4);
    peer_reads(peers[2], "bhi", 3);
    peer_reads(peers[2], data + 1, 9000);
    peer_reads(peers[2], "k", 1);
    CHECK_EQUAL(gev_conn_queued(f.loop, lengthy), 24 + 9000 + 5);
    free(data);
    for (int i = 0; i < 3; i++)
        close(peers[i]);
    close_loop(&f);
}

static void a_run_that_asks_for_more_than_there_is(void)
{
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths();
    int64_t token = framed_pair(&f, &framing, &peer);
    const int64_t too_large[] = {token + GEV_SEND_RUN, 2, 2, 2};
    CHECK_EQUAL(gev_loop_send(f.loop, 4, too_large, (const uint8_t *)"abc", 3, NULL), -EINVAL);
    const int64_t negative[] = {token + GEV_SEND_RUN, 1, -1};
    CHECK_EQUAL(gev_loop_send(f.loop, 3, negative, (const uint8_t *)"abc", 3, NULL), -EINVAL);
    const int64_t too_many[] = {token + GEV_SEND_RUN, 1000, 1};
    CHECK_EQUAL(gev_loop_send(f.loop, 3, too_many, (const uint8_t *)"abc", 3, NULL), 1);
    close(peer);
    close_loop(&f);
}

/* Cuts go back from where they were read, with what they came in where replies are dressed so. */
static void cuts_that_go_back(void)
{
    fixture f = open_loop();
    int peers[4];
    gev_framing with_length = lengths(), with_end = lines(), bare = lengths();
    gev_framing fixed = {.kind = GEV_FIXED_SIZE, .size = 2};
    bare.dress = 0;
    int64_t lengthy = framed_pair(&f, &with_length, &peers[0]);
    int64_t line = framed_pair(&f, &with_end, &peers[1]);
    int64_t stripped = framed_pair(&f, &bare, &peers[2]);
    int64_t pair = framed_pair(&f, &fixed, &peers[3]);
    const struct { int64_t token; const char *bytes; size_t size, from, back; const char *wanted; }
    cases[] = {
        {lengthy, "\0\0\0\1a\0\0\0\0\0\0\0\2bc", 15, 1, 2, "\0\0\0\0\0\0\0\2bc"},
        {line, "a\r\n\r\nbc\r\n", 9, 0, 3, "a\r\n\r\nbc\r\n"},
        {stripped, "\0\0\0\1a\0\0\0\0\0\0\0\2bc\0\0\0\1d", 20, 0, 4, "abcd"},
        {pair, "aabbcc", 6, 1, 2, "bbcc"},
    };
    const size_t wanted[] = {10, 9, 4, 4};
    for (int i = 0; i < 4; i++) {
        peer_writes(peers[i], cases[i].bytes, cases[i].size);
        poll_once(&f, -1);
        const int32_t *run = run_of(&f, cases[i].token);
        CHECK(run);
        const int64_t first = run[1] + (int64_t)cases[i].from, back = (int64_t)cases[i].back;
        const int64_t numbers[] = {cases[i].token, 1, cases[i].token + GEV_SEND_RUN, ~back, first,
                                   cases[i].token, 2};
        CHECK_EQUAL(gev_loop_send(f.loop, 7, numbers, (const uint8_t *)"<>", 2, NULL), 1);
        const char *ends[] = {"\0\0\0\1<", "<\r\n", "<", "<", "\0\0\0\1>", ">\r\n", ">", ">"};
        const size_t sizes[] = {5, 3, 1, 1};
        peer_reads(peers[i], ends[i], sizes[i]);
        peer_reads(peers[i], cases[i].wanted, wanted[i]);
        peer_reads(peers[i], ends[4 + i], sizes[i]);
        CHECK_EQUAL(gev_conn_queued(f.loop, cases[i].token), wanted[i] + 2 * sizes[i]);
    }
    for (int i = 0; i < 4; i++)
        close(peers[i]);
    close_loop(&f);
}

static void cuts_that_cannot_go_back(void)
{
    fixture f = open_loop();
    int peer, other;
    gev_framing framing = lengths();
    int64_t token = framed_pair(&f, &framing, &peer), raw = unix_pair(&f, &other);
    hears(&f, token, peer, "\0\0\0\1a\0\0\0\1b", 10, "a|b|");
    const int64_t wrong[][6] = {
        {token + GEV_SEND_RUN, ~INT64_C(3), 0, token + GEV_SEND_RUN, ~INT64_C(0), 0},
        {token + GEV_SEND_RUN, ~INT64_C(1), 2, token + GEV_SEND_RUN, ~INT64_C(0), 0},
        {token + GEV_SEND_RUN, ~INT64_C(1), -1, token + GEV_SEND_RUN, ~INT64_C(0), 0},
        {token + GEV_SEND_RUN, ~INT64_C(1), INT64_MAX, token + GEV_SEND_RUN, ~INT64_C(0), 0},
        {token + GEV_SEND_RUN, INT64_MIN, 0, token + GEV_SEND_RUN, ~INT64_C(0), 0},
        {token + GEV_SEND_RUN, ~INT64_C(0), 2, token + GEV_SEND_RUN, ~INT64_C(1), 1}, /* again */
        {raw + GEV_SEND_RUN, ~INT64_C(1), 0, token + GEV_SEND_RUN, ~INT64_C(0), 0},
        {token, ~INT64_C(1), 0, token + GEV_SEND_RUN, ~INT64_C(0), 0},
        {~token, ~INT64_C(1), 0, token + GEV_SEND_RUN, ~INT64_C(0), 0},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_EQUAL(gev_loop_send(f.loop, 6, wrong[i], NULL, 0, NULL), -EINVAL);
    CHECK_EQUAL(gev_loop_send(f.loop, 2, wrong[0], NULL, 0, NULL), -EINVAL); /* no number behind */
    const int64_t late[] = {token + GEV_SEND_RUN, ~INT64_C(2), 0};
    gev_conn_shutdown_write(f.loop, token);
    CHECK_EQUAL(gev_loop_send(f.loop, 3, late, NULL, 0, NULL), 0);
    gev_conn_abort(f.loop, token, GEV_REASON_LOCAL);
    CHECK_EQUAL(gev_loop_send(f.loop, 3, late, NULL, 0, NULL), 0);
    close(peer);
    close(other);
    close_loop(&f);
}

/* What the kernel does not take is kept dressed; all arrives, in order. */
static void dressed_pieces_that_wait(void)
{
    enum { PIECES = 3000, SIZE = 1001 };
    fixture f = open_loop();
    int peer;
    gev_framing framing = lengths();
    int64_t token = framed_pair(&f, &framing, &peer);
    uint8_t *data = noise(PIECES * SIZE);
    int64_t numbers[2 + PIECES] = {token + GEV_SEND_RUN, PIECES};
    for (int i = 0; i < PIECES; i++)
        numbers[2 + i] = SIZE;
    CHECK_EQUAL(gev_loop_send(f.loop, 2 + PIECES, numbers, data, PIECES * SIZE, NULL), 1);
    CHECK(gev_conn_pending(f.loop, token) > 0);
    for (int i = 0; i < PIECES; i++) {
        peer_reads(peer, "\0\0\3\xe9", 4);
        peer_reads(peer, data + i * SIZE, SIZE);
        poll_once(&f, 0);
    }
    CHECK_EQUAL(gev_conn_pending(f.loop, token), 0);
    free(data);
    close(peer);
    close_loop(&f);
}

int main(void)
{
    CHECK_TIME(50);
    RUN(frames_of_a_read_and_halves);
    RUN(frames_before_the_end_of_the_stream);
    RUN(an_error_comes_after_the_frames_before_it);
    RUN(an_error_is_none_under_the_next_framing);
    RUN(what_is_sent_is_dressed);
    RUN(a_run_that_asks_for_more_than_there_is);
    RUN(cuts_that_go_back);
    RUN(cuts_that_cannot_go_back);
    RUN(dressed_pieces_that_wait);
    return 0;
}
