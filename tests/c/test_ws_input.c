/* WebSocket frames as a loop's input and output: split anywhere, kept and moved while a part of them
 * is unmasked, large ones told and not taken, many connections at a time, and what is wrong.
 *
 * websocket.c alone is tested in test_websocket.c.
 */
#define _GNU_SOURCE
#include "loop.h"

static const uint8_t KEY[4] = {0x37, 0xfa, 0x21, 0x3d};

static gev_framing websocket(uint32_t max_size)
{
    return (gev_framing){.kind = GEV_WEBSOCKET, .size = GEV_WS_SERVER, .max_size = max_size};
}

static int64_t ws_pair(fixture *f, int *peer, uint32_t max_size)
{
    gev_framing framing = websocket(max_size);
    int64_t token = unix_pair(f, peer);
    CHECK_EQUAL(gev_conn_frame(f->loop, token, gev_loop_framing(f->loop, &framing)), 0);
    return token;
}

/* Writes a client's frame; returns its length. */
static size_t put_frame(uint8_t *to, uint8_t first, const void *payload, size_t size)
{
    size_t header = (size_t)gev_ws_header(to, first, size, KEY);
    memcpy(to + header, payload, size);
    gev_ws_mask(to + header, size, KEY, 0);
    return header + size;
}

/* ---- small frames ---------------------------------------------------------------------------- */

/* What the last turn told of `token`, each frame as its tag in hex and its text, is `frames`. */
static void told(const fixture *f, int64_t token, const char *frames)
{
    char seen[512];
    size_t size = 0;
    for (int32_t r = 0; r < f->turn->run_count; r++) {
        const int32_t *run = f->turn->runs + GEV_RUN_NUMBERS * r;
        for (int32_t i = run[1]; run[0] == slot_of(token) && i < run[2]; i++) {
            int32_t start = f->turn->starts[i], length = f->turn->ends[i] - start;
            size += (size_t)snprintf(seen + size, sizeof seen - size, "%02x%.*s|", f->turn->tags[i],
                                     length, (const char *)f->arena + start);
            CHECK(size < sizeof seen);
        }
    }
    seen[size] = 0;
    if (strcmp(seen, frames)) {
        fprintf(stderr, "told \"%s\", not \"%s\"\n", seen, frames);
        CHECK(!"these frames");
    }
}

/* Text, a ping within a message of two fragments, an empty message. */
static size_t conversation(uint8_t *to)
{
    size_t size = put_frame(to, 0x81, "h\xc3\xa9llo", 6);
    size += put_frame(to + size, 0x01, "\xe2\x82", 2);
    size += put_frame(to + size, 0x89, "?", 1);
    size += put_frame(to + size, 0x80, "\xac", 1);
    return size + put_frame(to + size, 0x82, "", 0);
}
static const char SAID[] = "81h\xc3\xa9llo|01\xe2\x82|89?|80\xac|82|";

static void split_at_every_byte(void)
{
    fixture f = open_loop();
    uint8_t stream[200];
    size_t size = conversation(stream);
    int peer;
    ws_pair(&f, &peer, 1000);
    for (size_t at = 1; at <= size; at++) {
        char all[sizeof SAID + 1];
        size_t used = 0;
        size_t pieces[] = {at, size - at};
        const uint8_t *from = stream;
        for (int i = 0; i < 2 && pieces[i]; i++) {
            peer_writes(peer, from, pieces[i]);
            from += pieces[i];
            poll_once(&f, -1);
            for (int32_t c = 0; c < f.turn->cuts; c++) {
                int32_t start = f.turn->starts[c], length = f.turn->ends[c] - start;
                used += (size_t)snprintf(all + used, sizeof all - used, "%02x%.*s|", f.turn->tags[c],
                                         length, (const char *)f.arena + start);
            }
        }
        all[used] = 0;
        CHECK(!strcmp(all, SAID));
    }
    close(peer);
    close_loop(&f);
}

