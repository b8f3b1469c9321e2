/* utf8.c: is it UTF-8 (RFC 3629)? Asked piece by piece, answered at the first byte that cannot be.
 *
 * Runs of ASCII are passed over 32 bytes at a time. The rest goes through an automaton:
 *
 *     OK ── C2..DF ───────────────────────────────▶ T1 ── 80..BF ──▶ OK
 *     OK ── E1..EC EE EF ──────────▶ T2 ── 80..BF ──▶ T1
 *     OK ── E0 ──▶ E0 ── A0..BF ──▶ T1          shorter forms exist below A0
 *     OK ── ED ──▶ ED ── 80..9F ──▶ T1          surrogates are from A0 on
 *     OK ── F1..F3 ──▶ T3 ── 80..BF ──▶ T2
 *     OK ── F0 ──▶ F0 ── 90..BF ──▶ T2          shorter forms exist below 90
 *     OK ── F4 ──▶ F4 ── 80..8F ──▶ T2          past U+10FFFF from 90 on
 *     anything else ──▶ BAD, for ever
 *
 * Its nine states are the multiples of 6 up to 48, and a byte's row is one 64-bit number with the
 * next state for state s in the six bits from s on. So a step is one load, which does not wait for
 * the state, and one shift, which does: about a byte a cycle, whatever the text.
 */
#include "gevffi.h"

#include <string.h>

enum { OK = GEV_UTF8_OK, BAD = GEV_UTF8_BAD, T1 = 12, T2 = 18, T3 = 24, E0 = 30, ED = 36,
       F0 = 42, F4 = 48 };

#define ROW(ok, t1, t2, t3, e0, ed, f0, f4)                                                      \
    ((uint64_t)(ok) | (uint64_t)BAD << BAD | (uint64_t)(t1) << T1 | (uint64_t)(t2) << T2 |       \
     (uint64_t)(t3) << T3 | (uint64_t)(e0) << E0 | (uint64_t)(ed) << ED | (uint64_t)(f0) << F0 | \
     (uint64_t)(f4) << F4)
#define FIRST(next) ROW(next, BAD, BAD, BAD, BAD, BAD, BAD, BAD)

static const uint64_t rows[256] = {
    [0x00 ... 0x7f] = FIRST(OK),
    [0x80 ... 0x8f] = ROW(BAD, OK, T1, T2, BAD, T1, BAD, T2),
    [0x90 ... 0x9f] = ROW(BAD, OK, T1, T2, BAD, T1, T2, BAD),
    [0xa0 ... 0xbf] = ROW(BAD, OK, T1, T2, T1, BAD, T2, BAD),
    [0xc0 ... 0xc1] = FIRST(BAD),
    [0xc2 ... 0xdf] = FIRST(T1),
    [0xe0] = FIRST(E0),
    [0xe1 ... 0xec] = FIRST(T2),
    [0xed] = FIRST(ED),
    [0xee ... 0xef] = FIRST(T2),
    [0xf0] = FIRST(F0),
    [0xf1 ... 0xf3] = FIRST(T3),
    [0xf4] = FIRST(F4),
    [0xf5 ... 0xff] = FIRST(BAD),
};

enum { STRIDE = 32 };

static int is_ascii(const uint8_t *data)
{
    uint64_t words[STRIDE / 8];
    memcpy(words, data, STRIDE);
    return !((words[0] | words[1] | words[2] | words[3]) & 0x8080808080808080u);
}

static uint64_t run(uint64_t state, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        state = rows[data[i]] >> (state & 63);
    return state & 63;
}

uint32_t gev_utf8_check(uint32_t state, const void *data, size_t size)
{
    const uint8_t *at = data;
    uint64_t now = state;
    for (; size >= STRIDE && now != BAD; at += STRIDE, size -= STRIDE)
        if (now != OK || !is_ascii(at))
            now = run(now, at, STRIDE);
    return (uint32_t)run(now, at, size);
}
