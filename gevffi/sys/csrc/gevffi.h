/* gevffi.h: all that Python may call. It is the only header Python sees.
 *
 * cffi reads the parts between cdef marks, so nothing there may need the preprocessor. It reads
 * those with a word in their marks only where the build has the files of that name.
 * Every function returns a count or 0, or -errno; none calls back into Python, and all may be
 * called without the GIL. Sizes are bytes, times are milliseconds of the monotonic clock.
 *
 * The parts, one C file (or two) each:
 *   calls.c         readv, writev, accept4, one system call at a time
 *   linux_calls.c   epoll and eventfd, likewise; and kqueue_calls.c, kqueue
 *   poller_epoll.c  the poller that the reactor and gevffi.sys.Poller share; or poller_kqueue.c
 *   pool.c ring.c   mirrored memory, of memory_linux.c's pages or memory_posix.c's
 *   find.c          searching it
 *   framing.c       cutting frames and dressing what is sent
 *   websocket.c utf8.c   frames of RFC 6455
 *   reactor.c accept.c conn.c close.c connect.c   the loop, its connections,
 *   input.c cut.c ws_input.c kept.c output.c pieces.c broadcast.c idle.c   what goes in and out
 *   stats.c         what the loop counts
 */
#ifndef GEVFFI_H
#define GEVFFI_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* cdef begin */

/* ---- single system calls (calls.c) ---------------------------------------------------- */

typedef struct gev_piece {
    void *base;
    size_t size;
} gev_piece;

/* readv(2) and writev(2) over any number of pieces; more than IOV_MAX are done in turns, and a
 * turn that comes back short ends the call. writev never raises SIGPIPE. */
ssize_t gev_readv(int fd, const gev_piece *pieces, size_t count);
ssize_t gev_writev(int fd, const gev_piece *pieces, size_t count);
/* accept4(2): *size is the room at `address` and becomes the length of the peer's address, which
 * starts with two bytes of family on every system. */
int gev_accept4(int fd, int flags, uint8_t *address, uint32_t *size);

/* ---- the poller (poller_epoll.c, poller_kqueue.c) --------------------------------------- */

enum { GEV_READ = 1, GEV_WRITE = 2, GEV_ERROR = 4, GEV_HANGUP = 8 };

typedef struct gev_poller gev_poller;
typedef struct gev_event {
    uint64_t token;
    uint32_t ready;    /* GEV_READ | GEV_WRITE | GEV_ERROR | GEV_HANGUP */
    int32_t error;     /* with GEV_ERROR: the errno, where the poller was told; else 0 */
} gev_event;

/* `room`: the most events one wait returns. */
int gev_poller_open(gev_poller **poller, int room);
void gev_poller_close(gev_poller *poller);
/* `interest` is GEV_READ | GEV_WRITE, 0 for neither; level-triggered. `token` must not be
 * UINT64_MAX. */
int gev_poller_add(gev_poller *poller, int fd, uint64_t token, int interest);
int gev_poller_modify(gev_poller *poller, int fd, uint64_t token, int old_interest, int interest);
int gev_poller_remove(gev_poller *poller, int fd, int interest);
/* Waits (timeout_ms < 0: for ever) and returns the number of events, 0 after a time-out or a
 * wake, -EINTR after a signal. A wake asked for before or during the wait ends it. */
int gev_poller_wait(gev_poller *poller, int timeout_ms);
const gev_event *gev_poller_events(const gev_poller *poller);
/* From any thread. Costs a system call only when the poller's thread sleeps or is about to, and
 * only the first time until that thread has come back. */
int gev_poller_wake(gev_poller *poller);
/* In a forked child, which may share what the descriptors stand for: lets go of them, so that
 * whatever the child removes stays with the parent. A wait gives -EBADF from then on. */
void gev_poller_forked(gev_poller *poller);

/* ---- mirrored memory (pool.c, ring.c, memory_*.c) --------------------------------------- */

typedef struct gev_pool gev_pool;
typedef struct gev_slab gev_slab;
typedef struct gev_ring {
    uint8_t *base;     /* 2 * size bytes: the second half is the first half again */
    size_t size;       /* bytes; a power of two, a page at least */
    gev_pool *pool;
    /* the pool's own */
    struct gev_ring *next;
    gev_slab *slab;
    uint64_t offset;   /* where in the pool's file, if it has one */
} gev_ring;

