/* framing.h: cutting frames out of bytes, and dressing what is sent. A cutter finds the frames in a stream, one a call:
 *
 *     data                                            data + size
 *      ▼                                                   ▼
 *      ├─ header ─┬────────── payload ─────────┬─ next ... ┤
 *                 ▲                            ▲
 *               start                     start + size          of its gev_cut
 *      ◀───────────────── need ────────────────▶                also what it returns
 *
 * `data` is at a frame's first byte. The answer is the frame's length when all of it is there and 0
 * when it is not; then the caller keeps the bytes and comes again, at the same first byte, when
 * there are more. A negative answer says what is wrong with the frame, and ends the connection.
 */
#ifndef GEVFFI_FRAMING_H
#define GEVFFI_FRAMING_H

#include "gevffi.h"

/* Big-endian integers at any address. */
static inline uint32_t gev_load_be16(const uint8_t *data)
{
    return (uint32_t)data[0] << 8 | data[1];
}

static inline uint64_t gev_load_be64(const uint8_t *data)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | data[i];
    return value;
}

enum {
    GEV_CUT_MALFORMED = -GEV_REASON_PROTOCOL_ERROR,
    GEV_CUT_TOO_LARGE = -GEV_REASON_FRAME_TOO_LARGE,
    GEV_CUT_BAD_TEXT = GEV_CUT_MALFORMED - 256   /* the reason is in the lowest byte */
};

/* Cuts the frame that data[0..size) begins with. Returns its length, header and delimiter included;
 * 0 while it is not complete; GEV_CUT_MALFORMED or GEV_CUT_TOO_LARGE, at the first byte that says
 * so. `*scanned` is how many bytes need not be searched again; 0 for a new frame. */
int64_t gev_framing_cut(const gev_framing *framing, const uint8_t *data, size_t size,
                        uint32_t *scanned, gev_cut *cut);
/* How many bytes dressing puts before and behind a payload. */
void gev_framing_around(const gev_framing *framing, size_t *header, size_t *trailer);
/* The fewest bytes a frame has. */
size_t gev_framing_least(const gev_framing *framing);

#endif
