/* conn.h: what the files of the loop share: a connection, the table of them, the loop itself.
 *
 *   reactor.c   waits, serves what is ready    (calls all of these)
 *   accept.c    accepts                        (calls the poller)
 *   connect.c   hears how connect(2) ended     (calls conn, idle)
 *   input.c     reads                          (calls conn, kept, cut)
 *   cut.c       cuts what was read             (calls conn, kept, framing, ws_input)
 *   ws_input.c  cuts WebSocket frames          (calls websocket.c)
 *   kept.c      keeps what is unfinished       (calls conn and the pool)
 *   output.c    sends, keeps what waits        (calls conn)
 *   pieces.c    takes what Python gathered     (calls output, framing)
 *   broadcast.c sends the same to many         (calls output)
 *   idle.c      finds who has been silent      (calls conn)
 *   close.c     closes                         (calls conn, input, output, idle)
 *   conn.c      slots, interest                (calls the poller)
 *   stats.c     counts                         (calls none; all others count)
 *
 * A connection costs this struct and nothing else in C while it is idle.
 */
#ifndef GEVFFI_CONN_H
#define GEVFFI_CONN_H

#include "compat.h"
#include "gevffi.h"
#include "stats.h"

#include <stdbool.h>

/* States of a connection: bits, since most of them are independent of each other. */
enum {
    CONN_PAUSED = 1,         /* the user wants no more input for now */
    CONN_CHOKED = 2,         /* output is over the high water: no input until it drains */
    CONN_EOF = 4,            /* the peer will send no more */
    CONN_BROKEN = 8,         /* a send failed: output is pointless, input may still be there */
    CONN_DRAINING = 16,      /* close once the output is gone */
    CONN_HALF_CLOSING = 32,  /* shut the writing side down once the output is gone */
    CONN_WRITE_SHUT = 64,    /* it is shut */
    CONN_LINGERING = 128,    /* all is sent; waiting for the peer to stop sending */
    CONN_UNWATCHED = 256,    /* taken out of the poller: it hung up and nobody reads */
    CONN_CLOSED = 512,       /* the descriptor is gone; the slot waits until Python was told */
    CONN_CHANGED = 1024,     /* it is in the list of changed slots */
    CONN_ACKING = 2048,      /* with LINGERING: until the peer has acknowledged everything */
    CONN_AGAIN = 4096,       /* kept input is to be cut before anything more is read */
    CONN_LISTED = 8192,      /* it is in gev_loop.again */
    CONN_BAD = 16384,        /* its input broke the framing: no more of it */
    CONN_CONNECTING = 32768  /* connect(2) is under way */
};

typedef struct gev_conn {
    int32_t fd;              /* -1: closed, or the slot is free */
    uint32_t generation;     /* of the slot, so that an old token never reaches a new connection;
                                30 bits, since bit 62 of a token names listeners; never 0 */
    uint16_t state;
    uint8_t interest;        /* as the poller has it */
    uint8_t reason;          /* what it closes with, where that is known; of a connect(2) that
                                failed: its errno */
    uint32_t changes;        /* GEV_CHANGE_ bits Python has yet to hear */
    int32_t next;            /* in the list of changed slots, or of free ones */
    int32_t idle_next;       /* neighbours in a bucket of the idle wheel, -1 at the ends */
    int32_t idle_prev;
    int32_t idle_bucket;     /* -1: in none */
    int64_t active;          /* when a byte last came or went, milliseconds */
    int64_t first_byte_due;  /* when the first byte must have come; 0: it has, or need not */
    gev_ring *out;           /* unsent bytes; NULL when there are none */
    uint32_t out_start;
    uint32_t out_size;
    uint64_t queued;         /* bytes ever given to send */
    uint64_t sent;           /* bytes of them that the kernel has taken; the rest waits or is lost */
    uint64_t notify_at;      /* 0: nobody asked */
    gev_ring *in;            /* kept input; NULL when there is none */
    uint32_t in_start;
    uint32_t in_size;
    uint32_t in_scanned;     /* of it, searched without a find; GEV_WEBSOCKET: gev_ws.done */
    uint32_t in_need;        /* bytes of the frame it begins with; 0: not known */
    uint32_t framing : 16;   /* 1 + index into gev_loop.framings; 0: none, reads are frames */
    uint32_t in_part : 4;    /* of what is kept so many bytes are cut at once, a power of two; 0: all */
    uint32_t ws_utf8 : 6;    /* GEV_WEBSOCKET: of the message under way, see ws_input.c */
    uint32_t ws_opcode : 4;
    uint32_t ws_compressed : 1;
    uint32_t ws_size;
    int32_t first_piece;     /* chain through gev_loop.chain during one gev_loop_send */
    int32_t last_piece;
} gev_conn;

