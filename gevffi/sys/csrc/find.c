/* find.c: bytes within bytes. A memoryview has no find(), and copying one to bytes only to search
 * it would cost more than the search. */
#include "compat.h"
#include "gevffi.h"

ssize_t gev_find(const void *data, size_t start, size_t end, const void *needle, size_t size) {
    if (start > end)
        return -EINVAL;
    if (size == 0)
        return 0;
    if (size > end - start) /* and so nothing below is asked of an empty buffer's NULL */
        return -ENOENT;
    const uint8_t *from = (const uint8_t *)data + start;
    const uint8_t *found = memmem(from, end - start, needle, size);
    return found ? found - from : -ENOENT;
}
