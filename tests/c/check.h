/* check.h: all that the C tests need. A test is a program; it returns 0 or says what failed.
 *
 *     int main(void)
 *     {
 *         CHECK_TIME(20);
 *         RUN(a_thing_holds);
 *         return 0;
 *     }
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* libkqueue closes what a closed kqueue has on a thread of its own. With it, waits until that is done:
 * what is open can be counted then, and a number used again. */
void libkqueue_drain_pending_close(void) __attribute__((weak));
static inline void settle(void)
{
    if (libkqueue_drain_pending_close)
        libkqueue_drain_pending_close();
}

/* Ends the program with the line, the text and errno-style value of what does not hold. */
#define CHECK(holds)                                                                          \
    do {                                                                                      \
        if (!(holds)) {                                                                       \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #holds); \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

/* The same for two integers, which are shown. */
#define CHECK_EQUAL(left, right)                                                              \
    do {                                                                                      \
        long long left_ = (long long)(left), right_ = (long long)(right);                     \
        if (left_ != right_) {                                                                \
            fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld\n", __FILE__, __LINE__, __func__, \
                    #left, left_, right_);                                                    \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

/* SIGALRM ends a test that hangs. */
#define CHECK_TIME(seconds) alarm(seconds)

/* Names the test before it runs, so that the output of a crash or a hang ends with it. */
#define RUN(test)                       \
    do {                                \
        fprintf(stderr, "%s\n", #test); \
        test();                         \
    } while (0)

#endif
