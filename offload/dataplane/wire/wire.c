/* The codec's daemon side and the shared encoders; wire_identity.c has the Identity messages. */
#include "offload/dataplane/wire/wire.h"

#include <string.h>

#include "offload/dataplane/wire/wire_field.h"

enum { VARINT_MAX_SIZE = 10, TAG_MAX_SIZE = 5 };

const char *wire_status_name(wire_status status) {
  switch (status) {
    case WIRE_OK: return "ok";
    case WIRE_END: return "end";
    case WIRE_MALFORMED: return "malformed";
    case WIRE_TOO_LARGE: return "too large";
  }
  return "unknown";
}

/* ---- fields ---- */

static wire_view view_after(wire_view view, size_t count) {
  return (wire_view){.data = view.data + count, .size = view.size - count};
}

bool wire_take_varint(wire_view *rest, uint64_t *value) {
  uint64_t result = 0;
  for (size_t i = 0; i < rest->size && i < VARINT_MAX_SIZE; i++) {
    uint8_t byte = rest->data[i];
    if (i == VARINT_MAX_SIZE - 1 && byte > 1) return false; /* more than 64 bits */
    result |= (uint64_t)(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      *value = result;
      *rest = view_after(*rest, i + 1);
      return true;
    }
  }
  return false;
}

static bool take_bytes(wire_view *rest, uint64_t count, wire_view *taken) {
  if (count > rest->size) return false;
  *taken = (wire_view){.data = rest->data, .size = (size_t)count};
  *rest = view_after(*rest, (size_t)count);
  return true;
}

wire_status wire_next_field(wire_view *rest, wire_field *field) {
  if (rest->size == 0) return WIRE_END;
  uint64_t tag, size;
  const uint8_t *start = rest->data;
  if (!wire_take_varint(rest, &tag) || rest->data - start > TAG_MAX_SIZE) return WIRE_MALFORMED;
  if (tag > UINT32_MAX || tag >> 3 == 0) return WIRE_MALFORMED;
  *field = (wire_field){.number = (uint32_t)(tag >> 3), .type = (enum wire_type)(tag & 7)};
  bool taken = false;
  switch (field->type) {
    case WIRE_VARINT:
      field->bytes.data = rest->data;
      taken = wire_take_varint(rest, &field->varint);
      field->bytes.size = (size_t)(rest->data - field->bytes.data);
      break;
    case WIRE_BYTES: taken = wire_take_varint(rest, &size) && take_bytes(rest, size, &field->bytes); break;
    case WIRE_FIXED64: taken = take_bytes(rest, 8, &field->bytes); break;
    case WIRE_FIXED32: taken = take_bytes(rest, 4, &field->bytes); break;
    default: break; /* groups and undefined wire types */
  }
  return taken ? WIRE_OK : WIRE_MALFORMED;
}

wire_status wire_field_u64(const wire_field *field, uint64_t *value) {
  if (field->type != WIRE_VARINT) return WIRE_MALFORMED;
  *value = field->varint;
  return WIRE_OK;
}

wire_status wire_field_u32(const wire_field *field, uint32_t *value) {
  if (field->type != WIRE_VARINT) return WIRE_MALFORMED;
  *value = (uint32_t)field->varint;
  return WIRE_OK;
}

wire_status wire_field_bool(const wire_field *field, bool *value) {
  if (field->type != WIRE_VARINT) return WIRE_MALFORMED;
  *value = field->varint != 0;
  return WIRE_OK;
}

wire_status wire_field_bytes(const wire_field *field, wire_view *value) {
  if (field->type != WIRE_BYTES) return WIRE_MALFORMED;
  *value = field->bytes;
  return WIRE_OK;
}

/* ---- decoding ---- */

static wire_status operation_field(const wire_field *field, wire_operation *operation) {
  uint32_t kind;
  switch (field->number) {
    case 1: return wire_field_u64(field, &operation->id);
    case 2: return wire_field_bytes(field, &operation->key_id);
    case 3: return wire_field_u32(field, &operation->signature_scheme);
    case 4: return wire_field_bytes(field, &operation->input);
    case 5: return wire_field_bool(field, &operation->prehashed);
    case 6: return wire_field_u32(field, &operation->timeout_us);
    case 7:
      if (wire_field_u32(field, &kind) != WIRE_OK) return WIRE_MALFORMED;
      operation->decrypt = kind == 1;
      operation->kind_unknown = kind > 1;
      return WIRE_OK;
    default: return WIRE_OK;
  }
}

