/* Protocol-buffer fields, the layer below the messages of wire.h. Private to the codec.
 *
 * Encoding: https://protobuf.dev/programming-guides/encoding/. A field is a tag (number << 3 | wire type) and a value.
 */
#ifndef OFFLOAD_WIRE_FIELD_H
#define OFFLOAD_WIRE_FIELD_H

#include "wire.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

typedef struct wire_field {
  uint32_t number;
  enum wire_type type;
  uint64_t varint; /* WIRE_VARINT */
  wire_view bytes; /* WIRE_BYTES: the value; WIRE_VARINT: the bytes the varint is written in */
} wire_field;

/* Takes the next field off `rest`: WIRE_OK, WIRE_END or WIRE_MALFORMED. Fixed-size values are skipped over, no message
 * here has one. */
wire_status wire_next_field(wire_view *rest, wire_field *field);

/* Takes one varint off `rest`; false when it is truncated or longer than 64 bits. */
bool wire_take_varint(wire_view *rest, uint64_t *value);

/* Store a field's value, or say WIRE_MALFORMED when it has another wire type. As in every protobuf implementation, a
 * 32-bit field keeps the low 32 bits of what was sent. */
wire_status wire_field_u64(const wire_field *field, uint64_t *value);
wire_status wire_field_u32(const wire_field *field, uint32_t *value);
wire_status wire_field_bool(const wire_field *field, bool *value);
wire_status wire_field_bytes(const wire_field *field, wire_view *value);

#endif
