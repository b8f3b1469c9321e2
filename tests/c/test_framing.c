/* The cutters and the dressing alone, from literal bytes.
 *
 * Every stream is cut whole, and again with each of its beginnings in front, from copies that are
 * exactly as large as what may be looked at, so that a read past the end is an error.
 */
#include "check.h"
#include "framing.h"

#include <errno.h>
#include <string.h>

enum { MOST = 1 << 30 };

static gev_framing lengths(uint32_t width, int little)
{
    return (gev_framing){.kind = GEV_LENGTH_PREFIXED, .dress = 1, .max_size = MOST, .width = width,
                         .little = little, .strip = width};
}

static gev_framing lines(const char *delimiter, uint32_t max_size)
{
    gev_framing f = {.kind = GEV_DELIMITED, .dress = 1, .max_size = max_size,
                     .delimiter_size = (uint32_t)strlen(delimiter)};
    memcpy(f.delimiter, delimiter, f.delimiter_size);
    return f;
}

static int64_t cut_copy(const gev_framing *f, const void *data, size_t size, uint32_t *scanned,
                        gev_cut *cut)
{
    uint8_t *copy = malloc(size ? size : 1);
    CHECK(copy);
    memcpy(copy, data, size);
    memset(cut, 0xee, sizeof *cut);
    int64_t length = gev_framing_cut(f, copy, size, scanned, cut);
    CHECK(*scanned <= size);
    CHECK_EQUAL(cut->tag, 0);
    free(copy);
    return length;
}

/* `data` begins with a frame of `total` bytes whose payload is data[start .. start + payload);
 * none of its beginnings does, and nothing behind it matters. */
static void cuts_to(const gev_framing *f, const void *data, size_t size, size_t total, size_t start,
                    size_t payload)
{
    CHECK_EQUAL(gev_framing_check(f), 0);
    gev_cut cut;
    uint32_t kept = 0;
    for (size_t have = 0; have < total; have++) {
        uint32_t fresh = 0;
        CHECK_EQUAL(cut_copy(f, data, have, &fresh, &cut), 0);
        CHECK(cut.need == 0 || cut.need == total);
        CHECK_EQUAL(cut_copy(f, data, have, &kept, &cut), 0);
    }
    for (size_t have = total; have <= size; have++) {
        for (int again = 0; again < 2; again++) {
            uint32_t scanned = again ? kept : 0;
            CHECK_EQUAL(cut_copy(f, data, have, &scanned, &cut), total);
            CHECK_EQUAL(cut.start, start);
            CHECK_EQUAL(cut.size, payload);
        }
    }
    CHECK(total >= gev_framing_least(f));
}

/* `data` is refused when `at` bytes of it are there, and not before. */
static void refused_at(const gev_framing *f, const void *data, size_t at, int64_t error)
{
    CHECK_EQUAL(gev_framing_check(f), 0);
    gev_cut cut;
    uint32_t kept = 0;
    for (size_t have = 0; have < at; have++)
        CHECK_EQUAL(cut_copy(f, data, have, &kept, &cut), 0);
    uint32_t fresh = 0;
    CHECK_EQUAL(cut_copy(f, data, at, &kept, &cut), error);
    CHECK_EQUAL(cut_copy(f, data, at, &fresh, &cut), error);
}

/* ---- lengths ------------------------------------------------------------------------------- */

static void every_width_and_byteorder(void)
{
    for (uint32_t width = 1; width <= 8; width++)
        for (int little = 0; little < 2; little++) {
            gev_framing f = lengths(width, little);
            uint8_t data[8 + 8] = {0};
            data[little ? 0 : width - 1] = 5;
            memcpy(data + width, "hello..", 7);
            cuts_to(&f, data, width + 7, width + 5, width, 5);
            memset(data, 0, sizeof data);
            cuts_to(&f, data, width + 3, width, width, 0);
        }
}