static void two_connections_byte_by_byte(void)
{
    fixture f = open_loop();
    uint8_t stream[200];
    size_t size = conversation(stream), used[2] = {0};
    char all[2][sizeof SAID + 1];
    int peers[2];
    int64_t tokens[2] = {ws_pair(&f, &peers[0], 1000), ws_pair(&f, &peers[1], 1000)};
    for (size_t at = 0; at < size + 3; at++) {
        for (size_t i = 0; i < 2; i++) /* the second is three bytes behind the first */
            if (at >= 3 * i && at - 3 * i < size)
                peer_writes(peers[i], stream + at - 3 * i, 1);
        poll_once(&f, -1);
        for (int32_t r = 0; r < f.turn->run_count; r++) {
            const int32_t *run = f.turn->runs + GEV_RUN_NUMBERS * r;
            int i = run[0] == slot_of(tokens[1]);
            for (int32_t c = run[1]; c < run[2]; c++)
                used[i] += (size_t)snprintf(all[i] + used[i], sizeof all[i] - used[i], "%02x%.*s|",
                                            f.turn->tags[c], f.turn->ends[c] - f.turn->starts[c],
                                            (const char *)f.arena + f.turn->starts[c]);
        }
    }
    for (int i = 0; i < 2; i++) {
        all[i][used[i]] = 0;
        CHECK(!strcmp(all[i], SAID));
        close(peers[i]);
    }
    close_loop(&f);
}

static void behind_another_framing(void)
{
    fixture f = open_loop();
    uint8_t stream[200] = "upgrade\n";
    size_t size = 8 + conversation(stream + 8);
    gev_framing line = {.kind = GEV_DELIMITED, .max_size = 100, .delimiter_size = 1, .delimiter = "\n"};
    gev_framing frames = websocket(1000);
    for (int raw = 0; raw < 2; raw++) {
        int peer;
        int64_t token = unix_pair(&f, &peer);
        int number = gev_loop_framing(f.loop, &frames);
        if (!raw)
            CHECK_EQUAL(gev_conn_frame(f.loop, token, gev_loop_framing(f.loop, &line)), 0);
        peer_writes(peer, stream, size - 3);
        poll_once(&f, -1);
        if (raw)
            CHECK_EQUAL(gev_conn_unread(f.loop, token, f.arena + 8, size - 3 - 8, 0), 0);
        CHECK_EQUAL(gev_conn_frame(f.loop, token, number), 0);
        poll_once(&f, 0);
        told(&f, token, "81h\xc3\xa9llo|01\xe2\x82|89?|80\xac|");
        peer_writes(peer, stream + size - 3, 3);
        poll_once(&f, -1);
        told(&f, token, "82|");
        close(peer);
    }
    close_loop(&f);
}

static void what_is_half_unmasked_is_not_pushed_back(void)
{
    fixture f = open_loop();
    uint8_t stream[40];
    size_t size = put_frame(stream, 0x82, "abcdef", 6);
    int peer;
    int64_t token = ws_pair(&f, &peer, 1000);
    peer_writes(peer, stream, size - 2);
    poll_once(&f, -1);
    CHECK_EQUAL(gev_conn_unread(f.loop, token, stream, 3, 0), -EINVAL);
    CHECK_EQUAL(gev_conn_kept(f.loop, token), (int64_t)size - 2);
    peer_writes(peer, stream + size - 2, 2);
    poll_once(&f, -1);
    told(&f, token, "82abcdef|");
    close(peer);
    close_loop(&f);
}

/* ---- what is wrong ---------------------------------------------------------------------------- */

