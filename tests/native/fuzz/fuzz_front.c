/* libFuzzer target for the gRPC front: a client that does anything, over a socket pair, against the real event loop
 * driven by hand. Shards are replaced: batches are taken and answered without computing anything.
 *
 * The input is a list of steps: what to do (one byte), then its arguments. Most steps send well-formed HTTP/2 so that
 * the fuzzer gets deep; one sends raw bytes.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "offload/dataplane/grpc/connection.h"
#include "offload/dataplane/grpc/control.h"
#include "offload/dataplane/grpc/front.h"
#include "offload/dataplane/grpc/loop.h"
#include "offload/dataplane/grpc/principal.h"
#include "offload/dataplane/service/private_key_service.h"

typedef struct bytes {
  const uint8_t *data;
  size_t size;
} bytes;

static kernel_key *key;

static uint8_t take_byte(bytes *rest) {
  if (rest->size == 0) return 0;
  rest->size--;
  return *rest->data++;
}

static bytes take_bytes(bytes *rest, size_t count) {
  bytes taken = {rest->data, count < rest->size ? count : rest->size};
  rest->data += taken.size;
  rest->size -= taken.size;
  return taken;
}

/* ---- the client ---- */

typedef struct world {
  front *front;
  work_queue work;
  counters counters;
  refusal_log refusals;
  int client;
  uint32_t next_stream;
  uint64_t next_id;
} world;

