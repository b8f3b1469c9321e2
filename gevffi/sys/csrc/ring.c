/* ring.c: mirrored mappings, carved so that a ring costs one kernel mapping and not two.
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
 * Two mappings a ring would use up vm.max_map_count (65 530) at 32 thousand rings. But the kernel
 * merges neighbours whose addresses and file offsets both go on, and rings can be laid out so that
 * they do:
 *
 *      address     A     A     B     B     C     C    (reserved, PROT_NONE)
 *      file      0..1  0..1  1..2  1..2  2..3  2..3
 *      mapping   |--1--|----2----|----3----|--4--|
 *
 * The second half of A and the first half of B are one mapping: n rings cost n + 1. So a slab
 * reserves address space once (PROT_NONE, no memory) and rings are mapped into it one after the
 * other, MAP_FIXED inside our own reservation only. Sizes may be mixed.
 *
 * Pages are allocated by fallocate(2) and not by touching them: when the machine is full that is an
 * error here, where it would be a SIGBUS there. */
#define _GNU_SOURCE
#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

static int change(int file, int mode, uint64_t offset, size_t size) {
    int result;
    do {
        result = fallocate(file, mode, (off_t)offset, (off_t)size);
    } while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

int gev_memory_open(void) {
    int file = memfd_create("gevffi", MFD_CLOEXEC);
    return file < 0 ? -errno : file;
}

int gev_memory_allocate(int file, uint64_t offset, size_t size) {
    return change(file, 0, offset, size);
}

int gev_memory_release(int file, uint64_t offset, size_t size) {
    return change(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size);
}

static int map(uint8_t *where, size_t size, int protection, int flags, int file, uint64_t offset) {
    void *at = mmap(where, size, protection, MAP_FIXED | flags, file, (off_t)offset);
    return at == MAP_FAILED ? -errno : 0;
}

int gev_slab_open(gev_slab **slab, uint64_t offset, size_t span) {
    if (span > SIZE_MAX / 2 || span > INT64_MAX || offset > INT64_MAX - span)
        return -ENOMEM;
    gev_slab *opened = calloc(1, sizeof *opened);
    if (!opened)
        return -ENOMEM;
    void *base = mmap(NULL, 2 * span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
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
    int result = gev_memory_allocate(file, carved->offset, size);
    for (size_t half = 0; half < 2 && result == 0; half++)
        result = map(carved->base + half * size, size, PROT_READ | PROT_WRITE, MAP_SHARED, file,
                     carved->offset);
    if (result < 0) {
        /* Back to a reservation. Should that fail too, the next carve maps over it. */
        map(carved->base, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        gev_memory_release(file, carved->offset, size);
        free(carved);
        return result;
    }
    slab->carved += size;
    slab->rings++;
    *ring = carved;
    return 0;
}

uint64_t gev_slab_mappings(const gev_slab *slab) {
    uint64_t in_rings = slab->rings ? slab->rings + UINT64_C(1) : 0;
    return in_rings + (slab->carved < slab->span);
}

void gev_slab_drop(gev_slab *slab) {
    if (slab->carved == 0)
        return;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    size_t size = 2 * slab->carved;
    /* Writable memory may be refused (overcommit, RLIMIT_DATA); zeros to read never are. */
    if (map(slab->base, size, PROT_READ | PROT_WRITE, flags, -1, 0) < 0)
        map(slab->base, size, PROT_READ, flags, -1, 0);
}

void gev_slab_close(gev_slab *slab) {
    munmap(slab->base, 2 * slab->span);
    free(slab);
}
