/* ring.h: mirrored mappings. What the pool asks of the system, and nothing else in csrc does. */
#ifndef GEVFFI_RING_H
#define GEVFFI_RING_H

#include "gevffi.h"

/* A stretch of reserved address space that rings are carved from; see ring.c. */
struct gev_slab {
    uint8_t *base;     /* 2 * span bytes of address space */
    size_t span;       /* bytes of the file it is for */
    size_t carved;     /* bytes of the file that rings have */
    uint64_t offset;   /* where in the file it starts */
    uint32_t rings;    /* carved */
    uint32_t held;     /* of them with somebody; the pool counts */
    gev_slab *next;
};

/* memory_linux.c or memory_posix.c: the pages. `base` is the address of both halves, `size` the bytes
 * of one, `offset` their place in `file`. */

/* What the rings of a pool share: a descriptor, or -1 where there is no such thing. */
int gev_memory_open(int *file);
/* Maps zeroed pages, twice, into address space that is reserved. Where the system can promise it, no
 * later write to them fails. */
int gev_memory_map(int file, uint8_t *base, uint64_t offset, size_t size);
/* Takes the pages away, and keeps the addresses. */
int gev_memory_release(int file, uint8_t *base, uint64_t offset, size_t size);
/* Zeroed pages again, after a release. */
int gev_memory_refill(int file, uint8_t *base, uint64_t offset, size_t size);
/* How many kernel mappings `rings` neighbours cost, at most. */
uint64_t gev_memory_mappings(uint64_t rings);

/* Reserves address space for `span` bytes of the file from `offset` on. */
int gev_slab_open(gev_slab **slab, uint64_t offset, size_t span);
/* The next ring, `size` bytes, with its pages; the slab must have room for it. */
int gev_slab_carve(gev_slab *slab, int file, size_t size, gev_ring **ring);
/* How many kernel mappings the slab costs, at most. */
uint64_t gev_slab_mappings(const gev_slab *slab);
/* Turns all its rings into private zeros. */
void gev_slab_drop(gev_slab *slab);
void gev_slab_close(gev_slab *slab);

#endif
