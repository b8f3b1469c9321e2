/* The pool and its rings, alone: no Python, every page checked, and threads. */
#define _GNU_SOURCE
#include "ring.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                             \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

enum { PAGE = 4096, MIB = 1 << 20 };

static gev_pool *open_pool(uint64_t max_bytes, uint64_t max_rings, uint64_t warm_bytes) {
    gev_pool *pool;
    CHECK(gev_pool_open(&pool, max_bytes, max_rings, warm_bytes) == 0);
    return pool;
}

static gev_ring *take(gev_pool *pool, size_t size) {
    gev_ring *ring = NULL;
    CHECK(gev_pool_take(pool, size, &ring) == 0);
    return ring;
}

static gev_pool_stats stats_of(gev_pool *pool) {
    gev_pool_stats stats;
    gev_pool_read_stats(pool, &stats);
    return stats;
}

/* Lines of /proc/self/maps with our file in them, or, where rings have one each, with one of these. */
static uint64_t mappings(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps);
    char line[512];
    uint64_t count = 0;
    while (fgets(line, sizeof line, maps))
        count += strstr(line, "memfd:gevffi") || strstr(line, "/dev/shm/gev");
    fclose(maps);
    return count;
}

static void check_mirror(gev_ring *ring, unsigned int seed) {
    for (size_t at = 0; at < ring->size; at += PAGE / 2)
        ring->base[at] = (uint8_t)(seed + at / PAGE);
    ring->base[2 * ring->size - 1] = (uint8_t)(seed + 99);
    for (size_t at = 0; at < ring->size; at += PAGE / 2)
        CHECK(ring->base[ring->size + at] == (uint8_t)(seed + at / PAGE));
    CHECK(ring->base[ring->size - 1] == (uint8_t)(seed + 99));
}

static void test_sizes_and_mirror(void) {
    gev_pool *pool = open_pool(64 * MIB, 100, MIB);
    size_t asked[] = {1, PAGE, PAGE + 1, 65536, MIB, 4 * MIB, 4 * MIB + 1};
    size_t given[] = {PAGE, PAGE, 2 * PAGE, 65536, MIB, 4 * MIB, 8 * MIB};
    gev_ring *rings[7];
    for (unsigned int i = 0; i < 7; i++) {
        rings[i] = take(pool, asked[i]);
        CHECK(rings[i]->size == given[i]);
        check_mirror(rings[i], i);
    }
    for (unsigned int i = 0; i < 7; i++)
        CHECK(rings[i]->base[0] == (uint8_t)i);
    for (unsigned int i = 0; i < 7; i++)
        gev_ring_give(rings[i]);
    CHECK(stats_of(pool).used_bytes == 0 && stats_of(pool).used_rings == 0);
    CHECK(stats_of(pool).rings == 7);
    gev_pool_close(pool);
    CHECK(mappings() == 0);
}

static void test_mappings_are_as_told(void) {
    enum { COUNT = 1024 };
    gev_pool *pool = open_pool(64 * MIB, COUNT, 0);
    gev_ring *rings[COUNT];
    for (unsigned int i = 0; i < COUNT; i++)
        rings[i] = take(pool, PAGE);
    CHECK(mappings() == gev_memory_mappings(COUNT));
    CHECK(stats_of(pool).mappings == gev_memory_mappings(COUNT));
    for (unsigned int i = 0; i < COUNT; i++)
        check_mirror(rings[i], i);
    for (unsigned int i = 0; i < COUNT; i++)
        gev_ring_give(rings[i]);
    gev_pool_close(pool);
}

static void test_bounds(void) {
    gev_pool *pool = open_pool(9 * PAGE, 3, MIB);
    gev_ring *ring = NULL;
    CHECK(gev_pool_take(pool, 0, &ring) == -EINVAL);
    CHECK(gev_pool_take(pool, SIZE_MAX, &ring) == -ENOBUFS);
    CHECK(gev_pool_take(pool, SIZE_MAX / 2, &ring) == -ENOBUFS);
    CHECK(gev_pool_take(pool, 9 * PAGE, &ring) == -ENOBUFS);
    gev_ring *first = take(pool, 4 * PAGE), *second = take(pool, 4 * PAGE);
    gev_ring *third = take(pool, 1);
    CHECK(stats_of(pool).used_bytes == 9 * PAGE && stats_of(pool).rings == 3);
    CHECK(gev_pool_take(pool, 1, &ring) == -ENOBUFS);
    gev_ring_give(first);
    gev_ring_give(third);
    CHECK(gev_pool_take(pool, 2 * PAGE, &ring) == -ENOBUFS);
    gev_ring_give(second);
    /* Nobody holds anything: the old rings make way for one of another size. */
    ring = take(pool, 2 * PAGE);
    CHECK(stats_of(pool).rings == 1);
    check_mirror(ring, 5);
    gev_ring_give(ring);
    gev_pool_close(pool);

    pool = open_pool(UINT64_MAX, UINT64_MAX, UINT64_MAX);
    CHECK(gev_pool_take(pool, SIZE_MAX, &ring) == -ENOBUFS);
    CHECK(gev_pool_take(pool, SIZE_MAX / 2, &ring) < 0);
    CHECK(gev_pool_take(pool, SIZE_MAX / 4, &ring) < 0);
    CHECK(stats_of(pool).used_rings == 0);
    gev_pool_close(pool);
}

