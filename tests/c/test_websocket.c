/* websocket.c: frames as RFC 6455 has them, and everything that it forbids, byte by byte. */
#include "websocket.h"

#include <errno.h>

enum { SERVER = GEV_WS_SERVER, CLIENT = 0, DEFLATE = GEV_WS_DEFLATE, LIMIT = 1000 };

#define BYTES(text) (const uint8_t *)(text), sizeof(text) - 1
/* The end of a header with a masking key that changes nothing. */
#define KEY0 "\0\0\0\0"

/* The frames (see `outcome`) that `stream` consists of, whatever the steps it comes in. */
static void cuts(int flags, const uint8_t *stream, size_t size, const uint8_t *want, size_t wanted)
{
    for (size_t step = 1; step <= size; step++) {
        outcome got = feed(flags, LIMIT, stream, size, step);
        CHECK_EQUAL(got.error, 0);
        CHECK_EQUAL(got.left, 0);
        CHECK_EQUAL(got.used, wanted);
        CHECK(memcmp(got.frames, want, wanted) == 0);
    }
}

/* `stream` is refused with `code` when its last byte comes, and not before. */
static void refuses(int flags, int code, const uint8_t *stream, size_t size)
{
    outcome got = feed(flags, LIMIT, stream, size, 1);
    CHECK_EQUAL(got.error, -code);
    CHECK_EQUAL(got.seen, size);
    for (size_t step = 2; step <= size; step++)
        CHECK_EQUAL(feed(flags, LIMIT, stream, size, step).error, -code);
}

/* `stream` is the beginning of something good. */
static void waits(int flags, const uint8_t *stream, size_t size)
{
    outcome got = feed(flags, LIMIT, stream, size, 1);
    CHECK_EQUAL(got.error, 0);
    CHECK(got.left > 0);
}

