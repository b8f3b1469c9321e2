/* framing.h: cutting frames out of bytes and dressing what is sent; no sockets, no connections. */
#ifndef GEVFFI_FRAMING_H
#define GEVFFI_FRAMING_H

#include "gevffi.h"

/* The next frame of some bytes: its payload is data[start .. start + size). */
typedef struct gev_cut {
    uint32_t start;
    uint32_t size;
    uint32_t need;     /* bytes of the whole frame where they are known already, else 0 */
    uint32_t tag;      /* what a WebSocket frame says of itself; 0 otherwise */
} gev_cut;

enum {
    GEV_CUT_MALFORMED = -GEV_REASON_PROTOCOL_ERROR,
    GEV_CUT_TOO_LARGE = -GEV_REASON_FRAME_TOO_LARGE
};

/* Cuts the frame that data[0..size) begins with. Returns its length, header and delimiter included;
 * 0 while it is not complete; GEV_CUT_MALFORMED or GEV_CUT_TOO_LARGE, at the first byte that says
 * so. `*scanned` is how many bytes need not be searched again; 0 for a new frame. */
int64_t gev_framing_cut(const gev_framing *framing, const uint8_t *data, size_t size,
                        uint32_t *scanned, gev_cut *cut);
/* The fewest bytes a frame has. */
size_t gev_framing_least(const gev_framing *framing);
/* What stands before and behind a payload that is sent, at most GEV_DRESS_ROOM bytes together.
 * Return how many bytes they wrote to `out`. */
enum { GEV_DRESS_ROOM = 16 };
size_t gev_framing_header(const gev_framing *framing, size_t payload, uint8_t *out);
size_t gev_framing_trailer(const gev_framing *framing, uint8_t *out);

#endif
