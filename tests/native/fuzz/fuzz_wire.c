/* libFuzzer target for the codec: whatever the bytes are, no reader goes out of bounds, and an operation or a result
 * that was read is read the same after being written again. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "offload/dataplane/wire/wire.h"

enum { ROOM = 128 * 1024 };
static uint8_t room[ROOM];

/* Touches every byte, so that the address sanitizer sees a view that is too long. */
static void touch(wire_view view) {
  static volatile uint8_t sum;
  for (size_t i = 0; i < view.size; i++) sum = (uint8_t)(sum + view.data[i]);
}

static void same(wire_view a, wire_view b) {
  assert(a.size == b.size);
  assert(a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static void write_again(const wire_operation *operation) {
  wire_writer writer = {.data = room, .room = sizeof room};
  assert(wire_append_operation(&writer, operation));
  wire_batch_reader reader = {.rest = {room, writer.size}};
  wire_batch_item item;
  wire_status status = wire_next_item(&reader, &item);
  assert(status == WIRE_OK || status == WIRE_TOO_LARGE);
  assert(item.kind == WIRE_ITEM_OPERATION);
  same(item.operation.key_id, operation->key_id);
  same(item.operation.input, operation->input);
  assert(item.operation.id == operation->id && item.operation.signature_scheme == operation->signature_scheme);
  assert(item.operation.prehashed == operation->prehashed && item.operation.decrypt == operation->decrypt);
  assert(item.operation.timeout_us == operation->timeout_us);
  assert(wire_next_item(&reader, &item) == WIRE_END);
}

static void read_batch(wire_view message) {
  wire_batch_reader reader = {.rest = message};
  wire_batch_item item;
  wire_status status;
  uint64_t id;
  while ((status = wire_next_item(&reader, &item)) == WIRE_OK || status == WIRE_TOO_LARGE) {
    if (item.kind == WIRE_ITEM_OPERATION) {
      touch(item.operation.key_id);
      touch(item.operation.input);
      write_again(&item.operation);
    } else {
      while (wire_next_id(&item.cancelled, &id) == WIRE_OK) continue;
    }
  }
}

static void read_results(wire_view message) {
  wire_batch_reader reader = {.rest = message};
  wire_result result, again;
  while (wire_next_result(&reader, &result) == WIRE_OK) {
    wire_writer writer = {.data = room, .room = sizeof room};
    assert(wire_append_result(&writer, &result));
    wire_batch_reader written = {.rest = {room, writer.size}};
    assert(wire_next_result(&written, &again) == WIRE_OK);
    same(again.output, result.output);
    same(again.message, result.message);
    assert(again.id == result.id && again.status == result.status && again.run_us == result.run_us);
  }
}

static void read_identity(wire_view message) {
  wire_identity identity;
  wire_credential credential;
  wire_trust_bundle bundle;
  wire_view view;
  uint32_t scheme;
  if (wire_decode_identity(message, &identity) != WIRE_OK) return;
  touch(identity.name);
  while (wire_next_credential(&identity.credentials, &credential)) {
    touch(credential.key_id);
    while (wire_next_certificate(&credential.chain, &view)) touch(view);
    while (wire_next_dns_name(&credential.dns_names, &view)) touch(view);
    while (wire_next_scheme(&credential.schemes, &scheme)) continue;
  }
  while (wire_next_trust_bundle(&identity.trust_bundles, &bundle)) {
    touch(bundle.trust_domain);
    while (wire_next_authority(&bundle.authorities, &view)) touch(view);
  }
}

static void read_watches(wire_view message) {
  wire_batch_reader reader = {.rest = message};
  wire_watch_item item, again;
  while (wire_next_watch_item(&reader, &item) == WIRE_OK) {
    wire_writer writer = {.data = room, .room = sizeof room};
    assert(wire_append_watch_item(&writer, &item));
    wire_batch_reader written = {.rest = {room, writer.size}};
    assert(wire_next_watch_item(&written, &again) == WIRE_OK);
    same(again.identity, item.identity);
    assert(again.unwatch == item.unwatch && wire_next_watch_item(&written, &again) == WIRE_END);
  }
}

static void read_news(wire_view message) {
  wire_identity_news news, again;
  wire_view name;
  if (wire_peek_identity_news(message, &name)) touch(name);
  if (wire_decode_identity_news(message, &news) != WIRE_OK) return;
  touch(news.name);
  touch(news.message);
  read_identity(news.identity);
  wire_writer writer = {.data = room, .room = sizeof room};
  assert(wire_append_identity_news(&writer, &news));
  if (news.status == 0) { /* the caller appends the identity */
    if (news.identity.size > 0) memcpy(room + writer.size, news.identity.data, news.identity.size);
    writer.size += news.identity.size;
  }
  assert(wire_decode_identity_news((wire_view){room, writer.size}, &again) == WIRE_OK);
  same(again.name, news.name);
  same(again.message, news.message);
  assert(again.status == news.status);
  if (news.status == 0) same(again.identity, news.identity);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0 || size > ROOM / 2) return 0;
  wire_view message = {data + 1, size - 1};
  wire_operation operation;
  wire_view name;
  switch (data[0] % 8) {
    case 0: read_batch(message); break;
    case 1: read_results(message); break;
    case 2: read_identity(message); break;
    case 3:
      if (wire_decode_sign_request(message, &operation) == WIRE_OK) touch(operation.input);
      break;
    case 4:
      if (wire_decode_decrypt_request(message, &operation) == WIRE_OK) touch(operation.input);
      break;
    case 5:
      if (wire_decode_watch_request(message, &name) == WIRE_OK) touch(name);
      break;
    case 6: read_watches(message); break;
    default: read_news(message);
  }
  return 0;
}
