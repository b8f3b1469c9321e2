/* framing.h: what all cutters share. A cutter finds the frames in a stream, one a call:
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

#endif