static void lengths_of_more_than_a_byte(void)
{
    static uint8_t data[4 + 0x010203];
    gev_framing big = lengths(3, 0), little = lengths(3, 1);
    gev_cut cut;
    uint32_t scanned = 0;
    memcpy(data, "\1\2\3", 3);
    CHECK_EQUAL(gev_framing_cut(&big, data, sizeof data, &scanned, &cut), 3 + 0x010203);
    CHECK_EQUAL(gev_framing_cut(&big, data, 3 + 0x010202, &scanned, &cut), 0);
    CHECK_EQUAL(cut.need, 3 + 0x010203);
    memcpy(data, "\3\2\1", 3);
    CHECK_EQUAL(gev_framing_cut(&little, data, sizeof data, &scanned, &cut), 3 + 0x010203);
}

static void the_length_behind_other_bytes(void)
{
    gev_framing f = lengths(2, 0);
    f.offset = 3;
    f.strip = 5;
    cuts_to(&f, "abc\0\2xyrest", 11, 7, 5, 2);
    f.strip = 0;
    cuts_to(&f, "abc\0\2xyrest", 11, 7, 0, 7);
    f.strip = 4;
    cuts_to(&f, "abc\0\2xyrest", 11, 7, 4, 3);
    f.strip = 7; /* all of it */
    cuts_to(&f, "abc\0\2xyrest", 11, 7, 7, 0);
    f.strip = 8;
    refused_at(&f, "abc\0\2xy", 5, GEV_CUT_MALFORMED);
    cuts_to(&f, "abc\0\3xyzrest", 12, 8, 8, 0);
}

static void a_length_that_counts_itself(void)
{
    gev_framing f = lengths(2, 0);
    f.adjustment = -2;
    cuts_to(&f, "\0\5abcrest", 9, 5, 2, 3);
    cuts_to(&f, "\0\2rest", 6, 2, 2, 0);
    refused_at(&f, "\0\1", 2, GEV_CUT_MALFORMED);
    refused_at(&f, "\0\0", 2, GEV_CUT_MALFORMED);
}

static void a_length_that_leaves_something_out(void)
{
    gev_framing f = lengths(1, 0);
    f.adjustment = 3; /* a type and two flags are between the length and the body */
    cuts_to(&f, "\2tffbbrest", 10, 6, 1, 5);
    cuts_to(&f, "\0tffrest", 8, 4, 1, 3);
}

static void the_largest_body_and_one_more(void)
{
    gev_framing f = lengths(2, 0);
    f.max_size = 3;
    cuts_to(&f, "\0\3abcd", 6, 5, 2, 3);
    refused_at(&f, "\0\4", 2, GEV_CUT_TOO_LARGE);
    f.adjustment = -2; /* it is the body that counts */
    cuts_to(&f, "\0\5abcd", 6, 5, 2, 3);
    refused_at(&f, "\0\6", 2, GEV_CUT_TOO_LARGE);
    f.adjustment = 1;
    cuts_to(&f, "\0\2abcd", 6, 5, 2, 3);
    refused_at(&f, "\0\3", 2, GEV_CUT_TOO_LARGE);
    f.max_size = 0;
    f.adjustment = 0;
    cuts_to(&f, "\0\0abcd", 6, 2, 2, 0);
    refused_at(&f, "\0\1", 2, GEV_CUT_TOO_LARGE);
}

static void lengths_that_overflow(void)
{
    static const int32_t adjustments[] = {-MOST, -1, 0, 1, MOST};
    static const char *const huge[] = {
        "\xff\xff\xff\xff\xff\xff\xff\xff", "\x80\0\0\0\0\0\0\0", "\x7f\xff\xff\xff\xff\xff\xff\xff",
        "\0\0\0\1\0\0\0\0", "\0\0\0\0\xff\xff\xff\xff", "\0\0\0\0\x80\0\0\1",
    };
    for (size_t a = 0; a < sizeof adjustments / sizeof *adjustments; a++)
        for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
            gev_framing f = lengths(8, 0);
            f.adjustment = adjustments[a];
            refused_at(&f, huge[i], 8, GEV_CUT_TOO_LARGE);
            f.offset = 0;
            f.strip = 4096;
            refused_at(&f, huge[i], 8, GEV_CUT_TOO_LARGE);
        }
    gev_framing f = lengths(8, 0);
    gev_cut cut;
    uint32_t scanned = 0;
    f.adjustment = -MOST; /* 2 GiB less 1 GiB is just what is allowed */
    CHECK_EQUAL(cut_copy(&f, "\0\0\0\0\x80\0\0\0", 8, &scanned, &cut), 0);
    CHECK_EQUAL(cut.need, 8 + (1 << 30));
    f.adjustment = -MOST + 1;
    CHECK_EQUAL(cut_copy(&f, "\0\0\0\0\x80\0\0\0", 8, &scanned, &cut), GEV_CUT_TOO_LARGE);
}

