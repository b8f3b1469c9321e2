/* framing.c: the three framings that most protocols are made of, told by a description.
 *
 *   GEV_LENGTH_PREFIXED   |.. offset ..|length|......... body .........|
 *                                      |width |  length + adjustment   |
 *                         the payload is all of it but the first `strip` bytes
 *   GEV_DELIMITED         |.......... payload ..........|delimiter|
 *   GEV_FIXED_SIZE        |............ size ............|
 *
 * A length is checked before anything is done with it: a body over max_size is refused when its
 * length is read, not when its bytes have come, and a line when one byte more than max_size has
 * come without an end. Nothing here allocates or keeps anything.
 */
#define _GNU_SOURCE
#include "framing.h"

#include <errno.h>
#include <string.h>

enum { MOST_OFFSET = 4096 };
static const int64_t MOST = 1 << 30;   /* of max_size, size and adjustment; sums fit easily */

int gev_framing_check(const gev_framing *framing)
{
    const gev_framing *f = framing;
    switch (f->kind) {
    case GEV_LENGTH_PREFIXED:
        return f->width >= 1 && f->width <= 8 && f->offset <= MOST_OFFSET
                       && f->strip <= MOST_OFFSET + 8 && f->max_size <= MOST
                       && f->adjustment <= MOST && f->adjustment >= -MOST
                   ? 0 : -EINVAL;
    case GEV_DELIMITED:
        return f->delimiter_size >= 1 && f->delimiter_size <= sizeof f->delimiter
                       && f->max_size <= MOST
                   ? 0 : -EINVAL;
    case GEV_FIXED_SIZE:
        return f->size >= 1 && f->size <= MOST ? 0 : -EINVAL;
    case GEV_WEBSOCKET: /* cut by websocket.c */
        return !(f->size & ~(uint32_t)(GEV_WS_SERVER | GEV_WS_DEFLATE)) && !f->one_at_a_time
                       && !f->dress && f->max_size <= GEV_WS_MOST
                   ? 0 : -EINVAL;
    default:
        return -EINVAL;
    }
}

static uint64_t read_length(const gev_framing *f, const uint8_t *from)
{
    uint64_t length = 0;
    if (f->little)
        for (uint32_t i = f->width; i > 0; i--)
            length = length << 8 | from[i - 1];
    else
        for (uint32_t i = 0; i < f->width; i++)
            length = length << 8 | from[i];
    return length;
}

static int64_t cut_length_prefixed(const gev_framing *f, const uint8_t *data, size_t size,
                                   gev_cut *cut)
{
    size_t header = f->offset + f->width;
    if (size < header)
        return 0;
    uint64_t length = read_length(f, data + f->offset);
    if (length > (uint64_t)(2 * MOST))
        return GEV_CUT_TOO_LARGE;
    int64_t body = (int64_t)length + f->adjustment;
    if (body < 0)
        return GEV_CUT_MALFORMED;
    if (body > f->max_size)
        return GEV_CUT_TOO_LARGE;
    size_t total = header + (size_t)body;
    if (total < f->strip)
        return GEV_CUT_MALFORMED;
    cut->need = (uint32_t)total;
    if (size < total)
        return 0;
    cut->start = f->strip;
    cut->size = (uint32_t)total - f->strip;
    return (int64_t)total;
}

static int64_t cut_delimited(const gev_framing *f, const uint8_t *data, size_t size,
                             uint32_t *scanned, gev_cut *cut)
{
    size_t end = f->delimiter_size;
    /* Kept input may be cut by parts, shorter ones than were searched before. */
    size_t from = *scanned < size ? *scanned : size;
    const uint8_t *found = size < end ? NULL
                           : end == 1 ? memchr(data + from, f->delimiter[0], size - from)
                                      : memmem(data + from, size - from, f->delimiter, end);
    cut->need = 0;
    if (!found) {
        /* The last bytes may be the first ones of a delimiter. */
        size_t searched = size < end ? 0 : size - (end - 1);
        *scanned = (uint32_t)searched;
        return searched > f->max_size ? GEV_CUT_TOO_LARGE : 0;
    }
    size_t payload = (size_t)(found - data);
    if (payload > f->max_size)
        return GEV_CUT_TOO_LARGE;
    cut->start = 0;
    cut->size = (uint32_t)(f->keep ? payload + end : payload);
    return (int64_t)(payload + end);
}

int64_t gev_framing_cut(const gev_framing *framing, const uint8_t *data, size_t size,
                        uint32_t *scanned, gev_cut *cut)
{
    cut->tag = 0;
    switch (framing->kind) {
    case GEV_LENGTH_PREFIXED:
        cut->need = 0;
        return cut_length_prefixed(framing, data, size, cut);
    case GEV_DELIMITED:
        return cut_delimited(framing, data, size, scanned, cut);
    default:
        cut->need = framing->size;
        cut->start = 0;
        cut->size = framing->size;
        return size < framing->size ? 0 : framing->size;
    }
}

size_t gev_framing_least(const gev_framing *framing)
{
    switch (framing->kind) {
    case GEV_LENGTH_PREFIXED:
        return framing->offset + framing->width;
    case GEV_DELIMITED:
        return framing->delimiter_size;
    case GEV_WEBSOCKET:
        return framing->size & GEV_WS_SERVER ? 6 : 2;
    default:
        return framing->size;
    }
}

void gev_framing_around(const gev_framing *framing, size_t *header, size_t *trailer)
{
    *header = framing->dress && framing->kind == GEV_LENGTH_PREFIXED ? framing->width : 0;
    *trailer = framing->dress && framing->kind == GEV_DELIMITED ? framing->delimiter_size : 0;
}

size_t gev_framing_header(const gev_framing *framing, size_t payload, uint8_t *out)
{
    size_t width, trailer;
    gev_framing_around(framing, &width, &trailer);
    uint64_t length = (uint64_t)((int64_t)payload - framing->adjustment);
    for (size_t i = 0; i < width; i++)
        out[i] = (uint8_t)(length >> 8 * (framing->little ? i : width - 1 - i));
    return width;
}

size_t gev_framing_trailer(const gev_framing *framing, uint8_t *out)
{
    size_t header, size;
    gev_framing_around(framing, &header, &size);
    memcpy(out, framing->delimiter, size);
    return size;
}