static wire_status sign_request_field(const wire_field *field, wire_operation *operation) {
  switch (field->number) {
    case 1: return wire_field_bytes(field, &operation->key_id);
    case 2: return wire_field_u32(field, &operation->signature_scheme);
    case 3: return wire_field_bytes(field, &operation->input);
    case 4: return wire_field_bool(field, &operation->prehashed);
    default: return WIRE_OK;
  }
}

static wire_status decrypt_request_field(const wire_field *field, wire_operation *operation) {
  switch (field->number) {
    case 1: return wire_field_bytes(field, &operation->key_id);
    case 2: return wire_field_bytes(field, &operation->input);
    default: return WIRE_OK;
  }
}

typedef wire_status operation_field_reader(const wire_field *field, wire_operation *operation);

static wire_status decode_operation(wire_view message, wire_operation *operation, operation_field_reader *read_field) {
  wire_field field;
  wire_status status;
  while ((status = wire_next_field(&message, &field)) == WIRE_OK) {
    if (read_field(&field, operation) != WIRE_OK) return WIRE_MALFORMED;
  }
  if (status != WIRE_END) return status;
  return operation->input.size > WIRE_INPUT_MAX ? WIRE_TOO_LARGE : WIRE_OK;
}

wire_status wire_decode_sign_request(wire_view message, wire_operation *operation) {
  *operation = (wire_operation){0};
  return decode_operation(message, operation, sign_request_field);
}

wire_status wire_decode_decrypt_request(wire_view message, wire_operation *operation) {
  *operation = (wire_operation){.decrypt = true};
  return decode_operation(message, operation, decrypt_request_field);
}

wire_status wire_decode_watch_request(wire_view message, wire_view *identity) {
  *identity = (wire_view){0};
  wire_field field;
  wire_status status;
  while ((status = wire_next_field(&message, &field)) == WIRE_OK) {
    if (field.number == 1 && wire_field_bytes(&field, identity) != WIRE_OK) return WIRE_MALFORMED;
  }
  return status == WIRE_END ? WIRE_OK : status;
}

static wire_status cancelled_item(const wire_field *field, wire_batch_item *item) {
  /* An unpacked id is a packed list of one: its varint bytes. */
  if (field->type != WIRE_BYTES && field->type != WIRE_VARINT) return WIRE_MALFORMED;
  item->kind = WIRE_ITEM_CANCELLED;
  item->cancelled = field->bytes;
  return WIRE_OK;
}

wire_status wire_next_item(wire_batch_reader *reader, wire_batch_item *item) {
  wire_field field;
  wire_status status;
  while ((status = wire_next_field(&reader->rest, &field)) == WIRE_OK) {
    if (field.number == 1) {
      if (field.type != WIRE_BYTES) return WIRE_MALFORMED;
      item->kind = WIRE_ITEM_OPERATION;
      item->operation = (wire_operation){0};
      return decode_operation(field.bytes, &item->operation, operation_field);
    }
    if (field.number == 2) return cancelled_item(&field, item);
  }
  return status;
}

wire_status wire_next_id(wire_view *packed, uint64_t *id) {
  if (packed->size == 0) return WIRE_END;
  return wire_take_varint(packed, id) ? WIRE_OK : WIRE_MALFORMED;
}

static wire_status result_field(const wire_field *field, wire_result *result) {
  switch (field->number) {
    case 1: return wire_field_u64(field, &result->id);
    case 2: return wire_field_u32(field, &result->status);
    case 3: return wire_field_bytes(field, &result->output);
    case 4: return wire_field_bytes(field, &result->message);
    case 5: return wire_field_u32(field, &result->backend);
    case 6: return wire_field_u32(field, &result->batch_size);
    case 7: return wire_field_u32(field, &result->queue_us);
    case 8: return wire_field_u32(field, &result->run_us);
    default: return WIRE_OK;
  }
}