/* ---- delimiters ---------------------------------------------------------------------------- */

static void delimiters_of_every_size(void)
{
    const char *const all = "0123456789abcdef";
    for (size_t size = 1; size <= 16; size++)
        for (size_t payload = 0; payload < 20; payload++)
            for (int keep = 0; keep < 2; keep++) {
                char delimiter[17] = {0}, data[64];
                memcpy(delimiter, all, size);
                gev_framing f = lines(delimiter, 20);
                f.keep = keep;
                memset(data, 'x', sizeof data);
                /* The payload ends with all of a delimiter but its last byte, where there is room. */
                if (size > 1 && payload >= size - 1)
                    memcpy(data + payload - (size - 1), all, size - 1);
                memcpy(data + payload, all, size);
                cuts_to(&f, data, payload + size + 3, payload + size, 0,
                        payload + (keep ? size : 0));
            }
}

static void a_delimiter_that_begins_in_itself(void)
{
    gev_framing f = lines("aab", 100);
    cuts_to(&f, "aaaab...", 8, 5, 0, 2);
    f = lines("aa", 100);
    cuts_to(&f, "xaaa", 4, 3, 0, 1);
    f = lines("\r\n", 100);
    cuts_to(&f, "\r\r\n\n", 4, 3, 0, 1);
    cuts_to(&f, "a\nb\rc\r\n\r\n", 9, 7, 0, 5);
}

static void the_longest_line_and_one_more(void)
{
    for (uint32_t most = 0; most < 5; most++) {
        gev_framing f = lines("\n", most);
        cuts_to(&f, "abcde\n" + 5 - most, most + 1, most + 1, 0, most);
        refused_at(&f, "abcdefgh", most + 1, GEV_CUT_TOO_LARGE);
        f = lines("\r\n", most);
        cuts_to(&f, "abcde\r\n" + 5 - most, most + 2, most + 2, 0, most);
        refused_at(&f, "abcdefgh", most + 2, GEV_CUT_TOO_LARGE);
        f = lines("0123456789abcdef", most);
        refused_at(&f, "xxxxxxxxxxxxxxxxxxxxxxxxxxxx", most + 16, GEV_CUT_TOO_LARGE);
    }
    gev_framing f = lines("\n", 3); /* also where its end has come with it */
    gev_cut cut;
    uint32_t scanned = 0;
    CHECK_EQUAL(cut_copy(&f, "abcd\n", 5, &scanned, &cut), GEV_CUT_TOO_LARGE);
}

static void what_was_searched_is_not_searched_again(void)
{
    gev_framing f = lines("\r\n", 100);
    gev_cut cut;
    uint32_t scanned = 0;
    CHECK_EQUAL(cut_copy(&f, "abc\r", 4, &scanned, &cut), 0);
    CHECK_EQUAL(scanned, 3);
    CHECK_EQUAL(cut_copy(&f, "a\r\n\r", 4, &scanned, &cut), 0); /* the first end lies before it */
    CHECK_EQUAL(cut_copy(&f, "abc\r\n", 5, &scanned, &cut), 5);
    f = lines("\n", 100);
    scanned = 0;
    CHECK_EQUAL(cut_copy(&f, "abc", 3, &scanned, &cut), 0);
    CHECK_EQUAL(scanned, 3);
}

/* ---- the rest ------------------------------------------------------------------------------ */

