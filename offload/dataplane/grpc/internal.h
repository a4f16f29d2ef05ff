/* What the files of the front share. Everything here belongs to the front's thread. */
#ifndef OFFLOAD_GRPC_INTERNAL_H
#define OFFLOAD_GRPC_INTERNAL_H

#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>

#include "offload/dataplane/access/key_uses.h"
#include "offload/dataplane/grpc/front.h"
#include "offload/dataplane/host/locked_stack.h"
#include "offload/dataplane/wire/wire.h"

enum {
  STREAM_WINDOW = 640 * 1024, /* request bytes of one call that may be unanswered; a whole message fits */
  CONNECTION_WINDOW = 1024 * 1024,
  CONNECTION_BUFFER_MAX = 4 * 1024 *
      1024,                        /* request bytes buffered for one connection: unfinished or paused messages */
  HEADERS_MAX = 16 * 1024,         /* names and values of one request, trailers included; more is refused */
  HEADERS_FLOOD = 4 * HEADERS_MAX, /* and who goes on beyond this is not asking for anything */
  READ_SIZE = 16 * 1024,           /* of one connection in its turn */
  STRANGER_READ_SIZE = 4 * 1024,
  WORK_PER_TURN = 32 * 1024, /* as budget.c counts: what one connection may cause in its turn */
  OUTBOUND_MAX = 64,         /* frames that wait to be written before a connection is read from again */
  WRITE_SIZE = 128 * 1024,
  STRANGER_WRITE_SIZE = 16 * 1024,
  FRAME_MAX = 32 * 1024,              /* more than nghttp2 makes at once: a DATA frame of 16 KiB */
  FLUSH_ROUNDS = 2,                   /* of WRITE_SIZE, to one connection before the next is written to */
  IDENTITY_NAME_MAX = 2048,           /* bytes, of SPIFFE ids, the longest names there are */
  STRANGER_STREAMS = 32,              /* calls that a caller without an identity may have open on a connection */
  STRANGER_WATCHES = 4096,            /* identities that a user watches while none is for it */
  ID_BUCKETS = 256,                   /* of a Stream call's table of operation ids */
  RESULT_MAX = SIGN_OUTPUT_MAX + 256, /* one encoded result: output, a static message, numbers */
};

/* ---- what epoll reports on ---- */

typedef enum source_kind { SOURCE_WAKE, SOURCE_LISTENER, SOURCE_CONNECTION } source_kind;

typedef struct event_source {
  source_kind kind;
  int descriptor;
} event_source;

typedef struct listener {
  event_source source;
  list_node link;
  list_node arriving; /* in front->arriving while somebody may be in its queue */
  char *name;
} listener;

/* ---- who is at the other end, for shares and bounds: principal.c ----
 *
 * A user: the uid behind connections of the main socket, or a dedicated socket, whoever comes through it. Callers that
 * no identity is for (strangers) are told apart from callers of the same user that have one, so they cannot spend what
 * is theirs; and all strangers together have the memory, the connections and the turns of a single user.
 */
typedef struct principal {
  list_node link; /* in front->principals */
  list_node turn; /* in front->turns or front->stranger_turns while a connection of it has something to be dealt with */
  list_node ready;   /* those connections, the next to be served first */
  list_node writing; /* in front->writers or front->stranger_writers while a connection of it may have to be written */
  list_node dirty;   /* those connections, the next to be written to first */
  front *front;
  batch_group batch;
  size_t memory;        /* bytes held for it */
  uint32_t connections; /* those that have ended and wait for a shard included */
  uid_t uid;
  char *socket;     /* the name of a dedicated one; NULL: the main one */
  uint32_t watches; /* identities that calls of WatchIdentities watch */
  bool is_stranger;
} principal;

/* ---- a connection: connection.c, session.c ---- */

typedef enum drain_phase { DRAIN_NOT, DRAIN_NOTICE, DRAIN_FINAL } drain_phase;

