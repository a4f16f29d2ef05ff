/* Reads an Identity: wire_decode_identity checks the whole message once, so the readers that iterate over it cannot
 * fail. */
#include "offload/dataplane/wire/wire_field.h"

/* ---- checks ---- */

static wire_status check_packed(wire_view packed) {
  uint64_t value;
  while (packed.size > 0) {
    if (!wire_take_varint(&packed, &value)) return WIRE_MALFORMED;
  }
  return WIRE_OK;
}

static wire_status credential_field(const wire_field *field, wire_credential *credential) {
  wire_view ignored;
  uint64_t number;
  wire_status status;
  switch (field->number) {
    case 1: return wire_field_bytes(field, &credential->key_id);
    case 2:
    case 5: return wire_field_bytes(field, &ignored);
    case 3:
      return field->type == WIRE_VARINT  ? WIRE_OK
             : field->type == WIRE_BYTES ? check_packed(field->bytes)
                                         : WIRE_MALFORMED;
    case 4: return wire_field_bool(field, &credential->tls12);
    case 6:
      status = wire_field_u64(field, &number);
      if (status == WIRE_OK) credential->not_after = (int64_t)number;
      return status;
    default: return WIRE_OK;
  }
}

static wire_status decode_credential(wire_view message, wire_credential *credential) {
  *credential = (wire_credential){.chain = message, .schemes = {.message = message}, .dns_names = message};
  wire_field field;
  wire_status status;
  while ((status = wire_next_field(&message, &field)) == WIRE_OK) {
    if (credential_field(&field, credential) != WIRE_OK) return WIRE_MALFORMED;
  }
  return status == WIRE_END ? WIRE_OK : status;
}

static wire_status decode_trust_bundle(wire_view message, wire_trust_bundle *bundle) {
  *bundle = (wire_trust_bundle){.authorities = message};
  wire_view authority;
  wire_field field;
  wire_status status;
  while ((status = wire_next_field(&message, &field)) == WIRE_OK) {
    if (field.number == 1 && wire_field_bytes(&field, &bundle->trust_domain) != WIRE_OK) return WIRE_MALFORMED;
    if (field.number == 2 && wire_field_bytes(&field, &authority) != WIRE_OK) return WIRE_MALFORMED;
  }
  return status == WIRE_END ? WIRE_OK : status;
}

static wire_status identity_field(const wire_field *field, wire_identity *identity) {
  wire_credential credential;
  wire_trust_bundle bundle;
  switch (field->number) {
    case 1: return wire_field_bytes(field, &identity->name);
    case 2: return wire_field_u64(field, &identity->version);
    case 3: return field->type == WIRE_BYTES ? decode_credential(field->bytes, &credential) : WIRE_MALFORMED;
    case 4: return field->type == WIRE_BYTES ? decode_trust_bundle(field->bytes, &bundle) : WIRE_MALFORMED;
    default: return WIRE_OK;
  }
}

wire_status wire_decode_identity(wire_view message, wire_identity *identity) {
  *identity = (wire_identity){.credentials = message, .trust_bundles = message};
  wire_field field;
  wire_status status;
  while ((status = wire_next_field(&message, &field)) == WIRE_OK) {
    if (identity_field(&field, identity) != WIRE_OK) return WIRE_MALFORMED;
  }
  return status == WIRE_END ? WIRE_OK : status;
}

/* ---- readers ---- */

/* Finds the next field of that number that holds bytes. */
static bool next_bytes(wire_view *reader, uint32_t number, wire_view *value) {
  wire_field field;
  while (wire_next_field(reader, &field) == WIRE_OK) {
    if (field.number == number) return wire_field_bytes(&field, value) == WIRE_OK;
  }
  return false;
}

bool wire_next_credential(wire_view *reader, wire_credential *credential) {
  wire_view message;
  return next_bytes(reader, 3, &message) && decode_credential(message, credential) == WIRE_OK;
}

bool wire_next_certificate(wire_view *reader, wire_view *der) {
  return next_bytes(reader, 2, der);
}

bool wire_next_dns_name(wire_view *reader, wire_view *name) {
  return next_bytes(reader, 5, name);
}

bool wire_next_trust_bundle(wire_view *reader, wire_trust_bundle *bundle) {
  wire_view message;
  return next_bytes(reader, 4, &message) && decode_trust_bundle(message, bundle) == WIRE_OK;
}

bool wire_next_authority(wire_view *reader, wire_view *der) {
  return next_bytes(reader, 2, der);
}

bool wire_next_scheme(wire_scheme_reader *reader, uint32_t *scheme) {
  uint64_t value;
  wire_field field;
  while (reader->packed.size == 0) { /* also skips empty packed fields */
    if (wire_next_field(&reader->message, &field) != WIRE_OK) return false;
    if (field.number == 3) reader->packed = field.bytes; /* an unpacked value is a packed list of one */
  }
  if (!wire_take_varint(&reader->packed, &value)) return false;
  *scheme = (uint32_t)value;
  return true;
}
