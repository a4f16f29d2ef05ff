/* WatchIdentities: both ends of its two messages. */
#include <string.h>

#include "offload/dataplane/wire/wire_field.h"

/* ---- WatchIdentitiesRequest: 1 watch, 2 unwatch ---- */

wire_status wire_next_watch_item(wire_batch_reader *reader, wire_watch_item *item) {
  wire_field field;
  wire_status status;
  while ((status = wire_next_field(&reader->rest, &field)) == WIRE_OK) {
    if (field.number != 1 && field.number != 2) continue;
    item->unwatch = field.number == 2;
    return wire_field_bytes(&field, &item->identity);
  }
  return status;
}

bool wire_append_watch_item(wire_writer *writer, const wire_watch_item *item) {
  uint8_t *at = wire_reserve(writer, 1 + wire_varint_size(item->identity.size) + item->identity.size);
  if (at == NULL) return false;
  wire_put_bytes_always(at, item->unwatch ? 2 : 1, item->identity);
  return true;
}

/* ---- WatchIdentitiesResponse: 1 name, 2 status, 3 message, 4 identity ---- */

static wire_status news_field(const wire_field *field, wire_identity_news *news) {
  switch (field->number) {
    case 1: return wire_field_bytes(field, &news->name);
    case 2: return wire_field_u32(field, &news->status);
    case 3: return wire_field_bytes(field, &news->message);
    case 4: return wire_field_bytes(field, &news->identity);
    default: return WIRE_OK;
  }
}

wire_status wire_decode_identity_news(wire_view message, wire_identity_news *news) {
  *news = (wire_identity_news){0};
  wire_field field;
  wire_status status;
  while ((status = wire_next_field(&message, &field)) == WIRE_OK) {
    if (news_field(&field, news) != WIRE_OK) return WIRE_MALFORMED;
  }
  return status == WIRE_END ? WIRE_OK : status;
}

bool wire_peek_identity_news(wire_view start, wire_view *name) {
  wire_field field;
  return wire_next_field(&start, &field) == WIRE_OK && field.number == 1 && wire_field_bytes(&field, name) == WIRE_OK;
}

bool wire_append_identity_news(wire_writer *writer, const wire_identity_news *news) {
  size_t size = wire_bytes_size(news->name) + wire_number_size(news->status) + wire_bytes_size(news->message);
  if (news->status == 0) size += 1 + wire_varint_size(news->identity.size);
  uint8_t *at = wire_reserve(writer, size);
  if (at == NULL) return false;
  at = wire_put_bytes(at, 1, news->name);
  at = wire_put_number(at, 2, news->status);
  at = wire_put_bytes(at, 3, news->message);
  if (news->status == 0) wire_put_varint(wire_put_tag(at, 4, WIRE_BYTES), news->identity.size);
  return true;
}
