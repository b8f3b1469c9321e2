/* memory_linux.c: the pages of rings, from one memfd_create(2) file a pool.
 *
 * Two mappings a ring would use up vm.max_map_count (65 530) at 32 thousand rings. But the kernel
 * merges neighbours whose addresses and file offsets both go on, and rings can be laid out so that
 * they do:
 *
 *      address     A     A     B     B     C     C    (reserved, PROT_NONE)
 *      file      0..1  0..1  1..2  1..2  2..3  2..3
 *      mapping   |--1--|----2----|----3----|--4--|
 *
 * The second half of A and the first half of B are one mapping: n rings cost n + 1.
 *
 * Pages are allocated by fallocate(2) and not by touching them: when the machine is full that is an
 * error here, where it would be a SIGBUS there. Taken away, they leave a hole in the file; the
 * mapping stays. */
#include "compat.h"
#include "ring.h"

static int change(int file, int mode, uint64_t offset, size_t size) {
    int result;
    do {
        result = fallocate(file, mode, (off_t)offset, (off_t)size);
    } while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

int gev_memory_open(int *file) {
    *file = memfd_create("gevffi", MFD_CLOEXEC);
    return *file < 0 ? -errno : 0;
}

int gev_memory_map(int file, uint8_t *base, uint64_t offset, size_t size) {
    int result = change(file, 0, offset, size);
    for (size_t half = 0; half < 2 && result == 0; half++) {
        void *at = mmap(base + half * size, size, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED,
                        file, (off_t)offset);
        if (at == MAP_FAILED)
            result = -errno;
    }
    return result;
}

int gev_memory_release(int file, uint8_t *base, uint64_t offset, size_t size) {
    (void)base;
    return change(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size);
}

int gev_memory_refill(int file, uint8_t *base, uint64_t offset, size_t size) {
    (void)base;
    return change(file, 0, offset, size);
}

uint64_t gev_memory_mappings(uint64_t rings) {
    return rings ? rings + 1 : 0;
}
