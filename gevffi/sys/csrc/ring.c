/* ring.c: mirrored mappings, carved one after the other from reserved address space.
 *
 * A ring's memory is mapped twice in a row, so a span that wraps round its end is still one run of
 * addresses:
 *
 *      file      0 ........ size            the only memory there is
 *      address   base ..... base + size ..... base + 2 * size
 *                |<---- 0..size ---->|<---- 0..size again --->|
 *
 *                      start v   end of the ring v     v end
 *                ...........[ r e a d a b l e    |  s p a n ]......
 *
 * A slab reserves address space once (PROT_NONE, no memory) and rings are mapped into it one after
 * the other, MAP_FIXED inside our own reservation only. Sizes may be mixed. The rings of a slab have
 * consecutive stretches of the pool's file, where it has one; memory_linux.c says what for. */
#include "compat.h"
#include "ring.h"

#include <stdlib.h>

enum { NOTHING = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE };

/* Maps private memory over `size` bytes of a reservation. */
static int cover(uint8_t *where, size_t size, int protection) {
    void *at = mmap(where, size, protection, MAP_FIXED | NOTHING, -1, 0);
    return at == MAP_FAILED ? -errno : 0;
}

int gev_slab_open(gev_slab **slab, uint64_t offset, size_t span) {
    if (span > SIZE_MAX / 2 || span > INT64_MAX || offset > INT64_MAX - span)
        return -ENOMEM;
    gev_slab *opened = calloc(1, sizeof *opened);
    if (!opened)
        return -ENOMEM;
    void *base = mmap(NULL, 2 * span, PROT_NONE, NOTHING, -1, 0);
    if (base == MAP_FAILED) {
        int error = errno;
        free(opened);
        return -error;
    }
    opened->base = base;
    opened->span = span;
    opened->offset = offset;
    *slab = opened;
    return 0;
}

int gev_slab_carve(gev_slab *slab, int file, size_t size, gev_ring **ring) {
    if (size > slab->span - slab->carved)
        return -ENOMEM;
    gev_ring *carved = calloc(1, sizeof *carved);
    if (!carved)
        return -ENOMEM;
    carved->base = slab->base + 2 * slab->carved;
    carved->size = size;
    carved->offset = slab->offset + slab->carved;
    carved->slab = slab;
    int result = gev_memory_map(file, carved->base, carved->offset, size);
    if (result < 0) {
        /* Back to a reservation. Should that fail too, the next carve maps over it. */
        cover(carved->base, 2 * size, PROT_NONE);
        gev_memory_release(file, carved->base, carved->offset, size);
        free(carved);
        return result;
    }
    slab->carved += size;
    slab->rings++;
    *ring = carved;
    return 0;
}

uint64_t gev_slab_mappings(const gev_slab *slab) {
    return gev_memory_mappings(slab->rings) + (slab->carved < slab->span);
}

void gev_slab_drop(gev_slab *slab) {
    if (slab->carved == 0)
        return;
    size_t size = 2 * slab->carved;
    /* Writable memory may be refused (overcommit, RLIMIT_DATA); zeros to read never are. */
    if (cover(slab->base, size, PROT_READ | PROT_WRITE) < 0)
        cover(slab->base, size, PROT_READ);
}

void gev_slab_close(gev_slab *slab) {
    munmap(slab->base, 2 * slab->span);
    free(slab);
}
