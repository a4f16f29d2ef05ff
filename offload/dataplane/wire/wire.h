/* The codec of offload.v1 messages, shared by the daemon and the Envoy module. It does no I/O and allocates nothing:
 * decoding returns views into the caller's buffer, encoding writes into the caller's buffer.
 *
 * Every input may be hostile: lengths are checked against the bytes that are left, unknown fields are skipped, a
 * truncated field or one of the wrong wire type makes the whole message malformed, and so does a group (wire types 3
 * and 4), which proto3 does not have. When a singular field occurs several times, the last one counts. Text is not
 * checked to be UTF-8: names are compared byte by byte. Proto: ../proto/offload/v1/private_key.proto.
 */
#ifndef OFFLOAD_WIRE_H
#define OFFLOAD_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  WIRE_KEY_ID_SIZE = 32,
  /* The largest input is a TLS 1.2 client's transcript. BoringSSL accepts messages of 100 KiB each: the server's
   * certificates, the CAs that it names, and our own chain may be that long; a session ticket has at most 64 KiB. */
  WIRE_INPUT_MAX = 512 * 1024,
  WIRE_INPUT_MAX_OF_OLD = 16 * 1024, /* of a daemon that does not send offload-input-max */
  WIRE_BATCH_MAX = 64 * 1024,        /* what clients aim at, except for a single larger operation */
  WIRE_REQUEST_MAX = WIRE_INPUT_MAX + WIRE_BATCH_MAX,
  WIRE_OPERATIONS_MAX = 256,
  WIRE_CANCELLED_MAX = 4096,  /* ids of an OperationBatch */
  WIRE_WATCH_ITEMS_MAX = 256, /* of a WatchIdentitiesRequest, to watch and to unwatch together */
  WIRE_GRPC_HEADER_SIZE = 5,  /* compressed flag, length in 4 bytes big-endian */
};

typedef struct wire_view {
  const uint8_t *data;
  size_t size;
} wire_view;

enum wire_backend { WIRE_BACKEND_UNSPECIFIED = 0, WIRE_BACKEND_SOFTWARE = 1, WIRE_BACKEND_IFMA8 = 2 };

/* Also carries SignRequest (kind SIGN, no id) and DecryptRequest (kind DECRYPT, no id). */
typedef struct wire_operation {
  uint64_t id;
  wire_view key_id;
  uint32_t signature_scheme;
  wire_view input;
  bool prehashed;
  uint32_t timeout_us;
  bool decrypt;
  bool kind_unknown; /* this version does not know Operation.kind; `decrypt` is false */
} wire_operation;

typedef struct wire_result {
  uint64_t id;
  uint32_t status; /* gRPC code */
  wire_view output;
  wire_view message;
  uint32_t backend; /* enum wire_backend */
  uint32_t batch_size;
  uint32_t queue_us;
  uint32_t run_us;
} wire_result;

typedef enum wire_status {
  WIRE_OK = 0,
  WIRE_END,       /* iterator: no more */
  WIRE_MALFORMED, /* not a message of this type */
  WIRE_TOO_LARGE, /* the input exceeds WIRE_INPUT_MAX; all fields are filled in, and a reader is past the item */
} wire_status;

const char *wire_status_name(wire_status status);

/* Iterates over one repeated message without allocating: start with `rest` = the whole message. */
typedef struct wire_batch_reader {
  wire_view rest;
} wire_batch_reader;

typedef enum wire_batch_item_kind { WIRE_ITEM_OPERATION, WIRE_ITEM_CANCELLED } wire_batch_item_kind;

typedef struct wire_batch_item {
  wire_batch_item_kind kind;
  wire_operation operation; /* WIRE_ITEM_OPERATION */
  wire_view cancelled;      /* WIRE_ITEM_CANCELLED: packed varints, read with wire_next_id */
} wire_batch_item;

/* OperationBatch, the daemon's side. After WIRE_TOO_LARGE the caller may refuse that operation alone and continue;
 * WIRE_MALFORMED is final. The caller counts operations against WIRE_OPERATIONS_MAX. */
