/* memory_posix.c: the pages of rings, from one shared memory object each: shm_open(3).
 *
 * For systems where one file cannot grow and get holes (macOS sizes an object once and for all), and
 * where mappings are not counted, so that merging them would bring nothing. An object has its name
 * only for a moment, and its descriptor not much longer: the two mappings keep it.
 *
 *      shm_open, shm_unlink, ftruncate, mmap, mmap, close
 *
 * Pages are taken away by mapping nothing over both halves, which ends the object; anew, they are
 * another object. What these systems do not promise is that a page touched later can be had. */
#include "compat.h"
#include "ring.h"

#include <stdio.h>

enum { NAME_ROOM = 31 };   /* with its zero; macOS's PSHMNAMLEN, the shortest */

/* No other process has this process's number, and no other thread these addresses. A name left
 * behind by a process that was killed here is taken over. */
static int open_nameless(const uint8_t *base) {
    char name[NAME_ROOM];
    snprintf(name, sizeof name, "/gev%lx.%llx", (unsigned long)getpid(),
             (unsigned long long)(uintptr_t)base >> 12);
    int file = -1;
    for (int tries = 0; tries < 2 && file < 0; tries++) {
        file = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (file < 0 && errno != EEXIST)
            return -errno;
        shm_unlink(name);
    }
    return file < 0 ? -EEXIST : file;
}

int gev_memory_open(int *file) {
    *file = -1;
    return 0;
}

int gev_memory_map(int file, uint8_t *base, uint64_t offset, size_t size) {
    (void)offset;
    file = open_nameless(base);
    if (file < 0)
        return file;
    int result = ftruncate(file, (off_t)size) < 0 ? -errno : 0;
    for (size_t half = 0; half < 2 && result == 0; half++) {
        void *at = mmap(base + half * size, size, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_SHARED,
                        file, 0);
        if (at == MAP_FAILED)
            result = -errno;
    }
    close(file);
    return result;
}

int gev_memory_release(int file, uint8_t *base, uint64_t offset, size_t size) {
    (void)file;
    (void)offset;
    int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    return mmap(base, 2 * size, PROT_NONE, flags, -1, 0) == MAP_FAILED ? -errno : 0;
}

int gev_memory_refill(int file, uint8_t *base, uint64_t offset, size_t size) {
    return gev_memory_map(file, base, offset, size);
}

uint64_t gev_memory_mappings(uint64_t rings) {
    return 2 * rings;
}
