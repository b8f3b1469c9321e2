/* utf8.c: every short sequence against the RFC's own table, and long ones split everywhere. */
#include "check.h"
#include "gevffi.h"

#include <string.h>

/* The grammar of RFC 3629, section 4, written out: the length of the character at `data`; 0: there
 * is none, -1: there may be one when more has come. */
static int character(const uint8_t *data, size_t size)
{
    static const struct {
        uint8_t first, last, low, high;
        int length;
    } forms[] = {
        {0x00, 0x7f, 0, 0, 1},          {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3},    {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4},    {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (data[0] < forms[i].first || data[0] > forms[i].last)
            continue;
        for (int j = 1; j < forms[i].length; j++) {
            if ((size_t)j == size)
                return -1;
            uint8_t low = j == 1 ? forms[i].low : 0x80, high = j == 1 ? forms[i].high : 0xbf;
            if (data[j] < low || data[j] > high)
                return 0;
        }
        return forms[i].length;
    }
    return 0;
}

/* 1: all characters, 0: not UTF-8, -1: ends within one. */
static int by_the_table(const uint8_t *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        int length = character(data + at, size - at);
        if (length <= 0)
            return length;
        at += (size_t)length;
    }
    return 1;
}

static int checked(uint32_t state)
{
    return state == GEV_UTF8_OK ? 1 : state == GEV_UTF8_BAD ? 0 : -1;
}

static void every_sequence_of_three_bytes_and_those_of_four_that_matter(void)
{
    uint8_t data[4];
    for (uint32_t i = 0; i < 1 << 24; i++) {
        data[0] = (uint8_t)(i >> 16);
        data[1] = (uint8_t)(i >> 8);
        data[2] = (uint8_t)i;
        CHECK_EQUAL(checked(gev_utf8_check(GEV_UTF8_OK, data, 3)), by_the_table(data, 3));
        if (data[0] < 0xf0 || (i & 0x3f) > 1)
            continue;
        for (int last = 0; last < 256; last++) {
            data[3] = (uint8_t)last;
            CHECK_EQUAL(checked(gev_utf8_check(GEV_UTF8_OK, data, 4)), by_the_table(data, 4));
        }
    }
}

static void pieces_make_no_difference(void)
{
    const char *text = "plain text for a while, then \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xf4\x8f\xbf\xbf"
                       " and plain text again, long enough for several strides at once \xed\x9f\xbf";
    size_t size = strlen(text);
    for (size_t cut = 0; cut <= size; cut++) {
        uint8_t *left = malloc(cut + 1), *right = malloc(size - cut + 1);
        memcpy(left, text, cut);
        memcpy(right, text + cut, size - cut);
        uint32_t state = gev_utf8_check(GEV_UTF8_OK, left, cut);
        CHECK_EQUAL(checked(state), by_the_table(left, cut));
        CHECK_EQUAL(gev_utf8_check(state, right, size - cut), GEV_UTF8_OK);
        free(left);
        free(right);
    }
}

static void bad_stays_bad(void)
{
    uint8_t good[100];
    memset(good, 'a', sizeof good);
    CHECK_EQUAL(gev_utf8_check(GEV_UTF8_BAD, good, sizeof good), GEV_UTF8_BAD);
    CHECK_EQUAL(gev_utf8_check(GEV_UTF8_BAD, good, 1), GEV_UTF8_BAD);
    CHECK_EQUAL(gev_utf8_check(GEV_UTF8_BAD, NULL, 0), GEV_UTF8_BAD);
    for (size_t at = 0; at < sizeof good; at++) {
        good[at] = 0xff;
        CHECK_EQUAL(gev_utf8_check(GEV_UTF8_OK, good, sizeof good), GEV_UTF8_BAD);
        good[at] = 'a';
    }
}

int main(void)
{
    CHECK_TIME(50);
    RUN(every_sequence_of_three_bytes_and_those_of_four_that_matter);
    RUN(pieces_make_no_difference);
    RUN(bad_stays_bad);
    return 0;
}