typedef struct connection {
  event_source source;
  list_node link;     /* in front->connections, or in front->ended when it is closed */
  list_node dirty;    /* in principal->dirty while it may have something to send */
  list_node ready;    /* in principal->ready while something of it waits to be dealt with */
  list_node idle;     /* in front->idle while it has no call, the longest first */
  list_node stalled;  /* in front->stalled while the peer does not take what waits for it, the longest first */
  list_node leaving;  /* in front->leaving after the GOAWAY of an idle one */
  list_node standing; /* in front->reviewed, or in front->unreviewed after the keyring was replaced */
  front *front;
  nghttp2_session *session;
  caller caller;
  principal *principal;
  size_t memory; /* its part of principal->memory */
  batch_source batch;
  list_node calls;
  list_node paused; /* calls with complete messages that wait until answers have left */
  uint32_t call_count;
  uint32_t watches;  /* of all its calls; its part of principal->watches */
  uint32_t held;     /* operations not yet answered, refused ones included */
  uint32_t owed;     /* answers, and parts of them, that have not left */
  size_t buffered;   /* bytes in the calls' message buffers */
  uint32_t work;     /* caused in this turn; budget.c */
  uint8_t *verdicts; /* per identity of the keyring: 0 not known yet, 1 may not, 2 may use it */
  uint64_t verdicts_generation;
  uint64_t standing_generation; /* of the keyring that says whether it is a stranger */
  uint8_t *unread;              /* what was read and is not dealt with yet */
  size_t unread_size;
  uint8_t *unsent; /* what the socket did not take */
  size_t unsent_size, unsent_at;
  uint64_t idle_since, stalled_since, leaving_since;
  uint64_t control_credit, control_credited_at; /* flood.c */
  drain_phase drain;
  uint64_t drain_final_at; /* when DRAIN_FINAL began */
  bool readable;           /* the socket has more, as far as is known */
  bool hung_up;            /* and then its end */
  bool paused_at;          /* nghttp2 stopped within a header block, and has to be called again even without input */
  bool resumable;          /* paused calls may go on */
  bool ending;             /* it hears why, and no more is looked at: farewell.c */
  bool awaits_writable, closed;
} connection;

_Static_assert((int)STREAM_WINDOW > (int)WIRE_REQUEST_MAX + WIRE_GRPC_HEADER_SIZE,
               "a whole message fits into the window");

/* ---- a call, that is one HTTP/2 stream: call.c, message.c, response.c ---- */

typedef struct call call;

/* What a method does with a call. All run on the front's thread. */
typedef struct call_method {
  const char *path;
  bool streams; /* may take and give many messages */
  void (*start)(call *call);
  void (*message)(call *call, wire_view message); /* one whole request message */
  void (*half_closed)(call *call);                /* the client will send no more */
  void (*answered)(call *call, operation *op);    /* an operation of the call is done; it is in call->answers */
  /* Writes response bytes, at most `room`; 0 when there is nothing (yet). */
  size_t (*fill)(call *call, uint8_t *to, size_t room);
} call_method;

struct call {
  call *next_free;
  connection *connection;
  int32_t stream;
  list_node link;     /* in connection->calls */
  list_node paused;   /* in connection->paused */
  list_node watching; /* in front->watchers: calls that look at each new keyring */
  deadline deadline;  /* in front->deadlines: grpc-timeout */
  const call_method *method;

  /* request */
  size_t header_size;
  uint64_t timeout; /* ns; NEVER when there is none */
  bool is_post, is_grpc, bad_timeout, names_encoding, has_message, half_closed;
  uint8_t *buffer; /* the start of a message, or messages that wait */
  size_t buffer_size, buffer_room;

  /* operations */
  list_node operations; /* not yet done */
  list_node answers;    /* done, not yet sent */
  uint32_t held;        /* both of them */
  operation **by_id;    /* Stream: ID_BUCKETS chains of the operations not yet done */
  uint32_t credit;      /* window bytes to give back to the peer */
  size_t memory;        /* charged for it */
  uint64_t busy_at;     /* when it last had an operation; for draining */

  /* response */
  bool responded; /* headers are on their way, data follows from `fill` */
  bool deferred;  /* the last call of `fill` gave nothing */
  bool finished;  /* status below is final: no more messages from the call */
  bool closed;    /* nghttp2 has forgotten the stream */
  rpc_status status;
  const char *status_message;
  uint8_t *partial; /* a response message that did not fit; owned */
  size_t partial_size, partial_at;

  /* WatchIdentities: method_watch_identities.c */
  list_node watches;
  list_node news; /* those of which there is something to tell */
  void *watch_tree;
  uint32_t watch_count, watch_excess;
  size_t watch_bytes; /* of their names */

  /* WatchIdentity; the messages also WatchIdentities */
  uint8_t *watched; /* name */
  size_t watched_size;
  identity_message *sent; /* the last that was sent or is being sent; from `sent_at` on it is not sent yet */
  size_t sent_at;
  identity_message *pending; /* the next to be sent */
  bool owes;                 /* something of them has not left; counts in connection->owed */
};

/* How often a user without identity has connected lately: arrivals.c */
enum { ARRIVAL_SLOTS = 64 };
typedef struct arrival {
  uint64_t user;
  uint32_t count;
  uint64_t counted_at;
} arrival;

/* ---- the front: loop.c ---- */

typedef struct command {
  void (*run)(front *front, void *argument);
  void *argument;
  struct command *next;
  bool done;
} command;