typedef struct gev_pool_stats {
    uint64_t used_bytes;   /* in rings that somebody holds */
    uint64_t used_rings;
    uint64_t warm_bytes;   /* in free rings that keep their pages */
    uint64_t rings;        /* carved, held or free */
    uint64_t mappings;     /* kernel mappings they cost, at most */
} gev_pool_stats;

/* `max_bytes` bounds what is held at one time, `max_rings` what is carved (the kernel counts
 * mappings), `warm_bytes` what free rings may keep. */
int gev_pool_open(gev_pool **pool, uint64_t max_bytes, uint64_t max_rings, uint64_t warm_bytes);
/* Unmaps everything: now, or when the last ring that is still held comes back. */
void gev_pool_close(gev_pool *pool);
/* A ring of at least `size` bytes. Its contents are undefined. Thread-safe.
 * -EINVAL: no size; -ENOBUFS: over the pool's bounds; -ENOMEM, -ENOSPC, -EFBIG: the machine has,
 * or lets us have, no more. */
int gev_pool_take(gev_pool *pool, size_t size, gev_ring **ring);
/* Gives a ring back to its pool. Thread-safe. */
void gev_ring_give(gev_ring *ring);
/* The same in the form that a finalizer of `base` needs, which also keeps the pool alive. */
void gev_ring_finalize(gev_pool *pool, gev_ring *ring, uint8_t *base);
void gev_pool_read_stats(gev_pool *pool, gev_pool_stats *stats);
/* fork(2): lock before it, unlock in the parent, drop and unlock in the child. A dropped pool's
 * memory turns into private zeros, gives nothing out any more (-ESTALE), and still takes rings
 * back. The thread that holds the lock may take and give meanwhile. */
void gev_pool_lock(gev_pool *pool);
void gev_pool_unlock(gev_pool *pool);
void gev_pool_drop(gev_pool *pool);

/* ---- framing (framing.c) ------------------------------------------------------------------ */

enum { GEV_LENGTH_PREFIXED = 1, GEV_DELIMITED, GEV_FIXED_SIZE, GEV_WEBSOCKET };

/* How a protocol's frames are told apart; what a kind does not use is 0. Compared byte by byte. */
typedef struct gev_framing {
    int32_t kind;
    int32_t one_at_a_time;       /* one frame a turn: the next is cut when this one was handled */
    int32_t dress;               /* what is sent gets its length or delimiter here */
    uint32_t max_size;           /* bytes of a body, or before a delimiter, or of a message */
    uint32_t size;               /* GEV_FIXED_SIZE: bytes of every frame; GEV_WEBSOCKET: GEV_WS_
                                    bits; its frames are checked, and unmasked in place */
    uint32_t width;              /* GEV_LENGTH_PREFIXED: bytes of the length, 1 to 8, */
    int32_t little;              /* the least significant one first, */
    uint32_t offset;             /* after so many bytes; */
    int32_t adjustment;          /* added to it, it counts the bytes behind itself; */
    uint32_t strip;              /* bytes of the frame that are not payload */
    uint32_t delimiter_size;     /* GEV_DELIMITED: 1 to 16 */
    int32_t keep;                /* the delimiter is payload */
    uint8_t delimiter[16];
} gev_framing;

/* -EINVAL: a description that cannot be meant. */
int gev_framing_check(const gev_framing *framing);
/* What stands before and behind a payload that is sent, at most GEV_DRESS_ROOM bytes together.
 * Return how many bytes they wrote to `out`. */
enum { GEV_DRESS_ROOM = 16 };
size_t gev_framing_header(const gev_framing *framing, size_t payload, uint8_t *out);
size_t gev_framing_trailer(const gev_framing *framing, uint8_t *out);

/* ---- the loop (reactor, conn, connect, input, kept, output, broadcast, idle) -------------- */

typedef struct gev_loop gev_loop;

