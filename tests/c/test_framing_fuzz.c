/* Coverage-guided fuzzing of the cutters, against the plainest implementation there can be.
 *
 * An input is a framing, how the stream comes in pieces, and the stream:
 *
 *   |kind|width|flags|offset|strip|adjustment|max_size|delimiter|piece sizes|stream ...|
 *
 * The stream is cut twice, all at once and piece by piece as a connection does it (what is not cut
 * is kept, with what was searched of it); both must give the frames of the reference, and the same
 * end. Each piece lies in memory of exactly its size, so that AddressSanitizer sees a read beyond.
 *
 * As a program it makes up its input. It is a libFuzzer target too, which finds its own:
 *     make fuzz
 */
#include "check.h"
#include "framing.h"

#include <stdint.h>
#include <string.h>

enum { HEAD = 34, MOST_FRAMES = 4096 };

typedef struct frames {
    size_t count, starts[MOST_FRAMES], sizes[MOST_FRAMES];
    int64_t end;             /* 0: the rest is unfinished; or the error */
} frames;

static frames expected, whole, pieces;

static void add(frames *f, size_t start, size_t size)
{
    CHECK(f->count < MOST_FRAMES);
    f->starts[f->count] = start;
    f->sizes[f->count++] = size;
}

/* ---- the reference: one byte after the other, in numbers too wide to overflow ---------------- */

static int64_t reference_length(const gev_framing *f, const uint8_t *data, size_t size, size_t *start,
                                size_t *payload)
{
    if (size < (size_t)f->offset + f->width)
        return 0;
    __int128 length = 0, total;
    for (uint32_t i = 0; i < f->width; i++)
        length = length * 256 + data[f->offset + (f->little ? f->width - 1 - i : i)];
    /* What is over twice any limit is too large whatever is subtracted. */
    if (length > (__int128)1 << 31 || length + f->adjustment > f->max_size)
        return GEV_CUT_TOO_LARGE;
    total = f->offset + f->width + length + f->adjustment;
    if (length + f->adjustment < 0 || total < f->strip)
        return GEV_CUT_MALFORMED;
    *start = f->strip;
    *payload = (size_t)total - f->strip;
    return total > (__int128)size ? 0 : (int64_t)total;
}

static int64_t reference_line(const gev_framing *f, const uint8_t *data, size_t size, size_t *start,
                              size_t *payload)
{
    for (size_t i = 0; i + f->delimiter_size <= size; i++) {
        if (i > f->max_size)
            return GEV_CUT_TOO_LARGE;
        if (!memcmp(data + i, f->delimiter, f->delimiter_size)) {
            *start = 0;
            *payload = i + (f->keep ? f->delimiter_size : 0);
            return (int64_t)(i + f->delimiter_size);
        }
    }
    return size >= (size_t)f->max_size + f->delimiter_size ? GEV_CUT_TOO_LARGE : 0;
}

static void cut_by_reference(const gev_framing *f, const uint8_t *data, size_t size)
{
    size_t at = 0;
    int64_t length = 0;
    expected.count = 0;
    while (at < size && expected.count < MOST_FRAMES) {
        size_t start = 0, payload = f->size;
        length = f->kind == GEV_LENGTH_PREFIXED
                     ? reference_length(f, data + at, size - at, &start, &payload)
                 : f->kind == GEV_DELIMITED
                     ? reference_line(f, data + at, size - at, &start, &payload)
                 : size - at < f->size ? 0 : f->size;
        if (length <= 0)
            break;
        add(&expected, at + start, payload);
        at += (size_t)length;
    }
    expected.end = length < 0 ? length : 0;
}

/* ---- what is fuzzed ------------------------------------------------------------------------- */