struct front {
  front_settings settings;
  work_queue *work;
  counters *counters;
  refusal_log *refusals;
  key_uses *uses; /* NULL: they are not counted */
  nghttp2_session_callbacks *callbacks;
  nghttp2_option *options;
  int epoll;
  event_source wake;
  int spare; /* closed to make room when descriptors run out */
  uint64_t now;
  keyring *ring;
  uint64_t generation;
  uint64_t id_multiplier; /* odd, random: clients cannot aim at one chain of ids */
  operation_pool operations;
  list_node submitted; /* operations decoded in this turn, by item.link */
  list_node listeners, connections, ended, watchers;
  list_node principals, turns, stranger_turns, writers, stranger_writers;
  list_node idle, stalled, leaving;
  list_node reviewed, unreviewed;
  size_t stranger_memory;
  uint32_t stranger_connections;
  uint64_t strangers_rest_until;
  list_node arriving; /* listeners */
  uint64_t accept_rests_until;
  arrival arrivals[ARRIVAL_SLOTS];
  deadline_heap deadlines; /* of calls */
  call *free_calls;
  uint8_t *read_buffer, *write_buffer;
  struct epoll_event *events;
  kernel_workspace *workspace; /* for batches that are not worth a wake-up; NULL: leaves all to the shards */

  drain_phase drain;
  uint64_t drain_began;

  pthread_t thread;
  locked_stack stack;
  bool started, stopping;
  atomic_bool draining, sleeping;
  pthread_mutex_t lock; /* guards commands, drained */
  pthread_cond_t changed;
  command *first_command, **last_command;
  bool drained;
};

/* loop.c */
uint32_t front_wire_backend(const front *front, unsigned backend);
void front_wake(void *front);
bool front_watch(front *front, event_source *source, uint32_t events);
/* Also closes the descriptor. Closing alone is not enough: while somebody else has a duplicate (a child between fork
 * and exec, who made a listening socket), epoll would go on reporting a source that is freed. */
void front_unwatch(front *front, event_source *source);
void front_run_command(front *it, void (*run)(front *front, void *argument), void *argument);
void front_loop_turn(front *front, int timeout_ms);
void front_take_completions(front *front);

/* listener.c */
bool front_take_spare(front *front);                      /* a descriptor for when none is left */
void listener_reported(front *front, listener *listener); /* somebody is in its queue */
void listeners_serve(front *front);                       /* takes them in, unless accepting rests */
uint64_t listeners_next(const front *front);              /* when there is somebody to take in, or NEVER */
/* Before it is closed, without a rest. true: there may be more than one turn's worth. */
bool listener_accept_last(front *front, listener *listener);
void listener_close(front *front, listener *listener);

/* connection.c */
/* Edge-triggered: a connection that waits for its turn is not reported again and again. */
#define CONNECTION_EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLET)
void connection_open(front *front, int descriptor, caller *caller, bool is_stranger); /* takes both over */
void connection_reported(connection *it, uint32_t events);                            /* by epoll */
bool connection_has_input(const connection *it);
bool connection_serve(connection *it);      /* its turn; true when there is more to be dealt with */
void connection_mark_dirty(connection *it); /* it may have something to send: turns.c says when it does */
void connection_close(connection *it);
void connection_free(connection *it);

/* writing.c */
void connection_flush(connection *it);
void connection_free_unsent(connection *it);

/* principal.c */
bool principal_is_dedicated(const char *listener);
principal *principal_find(front *front, uid_t uid, const char *listener, bool is_stranger); /* NULL: there is none */
/* Whether some identity is for the caller. */
bool principal_is_known(const front *front, const caller *caller);
/* Whether some identity may be for a process of this user: false only where no look at the process could tell more. */
bool principal_may_be_known(const front *front, uid_t uid, const char *listener);
bool principal_join(connection *it, bool is_stranger); /* false when memory ran out */
void principal_leave(connection *it);
void principal_hold(principal *it);
void principal_release(principal *it);
/* After the keyring was replaced, a caller may have become a stranger, or be none any more. A connection is reviewed
 * before it is next served; the others, which may have operations queued, a few in each turn of the loop. */
void principal_review(connection *it);
void principals_review_all(front *front);  /* from now on */
void principals_review_some(front *front); /* what is left of it */
/* Bytes held for a connection, within what its user may hold: false, and nothing charged, above that. */
bool principal_charge(connection *it, size_t bytes);
void principal_owe(connection *it, size_t bytes); /* in any case */
void principal_repay(connection *it, size_t bytes);
/* Identities watched in calls of WatchIdentities: each new keyring is compared with all of them. */
bool principal_may_watch(const connection *it); /* one more */
void principal_count_watches(connection *it, int32_t more);

/* arrivals.c */
bool arrivals_allow(front *front, const listener *from, uid_t uid);
void arrivals_note_stranger(front *front, const listener *from, uid_t uid);