#if UINTPTR_MAX == UINT64_MAX
_Static_assert(sizeof(gev_conn) == 128, "a connection takes two lines of the cache");
#endif

typedef struct gev_listener {
    int fd;                  /* -1: none */
    bool watched;
} gev_listener;

typedef struct gev_link {    /* a piece during gev_loop_send */
    const uint8_t *base;
    size_t size;
    int32_t next;            /* piece of the same connection, -1 at the end */
} gev_link;

/* Room in the arena that is worth another read. */
enum { GEV_MIN_READ = 65536 };

enum {
    GEV_ACCEPT_ROOM = 128,   /* accepted in one turn */
    GEV_ADDRESS_ROOM = 112   /* bytes of a peer's address: sockaddr_un, the longest, has 110 */
};

/* In a poller's token: it names a listener, or a descriptor that only ends the wait. */
#define GEV_LISTENER ((uint64_t)1 << 62)
#define GEV_WATCHED ((uint64_t)1 << 63)

enum { IDLE_BUCKETS = 1024, IDLE_STEP_MS = 50 };

struct gev_loop {
    gev_limits limits;
    gev_turn turn;
    gev_poller *poller;
    uint8_t *arena;
    uint32_t arena_size;

    int32_t frames;          /* of this turn */
    int32_t messages;        /* of this turn: frames, cuts and large frames */

    gev_framing *framings;
    int32_t framing_count;
    int32_t *again;          /* slots whose kept input is to be cut; room for all twice,
                                as they are listed anew before they are taken off */
    int32_t again_count;

    gev_conn *conns;         /* the table; a slot is an index into it */
    int32_t capacity;
    int32_t free_slot;       /* list through gev_conn.next, -1 at the end */
    int32_t first_changed;
    int32_t last_changed;
    int32_t told;            /* changes in the last turn; slots that closed in it go free next */

    const gev_event *events; /* the ready list, served from `served` up to `ready` */
    int served;
    int ready;
    int64_t now;             /* milliseconds; read once a turn and once a gev_loop_send */
    gev_stats stats;

    gev_listener *listeners;
    int32_t listener_count;

    gev_link *chain;         /* the pieces of a gev_loop_send */
    int32_t *senders;        /* slots that have pieces, in order */
    int32_t sender_count;
    int32_t chain_count;
    size_t chain_room;
    uint8_t *dressed;        /* small pieces with what their framing adds, and that of large ones */
    size_t dressed_size;
    size_t dressed_room;

    int32_t idle_heads[IDLE_BUCKETS];
    int64_t idle_tick;       /* buckets before this one have been looked at */
    int64_t idle_next;       /* no bucket between idle_tick and this one has anybody */
    int32_t idle_count;
};

/* conn.c */
int64_t gev_now_ms(void);
gev_conn *gev_conn_at(gev_loop *loop, int64_t token);
int64_t gev_conn_token(const gev_loop *loop, const gev_conn *conn);
/* `state`: what it begins with, for one that is connecting; else 0. */
int gev_conn_open(gev_loop *loop, int fd, uint16_t state, gev_conn **conn);
bool gev_conn_reads(const gev_conn *conn);
/* Brings the poller in line with what the connection's state wants. */
void gev_conn_watch(gev_loop *loop, gev_conn *conn);
void gev_conn_unwatch(gev_loop *loop, gev_conn *conn);
void gev_conn_changed(gev_loop *loop, gev_conn *conn, uint32_t change);
void gev_conn_report_changes(gev_loop *loop);
void gev_conn_release_told(gev_loop *loop);

/* close.c */
int gev_reason_of(int error);
void gev_conn_close_now(gev_loop *loop, gev_conn *conn, int reason);
/* The output is gone: does what was to be done then. */
void gev_conn_drained(gev_loop *loop, gev_conn *conn);
/* Whether the peer's kernel has yet to acknowledge bytes, or our end. */
bool gev_conn_unacknowledged(const gev_conn *conn);
/* Whether the kernel has bytes that nobody has read. */
bool gev_conn_has_unread(const gev_conn *conn);
/* Starts a close; 1: it is done. */
int gev_conn_finish(gev_loop *loop, gev_conn *conn, int reason);