typedef struct gev_limits {
    gev_pool *pool;
    int32_t max_events;          /* served in one turn */
    uint32_t read_budget;        /* bytes read from one connection in one turn */
    uint32_t write_high_water;   /* unsent bytes that pause reading; half of it resumes */
    uint32_t write_limit;        /* unsent bytes that close */
    int64_t idle_ms;             /* without a byte in or out; 0: for ever */
    int64_t first_byte_ms;       /* until the first byte in, once adopted; 0: for ever */
} gev_limits;

/* Why a connection closed. The order is that of gevffi.CloseReason. */
enum {
    GEV_REASON_EOF, GEV_REASON_RESET, GEV_REASON_LOCAL, GEV_REASON_IDLE,
    GEV_REASON_PROTOCOL_ERROR, GEV_REASON_FRAME_TOO_LARGE, GEV_REASON_SLOW_CONSUMER,
    GEV_REASON_HANDLER_ERROR, GEV_REASON_TIMEOUT, GEV_REASON_SHUTDOWN, GEV_REASON_NO_MEMORY
};

/* What happened to a connection besides bytes; bits of gev_turn.change_what. */
enum {
    GEV_CHANGE_EOF = 1,          /* the peer will send no more */
    GEV_CHANGE_HIGH_WATER = 2,
    GEV_CHANGE_DRAINED = 4,      /* under half of the high water again */
    GEV_CHANGE_SENT = 8,         /* the position of gev_conn_notify was reached */
    GEV_CHANGE_BAD_FRAME = 32,   /* its input broke the framing, by change_reason: to be closed */
    GEV_CHANGE_BAD_TEXT = 128,   /* with it: what should be UTF-8 is not */
    GEV_CHANGE_CONNECTED = 64,   /* the first thing, of one that was connecting */
    GEV_CHANGE_CLOSED = 16       /* the last thing that is ever said of a connection */
};

/* A frame that was read in a ring of its own; see gev_conn_take_large. */
typedef struct gev_large {
    int32_t slot;
    uint32_t start;              /* of the payload in the ring */
    uint32_t size;
    uint32_t total;              /* bytes of the whole frame */
    uint32_t tag;                /* as in gev_turn.tags; 0 for the other framings */
} gev_large;

enum { GEV_RUN_NUMBERS = 7 };

/* What one gev_loop_poll found. The numbers come first, so that Python reads them all at once; the
 * arrays stay where they are, but for the cuts. */
typedef struct gev_turn {
    int32_t changes;
    int32_t accepted;
    int32_t accept_error;        /* errno that made a listener pause, 0 for none */
    int32_t accept_listener;     /* which one */
    int32_t run_count;
    int32_t cuts;
    int32_t cuts_moved;          /* how often: another number than before means another place */
    int32_t large_count;
    uint32_t used;               /* the arena is filled up to here */
    int32_t cut_room;            /* of each of the three arrays of cuts, which lie in a row */
    int32_t *frames;             /* three numbers each: slot, and arena[start:end] */
    int32_t *runs;               /* GEV_RUN_NUMBERS each: slot, first and last + 1 of its cuts, and
                                    where in the arena the last one's frame ends; and of the first
                                    cut, which is often the only one, start, end and tag */
    int32_t *starts;             /* of each payload in the arena */
    int32_t *ends;
    int32_t *tags;               /* under GEV_WEBSOCKET: each frame's first byte */
    gev_large *large;
    int32_t *change_slot;
    int32_t *change_what;
    int32_t *change_reason;      /* with GEV_CHANGE_CLOSED and GEV_CHANGE_BAD_FRAME; an errno if it
                                    never connected */
    int32_t *accepted_fd;
    int32_t *accepted_listener;
    uint32_t *accepted_size;     /* length of the peer's address, at most 112 */
    uint8_t *accepted_address;   /* 112 bytes each */
} gev_turn;

/* -EINVAL: limits that cannot be meant. */
int gev_loop_open(gev_loop **loop, const gev_limits *limits);
/* Closes every connection at once and frees the loop. Listeners stay their owner's. */
void gev_loop_close(gev_loop *loop);
gev_turn *gev_loop_turn(gev_loop *loop);
/* Where to read into from now on. */
void gev_loop_arena(gev_loop *loop, uint8_t *base, uint32_t size);
/* Nanoseconds of CLOCK_MONOTONIC. */
int64_t gev_now_ns(void);

/* Added to what gev_loop_poll returns when its turn has runs, when it has more than frames and runs,
 * and when it was due. */
