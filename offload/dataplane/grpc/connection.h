/* Connections: how they begin and end, and what each does in its turn. */
#ifndef OFFLOAD_GRPC_CONNECTION_H
#define OFFLOAD_GRPC_CONNECTION_H

#include "offload/dataplane/grpc/loop.h"
#include "offload/dataplane/grpc/principal.h"

enum {
  READ_SIZE = 16 * 1024, /* of one connection in its turn */
  STRANGER_READ_SIZE = 4 * 1024,
};

typedef struct connection {
  event_source source;
  list_node link;     /* in front->connections, or in front->ended once it is closed */
  list_node dirty;    /* in principal->dirty while it may have something to send */
  list_node ready;    /* in principal->ready while it has input to be processed */
  list_node idle;     /* in front->idle while it has no call, the longest first */
  list_node stalled;  /* in front->stalled while the peer does not read what waits for it, the longest first */
  list_node leaving;  /* in front->leaving after GOAWAY was sent because it was idle */
  list_node standing; /* in front->reviewed, or in front->unreviewed after the keyring was replaced */
  front *front;
  nghttp2_session *session;
  caller caller;
  principal *principal;
  size_t memory; /* its part of principal->memory */
  batch_source batch;
  list_node calls;
  list_node paused; /* calls with complete messages that wait until answers have been sent */
  uint32_t call_count;
  uint32_t watches;  /* of all its calls; its part of principal->watches */
  uint32_t held;     /* operations not yet answered, refused ones included */
  uint32_t owed;     /* answers, and parts of them, that have not been sent */
  size_t buffered;   /* bytes in the calls' message buffers */
  uint32_t work;     /* spent in this turn; budget.c */
  uint8_t *verdicts; /* per identity of the keyring: 0 not known yet, 1 denied, 2 allowed */
  uint64_t verdicts_generation;
  uint64_t standing_generation; /* of the keyring by which it was last judged to be a stranger or not */
  uint8_t *unread;              /* what was read and is not processed yet */
  size_t unread_size;
  uint8_t *unsent; /* what the socket did not take */
  size_t unsent_size, unsent_at;
  uint64_t idle_since, stalled_since, leaving_since;
  uint64_t control_credit, control_credited_at; /* flood.c */
  drain_phase drain;
  uint64_t drain_final_at; /* when DRAIN_FINAL began */
  bool readable;           /* the socket may have more */
  bool hung_up;            /* and the end of the stream follows */
  bool paused_at;          /* nghttp2 paused within a header block, and has to be called again even without input */
  bool resumable;          /* paused calls may resume */
  bool ending;             /* it is told why, and its input is ignored: farewell.c */
  bool awaits_writable, closed;
} connection;

/* Edge-triggered: a connection that waits for its turn is not reported repeatedly. */
#define CONNECTION_EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLET)
void connection_open(front *front, int descriptor, caller *caller, bool is_stranger); /* takes ownership of both */
void connection_reported(connection *it, uint32_t events);                            /* by epoll */
bool connection_has_input(const connection *it);
bool connection_serve(connection *it);      /* its turn; true when there is more to process */
void connection_mark_dirty(connection *it); /* it may have something to send: turns.c decides when */
void connection_close(connection *it);
void connection_free(connection *it);

#endif
