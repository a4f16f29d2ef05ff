/* A call, which is one HTTP/2 stream, and the methods that serve calls. */
#ifndef OFFLOAD_GRPC_CALL_H
#define OFFLOAD_GRPC_CALL_H

#include "offload/dataplane/grpc/connection.h"
#include "offload/dataplane/wire/wire.h"

enum { HEADERS_MAX = 16 * 1024 }; /* names and values of one request, trailers included; more is refused */

typedef struct call call;

/* A method of the service. All of its functions run on the front's thread; those that may be NULL say so. */
typedef struct call_method {
  const char *path;
  bool streams;         /* may receive and send many messages */
  bool names_input_max; /* its response headers name the largest input of an operation */
  drain_rule drain;
  void (*start)(call *call);                                  /* request headers are complete; may be NULL */
  void (*message)(call *call, wire_view message);             /* one whole request message */
  void (*half_closed)(call *call);                            /* the client will send no more */
  void (*answered)(call *call, operation *op);                /* one of its operations is done and in call->answers */
  void (*keyring_changed)(call *call);                        /* for calls in front->watchers */
  void (*describe)(const call *call, refused_request *asked); /* for the log of refusals; may be NULL */
  /* Writes response bytes, at most `room`; 0 when there is nothing (yet). */
  size_t (*fill)(call *call, uint8_t *to, size_t room);
  void (*finished)(call *call); /* the status is known, and it is not OK; may be NULL */
  void (*freed)(call *call);    /* frees call->state; may be NULL */
} call_method;

struct call {
  call *next_free;
  connection *connection;
  int32_t stream;
  list_node link;     /* in connection->calls */
  list_node paused;   /* in connection->paused */
  list_node watching; /* in front->watchers: calls that check each new keyring */
  deadline deadline;  /* in front->deadlines: grpc-timeout */
  const call_method *method;
  void *state; /* the method's own */

  /* request */
  size_t header_size;
  uint64_t timeout; /* ns; NEVER when there is none */
  bool is_post, is_grpc, bad_timeout, names_encoding, has_message, half_closed;
  uint8_t *buffer; /* the start of a message, or messages that wait */
  size_t buffer_size, buffer_room;

  /* operations */
  list_node operations; /* not yet done */
  list_node answers;    /* done, not yet sent */
  uint32_t held;        /* operations in both lists */
  uint32_t credit;      /* window bytes to give back to the peer */
  size_t memory;        /* bytes charged for it */
  uint64_t busy_at;     /* when it last had an operation; for draining */

  /* response */
  bool responded; /* headers have been submitted; data follows from `fill` */
  bool deferred;  /* the last call of `fill` returned nothing */
  bool finished;  /* status below is final: no more messages from the call */
  bool closed;    /* nghttp2 has forgotten the stream */
  rpc_status status;
  const char *status_message;
  uint8_t *partial; /* a response message that did not fit; owned */
  size_t partial_size, partial_at;
};

call *call_new(connection *connection, int32_t stream); /* NULL when memory, or the user's share of it, ran out */
bool call_charge(call *it, size_t bytes);               /* repaid when the call is freed */
void call_begin(call *it);                              /* request headers are complete */
void call_half_close(call *it);
void call_closed(call *it); /* the stream is gone */
void call_deadline_passed(call *it);
void call_finish(call *it, rpc_status status, const char *message); /* drops what is not answered */
void call_complete(call *it);                                       /* status OK, after the pending answers */
void call_refuse(call *it, refusal_reason reason, rpc_status status, const char *message); /* finishes and counts it */
void call_answer(operation *op);                      /* it is done and has to be sent */
void call_release_operation(call *it, operation *op); /* moves it from its list to the pool */
void calls_keyring_changed(front *front);

#endif