static void fixed_sizes(void)
{
    static const char data[] = "0123456789";
    for (uint32_t size = 1; size <= 10; size++) {
        gev_framing f = {.kind = GEV_FIXED_SIZE, .size = size};
        cuts_to(&f, data, 10, size, 0, size);
        CHECK_EQUAL(gev_framing_least(&f), size);
    }
}

static void what_cannot_be_meant(void)
{
    gev_framing f = {0};
    CHECK_EQUAL(gev_framing_check(&f), -EINVAL);
    f.kind = 99;
    CHECK_EQUAL(gev_framing_check(&f), -EINVAL);
    f = (gev_framing){.kind = GEV_FIXED_SIZE};
    CHECK_EQUAL(gev_framing_check(&f), -EINVAL);
    f.size = MOST;
    CHECK_EQUAL(gev_framing_check(&f), 0);
    f.size++;
    CHECK_EQUAL(gev_framing_check(&f), -EINVAL);
    f = lines("\n", MOST);
    CHECK_EQUAL(gev_framing_check(&f), 0);
    f.delimiter_size = 0;
    CHECK_EQUAL(gev_framing_check(&f), -EINVAL);
    f.delimiter_size = 17;
    CHECK_EQUAL(gev_framing_check(&f), -EINVAL);
    f = lines("\n", MOST + 1u);
    CHECK_EQUAL(gev_framing_check(&f), -EINVAL);
    for (int i = 0; i < 6; i++) {
        f = lengths(4, 0);
        CHECK_EQUAL(gev_framing_check(&f), 0);
        f.width = i == 0 ? 0 : i == 1 ? 9 : 4;
        f.offset = i == 2 ? 4097 : 0;
        f.strip = i == 3 ? 4105 : 4;
        f.adjustment = i == 4 ? MOST + 1 : i == 5 ? -MOST - 1 : 0;
        CHECK_EQUAL(gev_framing_check(&f), -EINVAL);
    }
}

static void dressing(void)
{
    uint8_t out[GEV_DRESS_ROOM];
    gev_framing f = lengths(4, 0);
    CHECK_EQUAL(gev_framing_header(&f, 0x01020304, out), 4);
    CHECK(!memcmp(out, "\1\2\3\4", 4));
    CHECK_EQUAL(gev_framing_trailer(&f, out), 0);
    f = lengths(3, 1);
    f.adjustment = -3;
    CHECK_EQUAL(gev_framing_header(&f, 1, out), 3);
    CHECK(!memcmp(out, "\4\0\0", 3));
    f = lengths(8, 0);
    CHECK_EQUAL(gev_framing_header(&f, 7, out), 8);
    CHECK(!memcmp(out, "\0\0\0\0\0\0\0\7", 8));
    f = lines("0123456789abcdef", 100);
    CHECK_EQUAL(gev_framing_header(&f, 7, out), 0);
    CHECK_EQUAL(gev_framing_trailer(&f, out), 16);
    CHECK(!memcmp(out, "0123456789abcdef", 16));
    f.dress = 0;
    CHECK_EQUAL(gev_framing_trailer(&f, out), 0);
    f = lengths(4, 0);
    f.dress = 0;
    CHECK_EQUAL(gev_framing_header(&f, 7, out), 0);
    f = (gev_framing){.kind = GEV_FIXED_SIZE, .size = 5};
    CHECK_EQUAL(gev_framing_header(&f, 7, out) + gev_framing_trailer(&f, out), 0);
}

int main(void)
{
    CHECK_TIME(20);
    RUN(every_width_and_byteorder);
    RUN(lengths_of_more_than_a_byte);
    RUN(the_length_behind_other_bytes);
    RUN(a_length_that_counts_itself);
    RUN(a_length_that_leaves_something_out);
    RUN(the_largest_body_and_one_more);
    RUN(lengths_that_overflow);
    RUN(delimiters_of_every_size);
    RUN(a_delimiter_that_begins_in_itself);
    RUN(the_longest_line_and_one_more);
    RUN(what_was_searched_is_not_searched_again);
    RUN(fixed_sizes);
    RUN(what_cannot_be_meant);
    RUN(dressing);
    return 0;
}
