/* An identity's message while it is sent to a watcher: it shares the keyring's bytes. */
#ifndef OFFLOAD_SERVICE_IDENTITY_SENDING_H
#define OFFLOAD_SERVICE_IDENTITY_SENDING_H

#include "offload/dataplane/grpc/call.h"

enum { IDENTITY_NAME_MAX = 2048 }; /* bytes; SPIFFE ids are the longest names */
extern const char identity_name_too_long[];

typedef struct identity_sending {
  identity_message *sent; /* the last that was sent or is being sent; bytes from `sent_at` on are not sent yet */
  size_t sent_at;
  bool owes; /* something is not sent yet; counts in connection->owed */
} identity_sending;

static inline bool identity_sending_is_done(const identity_sending *it) {
  return it->sent == NULL || it->sent_at == it->sent->size;
}

/* Takes ownership of the reference, and sends what follows the first `from` bytes. */
void identity_sending_begin(identity_sending *it, identity_message *message, size_t from);
size_t identity_sending_fill(identity_sending *it, uint8_t *to, size_t room);
/* Records whether something is not sent yet. */
void identity_sending_owes(identity_sending *it, connection *connection, bool owes);
void identity_sending_free(identity_sending *it, connection *connection);

#endif