enum { GEV_RUNS = 1 << 23, GEV_MORE = 1 << 24, GEV_DUE = 1 << 25 };

/* One turn: sends what the last one left to be sent, as by gev_loop_send; then waits, accepts,
 * reads into arena[start:], flushes. The wait ends at `due` at the latest, a time of gev_now_ns; 0 is
 * never.
 * -EINVAL: there are less than 64 KiB from `start` on, or the arena has more than 2 GiB; or the
 * numbers are wrong, as in gev_loop_send.
 * Returns the number of frames, plus GEV_RUNS if there are runs, plus GEV_MORE if there are
 * changes, accepted connections, an accept_error or large frames, plus GEV_DUE if it is `due` or
 * later. What it reports stays valid until the next call. */
int gev_loop_poll(gev_loop *loop, uint32_t start, int64_t due, int32_t count, const void *numbers,
                  const uint8_t *blob, size_t blob_size, const uint8_t *const *large);
/* From any thread: ends the wait under way, or the next one. */
int gev_loop_wake(gev_loop *loop);
/* Ends the wait whenever there is something to read from `fd`, a socket, and drops that: a signal's
 * wake-up (signal.set_wakeup_fd) for one. For as long as the loop lives. */
int gev_loop_watch(gev_loop *loop, int fd);
/* In a forked child: the loop and its connections are the parent's; see gev_poller_forked. */
void gev_loop_forked(gev_loop *loop);

/* A listening, non-blocking socket; returns its number. */
int gev_loop_listen(gev_loop *loop, int fd);
int gev_loop_unlisten(gev_loop *loop, int listener);
/* Goes on accepting after accept_error. */
int gev_loop_resume_accept(gev_loop *loop, int listener);

/* Takes over a connected, non-blocking socket; returns its token: generation << 32 | slot.
 * After an error the descriptor is still the caller's. */
int64_t gev_loop_adopt(gev_loop *loop, int fd);
/* The same for a non-blocking socket whose connect(2) is under way, or done. GEV_CHANGE_CONNECTED
 * tells of success, after which nothing is read until gev_conn_read; GEV_CHANGE_CLOSED with an
 * errno for reason tells of failure. Until then gev_conn_abort is all that may be done to it; its
 * reason is an errno too. */
int64_t gev_loop_adopt_connecting(gev_loop *loop, int fd);

/* The number of a framing, for gev_conn_frame; the same for equal ones. -EINVAL, -ENOMEM, or
 * -ENOSPC when there are 65535. */
int gev_loop_framing(gev_loop *loop, const gev_framing *framing);
/* From now on the connection's input is cut by this framing (0: not at all), and what is sent is
 * dressed by it. Input that is kept is cut anew: of a connection that was under GEV_WEBSOCKET, what
 * has come of an unfinished frame as it is, with a part of it unmasked. */
int gev_conn_frame(gev_loop *loop, int64_t token, int framing);
/* Puts these bytes, which were read before, into the kept input, behind its first `skip` bytes; they
 * are cut in the next turn, or when reading is resumed. -EINVAL: fewer are kept; or an unfinished frame
 * under GEV_WEBSOCKET is, of which a part is unmasked. Frames that were told under it cannot be given
 * back. */
int gev_conn_unread(gev_loop *loop, int64_t token, const uint8_t *data, size_t size, size_t skip);
/* Bytes of the kept input; 0 for a connection that is gone. */
int64_t gev_conn_kept(gev_loop *loop, int64_t token);
/* Takes over the ring of a large frame of this turn; NULL if the connection must not be read any
 * more. A frame that is not taken is told again. */
gev_ring *gev_conn_take_large(gev_loop *loop, int64_t token, uint32_t total);

/* Added to a token in what gev_loop_send is told. */
#define GEV_SEND_RUN 0x4000000000000000
/* A number there has the first byte of a WebSocket frame so many bits further up. */
enum { GEV_FIRST_AT = 48 };

