/* Reads request messages from DATA frames: 5 bytes of header (compressed flag, length), then the message. A message
 * that is complete in the read buffer is decoded in place; only incomplete ones are copied.
 */
#include "offload/dataplane/grpc/message.h"

#include <stdlib.h>
#include <string.h>

#include "offload/dataplane/grpc/budget.h"
#include "offload/dataplane/grpc/connection.h"
#include "offload/dataplane/grpc/principal.h"

_Static_assert(WIRE_REQUEST_MAX == 576 * 1024, "the text below says so");

/* Checks the next header. True with the message's whole size (header included) when the header is complete and valid;
 * false when it is incomplete or the call was refused. */
static bool read_header(call *it, const uint8_t *data, size_t size, size_t *whole) {
  if (size < WIRE_GRPC_HEADER_SIZE) return false;
  uint32_t length = (uint32_t)data[1] << 24 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 8 | data[4];
  if (data[0] == 1 && it->names_encoding) {
    call_refuse(it, REFUSED_COMPRESSED, RPC_UNIMPLEMENTED, "compressed messages are not accepted; send identity");
  } else if (data[0] == 1) {
    call_refuse(it, REFUSED_COMPRESSED, RPC_INTERNAL, "compressed flag without grpc-encoding");
  } else if (data[0] != 0) {
    call_refuse(it, REFUSED_MALFORMED, RPC_INTERNAL, "not a gRPC message: compressed flag is neither 0 nor 1");
  } else if (length > WIRE_REQUEST_MAX) {
    call_refuse(it, REFUSED_TOO_LARGE, RPC_RESOURCE_EXHAUSTED, "request message is larger than 576 KiB");
  } else {
    *whole = WIRE_GRPC_HEADER_SIZE + length;
    return true;
  }
  return false;
}

/* New operations wait while many of the connection's operations are unanswered: a client that does not read its answers
 * is no longer read from. Refused operations need an answer too, so they count. New operations also wait for the
 * connection's next turn when it has spent its work budget in this one. */
static bool must_pause(const call *it) {
  connection *connection = it->connection;
  if (!it->method->streams) return false;
  if (connection->held >= 2 * connection->front->settings.connection_queue_limit) return true;
  if (connection->work < WORK_PER_TURN) return false;
  connection->resumable = true;
  return true;
}

/* Hands the messages in `data` to the method; returns how many bytes were consumed. */
static size_t dispatch(call *it, const uint8_t *data, size_t size) {
  size_t at = 0, whole;
  while (!it->finished && read_header(it, data + at, size - at, &whole) && whole <= size - at) {
    if (must_pause(it)) {
      if (list_empty(&it->paused)) list_push(&it->connection->paused, &it->paused);
      break;
    }
    it->has_message = true;
    it->method->message(it,
                        (wire_view){.data = data + at + WIRE_GRPC_HEADER_SIZE, .size = whole - WIRE_GRPC_HEADER_SIZE});
    at += whole;
  }
  return at;
}

void message_free_buffer(call *it) {
  it->connection->buffered -= it->buffer_room;
  principal_repay(it->connection, it->buffer_room);
  free(it->buffer);
  it->buffer = NULL;
  it->buffer_size = it->buffer_room = 0;
}

/* Appends to the buffer; false when the call had to be refused. */
static bool append(call *it, const uint8_t *data, size_t size) {
  size_t needed = it->buffer_size + size;
  if (needed > it->buffer_room) {
    size_t room = it->buffer_room == 0 ? 1024 : it->buffer_room;
    while (room < needed) room *= 2;
    connection *connection = it->connection;
    size_t more = room - it->buffer_room;
    uint8_t *grown = NULL;
    if (connection->buffered + more <= CONNECTION_BUFFER_MAX && principal_charge(connection, more)) {
      grown = realloc(it->buffer, room);
      if (grown == NULL) principal_repay(connection, more);
    }
    if (grown == NULL) {
      call_refuse(it, REFUSED_TOO_LARGE, RPC_RESOURCE_EXHAUSTED, "too many unfinished messages of this user");
      return false;
    }
    connection->buffered += more;
    it->buffer = grown;
    it->buffer_room = room;
  }
  memcpy(it->buffer + it->buffer_size, data, size);
  it->buffer_size = needed;
  return true;
}

/* Processes what the buffer holds. */
static void dispatch_buffer(call *it) {
  size_t used = dispatch(it, it->buffer, it->buffer_size);
  if (it->finished || used == it->buffer_size) {
    message_free_buffer(it);
  } else if (used > 0) {
    memmove(it->buffer, it->buffer + used, it->buffer_size - used);
    it->buffer_size -= used;
  }
}

void message_receive(call *it, const uint8_t *data, size_t size) {
  if (it->buffer_size == 0) {
    size_t used = dispatch(it, data, size);
    if (!it->finished && used < size) append(it, data + used, size - used);
  } else if (append(it, data, size)) {
    if (list_empty(&it->paused)) dispatch_buffer(it);
  }
}

void message_resume(call *it) {
  list_remove(&it->paused);
  dispatch_buffer(it);
  if (it->half_closed) call_half_close(it); /* it had to wait for the buffered messages */
}

bool message_is_cut_short(const call *it) {
  return it->buffer_size > 0;
}