static void put(world *it, const void *data, size_t size) {
  if (it->client < 0) return;
  ssize_t sent = send(it->client, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  (void)sent; /* a full or closed socket is a valid case */
}

static void put_frame(world *it, uint8_t type, uint8_t flags, uint32_t stream, const void *payload, size_t size) {
  uint8_t frame[9 + 16384];
  if (size > 16384) size = 16384;
  uint8_t head[9] = {(uint8_t)(size >> 16),   (uint8_t)(size >> 8),    (uint8_t)size,          type,           flags,
                     (uint8_t)(stream >> 24), (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
  memcpy(frame, head, sizeof head);
  if (size > 0) memcpy(frame + sizeof head, payload, size);
  put(it, frame, sizeof head + size);
}

static size_t put_literal(uint8_t *to, const char *name, const char *value) {
  size_t name_size = strlen(name), size = strlen(value), at = 0;
  to[at++] = 0; /* literal without indexing, new name */
  to[at++] = (uint8_t)name_size;
  memcpy(to + at, name, name_size);
  at += name_size;
  to[at++] = (uint8_t)size;
  memcpy(to + at, value, size);
  return at + size;
}

static void open_call(world *it, uint8_t choice) {
  static const char *const methods[] = {"Sign", "Decrypt", "Stream", "WatchIdentity", "Unknown", "WatchIdentities"};
  uint8_t block[512];
  char path[80];
  snprintf(path, sizeof path, "/offload.v1.PrivateKeyService/%s", methods[choice % 6]);
  size_t size = put_literal(block, ":method", "POST");
  size += put_literal(block + size, ":scheme", "http");
  size += put_literal(block + size, ":path", path);
  size += put_literal(block + size, "content-type", choice & 0x80 ? "text/plain" : "application/grpc");
  size += put_literal(block + size, "te", "trailers");
  if (choice & 0x40) size += put_literal(block + size, "grpc-timeout", choice & 0x20 ? "1u" : "10S");
  if (choice & 0x10) size += put_literal(block + size, "grpc-encoding", "gzip");
  put_frame(it, 1, 4, it->next_stream, block, size);
  it->next_stream += 2;
}

/* Sends one gRPC message with operations that are valid except for what the fuzzer changes. */
static void send_batch(world *it, bytes *rest) {
  uint8_t data[12000], input[146];
  uint8_t count = take_byte(rest), how = take_byte(rest), flags = take_byte(rest) & 1;
  memset(input, ' ', 64);
  memcpy(input + 64, "TLS 1.3, server CertificateVerify", 34);
  memset(input + 98, 7, 32);
  wire_writer writer = {.data = data + 5, .room = sizeof data - 5};
  for (unsigned i = 0; i < count % 40; i++) {
    wire_operation operation = {.id = it->next_id++ % (how & 1 ? 4 : 1000),
                                .key_id = {kernel_key_id(key), 32},
                                .signature_scheme = how & 2 ? 0x0804 : 0x0403,
                                .input = {input, how & 4 ? 131 : 130},
                                .timeout_us = how & 8 ? 1 : 0,
                                .decrypt = how & 16};
    wire_append_operation(&writer, &operation);
    if (how & 32) wire_append_cancelled(&writer, it->next_id - (how >> 6));
  }
  data[0] = 0, data[1] = 0, data[2] = 0, data[3] = (uint8_t)(writer.size >> 8), data[4] = (uint8_t)writer.size;
  uint32_t stream = it->next_stream > 2 ? it->next_stream - 2 - 2 * (how >> 7) : 1;
  put_frame(it, 0, flags, stream, data, writer.size + 5);
}

static void send_message(world *it, bytes *rest) {
  uint8_t data[5 + 255] = {0};
  bytes message = take_bytes(rest, take_byte(rest));
  data[4] = (uint8_t)message.size;
  if (message.size > 0) memcpy(data + 5, message.data, message.size);
  put_frame(it, 0, take_byte(rest) & 1, it->next_stream > 2 ? it->next_stream - 2 : 1, data, message.size + 5);
}

static void send_frame(world *it, bytes *rest) {
  uint8_t type = take_byte(rest), flags = take_byte(rest), stream = take_byte(rest);
  bytes payload = take_bytes(rest, take_byte(rest));
  put_frame(it, type, flags, stream, payload.data, payload.size);
}

/* Puts a long field into HPACK's table, then sends references to it: as a request, or as trailers of the last one. */
static void send_header_bomb(world *it, bytes *rest) {
  uint8_t block[4096], how = take_byte(rest), references = take_byte(rest);
  size_t size = 0;
  if (how & 1) {
    block[size++] = 0x83, block[size++] = 0x86, block[size++] = 0x84; /* POST http / */
    block[size++] = 0x01, block[size++] = 1, block[size++] = 'a';     /* :authority */
  }
  if (how & 2) {
    block[size++] = 0x40, block[size++] = 1, block[size++] = how & 4 ? 'x' : ' ';
    block[size++] = 0x7f, block[size++] = 0xe9, block[size++] = 0x16; /* 3,048 bytes */
    memset(block + size, 'a', 3048);
    size += 3048;
  }
  for (unsigned i = 0; i < references; i++) block[size++] = 0x80 | 62;
  uint32_t last = it->next_stream > 2 ? it->next_stream - 2 : 1;
  put_frame(it, 1, how & 8 ? 4 | 1 : 4, how & 1 ? it->next_stream : last, block, size);
  if (how & 1) it->next_stream += 2;
}

/* Sends many DATA frames at once that are only padding. */
static void send_padding(world *it, bytes *rest) {
  uint32_t stream = it->next_stream > 2 ? it->next_stream - 2 : 1;
  for (unsigned i = take_byte(rest); i > 0; i--) put_frame(it, 0, 8, stream, "\0", 1);
}

static void read_answers(world *it) {
  static uint8_t sink[65536];
  while (it->client >= 0 && recv(it->client, sink, sizeof sink, MSG_DONTWAIT) > 0) continue;
}

static void hang_up(world *it) {
  if (it->client >= 0) close(it->client);
  it->client = -1;
}

/* ---- the server ---- */

static void run_batch(world *it, bool fail) {
  batch taken;
  list_node expired;
  list_init(&expired);
  pthread_mutex_lock(&it->work.lock);
  batcher_expire(&it->work.batcher, it->front->now, &expired);
  batcher_take(&it->work.batcher, it->front->now, false, &taken);
  batcher_complete(&it->work.batcher, taken.items, taken.count);
  pthread_mutex_unlock(&it->work.lock);
  for (unsigned i = 0; i < taken.count; i++) {
    operation *op = LIST_ENTRY(taken.items[i], operation, item);
    op->started = op->finished = it->front->now;
    op->batch_size = (uint8_t)taken.count;
    op->sign.status = fail ? SIGN_FAULT : SIGN_OK;
    op->sign.output_size = fail ? 0 : 72;
    memset(op->sign.output, 5, 72);
    completions_push(&it->work.done, op, op);
  }
  for (list_node *node; (node = list_pop(&expired)) != NULL;) {
    operation *op = LIST_ENTRY(node, operation, item.link);
    op->expired = true;
    completions_push(&it->work.done, op, op);
  }
}

static keyring *make_keyring(uint8_t choice) {
  keyring *ring = keyring_new();
  selector who = {.has_uid = true, .uid = getuid() + (choice & 1)};
  static uint8_t message[20000];
  const char *duplicate;
  keyring_add_identity(ring, "www", 3, message, choice & 2 ? sizeof message : choice);
  keyring_add_selector(ring, &who);
  keyring_add_key(ring, key, choice & 4 ? USAGE_ANY : USAGE_TLS13, choice & 8);
  assert(keyring_seal(ring, &duplicate));
  return ring;
}

static void set_up(world *it) {
  char error[KERNEL_ERROR_MAX];
  memset(it, 0, sizeof *it);
  refusals_init(&it->refusals);
  work_queue_init(&it->work, 64, 32, 48, 0);
  it->work.backends[0] = &kernel_software;
  it->work.counters = &it->counters;
  front_settings settings = {.max_connections = 4,
                             .max_connections_per_user = 4,
                             .max_connections_without_identity = 2,
                             .max_streams = 20,
                             .connection_queue_limit = 32,
                             .user_memory = 400000,
                             .idle_timeout_ns = 1000000,
                             .stalled_timeout_ns = 2000000,
                             .drain_timeout_ns = 1000000000};
  it->front = front_new(&settings, &private_key_service, &it->work, &it->counters, &it->refusals, error);
  assert(it->front != NULL);
  front_set_keyring(it->front, make_keyring(0));
  int pair[2];
  assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  fcntl(pair[1], F_SETFL, O_NONBLOCK);
  caller who;
  assert(caller_read(pair[1], "fuzz", &who));
  connection_open(it->front, pair[1], &who, !principal_is_known(it->front, &who));
  it->client = pair[0];
  it->next_stream = 1;
}

static void check_and_free(world *it) {
  hang_up(it);
  for (unsigned i = 0; i < 64; i++) {    /* everything that was accepted is answered */
    it->front->strangers_rest_until = 0; /* their rest is longer than these turns take, so they would not finish */
    loop_turn(it->front, 0);
    run_batch(it, false);
  }
  loop_turn(it->front, 0);
  assert(it->work.batcher.queued == 0);
  assert(counter_read(&it->counters.connections) == 0);
  assert(counter_read(&it->counters.streams) == 0);
  assert(counter_read(&it->counters.watchers) == 0);
  assert(list_empty(&it->front->ended));
  front_free(it->front);
  work_queue_free(&it->work);
  refusals_free(&it->refusals);
}

static void step(world *it, bytes *rest) {
  bytes raw;
  switch (take_byte(rest) % 14) {
    case 0: loop_turn(it->front, 0); break;
    case 1: open_call(it, take_byte(rest)); break;
    case 2: send_batch(it, rest); break;
    case 3: send_message(it, rest); break;
    case 4: send_frame(it, rest); break;
    case 5: run_batch(it, take_byte(rest) & 1); break;
    case 6: read_answers(it); break;
    case 7: front_set_keyring(it->front, make_keyring(take_byte(rest))); break;
    case 8:
      raw = take_bytes(rest, take_byte(rest));
      put(it, raw.data, raw.size);
      break;
    case 9: front_drain(it->front); break;
    case 10: put_frame(it, 3, 0, it->next_stream > 2 ? it->next_stream - 2 : 1, "\0\0\0\10", 4); break; /* reset */
    case 11: send_header_bomb(it, rest); break;
    case 12: send_padding(it, rest); break;
    default: put_frame(it, 8, 0, take_byte(rest), "\0\0\1", 4); /* window */
  }
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
  char error[KERNEL_ERROR_MAX];
  key = kernel_key_generate(KERNEL_P256, error);
  assert(key != NULL);
  return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  world it;
  bytes rest = {data, size};
  set_up(&it);
  uint8_t how = take_byte(&rest);
  if (!(how & 1)) put(&it, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 24 + 9);
  if (how & 2) put_frame(&it, 4, 0, 0, "\0\4\0\0\0\3", 6); /* windows of 3 bytes */
  for (unsigned steps = 0; rest.size > 0 && steps < 400; steps++) step(&it, &rest);
  check_and_free(&it);
  return 0;
}
