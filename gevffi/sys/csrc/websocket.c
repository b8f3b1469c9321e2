/* websocket.c: cuts WebSocket frames (RFC 6455, section 5), unmasks and checks them.
 *
 *      0               1               2 .. 9                  then 4          then
 *     ┌─┬─────┬───────┬─┬─────────────┬───────────────────────┬───────────────┬──────────────┐
 *     │F│R R R│opcode │M│ 7-bit size  │ 16-bit size, if 126   │ masking key,  │ payload      │
 *     │ │1 2 3│       │ │             │ 64-bit size, if 127   │ if M          │              │
 *     └─┴─────┴───────┴─┴─────────────┴───────────────────────┴───────────────┴──────────────┘
 *                                                                              ◀done▶
 *
 * Whatever is wrong is said at the first byte that shows it: a size over the limit before any of
 * its bytes have come, bad UTF-8 in the middle of a frame. So an unfinished frame's payload is
 * unmasked and checked as it comes, `done` bytes of it so far, which also means that it is touched
 * while it is still in the cache. All else of an unfinished frame is read again the next time; the
 * message's own state moves on with whole frames only.
 *
 * The text of compressed messages is not to be seen here; who inflates them checks it.
 */
#include "framing.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum {
    FIN = 0x80, RSV1 = 0x40, RSV23 = 0x30, OPCODE = 0x0f,
    CONTINUATION = 0x0, TEXT = 0x1, BINARY = 0x2, CLOSE = 0x8, PING = 0x9, PONG = 0xa,
    CONTROL = 0x8, /* the bit that opcodes of control frames have */
    MASKED = 0x80,
    PROTOCOL_ERROR = -1002, INVALID_TEXT = -1007, TOO_LARGE = -1009
};

/* ---- masking (section 5.3) ---------------------------------------------------------------- */

/* A register of SSE2 or NEON. Two at a time, since GCC keeps larger vectors in memory; AVX2 would be
 * faster only on what is in the first-level cache. */
typedef uint64_t vector __attribute__((vector_size(16)));

/* XORs `key`, four bytes in the order of memory, over `data`. Returns an or of all the results, of
 * which the top bits of bytes are of interest: if none is set, it is all ASCII. */
static uint64_t apply_mask(uint8_t *data, size_t size, uint32_t key)
{
    uint64_t key8 = (uint64_t)key << 32 | key, seen = 0;
    if (size >= 2 * sizeof(vector)) {
        vector keys = {key8, key8}, all = {0}, left, right;
        do {
            memcpy(&left, data, sizeof left);
            memcpy(&right, data + sizeof left, sizeof right);
            left ^= keys;
            right ^= keys;
            all |= left | right;
            memcpy(data, &left, sizeof left);
            memcpy(data + sizeof left, &right, sizeof right);
            data += 2 * sizeof left;
            size -= 2 * sizeof left;
        } while (size >= 2 * sizeof left);
        seen = all[0] | all[1];
    }
    for (; size >= sizeof key8; data += sizeof key8, size -= sizeof key8) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        word ^= key8;
        seen |= word;
        memcpy(data, &word, sizeof word);
    }
    uint8_t bytes[sizeof key8];
    memcpy(bytes, &key8, sizeof bytes);
    for (size_t i = 0; i < size; i++)
        seen |= data[i] ^= bytes[i];
    return seen;
}

/* The key for data that begins `offset` bytes into the payload. */
static uint32_t rotate(const uint8_t *key, size_t offset)
{
    uint8_t twice[8];
    uint32_t value;
    memcpy(twice, key, 4);
    memcpy(twice + 4, key, 4);
    memcpy(&value, twice + (offset & 3), sizeof value);
    return value;
}

void gev_ws_mask(uint8_t *data, size_t size, const uint8_t *key, size_t offset)
{
    apply_mask(data, size, rotate(key, offset));
}

/* ---- what may not be ---------------------------------------------------------------------- */

/* Looks at a frame's first byte. 0 or PROTOCOL_ERROR. */
static int check_first(const gev_ws *ws, uint8_t first)
{
    uint8_t opcode = first & OPCODE;
    if (first & RSV23)
        return PROTOCOL_ERROR;
    if (opcode & CONTROL)
        return opcode <= PONG && (first & (FIN | RSV1)) == FIN ? 0 : PROTOCOL_ERROR;
    if (opcode == CONTINUATION)
        return ws->opcode && !(first & RSV1) ? 0 : PROTOCOL_ERROR;
    if (opcode > BINARY || ws->opcode)
        return PROTOCOL_ERROR;
    return !(first & RSV1) || ws->flags & GEV_WS_DEFLATE ? 0 : PROTOCOL_ERROR;
}

/* The most bytes a data frame may have still. Deflate can make data larger, by an eighth and a few
 * bytes at worst (zlib's deflateBound); the message's own size is looked at when it is inflated. */
static uint64_t room(const gev_ws *ws, bool compressed)
{
    uint64_t most = ws->max_message_size;
    if (compressed)
        most += most / 4 + 64;
    return most - ws->message_size;
}

/* Codes that may stand in a close frame: section 7.4, and IANA's registry up to 1014. */
static bool is_close_code(uint32_t code)
{
    if (code >= 3000)
        return code < 5000;
    return code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006;
}