static void the_examples_of_section_5_7(void)
{
    cuts(CLIENT, BYTES("\x81\x05Hello"), BYTES("\x81\0\5Hello"));
    cuts(SERVER, BYTES("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), BYTES("\x81\0\5Hello"));
    cuts(CLIENT, BYTES("\x01\x03Hel\x80\x02lo"), BYTES("\x01\0\3Hel\x80\0\2lo"));
    cuts(CLIENT, BYTES("\x89\x05Hello"), BYTES("\x89\0\5Hello"));
    cuts(SERVER, BYTES("\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), BYTES("\x8a\0\5Hello"));
}

static void the_examples_of_section_5_7_with_long_sizes(void)
{
    static uint8_t stream[10 + 65536];
    gev_ws ws;
    gev_cut cut;
    CHECK_EQUAL(gev_ws_init(&ws, CLIENT, 65536), 0);
    memcpy(stream, "\x82\x7e\x01\x00", 4);
    CHECK_EQUAL(gev_ws_cut(&ws, stream, 4 + 255, &cut), 0);
    CHECK_EQUAL(cut.need, 4 + 256);
    CHECK_EQUAL(gev_ws_cut(&ws, stream, sizeof stream, &cut), 4 + 256);
    CHECK_EQUAL(cut.start, 4);
    memcpy(stream, "\x82\x7f\0\0\0\0\0\1\0\0", 10);
    CHECK_EQUAL(gev_ws_cut(&ws, stream, sizeof stream - 1, &cut), 0);
    CHECK_EQUAL(cut.need, sizeof stream);
    CHECK_EQUAL(gev_ws_cut(&ws, stream, sizeof stream, &cut), sizeof stream);
    CHECK_EQUAL(cut.start, 10);
    CHECK_EQUAL(cut.size, 65536);
    CHECK_EQUAL(cut.tag, 0x82);
}

static void the_examples_of_rfc_7692(void)
{
    cuts(DEFLATE, BYTES("\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"),
         BYTES("\xc1\0\x07\xf2\x48\xcd\xc9\xc9\x07\x00"));
    cuts(DEFLATE, BYTES("\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00"),
         BYTES("\x41\0\x03\xf2\x48\xcd\x80\0\x04\xc9\xc9\x07\x00"));
    cuts(DEFLATE, BYTES("\xc1\x0b\x00\x05\x00\xfa\xffHello\x00"),
         BYTES("\xc1\0\x0b\x00\x05\x00\xfa\xffHello\x00"));
}

static void control_frames_between_fragments(void)
{
    cuts(SERVER, BYTES("\x01\x82" KEY0 "\xe2\x82" "\x89\x83" KEY0 "\xff\xfe!" "\x00\x80" KEY0
                       "\x8a\x80" KEY0 "\x80\x81" KEY0 "\xac" "\x82\x81" KEY0 "\xff"),
         BYTES("\x01\0\2\xe2\x82" "\x89\0\3\xff\xfe!" "\x00\0\0" "\x8a\0\0" "\x80\0\1\xac"
               "\x82\0\1\xff"));
}

static void first_bytes_that_may_not_be(void)
{
    refuses(SERVER, 1002, BYTES("\xa1"));
    refuses(SERVER, 1002, BYTES("\x91"));
    refuses(SERVER, 1002, BYTES("\xc1"));
    refuses(SERVER | DEFLATE, 1002, BYTES("\xe1"));
    refuses(SERVER | DEFLATE, 1002, BYTES("\xd2"));
    refuses(SERVER | DEFLATE, 1002, BYTES("\xc8"));
    refuses(SERVER | DEFLATE, 1002, BYTES("\xc9"));
    refuses(SERVER | DEFLATE, 1002, BYTES("\xca"));
    for (uint8_t opcode = 0; opcode < 16; opcode++)
        if ((opcode >= 3 && opcode <= 7) || opcode >= 11)
            refuses(SERVER, 1002, (uint8_t[]){0x80 | opcode}, 1);
    refuses(SERVER, 1002, BYTES("\x08"));
    refuses(SERVER, 1002, BYTES("\x09"));
    refuses(SERVER, 1002, BYTES("\x0a"));
}

static void fragments_out_of_order(void)
{
    refuses(SERVER, 1002, BYTES("\x00"));
    refuses(SERVER, 1002, BYTES("\x80"));
    refuses(SERVER, 1002, BYTES("\x81\x80" KEY0 "\x80"));
    refuses(SERVER, 1002, BYTES("\x01\x80" KEY0 "\x80\x80" KEY0 "\x80"));
    refuses(SERVER, 1002, BYTES("\x01\x80" KEY0 "\x81"));
    refuses(SERVER, 1002, BYTES("\x02\x80" KEY0 "\x02"));
    refuses(SERVER, 1002, BYTES("\x02\x80" KEY0 "\x89\x80" KEY0 "\x01"));
    refuses(SERVER | DEFLATE, 1002, BYTES("\x41\x80" KEY0 "\xc0"));
    refuses(SERVER | DEFLATE, 1002, BYTES("\x01\x80" KEY0 "\x40"));
}

static void masks_where_they_must_and_must_not_be(void)
{
    refuses(SERVER, 1002, BYTES("\x81\x05"));
    refuses(SERVER, 1002, BYTES("\x88\x00"));
    refuses(CLIENT, 1002, BYTES("\x81\x85"));
    refuses(CLIENT, 1002, BYTES("\x8a\x80"));
}

static void sizes_that_may_not_be(void)
{
    refuses(SERVER, 1002, BYTES("\x89\xfe"));
    refuses(SERVER, 1002, BYTES("\x88\xff"));
    refuses(SERVER, 1002, BYTES("\x82\xfe\x00\x00"));
    refuses(SERVER, 1002, BYTES("\x82\xfe\x00\x7d"));
    waits(SERVER, BYTES("\x82\xfe\x00\x7e"));
    refuses(SERVER, 1002, BYTES("\x82\xff\0\0\0\0\0\0\xff\xff"));
    refuses(SERVER, 1002, BYTES("\x82\xff\x80"));
}

static void sizes_over_the_limit_before_their_payload(void)
{
    waits(SERVER, BYTES("\x82\xfe\x03\xe8"));
    refuses(SERVER, 1009, BYTES("\x82\xfe\x03\xe9"));
    refuses(SERVER, 1009, BYTES("\x82\xff\0\0\0\0\0\1\0\0"));
    refuses(SERVER, 1009, BYTES("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff"));
    refuses(SERVER, 1009, BYTES("\x02\x81" KEY0 "!" "\x80\xfe\x03\xe8"));
    waits(SERVER, BYTES("\x02\x81" KEY0 "!" "\x80\xfe\x03\xe7"));
    /* Each message starts anew. */
    waits(SERVER, BYTES("\x02\x81" KEY0 "!" "\x80\x81" KEY0 "!" "\x82\xfe\x03\xe8"));
    /* Control frames do not count. */
    waits(SERVER, BYTES("\x02\x81" KEY0 "!" "\x89\x81" KEY0 "!" "\x80\xfe\x03\xe7"));
    /* A compressed message may be somewhat larger than what it inflates to: 1314 bytes here. */
    waits(SERVER | DEFLATE, BYTES("\xc2\xfe\x05\x22"));
    refuses(SERVER | DEFLATE, 1009, BYTES("\xc2\xfe\x05\x23"));
    refuses(SERVER | DEFLATE, 1009, BYTES("\x42\x81" KEY0 "!" "\x80\xfe\x05\x22"));
}

static void a_limit_at_its_ends(void)
{
    gev_ws ws;
    gev_cut cut;
    uint8_t frame[10] = "\x82\x7f\0\0\0\0\x40\0\0\0";
    CHECK_EQUAL(gev_ws_init(&ws, CLIENT, (uint32_t)GEV_WS_MOST + 1), -EINVAL);
    CHECK_EQUAL(gev_ws_init(&ws, 4, 1), -EINVAL);
    CHECK_EQUAL(gev_ws_init(&ws, CLIENT, GEV_WS_MOST), 0);
    CHECK_EQUAL(gev_ws_cut(&ws, frame, sizeof frame, &cut), 0);
    CHECK_EQUAL(cut.need, (1 << 30) + 10);
    frame[9] = 1;
    CHECK_EQUAL(gev_ws_cut(&ws, frame, sizeof frame, &cut), -1009);
    CHECK_EQUAL(gev_ws_init(&ws, CLIENT, 0), 0);
    CHECK_EQUAL(gev_ws_cut(&ws, (uint8_t[]){0x81, 0}, 2, &cut), 2);
    CHECK_EQUAL(gev_ws_cut(&ws, (uint8_t[]){0x81, 1}, 2, &cut), -1009);
}

static void close_frames(void)
{
    cuts(SERVER, BYTES("\x88\x80" KEY0), BYTES("\x88\0\0"));
    cuts(SERVER, BYTES("\x88\x82" KEY0 "\x03\xe8"), BYTES("\x88\0\2\x03\xe8"));
    cuts(SERVER, BYTES("\x88\x85" KEY0 "\x03\xe8\xe2\x82\xac"),
         BYTES("\x88\0\5\x03\xe8\xe2\x82\xac"));
    cuts(SERVER, BYTES("\x01\x81" KEY0 "\xe2\x88\x83" KEY0 "\x03\xe9!"),
         BYTES("\x01\0\1\xe2\x88\0\3\x03\xe9!"));
    refuses(SERVER, 1002, BYTES("\x88\x81"));
    refuses(SERVER, 1007, BYTES("\x88\x87" KEY0 "\x03\xe8" "a\xc3\x28"));
    refuses(SERVER, 1007, BYTES("\x88\x84" KEY0 "\x03\xe8" "\xe2\x82"));
    for (uint32_t code = 0; code < 65536; code++) {
        uint8_t frame[4] = {0x88, 2, (uint8_t)(code >> 8), (uint8_t)code};
        int good = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                   (code >= 3000 && code <= 4999);
        gev_ws ws;
        gev_cut cut;
        gev_ws_init(&ws, CLIENT, LIMIT);
        CHECK_EQUAL(gev_ws_cut(&ws, frame, 4, &cut), good ? 4 : -1002);
    }
    refuses(SERVER, 1002, BYTES("\x88\x8a" KEY0 "\x03\xed"));
}

static void text_that_is_not_utf8_is_refused_at_its_first_bad_byte(void)
{
    refuses(SERVER, 1007, BYTES("\x81\x8a" KEY0 "a\xc0"));
    refuses(SERVER, 1007, BYTES("\x81\x8a" KEY0 "\xed\xa0"));
    refuses(SERVER, 1007, BYTES("\x81\x8a" KEY0 "\xf4\x90"));
    refuses(SERVER, 1007, BYTES("\x01\x81" KEY0 "\xe2\x89\x80" KEY0 "\x00\x8a" KEY0 "\x82\x28"));
    refuses(SERVER, 1007, BYTES("\x81\x8a\x01\x02\x03\x04" "\x60\xfd"));
    /* A message must end with a character, a fragment need not. */
    refuses(SERVER, 1007, BYTES("\x81\x82" KEY0 "\xe2\x82"));
    refuses(SERVER, 1007, BYTES("\x01\x82" KEY0 "\xe2\x82\x80\x80" KEY0));
    waits(SERVER, BYTES("\x81\x84" KEY0 "\xe2\x82"));
    /* Only text is text. */
    cuts(SERVER, BYTES("\x82\x81" KEY0 "\xff"), BYTES("\x82\0\1\xff"));
    cuts(SERVER, BYTES("\x89\x81" KEY0 "\xff"), BYTES("\x89\0\1\xff"));
    cuts(SERVER | DEFLATE, BYTES("\xc1\x81" KEY0 "\xff"), BYTES("\xc1\0\1\xff"));
    cuts(SERVER | DEFLATE, BYTES("\x41\x81" KEY0 "\xff\x80\x81" KEY0 "\xff\x81\x81" KEY0 "!"),
         BYTES("\x41\0\1\xff\x80\0\1\xff\x81\0\1!"));
}

static void a_bad_byte_behind_much_ascii_is_found(void)
{
    static uint8_t frame[4 + 60000];
    gev_cut cut;
    memset(frame, 'a', sizeof frame);
    memcpy(frame, "\x81\x7e\xea\x60", 4);
    for (size_t at = 4; at < sizeof frame; at += 997) {
        gev_ws ws;
        frame[at] = 0xff;
        gev_ws_init(&ws, CLIENT, 60000);
        CHECK_EQUAL(gev_ws_cut(&ws, frame, at, &cut), 0);
        CHECK_EQUAL(gev_ws_cut(&ws, frame, at + 1, &cut), -1007);
        gev_ws_init(&ws, CLIENT, 60000);
        CHECK_EQUAL(gev_ws_cut(&ws, frame, sizeof frame, &cut), -1007);
        frame[at] = 'a';
    }
}

static void a_frame_that_comes_again_shorter_is_left_alone(void)
{
    uint8_t frame[] = "\x82\x88\x01\x02\x03\x04" "abcdefgh", before[sizeof frame];
    gev_ws ws;
    gev_cut cut;
    gev_ws_init(&ws, SERVER, LIMIT);
    CHECK_EQUAL(gev_ws_cut(&ws, frame, 12, &cut), 0);
    memcpy(before, frame, sizeof frame);
    CHECK_EQUAL(gev_ws_cut(&ws, frame, 8, &cut), 0);
    CHECK(memcmp(before, frame, sizeof frame) == 0);
    CHECK_EQUAL(gev_ws_cut(&ws, frame, 14, &cut), 14);
    CHECK(memcmp(frame + 6, "````dddl", 8) == 0);
}

static void a_mask_of_any_size_and_offset(void)
{
    const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    for (size_t size = 0; size < 200; size++)
        for (size_t offset = 0; offset < 9; offset++) {
            uint8_t *data = malloc(size + 1), last;
            for (size_t i = 0; i <= size; i++)
                data[i] = (uint8_t)(i * 7);
            last = data[size];
            gev_ws_mask(data, size, key, offset);
            for (size_t i = 0; i < size; i++)
                CHECK_EQUAL(data[i], (uint8_t)(i * 7) ^ key[(i + offset) % 4]);
            CHECK_EQUAL(data[size], last);
            free(data);
        }
}

static void headers_to_send(void)
{
    const struct {
        uint64_t size;
        const char *header;
        int length;
    } cases[] = {
        {0, "\x81\x00", 2}, {125, "\x81\x7d", 2}, {126, "\x81\x7e\x00\x7e", 4},
        {65535, "\x81\x7e\xff\xff", 4}, {65536, "\x81\x7f\0\0\0\0\0\1\0\0", 10},
        {0x123456789abcdef0, "\x81\x7f\x12\x34\x56\x78\x9a\xbc\xde\xf0", 10},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t header[14];
        CHECK_EQUAL(gev_ws_header(header, 0x81, cases[i].size, NULL), cases[i].length);
        CHECK(memcmp(header, cases[i].header, (size_t)cases[i].length) == 0);
        CHECK_EQUAL(gev_ws_header(header, 0x81, cases[i].size, (const uint8_t *)"keys"),
                    cases[i].length + 4);
        CHECK_EQUAL(header[1], (uint8_t)cases[i].header[1] | 0x80);
        CHECK(memcmp(header + 2, cases[i].header + 2, (size_t)cases[i].length - 2) == 0);
        CHECK(memcmp(header + cases[i].length, "keys", 4) == 0);
    }
}

int main(void)
{
    CHECK_TIME(20);
    RUN(the_examples_of_section_5_7);
    RUN(the_examples_of_section_5_7_with_long_sizes);
    RUN(the_examples_of_rfc_7692);
    RUN(control_frames_between_fragments);
    RUN(first_bytes_that_may_not_be);
    RUN(fragments_out_of_order);
    RUN(masks_where_they_must_and_must_not_be);
    RUN(sizes_that_may_not_be);
    RUN(sizes_over_the_limit_before_their_payload);
    RUN(a_limit_at_its_ends);
    RUN(close_frames);
    RUN(text_that_is_not_utf8_is_refused_at_its_first_bad_byte);
    RUN(a_bad_byte_behind_much_ascii_is_found);
    RUN(a_frame_that_comes_again_shorter_is_left_alone);
    RUN(a_mask_of_any_size_and_offset);
    RUN(headers_to_send);
    return 0;
}
