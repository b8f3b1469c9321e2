/* Any bytes at all: whatever the steps they come in, the frames and the end are the same.
 *
 * As a program it makes up its input: good frames, some of them spoilt. It is a libFuzzer target
 * too, which finds its own:
 *     make fuzz
 */
#include "websocket.h"

enum { LIMIT = 300, LONGEST = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > LONGEST)
        return 0;
    int flags = data[0] & (GEV_WS_SERVER | GEV_WS_DEFLATE);
    size_t step = data[1] + 1u;
    data += 2;
    size -= 2;
    outcome whole = feed(flags, LIMIT, data, size, size), bytes = feed(flags, LIMIT, data, size, 1),
            steps = feed(flags, LIMIT, data, size, step);
    CHECK_EQUAL(bytes.error, whole.error);
    CHECK_EQUAL(steps.error, whole.error);
    CHECK_EQUAL(bytes.used, whole.used);
    CHECK_EQUAL(steps.used, whole.used);
    CHECK(memcmp(bytes.frames, whole.frames, whole.used) == 0);
    CHECK(memcmp(steps.frames, whole.frames, whole.used) == 0);
    if (!whole.error)
        CHECK_EQUAL(bytes.left, whole.left);
    else /* not before the step in which its byte came */
        CHECK(bytes.seen <= steps.seen && steps.seen < bytes.seen + step);
    return 0;
}

#ifndef LIBFUZZER

static uint64_t state = 1;

/* xorshift64*; below `limit`. */
static uint32_t below(uint32_t limit)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1du) >> 32) % limit;
}

/* Appends a frame that would be right in some place; returns its length. */
static size_t add_frame(uint8_t *to, int flags)
{
    static const uint8_t firsts[] = {0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a, 0x88, 0xc1, 0x41};
    static const char *const texts[] = {"a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xff"};
    uint8_t key[4] = {(uint8_t)below(256), (uint8_t)below(256), (uint8_t)below(256), 7};
    uint8_t payload[400], first = firsts[below(sizeof firsts)];
    size_t size = 0, most = first & 8 ? below(126) : below(8) ? below(100) : below(320);
    if (first == 0x88 && most >= 2) {
        payload[size++] = 3;
        payload[size++] = (uint8_t)(0xe8 + below(18));
    }
    for (;;) {
        const char *text = texts[below(4) + !below(200)];
        if (size + strlen(text) > most)
            break;
        memcpy(payload + size, text, strlen(text));
        size += strlen(text);
    }
    if (flags & GEV_WS_SERVER)
        gev_ws_mask(payload, size, key, 0);
    int header = gev_ws_header(to, first, size, flags & GEV_WS_SERVER ? key : NULL);
    memcpy(to + header, payload, size);
    return (size_t)header + size;
}

static void spoilt_streams(void)
{
    size_t good = 0;
    for (int round = 0; round < 20000; round++) {
        uint8_t stream[LONGEST];
        size_t size = 2;
        int flags = (int)below(4);
        stream[0] = (uint8_t)flags;
        stream[1] = (uint8_t)below(64);
        for (uint32_t count = 1 + below(8); count; count--)
            size += add_frame(stream + size, flags);
        if (below(2))
            stream[2 + below((uint32_t)size - 2)] ^= (uint8_t)(1 << below(8));
        size_t used = size - (below(3) ? 0 : below((uint32_t)size - 2));
        LLVMFuzzerTestOneInput(stream, used);
        good += !feed(flags, LIMIT, stream + 2, used - 2, used).error;
    }
    /* It is worth nothing unless both happen often. */
    CHECK(good > 2000 && good < 18000);
}

static void noise(void)
{
    for (int round = 0; round < 20000; round++) {
        uint8_t stream[64];
        for (size_t i = 0; i < sizeof stream; i++)
            stream[i] = (uint8_t)below(256);
        LLVMFuzzerTestOneInput(stream, 2 + below(sizeof stream - 2));
    }
}

int main(void)
{
    CHECK_TIME(50);
    RUN(spoilt_streams);
    RUN(noise);
    return 0;
}

#endif