/* Sends pieces, in order, as `count` numbers of type int64_t tell:
 *   token, end                        the next bytes of the blob, up to `end`
 *   token + GEV_SEND_RUN, n, n sizes  the next n pieces of the blob
 *   ~token, size                      that many bytes at the next address in `large`
 *   ~i                                the frame i of the last turn, to where it came from
 *   token + GEV_SEND_RUN, ~n, i       n cuts of the last turn, from number i on, to where they came
 *                                     from, under the framing that cut them; in order, each once
 * In the first three forms `end`, n and size may have the first byte of a WebSocket frame GEV_FIRST_AT
 * bits further up: then each piece leaves as such a frame, not masked. (Under GEV_WEBSOCKET all others
 * leave as they are.)
 * The pieces of one connection leave together. What the kernel does not take is copied. Pieces for
 * connections that are gone are dropped. Returns how many connections there were. -EINVAL: the blob
 * is not as large as that, or there is no such frame or cut. */
int gev_loop_send(gev_loop *loop, int32_t count, const void *numbers, const uint8_t *blob,
                  size_t blob_size, const uint8_t *const *large);

/* Sends the same `size` bytes, as they are, to `count` connections: each straight from `data`, and a
 * copy is kept only of what its kernel does not take. Connections that are gone or closing are
 * passed over. Returns how many were sent to. -EINVAL: a negative count. */
int gev_loop_broadcast(gev_loop *loop, int32_t count, const int64_t *tokens, const uint8_t *data,
                       size_t size);

/* All of these give -ENOTCONN for a connection that has closed. */
/* Stops reading, sends what waits, then closes. 1: it is closed already. 0: later. */
int gev_conn_close(gev_loop *loop, int64_t token, int reason);
/* Drops what waits and resets the connection. */
int gev_conn_abort(gev_loop *loop, int64_t token, int reason);
/* At a deadline: closes a connection that has sent everything and lingers, aborts any other. */
int gev_conn_give_up(gev_loop *loop, int64_t token, int reason);
int gev_conn_read(gev_loop *loop, int64_t token, int on);
int gev_conn_shutdown_write(gev_loop *loop, int64_t token);
/* Bytes that wait for the kernel, and bytes ever given to gev_loop_send. */
int64_t gev_conn_pending(gev_loop *loop, int64_t token);
int64_t gev_conn_queued(gev_loop *loop, int64_t token);
/* Bytes that the kernel has taken; known until GEV_CHANGE_CLOSED has been told. */
int64_t gev_conn_sent(gev_loop *loop, int64_t token);
/* Asks for GEV_CHANGE_SENT once the kernel has taken all bytes up to `position`. */
int gev_conn_notify(gev_loop *loop, int64_t token, int64_t position);
int gev_conn_fd(gev_loop *loop, int64_t token);

/* ---- what the loop counts (stats.c) ------------------------------------------------------- */

enum { GEV_TURN_BUCKETS = 17 };

/* Since the loop was opened, but for pending_bytes. */
typedef struct gev_loop_stats {
    uint64_t accepted;           /* connections its listeners took from the kernel */
    uint64_t bytes_received;
    uint64_t bytes_sent;         /* taken by the kernel */
    uint64_t messages_received;
    uint64_t messages_sent;      /* given to gev_loop_send */
    uint64_t pending_bytes;      /* wait for the kernel now */
    uint64_t events;             /* descriptors that were ready and were served */
    uint64_t turn_ns;            /* nanoseconds in turns, waits left out */
    uint64_t turns[GEV_TURN_BUCKETS];   /* by how long they took, see gev_turn_bound */
} gev_loop_stats;

/* The longest turn that `bucket` counts, nanoseconds; UINT64_MAX for the last one. */
uint64_t gev_turn_bound(int bucket);
/* From any thread, for as long as the loop is open. */
void gev_loop_read_stats(gev_loop *loop, gev_loop_stats *stats);
/* C counts each frame as a message received and each piece as one sent. Where the caller knows
 * better it says here how many more there are, or fewer. Counted with the next turn and the next
 * gev_loop_send. */
void gev_loop_recount(gev_loop *loop, int64_t received, int64_t sent);

/* ---- searching (find.c) ------------------------------------------------------------------- */

/* The first place of `needle` in data[start..end), counted from `start`; -ENOENT: it is not there. */
ssize_t gev_find(const void *data, size_t start, size_t end, const void *needle, size_t size);

/* ---- frames (framing.h) -------------------------------------------------------------------- */