/* turns.c */
void turns_add(connection *it);          /* something of it waits to be dealt with */
void turns_add_writing(connection *it);  /* something may wait to be sent to it */
void turns_remove(connection *it);       /* from both */
void turns_serve(front *front);          /* also writes to strangers */
void turns_write(front *front);          /* to all others */
uint64_t turns_next(const front *front); /* when there is somebody to serve or to write to: 0 for now, or NEVER */

/* budget.c */
void budget_spend(connection *it, uint32_t work);
bool budget_is_spent(const connection *it);
/* An identity to watch, or no more, costs what a refused operation does. */
enum { WORK_FRAME = 128, WORK_HEADER = 64, WORK_CANCEL = 64, WORK_OPERATION = 512, WORK_CALL = 2048 };

/* timeouts.c */
uint64_t timeouts_next(const front *front);
void timeouts_pass(front *front);
void timeouts_note_idle(connection *it);
void timeouts_note_sent(connection *it, bool progressed);

/* session.c */
bool session_setup(front *front, char error[KERNEL_ERROR_MAX]);
bool session_open(connection *it);
uint32_t session_streams(const connection *it); /* how many calls it may have open */

/* flood.c */
void flood_control_frame(connection *it, uint32_t cost);

/* farewell.c */
/* Counts the refusal, and says why in place of serving: the descriptor is the caller's to close. */
void farewell_refuse(front *front, int descriptor, refusal_reason reason, const caller *who);
void farewell_without_descriptors(int descriptor);
/* Ends a connection that was served: it hears why, and is closed when that has left. */
void farewell_end(connection *it, refusal_reason reason);

/* call.c */
call *call_new(connection *connection, int32_t stream); /* NULL: no memory, or none for this user */
bool call_charge(call *it, size_t bytes);               /* repaid when the call is freed */
void call_begin(call *it);                              /* request headers are complete */
void call_half_close(call *it);
void call_closed(call *it); /* the stream is gone */
void call_deadline_passed(call *it);
void call_finish(call *it, rpc_status status, const char *message); /* drops what is not answered */
void call_complete(call *it);                                       /* status OK after the answers that are there */
void call_refuse(call *it, refusal_reason reason, rpc_status status, const char *message); /* finish, and count it */
void call_release_operation(call *it, operation *op); /* out of its list, back to the pool */

/* message.c */
void message_receive(call *it, const uint8_t *data, size_t size);
void message_resume(call *it);
void message_free_buffer(call *it);
bool message_is_cut_short(const call *it);
static inline void message_write_header(uint8_t *to, size_t size) {
  to[0] = 0; /* not compressed */
  for (unsigned i = 0; i < 4; i++) to[1 + i] = (uint8_t)(size >> (24 - 8 * i));
}

/* response.c */
void response_open(call *it);   /* headers, then data from the method */
void response_resume(call *it); /* there is more data, or the status is final */
void response_trailers_only(call *it);
void response_give_credit(call *it); /* what answers did not take along */
void response_free_partial(call *it);
size_t response_fill_partial(call *it, uint8_t *to, size_t room); /* from call->partial */
void response_http_status(call *it, const char *status);          /* not gRPC at all: 405, 415 */

/* admission.c: checks an operation of a call and either submits it or answers it at once with a status. NULL when
 * memory ran out, or what its user may hold. `window` is given back to the peer when the answer has left. */
operation *admission_take(call *call, const wire_operation *request, uint64_t deadline, uint32_t window);
bool admission_may_use(connection *connection, uint32_t identity);
/* With the work queue's lock: hands over what was decoded in this turn. */
void admission_submit_all(front *front);
/* An operation has been run, has expired, or was refused. */
void admission_done(front *front, operation *op);

/* methods.c and method_*.c */
const call_method *method_find(const uint8_t *path, size_t size);
extern const call_method method_sign, method_decrypt, method_stream, method_watch, method_watch_identities;
void watch_keyring_changed(front *front);
extern const char watch_name_too_long[];
void watch_owes(call *it, bool owes); /* counts whether something of the identity's message has not left */
/* method_watch_identities.c: after a change of the keyring; when the call ends. */
void watches_look(call *call);
void watches_free(call *call);

/* header_values.c */
uint64_t header_timeout_ns(const uint8_t *value, size_t size); /* NEVER when malformed */
bool header_is_grpc_content(const uint8_t *value, size_t size);
size_t header_percent_encode(const char *text, char *to, size_t room);

/* drain.c */
void drain_begin(front *front);
void drain_connection(connection *it);
void drain_go_away(connection *it);
void drain_acknowledged(connection *it);
void drain_turn(front *front); /* what is due at front->now */
/* Whether a connection that has nothing left to do must be kept open for a little longer. */
bool drain_lingers(const connection *it);
/* Whether new operations are refused on the call. */
bool drain_refuses(const call *call);

#endif