/* accept.c */
void gev_accept_some(gev_loop *loop, int number);

/* input.c */
ssize_t gev_receive(gev_loop *loop, int fd, uint8_t *into, size_t room);
void gev_input_read(gev_loop *loop, gev_conn *conn);
/* Cuts what is kept of those in gev_loop.again. */
void gev_input_again(gev_loop *loop);

/* cut.c */
/* Tells the bytes at the arena's `used` as one frame. */
void gev_tell_frame(gev_loop *loop, gev_conn *conn, size_t size);
/* Cuts the bytes at the arena's `used`, what was kept and what was read behind it, and keeps the
 * rest. */
void gev_cut_read(gev_loop *loop, gev_conn *conn, size_t size);
/* Cuts the frame that is read in its ring; it may have become whole. */
void gev_cut_large(gev_loop *loop, gev_conn *conn);
/* Cuts what is kept, as far as it fits into the arena. */
void gev_cut_kept(gev_loop *loop, gev_conn *conn);

/* ws_input.c */
/* Cuts the `size` bytes at `base`, which is at the arena's `used`, into the turn's cuts, and returns
 * as gev_framing_cut does for the frame it came to last. `*done`: bytes that the frames took. */
int64_t gev_ws_cut_run(gev_loop *loop, gev_conn *conn, uint8_t *base, size_t size,
                       uint32_t *scanned, gev_cut *cut, size_t *done);
/* Cuts the frame that is read in its ring. When it is whole, it stays what it is until it ends. */
int64_t gev_ws_cut_large(gev_loop *loop, gev_conn *conn, gev_cut *cut);
/* The whole frame in the ring, of `total` bytes, is taken. False: there is none. */
bool gev_ws_end_large(gev_loop *loop, gev_conn *conn, uint32_t total);
static inline bool gev_is_ws(const gev_loop *loop, const gev_conn *conn)
{
    return conn->framing && loop->framings[conn->framing - 1].kind == GEV_WEBSOCKET;
}

/* kept.c */
enum { GEV_FIRST_PART = 8 };          /* of what was given back, 1 << 8 bytes are cut first */
enum { GEV_KEPT_IN_ARENA = 32768 };   /* kept bytes up to this are put in front of the next read */
void gev_input_drop(gev_conn *conn);
/* Keeps these bytes, which are not in the ring, instead of what was kept: the beginning of a frame
 * that needs `need` bytes, if that is known. */
int gev_input_keep(gev_loop *loop, gev_conn *conn, const uint8_t *data, size_t size, size_t need);
/* Sees to it that there is room behind what is kept. */
int gev_input_grow(gev_loop *loop, gev_conn *conn);
/* Has what is kept cut again. */
void gev_input_mark(gev_loop *loop, gev_conn *conn);
void gev_input_list(gev_loop *loop, gev_conn *conn);
void gev_input_unlist(gev_loop *loop, gev_conn *conn);
/* connect.c */
/* The poller says that a CONNECTING one has come to an end; with an errno, if it knows one. */
void gev_conn_connected(gev_loop *loop, gev_conn *conn, int error);

/* output.c */
void gev_output_flush(gev_loop *loop, gev_conn *conn);
void gev_output_drop(gev_loop *loop, gev_conn *conn);
/* Nothing more can be sent, because of `error`. */
void gev_output_broken(gev_loop *loop, gev_conn *conn, int error);
/* Whether bytes given to it now would be sent: it is neither closing, nor is its sending side. */
static inline bool gev_output_takes(const gev_conn *conn)
{
    return !(conn->state & (CONN_DRAINING | CONN_BROKEN | CONN_HALF_CLOSING));
}
/* Sends the connection's chain. */
void gev_output_chain(gev_loop *loop, gev_conn *conn);
/* Sends these bytes as they are, behind what waits; may close the connection, by a limit. */
void gev_output_put(gev_loop *loop, gev_conn *conn, const uint8_t *data, size_t size);

/* idle.c */
void gev_idle_init(gev_loop *loop);
void gev_idle_add(gev_loop *loop, gev_conn *conn);
void gev_idle_remove(gev_loop *loop, gev_conn *conn);
/* From now on the first byte has first_byte_ms to come. */
void gev_idle_await_first_byte(gev_loop *loop, gev_conn *conn);
void gev_idle_expire(gev_loop *loop);
/* How long a wait of `timeout_ms` may last. */
int gev_idle_timeout(gev_loop *loop, int timeout_ms);

#endif
