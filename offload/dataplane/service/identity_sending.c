#include "offload/dataplane/service/identity_sending.h"

#include <string.h>

#include "offload/dataplane/grpc/connection.h"

_Static_assert(IDENTITY_NAME_MAX == 2048, "the text says so");
const char identity_name_too_long[] = "the name of an identity is longer than 2048 bytes";

void identity_sending_begin(identity_sending *it, identity_message *message, size_t from) {
  identity_message_release(it->sent);
  it->sent = message;
  it->sent_at = from;
}

size_t identity_sending_fill(identity_sending *it, uint8_t *to, size_t room) {
  size_t size = it->sent->size - it->sent_at;
  if (size > room) size = room;
  memcpy(to, it->sent->frame + it->sent_at, size);
  it->sent_at += size;
  return size;
}

void identity_sending_owes(identity_sending *it, connection *connection, bool owes) {
  if (it->owes == owes) return;
  it->owes = owes;
  connection->owed += owes ? 1 : (uint32_t)-1;
}

void identity_sending_free(identity_sending *it, connection *connection) {
  identity_sending_owes(it, connection, false);
  identity_message_release(it->sent);
}