static void test_warm_and_cold(void) {
    gev_pool *pool = open_pool(MIB, 100, 2 * PAGE);
    gev_ring *rings[3];
    for (unsigned int i = 0; i < 3; i++) {
        rings[i] = take(pool, PAGE);
        memset(rings[i]->base, 'a' + (int)i, PAGE);
    }
    for (unsigned int i = 0; i < 3; i++)
        gev_ring_give(rings[i]);
    CHECK(stats_of(pool).warm_bytes == 2 * PAGE);
    /* Newest warm first, then the cold one, whose pages are new. */
    CHECK(take(pool, PAGE) == rings[1] && rings[1]->base[0] == 'b');
    CHECK(take(pool, PAGE) == rings[0] && rings[0]->base[PAGE] == 'a');
    CHECK(stats_of(pool).warm_bytes == 0);
    CHECK(take(pool, PAGE) == rings[2] && rings[2]->base[0] == 0);
    CHECK(stats_of(pool).rings == 3);
    for (unsigned int i = 0; i < 3; i++)
        gev_ring_give(rings[i]);
    gev_pool_close(pool);
}

static void test_closed_before_its_rings_are_given(void) {
    gev_pool *pool = open_pool(MIB, 100, MIB);
    gev_ring *first = take(pool, PAGE), *second = take(pool, PAGE);
    gev_pool_close(pool);
    gev_ring_give(first);
    check_mirror(second, 3);
    gev_ring_finalize(pool, second, second->base);
    CHECK(mappings() == 0);
}

static void test_full_machine(void) {
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before, tight = {0, 0};
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    tight.rlim_cur = PAGE;
    tight.rlim_max = before.rlim_max;
    gev_pool *pool = open_pool(MIB, 100, 0);
    gev_ring *first = take(pool, PAGE), *ring = NULL;
    CHECK(setrlimit(RLIMIT_FSIZE, &tight) == 0);
    CHECK(gev_pool_take(pool, 2 * PAGE, &ring) == -EFBIG && ring == NULL);
    CHECK(stats_of(pool).used_rings == 1 && stats_of(pool).rings == 1);
    CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
    ring = take(pool, 2 * PAGE);
    check_mirror(ring, 1);
    gev_ring_give(ring);
    gev_ring_give(first);
    gev_pool_close(pool);
}

static void test_fork(void) {
    gev_pool *pool = open_pool(MIB, 100, MIB);
    gev_ring *held = take(pool, PAGE), *ring = NULL;
    memset(held->base, 'p', PAGE);
    gev_ring_give(take(pool, PAGE));
    gev_pool_lock(pool);
    gev_ring_give(take(pool, PAGE)); /* the thread that forks is let in */
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        gev_pool_drop(pool);
        gev_pool_unlock(pool);
        CHECK(held->base[0] == 0 && held->base[2 * PAGE - 1] == 0);
        memset(held->base, 'c', 2 * PAGE);
        CHECK(gev_pool_take(pool, PAGE, &ring) == -ESTALE);
        gev_ring_give(held);
        CHECK(stats_of(pool).used_rings == 0 && mappings() == 0);
        gev_pool_close(pool);
        _exit(0);
    }
    gev_pool_unlock(pool);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    for (size_t i = 0; i < 2 * PAGE; i++)
        CHECK(held->base[i] == 'p');
    gev_ring_give(held);
    gev_pool_close(pool);
}

static void *take_and_give(void *argument) {
    gev_pool *pool = argument;
    unsigned int random = (unsigned int)(uintptr_t)&random;
    for (unsigned int turn = 0; turn < 300; turn++) {
        gev_ring *rings[4];
        for (unsigned int i = 0; i < 4; i++) {
            random = random * 1664525u + 1013904223u;
            rings[i] = take(pool, (size_t)PAGE << (random >> 30));
            memset(rings[i]->base, (int)i + 1, rings[i]->size);
        }
        for (unsigned int i = 0; i < 4; i++) {
            CHECK(rings[i]->base[2 * rings[i]->size - 1] == i + 1);
            gev_ring_give(rings[i]);
        }
    }
    return NULL;
}

static void test_threads(void) {
    gev_pool *pool = open_pool(64 * MIB, 1000, 16 * PAGE);
    pthread_t threads[4];
    for (unsigned int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, take_and_give, pool) == 0);
    for (unsigned int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(stats_of(pool).used_bytes == 0 && stats_of(pool).warm_bytes <= 16 * PAGE);
    gev_pool_close(pool);
}

static void test_find(void) {
    const char text[] = "one\r\ntwo\r\n\r\n";
    CHECK(gev_find(text, 0, 12, "\r\n", 2) == 3);
    CHECK(gev_find(text, 4, 12, "\r\n", 2) == 4);
    CHECK(gev_find(text, 0, 12, "\r\n\r\n", 4) == 8);
    CHECK(gev_find(text, 0, 11, "\r\n\r\n", 4) == -ENOENT);
    CHECK(gev_find(text, 12, 12, "", 0) == 0);
    CHECK(gev_find(text, 13, 12, "", 0) == -EINVAL);
    CHECK(gev_find(NULL, 0, 0, NULL, 0) == 0);
    CHECK(gev_find(NULL, 0, 0, "\r", 1) == -ENOENT);
}

int main(void) {
    test_sizes_and_mirror();
    test_mappings_are_as_told();
    test_bounds();
    test_warm_and_cold();
    test_closed_before_its_rings_are_given();
    test_full_machine();
    test_fork();
    test_threads();
    test_find();
    return 0;
}