/* Looks at what there is of a close frame's payload; it is never more than 125 bytes. */
static int check_close(const uint8_t *payload, size_t have, size_t size)
{
    if (have >= 2) {
        if (!is_close_code(gev_load_be16(payload)))
            return PROTOCOL_ERROR;
        uint32_t utf8 = gev_utf8_check(GEV_UTF8_OK, payload + 2, have - 2);
        if (utf8 == GEV_UTF8_BAD || (have == size && utf8 != GEV_UTF8_OK))
            return INVALID_TEXT;
    }
    return 0;
}

/* ---- cutting ------------------------------------------------------------------------------ */

int gev_ws_init(gev_ws *ws, int flags, uint32_t max_message_size)
{
    if (flags & ~(GEV_WS_SERVER | GEV_WS_DEFLATE) || max_message_size > GEV_WS_MOST)
        return -EINVAL;
    *ws = (gev_ws){.max_message_size = max_message_size, .flags = (uint8_t)flags};
    return 0;
}

/* Unmasks payload[done, have) and, if it is text, checks it. 0 or INVALID_TEXT. */
static int take_payload(gev_ws *ws, uint8_t *payload, size_t have, const uint8_t *key, bool text)
{
    size_t done = ws->done, size = have > done ? have - done : 0;
    /* So much stays in the first-level cache between the two looks at it. */
    enum { PIECE = 8192 };
    uint32_t turned = key ? rotate(key, done) : 0;
    ws->done += (uint32_t)size;
    for (uint8_t *at = payload + done; size;) {
        size_t piece = size < PIECE ? size : PIECE;
        bool ascii = key && !(apply_mask(at, piece, turned) & 0x8080808080808080u);
        if (text && !(ascii && ws->utf8 == GEV_UTF8_OK)) {
            ws->utf8 = (uint8_t)gev_utf8_check(ws->utf8, at, piece);
            if (ws->utf8 == GEV_UTF8_BAD)
                return INVALID_TEXT;
        }
        at += piece;
        size -= piece;
    }
    return 0;
}

/* The message's state after a whole data frame. 0 or INVALID_TEXT. */
static int end_data_frame(gev_ws *ws, uint8_t first, uint32_t size)
{
    if (first & FIN) {
        if (ws->utf8 != GEV_UTF8_OK) {
            ws->utf8 = GEV_UTF8_BAD; /* should somebody ask again */
            return INVALID_TEXT;
        }
        ws->opcode = 0;
        ws->compressed = 0;
        ws->message_size = 0;
        return 0;
    }
    if (!ws->opcode) {
        ws->opcode = first & OPCODE;
        ws->compressed = !!(first & RSV1);
    }
    ws->message_size += size;
    return 0;
}

int64_t gev_ws_cut(gev_ws *ws, uint8_t *data, size_t size, gev_cut *cut)
{
    *cut = (gev_cut){0};
    if (ws->utf8 == GEV_UTF8_BAD)
        return INVALID_TEXT;
    if (size < 1)
        return 0;
    uint8_t first = data[0];
    int error = check_first(ws, first);
    if (error)
        return error;
    if (size < 2)
        return 0;
    bool masked = data[1] & MASKED, control = first & CONTROL;
    if (masked != !!(ws->flags & GEV_WS_SERVER))
        return PROTOCOL_ERROR;

    uint64_t length = data[1] & 0x7f;
    size_t header = 2;
    if (length >= 126) {
        bool wide_length = length == 127;
        header = wide_length ? 10 : 4;
        if (control || (wide_length && size > 2 && data[2] & 0x80))
            return PROTOCOL_ERROR;
        if (size < header)
            return 0;
        length = wide_length ? gev_load_be64(data + 2) : gev_load_be16(data + 2);
        if (length < (wide_length ? 0x10000 : 126)) /* "the minimal number of bytes MUST be used" */
            return PROTOCOL_ERROR;
    }
    uint8_t opcode = first & OPCODE;
    if (opcode == CLOSE && length == 1)
        return PROTOCOL_ERROR;
    bool compressed = !control && (first & RSV1 || ws->compressed);
    if (!control && length > room(ws, compressed))
        return TOO_LARGE;
    if (masked)
        header += 4;

    /* The limit keeps it under 4 GiB. */
    *cut = (gev_cut){(uint32_t)header, (uint32_t)length, (uint32_t)(header + length), first};
    if (size < header)
        return 0;
    uint8_t *payload = data + header;
    size_t have = size - header < length ? size - header : (size_t)length;
    bool text = !control && !compressed && (opcode == TEXT || ws->opcode == TEXT);
    error = take_payload(ws, payload, have, masked ? payload - 4 : NULL, text);
    if (!error && opcode == CLOSE)
        error = check_close(payload, have, (size_t)length);
    if (error)
        return error;
    if (have < length)
        return 0;
    ws->done = 0;
    if (!control) {
        error = end_data_frame(ws, first, (uint32_t)length);
        if (error)
            return error;
    }
    return (int64_t)(header + length);
}

/* ---- frames to send ----------------------------------------------------------------------- */

int gev_ws_header(uint8_t *header, uint8_t first, uint64_t size, const uint8_t *key)
{
    int used = 2;
    header[0] = first;
    if (size < 126) {
        header[1] = (uint8_t)size;
    } else {
        int bytes = size < 0x10000 ? 2 : 8;
        header[1] = bytes == 2 ? 126 : 127;
        for (int i = 0; i < bytes; i++)
            header[used++] = (uint8_t)(size >> 8 * (bytes - 1 - i));
    }
    if (key) {
        header[1] |= MASKED;
        memcpy(header + used, key, 4);
        used += 4;
    }
    return used;
}