static void bad_frames(void)
{
    static const struct {
        const char *bytes;
        size_t size;
        int32_t reason, what;
    } bad[] = {
        {"\x81\x05", 2, GEV_REASON_PROTOCOL_ERROR, 0},
        {"\x83\x80", 2, GEV_REASON_PROTOCOL_ERROR, 0},
        {"\xc1\x80", 2, GEV_REASON_PROTOCOL_ERROR, 0},
        {"\x80\x80", 2, GEV_REASON_PROTOCOL_ERROR, 0},
        {"\x82\xfe\x00\x7d", 4, GEV_REASON_PROTOCOL_ERROR, 0},
        {"\x88\x81", 2, GEV_REASON_PROTOCOL_ERROR, 0},
        {"\x82\xfe\x03\xe9", 4, GEV_REASON_FRAME_TOO_LARGE, 0},
        {"\x81\x84\0\0\0\0a\xff", 8, GEV_REASON_PROTOCOL_ERROR, GEV_CHANGE_BAD_TEXT},
        {"\x81\x81\0\0\0\0\xc3", 7, GEV_REASON_PROTOCOL_ERROR, GEV_CHANGE_BAD_TEXT},
        {"\x01\x83\0\0\0\0a\xff!\x80\x80\0\0\0\0", 15, GEV_REASON_PROTOCOL_ERROR, GEV_CHANGE_BAD_TEXT},
        {"\x88\x83\0\0\0\0\x03\xe8\xff", 9, GEV_REASON_PROTOCOL_ERROR, GEV_CHANGE_BAD_TEXT},
        {"\x88\x82\0\0\0\0\x03\xed", 8, GEV_REASON_PROTOCOL_ERROR, 0},
    };
    fixture f = open_loop();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (int before = 0; before < 3; before++) { /* alone; behind a frame; and paused meanwhile */
            uint8_t stream[64];
            size_t size = before ? put_frame(stream, 0x81, "ok", 2) : 0;
            int peer;
            int64_t token = ws_pair(&f, &peer, 1000);
            memcpy(stream + size, bad[i].bytes, bad[i].size);
            peer_writes(peer, stream, size + bad[i].size);
            poll_once(&f, -1);
            told(&f, token, before ? "81ok|" : "");
            if (before) {
                CHECK_EQUAL(changes_of(&f, token), 0);
                if (before == 2) {
                    CHECK_EQUAL(gev_conn_read(f.loop, token, 0), 0);
                    poll_once(&f, 0);
                    CHECK_EQUAL(changes_of(&f, token), 0);
                    CHECK_EQUAL(gev_conn_read(f.loop, token, 1), 0);
                }
                poll_once(&f, 0);
                told(&f, token, "");
            }
            CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_BAD_FRAME | bad[i].what);
            CHECK_EQUAL(reason_of(&f, token), bad[i].reason);
            gev_conn_abort(f.loop, token, GEV_REASON_LOCAL);
            close(peer);
        }
    close_loop(&f);
}

static void framings_that_cannot_be_meant(void)
{
    gev_framing good = websocket(0), bad;
    CHECK_EQUAL(gev_framing_check(&good), 0);
    bad = good, bad.size = 4;
    CHECK_EQUAL(gev_framing_check(&bad), -EINVAL);
    bad = good, bad.max_size = GEV_WS_MOST + 1u;
    CHECK_EQUAL(gev_framing_check(&bad), -EINVAL);
    bad = good, bad.one_at_a_time = 1;
    CHECK_EQUAL(gev_framing_check(&bad), -EINVAL);
    bad = good, bad.dress = 1;
    CHECK_EQUAL(gev_framing_check(&bad), -EINVAL);
}

/* ---- everything at a time --------------------------------------------------------------------- */

/* Some connections send frames of every size, in pieces of every size; they are paused and resumed,
 * the arena has less room from turn to turn, and large frames are left where they are now and then.
 * What a frame holds is a function of its connection and its number. */
enum { CONNS = 3, FRAMES = 120, BIGGEST = 300000, SEEDS = 12 };

typedef struct model {
    int64_t token;
    int peer;
    uint8_t *unsent;
    size_t unsent_size, sent;
    int made, heard;
    bool paused;
} model;

static uint32_t state;

static uint32_t any(uint32_t below)
{
    state = state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)state * below >> 32);
}

static size_t size_of(uint32_t id, int number)
{
    uint32_t mixed = (id * 7919u + (uint32_t)number) * 2654435761u >> 8;
    return mixed % 5 ? mixed % 200 : mixed % 3 ? mixed % 9000 : mixed % BIGGEST;
}

/* Text in every fourth: characters of two bytes, none of them split. */
static uint8_t first_of(uint32_t id, int number)
{
    return (id + (uint32_t)number) % 4 ? 0x82 : 0x81;
}

static void fill(uint8_t *to, uint32_t id, int number, size_t *size)
{
    *size = size_of(id, number);
    if (first_of(id, number) == 0x81) {
        *size &= ~(size_t)1;
        for (size_t i = 0; i < *size; i += 2) {
            to[i] = 0xc3;
            to[i + 1] = (uint8_t)(0x80 + (i / 2 + id + (uint32_t)number) % 64);
        }
    } else {
        for (size_t i = 0; i < *size; i++)
            to[i] = (uint8_t)((i + 31 * id + (uint32_t)number) * 2654435761u >> 13);
    }
}

