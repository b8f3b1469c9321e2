/* pool.c: who has which ring. Free lists, bounds and counts; the mappings are ring.c's.
 *
 * Rings are recycled, not unmapped: touching fresh memory costs a hundred times what touching warm
 * memory does. All rings are powers of two and each power has two lists, newest first:
 *
 *      warm [12] -> ring -> ring      keep their pages; warm_bytes in all, at most
 *      cold [12] -> ring              keep their addresses only
 *           [13] ...
 *
 *      take:  warm, else cold (pages anew), else carve one
 *      give:  warm while there is room, else its pages are taken away and it is cold
 *
 * The pool has one file; slabs have consecutive stretches of it, and rings stretches of a slab.
 * A ring belongs to its power for ever, so a burst of one size could use up max_rings for all
 * others. When a take would fail, slabs none of whose rings is held are therefore unmapped first.
 *
 * A pool that is closed while rings are held lives on until they come back. Python needs that: when
 * its collector finds a pool and its rings in one cycle, it ends them in any order.
 *
 * fork(2): between gev_pool_lock and gev_pool_unlock the thread that forks may still give rings
 * back (Python may run finalizers there), so the lock is open to that thread. */
#include "compat.h"
#include "ring.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { POWERS = 64, SLAB_BYTES = 4 << 20 };

struct gev_pool {
    pthread_mutex_t mutex;
    _Atomic uintptr_t forker;   /* the thread between gev_pool_lock and unlock; 0 for none */
    int file;                   /* -1: none */
    bool dropped;
    bool closed;                /* and gone with the last ring that is held */
    unsigned int page_power;
    uint64_t file_end;          /* where in the file the next slab starts */
    uint64_t max_bytes, max_rings, max_warm_bytes;
    uint64_t used_bytes, used_rings, warm_bytes, rings;
    uint64_t idle_slabs;        /* with no ring held */
    gev_slab *slabs;            /* the first is the one that is carved from */
    gev_ring *warm[POWERS], *cold[POWERS];
};

/* True if the caller has to unlock again. */
static bool lock(gev_pool *pool) {
    if (atomic_load(&pool->forker) == (uintptr_t)pthread_self())
        return false;
    pthread_mutex_lock(&pool->mutex);
    return true;
}

static void unlock(gev_pool *pool, bool locked) {
    if (locked)
        pthread_mutex_unlock(&pool->mutex);
}

/* The smallest power of two that holds `size` bytes and a page; POWERS if there is none. */
static unsigned int power_for(const gev_pool *pool, size_t size) {
    unsigned int power = pool->page_power;
    while (power < POWERS && size > (UINT64_C(1) << power))
        power++;
    return power;
}

static unsigned int power_of(const gev_ring *ring) {
    return (unsigned int)__builtin_ctzll(ring->size);
}

static void push(gev_ring **list, gev_ring *ring) {
    ring->next = list[power_of(ring)];
    list[power_of(ring)] = ring;
}

static gev_ring *pop(gev_ring **list, unsigned int power) {
    gev_ring *ring = list[power];
    list[power] = ring->next;
    ring->next = NULL;
    return ring;
}

int gev_pool_open(gev_pool **pool, uint64_t max_bytes, uint64_t max_rings, uint64_t warm_bytes) {
    long page = sysconf(_SC_PAGESIZE);
    if (page <= 0)
        return -EINVAL;
    gev_pool *opened = calloc(1, sizeof *opened);
    if (!opened)
        return -ENOMEM;
    int result = -pthread_mutex_init(&opened->mutex, NULL);
    if (result < 0) {
        free(opened);
        return result;
    }
    result = gev_memory_open(&opened->file);
    if (result < 0) {
        pthread_mutex_destroy(&opened->mutex);
        free(opened);
        return result;
    }
    opened->page_power = (unsigned int)__builtin_ctzl((unsigned long)page);
    opened->max_bytes = max_bytes;
    opened->max_rings = max_rings;
    opened->max_warm_bytes = warm_bytes;
    *pool = opened;
    return 0;
}

static void destroy(gev_pool *pool) {
    for (unsigned int power = 0; power < POWERS; power++) {
        while (pool->warm[power])
            free(pop(pool->warm, power));
        while (pool->cold[power])
            free(pop(pool->cold, power));
    }
    while (pool->slabs) {
        gev_slab *slab = pool->slabs;
        pool->slabs = slab->next;
        gev_slab_close(slab);
    }
    if (pool->file >= 0)
        close(pool->file);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}

void gev_pool_close(gev_pool *pool) {
    bool locked = lock(pool);
    pool->closed = true;
    bool last = pool->used_rings == 0;
    unlock(pool, locked);
    if (last)
        destroy(pool);
}