wire_status wire_next_item(wire_batch_reader *reader, wire_batch_item *item);
wire_status wire_next_id(wire_view *packed, uint64_t *id);

/* ResultBatch, the client's side. */
wire_status wire_next_result(wire_batch_reader *reader, wire_result *result);

/* Unary requests and responses. */
wire_status wire_decode_sign_request(wire_view message, wire_operation *operation);
wire_status wire_decode_decrypt_request(wire_view message, wire_operation *operation);
wire_status wire_decode_watch_request(wire_view message, wire_view *identity);

/* Encoders append at *size and return false, with nothing written, when `room` does not suffice. */
typedef struct wire_writer {
  uint8_t *data;
  size_t size;
  size_t room;
} wire_writer;

bool wire_append_operation(wire_writer *writer, const wire_operation *operation); /* one of OperationBatch.operations */
bool wire_append_cancelled(wire_writer *writer, uint64_t id);                     /* one of OperationBatch.cancelled */
bool wire_append_result(wire_writer *writer, const wire_result *result);          /* one of ResultBatch.results */
bool wire_append_sign_response(wire_writer *writer, const wire_result *result);   /* SignResponse, DecryptResponse */
bool wire_append_watch_request(wire_writer *writer, wire_view identity);

/* Identity, the module's side: iterate over the repeated fields with wire_next_field-style readers. */
typedef struct wire_identity {
  wire_view name;
  uint64_t version;
  wire_view credentials;   /* start of a reader for wire_next_credential: the whole Identity message */
  wire_view trust_bundles; /* likewise for wire_next_trust_bundle */
} wire_identity;

/* Walks over a repeated enumeration, packed or not. */
typedef struct wire_scheme_reader {
  wire_view message;
  wire_view packed; /* what is left of the packed field that the reader is in */
} wire_scheme_reader;

typedef struct wire_credential {
  wire_view key_id;
  wire_view chain; /* reader for wire_next_certificate: the Credential message */
  wire_scheme_reader schemes;
  wire_view dns_names; /* reader for wire_next_dns_name: the Credential message */
  bool tls12;
  int64_t not_after;
} wire_credential;

typedef struct wire_trust_bundle {
  wire_view trust_domain;
  wire_view authorities; /* reader for wire_next_authority: the TrustBundle message */
} wire_trust_bundle;

/* Checks the whole message once, nested ones included, so that the readers below cannot fail afterwards. */
wire_status wire_decode_identity(wire_view message, wire_identity *identity);
bool wire_next_credential(wire_view *reader, wire_credential *credential);
bool wire_next_certificate(wire_view *reader, wire_view *der);
bool wire_next_scheme(wire_scheme_reader *reader, uint32_t *scheme);
bool wire_next_dns_name(wire_view *reader, wire_view *name);
bool wire_next_trust_bundle(wire_view *reader, wire_trust_bundle *bundle);
bool wire_next_authority(wire_view *reader, wire_view *der);

/* WatchIdentitiesRequest: which identities to watch from now on, and which to watch no longer. */
typedef struct wire_watch_item {
  bool unwatch;
  wire_view identity;
} wire_watch_item;

wire_status wire_next_watch_item(wire_batch_reader *reader, wire_watch_item *item);
bool wire_append_watch_item(wire_writer *writer, const wire_watch_item *item);

/* WatchIdentitiesResponse. */
typedef struct wire_identity_news {
  wire_view name;
  uint32_t status; /* gRPC code; `identity` is present when it is 0 */
  wire_view message;
  wire_view identity; /* for wire_decode_identity, which checks it */
} wire_identity_news;

wire_status wire_decode_identity_news(wire_view message, wire_identity_news *news);
/* Reads the name alone, from the first bytes of a message; false when it does not come first, or is incomplete. */
bool wire_peek_identity_news(wire_view start, wire_view *name);
/* Appends all but the bytes of `identity`, which follow (with status 0): they are large, and shared by many
 * watchers. */
bool wire_append_identity_news(wire_writer *writer, const wire_identity_news *news);

#ifdef __cplusplus
}
#endif
#endif