static void is_next(model *m, uint32_t id, uint32_t tag, const uint8_t *data, size_t size)
{
    static uint8_t wanted[BIGGEST];
    size_t wanted_size;
    fill(wanted, id, m->heard, &wanted_size);
    CHECK_EQUAL(tag, first_of(id, m->heard));
    CHECK_EQUAL(size, wanted_size);
    CHECK(!memcmp(data, wanted, size));
    m->heard++;
}

static void send_some(model *m, uint32_t id)
{
    static uint8_t payload[BIGGEST];
    if (m->sent == m->unsent_size && m->made < FRAMES) {
        m->sent = m->unsent_size = 0;
        for (uint32_t i = 1 + any(6); i && m->made < FRAMES; i--, m->made++) {
            size_t size;
            fill(payload, id, m->made, &size);
            m->unsent_size += put_frame(m->unsent + m->unsent_size, first_of(id, m->made), payload,
                                        size);
        }
    }
    size_t size = m->unsent_size - m->sent, most = any(3) ? 1 + any(100) : 1 + any(200000);
    ssize_t sent = send(m->peer, m->unsent + m->sent, size < most ? size : most,
                        MSG_NOSIGNAL | MSG_DONTWAIT);
    m->sent += sent > 0 ? (size_t)sent : 0;
}

static void hear(fixture *f, model *all)
{
    for (int32_t r = 0; r < f->turn->run_count; r++) {
        const int32_t *run = f->turn->runs + GEV_RUN_NUMBERS * r;
        for (uint32_t id = 0; id < CONNS; id++)
            for (int32_t i = run[1]; run[0] == slot_of(all[id].token) && i < run[2]; i++)
                is_next(&all[id], id, (uint32_t)f->turn->tags[i], f->arena + f->turn->starts[i],
                        (size_t)(f->turn->ends[i] - f->turn->starts[i]));
    }
    for (int32_t i = 0; i < f->turn->large_count; i++)
        for (uint32_t id = 0; id < CONNS; id++) {
            gev_large large = f->turn->large[i];
            if (large.slot != slot_of(all[id].token) || !any(3))
                continue; /* to be told again */
            gev_ring *ring = gev_conn_take_large(f->loop, all[id].token, large.total);
            CHECK(!ring == all[id].paused);
            if (!ring)
                continue;
            is_next(&all[id], id, large.tag, ring->base + large.start, large.size);
            gev_ring_give(ring);
        }
}

static void one_seed(uint32_t seed)
{
    fixture f = open_loop();
    model all[CONNS];
    state = seed;
    for (uint32_t id = 0; id < CONNS; id++) {
        all[id] = (model){.unsent = malloc(6 * (BIGGEST + 14))};
        CHECK(all[id].unsent);
        all[id].token = ws_pair(&f, &all[id].peer, BIGGEST);
    }
    for (int left = CONNS; left;) {
        for (uint32_t id = 0; id < CONNS; id++) {
            send_some(&all[id], id);
            if (!any(10)) {
                all[id].paused = !all[id].paused;
                CHECK_EQUAL(gev_conn_read(f.loop, all[id].token, !all[id].paused), 0);
            }
        }
        poll_from(&f, any(2) ? 0 : any(3 * ARENA / 4), 0);
        CHECK_EQUAL(f.turn->changes, 0);
        hear(&f, all);
        left = 0;
        for (int id = 0; id < CONNS; id++)
            left += all[id].heard < FRAMES;
    }
    for (int id = 0; id < CONNS; id++) {
        free(all[id].unsent);
        close(all[id].peer);
    }
    close_loop(&f);
}

static void everything_at_a_time(void)
{
    for (uint32_t seed = 1; seed <= SEEDS; seed++) {
        fprintf(stderr, "seed %u\n", seed);
        one_seed(seed);
    }
}

