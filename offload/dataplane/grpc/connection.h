/* Connections: begin, end, and what one does in its turn. */
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

/* Edge-triggered: a connection that waits for its turn is not reported again and again. */
#define CONNECTION_EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLET)
void connection_open(front *front, int descriptor, caller *caller, bool is_stranger); /* takes both over */
void connection_reported(connection *it, uint32_t events);                            /* by epoll */
bool connection_has_input(const connection *it);
bool connection_serve(connection *it);      /* its turn; true when there is more to be dealt with */
void connection_mark_dirty(connection *it); /* it may have something to send: turns.c says when it does */
void connection_close(connection *it);
void connection_free(connection *it);

#endif