static int carve(gev_pool *pool, size_t size, gev_ring **ring) {
    if (pool->rings >= pool->max_rings)
        return -ENOBUFS;
    gev_slab *slab = pool->slabs;
    if (!slab || slab->span - slab->carved < size) {
        size_t span = size > SLAB_BYTES ? size : SLAB_BYTES;
        gev_slab *fresh;
        int result = gev_slab_open(&fresh, pool->file_end, span);
        if (result < 0)
            return result;
        pool->file_end += span;
        pool->idle_slabs++;
        /* One that this ring fills goes second: the first may have room for small rings yet. */
        gev_slab **where = slab && span == size ? &slab->next : &pool->slabs;
        fresh->next = *where;
        *where = fresh;
        slab = fresh;
    }
    int result = gev_slab_carve(slab, pool->file, size, ring);
    if (result < 0)
        return result;
    (*ring)->pool = pool;
    pool->rings++;
    return 0;
}

static int find(gev_pool *pool, unsigned int power, gev_ring **ring) {
    size_t size = (size_t)1 << power;
    if (pool->warm[power]) {
        *ring = pop(pool->warm, power);
        pool->warm_bytes -= size;
        return 0;
    }
    if (pool->cold[power]) {
        const gev_ring *cold = pool->cold[power];
        int result = gev_memory_refill(pool->file, cold->base, cold->offset, size);
        if (result == 0)
            *ring = pop(pool->cold, power);
        return result;
    }
    return carve(pool, size, ring);
}

/* Frees the rings of a list whose slab nobody holds a ring of; returns their bytes. */
static uint64_t forget(gev_pool *pool, gev_ring **list) {
    uint64_t bytes = 0;
    while (*list) {
        gev_ring *ring = *list;
        if (ring->slab->held) {
            list = &ring->next;
            continue;
        }
        *list = ring->next;
        bytes += ring->size;
        pool->rings--;
        free(ring);
    }
    return bytes;
}

static void unmap_idle(gev_pool *pool) {
    for (unsigned int power = 0; power < POWERS; power++) {
        pool->warm_bytes -= forget(pool, &pool->warm[power]);
        forget(pool, &pool->cold[power]);
    }
    for (gev_slab **link = &pool->slabs; *link;) {
        gev_slab *slab = *link;
        if (slab->held) {
            link = &slab->next;
            continue;
        }
        *link = slab->next;
        gev_memory_release(pool->file, slab->base, slab->offset, slab->span);
        gev_slab_close(slab);
    }
    pool->idle_slabs = 0;
}

int gev_pool_take(gev_pool *pool, size_t size, gev_ring **ring) {
    if (size == 0)
        return -EINVAL;
    unsigned int power = power_for(pool, size);
    bool locked = lock(pool);
    int result = 0;
    if (pool->dropped)
        result = -ESTALE;
    else if (power >= POWERS - 1 || UINT64_C(1) << power > pool->max_bytes - pool->used_bytes)
        result = -ENOBUFS;
    else {
        result = find(pool, power, ring);
        if (result < 0 && pool->idle_slabs) {
            unmap_idle(pool);
            result = find(pool, power, ring);
        }
    }
    if (result == 0) {
        if ((*ring)->slab->held++ == 0)
            pool->idle_slabs--;
        pool->used_bytes += (*ring)->size;
        pool->used_rings++;
    }
    unlock(pool, locked);
    return result;
}

void gev_ring_give(gev_ring *ring) {
    gev_pool *pool = ring->pool;
    bool locked = lock(pool);
    if (--ring->slab->held == 0)
        pool->idle_slabs++;
    pool->used_bytes -= ring->size;
    pool->used_rings--;
    bool fits = pool->warm_bytes <= pool->max_warm_bytes &&
                ring->size <= pool->max_warm_bytes - pool->warm_bytes;
    if (pool->dropped) {
        push(pool->cold, ring);
    } else if (fits || gev_memory_release(pool->file, ring->base, ring->offset, ring->size) < 0) {
        push(pool->warm, ring);
        pool->warm_bytes += ring->size;
    } else {
        push(pool->cold, ring);
    }
    bool last = pool->closed && pool->used_rings == 0;
    unlock(pool, locked);
    if (last)
        destroy(pool);
}

void gev_ring_finalize(gev_pool *pool, gev_ring *ring, uint8_t *base) {
    (void)pool;
    (void)base;
    gev_ring_give(ring);
}

void gev_pool_read_stats(gev_pool *pool, gev_pool_stats *stats) {
    bool locked = lock(pool);
    stats->used_bytes = pool->used_bytes;
    stats->used_rings = pool->used_rings;
    stats->warm_bytes = pool->warm_bytes;
    stats->rings = pool->rings;
    stats->mappings = 0;
    for (const gev_slab *slab = pool->slabs; slab; slab = slab->next)
        stats->mappings += gev_slab_mappings(slab);
    unlock(pool, locked);
}

void gev_pool_lock(gev_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->forker, (uintptr_t)pthread_self());
}

void gev_pool_unlock(gev_pool *pool) {
    atomic_store(&pool->forker, (uintptr_t)0);
    pthread_mutex_unlock(&pool->mutex);
}

void gev_pool_drop(gev_pool *pool) {
    if (pool->dropped)
        return;
    for (gev_slab *slab = pool->slabs; slab; slab = slab->next)
        gev_slab_drop(slab);
    if (pool->file >= 0)
        close(pool->file);
    pool->file = -1;
    pool->dropped = true;
    pool->warm_bytes = 0;
}