/* A text in large fragments, with a character across their border, the first told several times. */
static void large_fragments_told_again(void)
{
    enum { SIZE = 100001, LIMIT = 2 * SIZE };
    fixture f = open_loop();
    uint8_t *text = malloc(SIZE + 1), *stream = malloc(3 * (SIZE + 14));
    int peer;
    CHECK(text && stream);
    for (size_t i = 0; i <= SIZE; i++)
        text[i] = i % 2 ? 0xa9 : 0xc3; /* ends within a character */
    int64_t token = ws_pair(&f, &peer, LIMIT);
    for (int part = 0; part < 3; part++) {
        static const uint8_t firsts[] = {0x01, 0x00, 0x80};
        size_t size = put_frame(stream, firsts[part], part == 1 ? text + 1 : text, SIZE), done = 0;
        if (part == 2) { /* over the limit, by its length alone */
            peer_writes(peer, stream, 10);
            poll_once(&f, -1);
            CHECK_EQUAL(changes_of(&f, token), GEV_CHANGE_BAD_FRAME);
            CHECK_EQUAL(reason_of(&f, token), GEV_REASON_FRAME_TOO_LARGE);
            break;
        }
        for (int seen = 0; seen < 3;) {
            ssize_t sent = done < size ? send(peer, stream + done, size - done,
                                              MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
            done += sent > 0 ? (size_t)sent : 0;
            poll_from(&f, ARENA - 65536, -1); /* no room for it in the arena */
            CHECK_EQUAL(changes_of(&f, token), 0);
            CHECK_EQUAL(f.turn->run_count, 0);
            seen += f.turn->large_count;
        }
        const gev_large *large = f.turn->large;
        CHECK_EQUAL(large->tag, firsts[part]);
        CHECK_EQUAL(large->size, SIZE);
        gev_ring *ring = gev_conn_take_large(f.loop, token, large->total);
        CHECK(ring);
        CHECK(!memcmp(ring->base + large->start, part ? text + 1 : text, SIZE - 1));
        gev_ring_give(ring);
    }
    free(text);
    free(stream);
    close(peer);
    close_loop(&f);
}

/* ---- what is sent ----------------------------------------------------------------------------- */

static void headers_are_put_in_front(void)
{
    static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, 100};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    fixture f = open_loop();
    int peer;
    int64_t token = ws_pair(&f, &peer, 0), numbers[2 + COUNT + 2] = {token + GEV_SEND_RUN};
    uint8_t *blob = noise(200000);
    size_t total = 0;
    numbers[1] = (int64_t)0x81 << GEV_FIRST_AT | COUNT;
    for (int i = 0; i < COUNT; i++)
        numbers[2 + i] = (int64_t)sizes[i], total += sizes[i];
    numbers[2 + COUNT] = token;
    numbers[3 + COUNT] = (int64_t)total + 5; /* as it is */
    CHECK_EQUAL(gev_loop_send(f.loop, 4 + COUNT, numbers, blob, total + 5, NULL), 1);
    for (int i = 0, at = 0; i < COUNT; at += (int)sizes[i++]) {
        uint8_t header[14];
        int used = gev_ws_header(header, 0x81, sizes[i], NULL);
        peer_reads(peer, header, (size_t)used);
        if (sizes[i])
            peer_reads(peer, blob + at, sizes[i]);
        poll_once(&f, 0);
    }
    peer_reads(peer, blob + total, 5);
    int64_t nothing[] = {token + GEV_SEND_RUN, (int64_t)0x82 << GEV_FIRST_AT | 1, 0};
    CHECK_EQUAL(gev_loop_send(f.loop, 3, nothing, NULL, 0, NULL), 1);
    peer_reads(peer, "\x82\0", 2);
    numbers[1] = (int64_t)0x81 << GEV_FIRST_AT | (COUNT + 1);
    CHECK_EQUAL(gev_loop_send(f.loop, 2 + COUNT, numbers, blob, total - 1, NULL), -EINVAL);
    free(blob);
    close(peer);
    close_loop(&f);
}

static void headers_need_a_framing(void)
{
    fixture f = open_loop();
    int peer;
    int64_t token = unix_pair(&f, &peer), numbers[] = {token + GEV_SEND_RUN, (int64_t)0x81 << GEV_FIRST_AT | 1, 2};
    CHECK_EQUAL(gev_loop_send(f.loop, 3, numbers, (const uint8_t *)"ab", 2, NULL), -EINVAL);
    close(peer);
    close_loop(&f);
}

int main(void)
{
    CHECK_TIME(50);
    RUN(split_at_every_byte);
    RUN(two_connections_byte_by_byte);
    RUN(behind_another_framing);
    RUN(what_is_half_unmasked_is_not_pushed_back);
    RUN(bad_frames);
    RUN(framings_that_cannot_be_meant);
    RUN(everything_at_a_time);
    RUN(large_fragments_told_again);
    RUN(headers_are_put_in_front);
    RUN(headers_need_a_framing);
    return 0;
}