static wire_status decode_result(wire_view message, wire_result *result) {
  *result = (wire_result){0};
  wire_field field;
  wire_status status;
  while ((status = wire_next_field(&message, &field)) == WIRE_OK) {
    if (result_field(&field, result) != WIRE_OK) return WIRE_MALFORMED;
  }
  return status == WIRE_END ? WIRE_OK : status;
}

wire_status wire_next_result(wire_batch_reader *reader, wire_result *result) {
  wire_field field;
  wire_status status;
  while ((status = wire_next_field(&reader->rest, &field)) == WIRE_OK) {
    if (field.number != 1) continue;
    return field.type == WIRE_BYTES ? decode_result(field.bytes, result) : WIRE_MALFORMED;
  }
  return status;
}

/* ---- encoding ---- */

/* Opens the embedded message in field 1 of a batch. */
static uint8_t *reserve_element(wire_writer *writer, size_t size) {
  uint8_t *at = wire_reserve(writer, 1 + wire_varint_size(size) + size);
  return at == NULL ? NULL : wire_put_varint(wire_put_tag(at, 1, WIRE_BYTES), size);
}

bool wire_append_operation(wire_writer *writer, const wire_operation *operation) {
  size_t size = wire_number_size(operation->id) + wire_bytes_size(operation->key_id) +
                wire_number_size(operation->signature_scheme) + wire_bytes_size(operation->input) +
                wire_number_size(operation->prehashed) + wire_number_size(operation->timeout_us) +
                wire_number_size(operation->decrypt);
  uint8_t *at = reserve_element(writer, size);
  if (at == NULL) return false;
  at = wire_put_number(at, 1, operation->id);
  at = wire_put_bytes(at, 2, operation->key_id);
  at = wire_put_number(at, 3, operation->signature_scheme);
  at = wire_put_bytes(at, 4, operation->input);
  at = wire_put_number(at, 5, operation->prehashed);
  at = wire_put_number(at, 6, operation->timeout_us);
  wire_put_number(at, 7, operation->decrypt);
  return true;
}

bool wire_append_cancelled(wire_writer *writer, uint64_t id) {
  uint8_t *at = wire_reserve(writer, 1 + wire_varint_size(id));
  if (at == NULL) return false;
  wire_put_varint(wire_put_tag(at, 2, WIRE_VARINT), id); /* unpacked: also written when it is zero */
  return true;
}

bool wire_append_result(wire_writer *writer, const wire_result *result) {
  size_t size = wire_number_size(result->id) + wire_number_size(result->status) + wire_bytes_size(result->output) +
                wire_bytes_size(result->message) + wire_number_size(result->backend) +
                wire_number_size(result->batch_size) + wire_number_size(result->queue_us) +
                wire_number_size(result->run_us);
  uint8_t *at = reserve_element(writer, size);
  if (at == NULL) return false;
  at = wire_put_number(at, 1, result->id);
  at = wire_put_number(at, 2, result->status);
  at = wire_put_bytes(at, 3, result->output);
  at = wire_put_bytes(at, 4, result->message);
  at = wire_put_number(at, 5, result->backend);
  at = wire_put_number(at, 6, result->batch_size);
  at = wire_put_number(at, 7, result->queue_us);
  wire_put_number(at, 8, result->run_us);
  return true;
}

bool wire_append_sign_response(wire_writer *writer, const wire_result *result) {
  uint8_t *at = wire_reserve(writer, wire_bytes_size(result->output) + wire_number_size(result->backend) +
                                         wire_number_size(result->batch_size));
  if (at == NULL) return false;
  at = wire_put_bytes(at, 1, result->output);
  at = wire_put_number(at, 2, result->backend);
  wire_put_number(at, 3, result->batch_size);
  return true;
}

bool wire_append_watch_request(wire_writer *writer, wire_view identity) {
  uint8_t *at = wire_reserve(writer, wire_bytes_size(identity));
  if (at == NULL) return false;
  wire_put_bytes(at, 1, identity);
  return true;
}
