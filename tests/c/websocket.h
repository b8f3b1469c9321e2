/* websocket.h: feeds a stream of frames to gev_ws_cut as a connection does, in steps of any size,
 * out of memory that ends where the stream has come to, so that a sanitizer sees whoever looks
 * further. */
#ifndef WEBSOCKET_H
#define WEBSOCKET_H

#include "check.h"
#include "gevffi.h"

#include <string.h>

/* What came of a stream: the frames as bytes (tag, size as two bytes, payload), and the end. */
typedef struct outcome {
    uint8_t frames[8192];
    size_t used;
    int64_t error;     /* 0, or the close code, negative */
    size_t seen;       /* bytes that had come when it was said */
    size_t left;       /* bytes of an unfinished frame */
} outcome;

static inline void note(outcome *got, const gev_cut *cut, const uint8_t *payload)
{
    CHECK(got->used + 3 + cut->size <= sizeof got->frames);
    uint8_t *to = got->frames + got->used;
    to[0] = (uint8_t)cut->tag;
    to[1] = (uint8_t)(cut->size >> 8);
    to[2] = (uint8_t)cut->size;
    memcpy(to + 3, payload, cut->size);
    got->used += 3 + cut->size;
}

/* Cuts what there is; what is left moves to the front. Returns false at an error. */
static inline int cut_all(gev_ws *ws, outcome *got, uint8_t *data, size_t *size)
{
    size_t start = 0;
    for (;;) {
        gev_cut cut;
        int64_t length = gev_ws_cut(ws, data + start, *size - start, &cut);
        if (length < 0) {
            got->error = length;
            return 0;
        }
        if (length == 0) {
            CHECK(cut.need == 0 || cut.need > *size - start);
            *size -= start;
            memmove(data, data + start, *size);
            return 1;
        }
        CHECK_EQUAL(length, cut.need);
        CHECK_EQUAL(length, cut.start + cut.size);
        CHECK((size_t)length <= *size - start);
        note(got, &cut, data + start + cut.start);
        start += (size_t)length;
    }
}

/* Feeds `stream` in steps of `step` bytes to a new connection. */
static inline outcome feed(int flags, uint32_t limit, const uint8_t *stream, size_t size, size_t step)
{
    outcome got = {.used = 0};
    gev_ws ws;
    uint8_t *kept = NULL;
    size_t have = 0;
    CHECK_EQUAL(gev_ws_init(&ws, flags, limit), 0);
    for (size_t at = 0; at < size && !got.error; at = got.seen) {
        size_t next = step < size - at ? step : size - at;
        uint8_t *data = malloc(have + next);
        if (have)
            memcpy(data, kept, have);
        memcpy(data + have, stream + at, next);
        free(kept);
        got.seen = at + next;
        have += next;
        cut_all(&ws, &got, data, &have);
        kept = data;
    }
    got.left = have;
    free(kept);
    return got;
}

#endif