/* Cuts the stream as it comes in pieces of these sizes (0: all that is left). */
static void cut_in_pieces(const gev_framing *f, const uint8_t *data, size_t size,
                          const uint8_t *piece_sizes, frames *found)
{
    size_t done = 0, come = 0;   /* of the stream */
    uint32_t scanned = 0, need = 0;
    found->count = 0;
    found->end = 0;
    for (size_t turn = 0; come < size && !found->end; turn++) {
        size_t piece = piece_sizes ? piece_sizes[turn % 8] : 0;
        come += piece && piece < size - come ? piece : size - come;
        uint8_t *memory = malloc(come - done);
        CHECK(memory);
        memcpy(memory, data + done, come - done);
        size_t at = 0, have = come - done;
        while (at < have && found->count < MOST_FRAMES) {
            gev_cut cut;
            int64_t length = gev_framing_cut(f, memory + at, have - at, &scanned, &cut);
            CHECK(scanned <= have - at);
            CHECK(length <= (int64_t)(have - at));
            if (length <= 0) {
                CHECK(!need || length == 0); /* a length that was believed stays believed */
                CHECK(!cut.need || length < 0 || cut.need > have - at);
                CHECK(!need || need == cut.need);
                need = length == 0 ? cut.need : 0;
                found->end = length;
                break;
            }
            CHECK((size_t)length >= gev_framing_least(f));
            CHECK(!need || need == length);
            CHECK((int64_t)cut.start + cut.size <= length);
            add(found, done + at + cut.start, cut.size);
            at += (size_t)length;
            scanned = need = 0;
        }
        free(memory);
        done += at;
        if (found->count == MOST_FRAMES)
            return;
    }
}

static void same(const frames *found)
{
    CHECK(found->count == expected.count);
    CHECK(!memcmp(found->starts, expected.starts, expected.count * sizeof *expected.starts));
    CHECK(!memcmp(found->sizes, expected.sizes, expected.count * sizeof *expected.sizes));
    CHECK(expected.count == MOST_FRAMES || found->end == expected.end);
}

/* What is dressed is cut to what it was. */
static void dress(const gev_framing *f, const uint8_t *data, size_t size)
{
    if (f->kind != GEV_LENGTH_PREFIXED || f->offset || f->strip != f->width || f->adjustment > 0
            || size > 64)
        return;
    gev_framing dressing = *f;
    dressing.dress = 1;
    dressing.max_size = 64;
    uint64_t most = f->width == 8 ? UINT64_MAX : ((uint64_t)1 << 8 * f->width) - 1;
    if (size + (uint64_t) - (int64_t)f->adjustment > most)
        return;
    uint8_t out[GEV_DRESS_ROOM + 64];
    size_t header = gev_framing_header(&dressing, size, out);
    CHECK(header == f->width);
    memcpy(out + header, data, size);
    uint32_t scanned = 0;
    gev_cut cut;
    CHECK(gev_framing_cut(&dressing, out, header + size, &scanned, &cut)
          == (int64_t)(header + size));
    CHECK(cut.start == header && cut.size == size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return -1;
    gev_framing f = {0};
    uint32_t number;
    f.kind = 1 + data[0] % 3;
    memcpy(&number, data + 8, sizeof number);
    if (f.kind == GEV_LENGTH_PREFIXED) {
        int32_t adjustment = (int8_t)data[5];
        f.width = data[1];
        f.little = data[2] & 1;
        f.offset = data[3];
        f.strip = data[4];
        f.adjustment = data[2] & 2 ? adjustment * (1 << 23) : adjustment;
        f.max_size = number;
    } else if (f.kind == GEV_DELIMITED) {
        f.delimiter_size = data[1];
        f.keep = data[2] & 1;
        f.max_size = number;
        memcpy(f.delimiter, data + 10, f.delimiter_size < 16 ? f.delimiter_size : 16);
    } else {
        f.size = number;
    }
    if (gev_framing_check(&f))
        return -1;
    data += HEAD;
    size -= HEAD;
    cut_by_reference(&f, data, size);
    cut_in_pieces(&f, data, size, NULL, &whole);
    same(&whole);
    cut_in_pieces(&f, data, size, data - 8, &pieces);
    same(&pieces);
    dress(&f, data, size);
    return 0;
}

#ifndef LIBFUZZER

static uint32_t any(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Small numbers mostly, so that most framings can be meant and most frames are whole. */
static size_t make(uint8_t *to, size_t room, uint64_t *state)
{
    size_t size = HEAD + any(state) % (room - HEAD);
    uint32_t below = 2 + any(state) % 12;
    for (size_t i = 0; i < size; i++)
        to[i] = (uint8_t)(any(state) % 50 ? any(state) % below : any(state));
    to[1] = (uint8_t)(1 + any(state) % 8);
    to[10] = to[11] = any(state) % 4 ? 0 : to[10];
    return size;
}

static void random_inputs(void)
{
    enum { INPUTS = 50000 };
    static uint8_t data[600];
    uint64_t state = 1;
    int meant = 0;
    for (int i = 0; i < INPUTS; i++)
        meant += LLVMFuzzerTestOneInput(data, make(data, sizeof data, &state)) == 0;
    CHECK(meant > INPUTS / 2);
}

int main(void)
{
    CHECK_TIME(50);
    RUN(random_inputs);
    return 0;
}

#endif