/* Where a cutter found a frame, in bytes from the frame's first. */
typedef struct gev_cut {
    uint32_t start;    /* of the payload */
    uint32_t size;     /* of the payload */
    uint32_t need;     /* of the whole frame; 0: not known yet */
    uint32_t tag;      /* the cutter's own */
} gev_cut;

/* ---- WebSocket frames (websocket.c, utf8.c) ------------------------------------------------ */

/* UTF-8 so far: GEV_UTF8_OK at the end of a character, GEV_UTF8_BAD for ever after a byte that
 * cannot be, any other number within a character. Start with GEV_UTF8_OK. */
enum { GEV_UTF8_OK = 0, GEV_UTF8_BAD = 6 };
uint32_t gev_utf8_check(uint32_t state, const void *data, size_t size);

enum {
    GEV_WS_SERVER = 1,           /* frames must be masked; without it, must not be */
    GEV_WS_DEFLATE = 2,          /* permessage-deflate was agreed on: RSV1 is allowed */
    GEV_WS_MOST = 1 << 30        /* the highest max_message_size */
};

/* What is known of one direction of a connection. */
typedef struct gev_ws {
    uint32_t max_message_size;   /* bytes, over all fragments */
    uint32_t message_size;       /* of the whole frames of the message under way */
    uint32_t done;               /* payload bytes of the frame under way, unmasked and checked */
    uint8_t flags;               /* GEV_WS_SERVER | GEV_WS_DEFLATE */
    uint8_t opcode;              /* of the message under way; 0: none is */
    uint8_t compressed;          /* it is */
    uint8_t utf8;                /* gev_utf8_check's, if it is text */
} gev_ws;

/* -EINVAL: other flags, or more than GEV_WS_MOST. */
int gev_ws_init(gev_ws *ws, int flags, uint32_t max_message_size);
/* The frame at the start of `data`, unmasked in place. Returns its length, with `cut` filled: tag is
 * the frame's first byte, FIN 0x80 | RSV1 0x40 | opcode.
 * 0: it is not all there. Then come again with the same bytes, as this has left them, and more
 * behind them; cut->need tells how much room that takes.
 * Otherwise the close code, negative, that ends the connection: -1002 malformed, -1007 not UTF-8,
 * -1009 over max_message_size. */
int64_t gev_ws_cut(gev_ws *ws, uint8_t *data, size_t size, gev_cut *cut);
/* XORs the four bytes of `key` over data that begins `offset` bytes into a payload. */
void gev_ws_mask(uint8_t *data, size_t size, const uint8_t *key, size_t offset);
/* Writes the header of a frame with `size` bytes of payload, at most 14 bytes; returns how many.
 * `first` is FIN | RSV1 | opcode, `key` the masking key or NULL. */
int gev_ws_header(uint8_t *header, uint8_t first, uint64_t size, const uint8_t *key);

/* cdef end */

/* cdef begin linux */

/* ---- epoll and eventfd, one call at a time (linux_calls.c) ------------------------------- */

int gev_epoll_create(int flags);
int gev_epoll_ctl(int epfd, int operation, int fd, uint32_t events, uint64_t data);
/* Fills events[i] and data[i]; returns how many. */
int gev_epoll_wait(int epfd, uint32_t *events, uint64_t *data, int room, int timeout_ms);
int gev_eventfd(unsigned int initial, int flags);
int gev_eventfd_read(int fd, uint64_t *value);
int gev_eventfd_write(int fd, uint64_t value);

/* cdef end linux */

/* cdef begin kqueue */

/* ---- kqueue, one call at a time (kqueue_calls.c) ----------------------------------------- */

typedef struct gev_kernel_event {    /* struct kevent */
    uintptr_t ident;
    int32_t filter;
    uint32_t flags;
    uint32_t fflags;
    int64_t data;
    uintptr_t udata;
} gev_kernel_event;

/* Closed by exec. */
int gev_kqueue(void);
/* Makes `count` changes, then waits (timeout_ms < 0: for ever) and fills in at most `room` events;
 * returns how many. `events` may be NULL if `room` is 0, and then nothing is waited for. */
int gev_kevent(int kq, const gev_kernel_event *changes, int count, gev_kernel_event *events,
               int room, int timeout_ms);

/* cdef end kqueue */

#endif
