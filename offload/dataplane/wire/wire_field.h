/* Protocol-buffer fields, the layer below the messages of wire.h. Private to the codec.
 *
 * Encoding: https://protobuf.dev/programming-guides/encoding/. A field is a tag (number << 3 | wire type) and a value.
 */
#ifndef OFFLOAD_WIRE_FIELD_H
#define OFFLOAD_WIRE_FIELD_H

#include <string.h>

#include "offload/dataplane/wire/wire.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

typedef struct wire_field {
  uint32_t number;
  enum wire_type type;
  uint64_t varint; /* WIRE_VARINT */
  wire_view bytes; /* WIRE_BYTES: the value; WIRE_VARINT: the bytes the varint is written in */
} wire_field;

/* Takes the next field off `rest`: WIRE_OK, WIRE_END or WIRE_MALFORMED. Fixed-size values are skipped: no message here
 * has one. */
wire_status wire_next_field(wire_view *rest, wire_field *field);

/* Takes one varint off `rest`; false when it is truncated or longer than 64 bits. */
bool wire_take_varint(wire_view *rest, uint64_t *value);

/* These store a field's value, or return WIRE_MALFORMED when it has another wire type. As in every protobuf
 * implementation, a 32-bit field keeps the low 32 bits of what was sent. */
wire_status wire_field_u64(const wire_field *field, uint64_t *value);
wire_status wire_field_u32(const wire_field *field, uint32_t *value);
wire_status wire_field_bool(const wire_field *field, bool *value);
wire_status wire_field_bytes(const wire_field *field, wire_view *value);

/* ---- encoding: first the size, then the bytes; fields with default values are omitted ---- */

static inline size_t wire_varint_size(uint64_t value) {
  return value == 0 ? 1 : (size_t)(63 - __builtin_clzll(value)) / 7 + 1;
}

/* Every field number here is below 16, so every tag is one byte. */
static inline size_t wire_number_size(uint64_t value) {
  return value == 0 ? 0 : 1 + wire_varint_size(value);
}
static inline size_t wire_bytes_size(wire_view value) {
  return value.size == 0 ? 0 : 1 + wire_varint_size(value.size) + value.size;
}

static inline uint8_t *wire_put_varint(uint8_t *at, uint64_t value) {
  while (value >= 0x80) {
    *at++ = (uint8_t)(value | 0x80);
    value >>= 7;
  }
  *at++ = (uint8_t)value;
  return at;
}

static inline uint8_t *wire_put_tag(uint8_t *at, unsigned number, enum wire_type type) {
  *at++ = (uint8_t)(number << 3 | type);
  return at;
}

static inline uint8_t *wire_put_number(uint8_t *at, unsigned number, uint64_t value) {
  if (value == 0) return at;
  return wire_put_varint(wire_put_tag(at, number, WIRE_VARINT), value);
}

static inline uint8_t *wire_put_bytes(uint8_t *at, unsigned number, wire_view value) {
  if (value.size == 0) return at;
  at = wire_put_varint(wire_put_tag(at, number, WIRE_BYTES), value.size);
  memcpy(at, value.data, value.size);
  return at + value.size;
}

/* Room for `size` more bytes, or NULL. */
static inline uint8_t *wire_reserve(wire_writer *writer, size_t size) {
  if (size > writer->room - writer->size) return NULL;
  uint8_t *at = writer->data + writer->size;
  writer->size += size;
  return at;
}

/* Writes the field even when it is empty: an element of a repeated field must not be omitted. */
static inline uint8_t *wire_put_bytes_always(uint8_t *at, unsigned number, wire_view value) {
  at = wire_put_varint(wire_put_tag(at, number, WIRE_BYTES), value.size);
  if (value.size > 0) memcpy(at, value.data, value.size);
  return at + value.size;
}

#endif
