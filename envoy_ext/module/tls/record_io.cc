#include "envoy_ext/module/tls/record_io.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace tls_offload {
namespace {

// Four full records; more per system call gained nothing measurable on loopback.
constexpr size_t kInboxSize = 64 * 1024;
constexpr size_t kOutboxSize = 4 * (16 * 1024 + 256);

struct WorkerBuffers {
  std::unique_ptr<char[]> inbox{new char[kInboxSize]};
  size_t inbox_at = 0;
  size_t inbox_end = 0;
  std::unique_ptr<char[]> outbox{new char[kOutboxSize]};
  size_t outbox_end = 0;
};

WorkerBuffers &buffers() {
  thread_local WorkerBuffers instance;
  return instance;
}

}  // namespace

void copy_bytes(char *to, const char *from, size_t size) {
  for (; size >= 64; size -= 64, to += 64, from += 64) std::memcpy(to, from, 64);
  std::memcpy(to, from, size);
}

const BIO_METHOD *RecordIo::method() {
  static const BIO_METHOD *made = [] {
    BIO_METHOD *fresh = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "envoy transport socket");
    BIO_meth_set_read(fresh, bio_read);
    BIO_meth_set_write(fresh, bio_write);
    BIO_meth_set_ctrl(fresh, [](BIO *, int command, long, void *) -> long { return command == BIO_CTRL_FLUSH; });
    return fresh;
  }();
  return made;
}

bssl::UniquePtr<BIO> RecordIo::make_bio() {
  bssl::UniquePtr<BIO> bio(BIO_new(method()));
  BIO_set_data(bio.get(), this);
  BIO_set_init(bio.get(), 1);
  return bio;
}

void RecordIo::enter(abi::Socket socket) {
  socket_ = socket;
  WorkerBuffers &mine = buffers();
  mine.inbox_at = mine.inbox_end = mine.outbox_end = 0;
}

void RecordIo::leave() {
  WorkerBuffers &mine = buffers();
  unread_.append(mine.inbox.get() + mine.inbox_at, mine.inbox_end - mine.inbox_at);
  mine.inbox_at = mine.inbox_end = 0;
}

bool RecordIo::has_unread() const {
  WorkerBuffers &mine = buffers();
  return !unread_.empty() || mine.inbox_at < mine.inbox_end;
}

int RecordIo::bio_read(BIO *bio, char *into, int size) {
  BIO_clear_retry_flags(bio);
  return static_cast<RecordIo *>(BIO_get_data(bio))->read(bio, into, static_cast<size_t>(size));
}

int RecordIo::read(BIO *bio, char *into, size_t size) {
  if (!unread_.empty()) {
    size_t taken = std::min(size, unread_.size());
    copy_bytes(into, unread_.data(), taken);
    unread_.erase(0, taken);
    return static_cast<int>(taken);
  }
  WorkerBuffers &mine = buffers();
  if (mine.inbox_at == mine.inbox_end && !end_of_stream_ && !failed_) {
    mine.inbox_at = mine.inbox_end = 0;
    size_t got = 0;
    switch (envoy_dynamic_module_callback_transport_socket_io_read(socket_, mine.inbox.get(), kInboxSize, &got)) {
      case abi::Io::Again: BIO_set_retry_read(bio); return -1;
      case abi::Io::Error: failed_ = true; break;
      case abi::Io::Ok:
        mine.inbox_end = got;
        end_of_stream_ = got == 0;
        break;
    }
  }
  if (failed_) return -1;
  size_t taken = std::min(size, mine.inbox_end - mine.inbox_at);  // 0 at the end of the stream
  copy_bytes(into, mine.inbox.get() + mine.inbox_at, taken);
  mine.inbox_at += taken;
  return static_cast<int>(taken);
}

int RecordIo::bio_write(BIO *bio, const char *from, int size) {
  BIO_clear_retry_flags(bio);
  return static_cast<RecordIo *>(BIO_get_data(bio))->write(from, static_cast<size_t>(size));
}

int RecordIo::write(const char *from, size_t size) {
  WorkerBuffers &mine = buffers();
  if (size > kOutboxSize - mine.outbox_end && unsent_.empty()) flush();
  if (failed_) return -1;
  if (!unsent_.empty()) {
    unsent_.append(from, size);
    return static_cast<int>(size);
  }
  size_t taken = std::min(size, kOutboxSize - mine.outbox_end);
  copy_bytes(mine.outbox.get() + mine.outbox_end, from, taken);
  mine.outbox_end += taken;
  return static_cast<int>(taken);
}

// Writes as much as the socket takes, and returns how much that was.
size_t RecordIo::send(const char *from, size_t size) {
  size_t at = 0;
  while (at < size && !failed_) {
    size_t put = 0;
    abi::Io io = envoy_dynamic_module_callback_transport_socket_io_write(socket_, from + at, size - at, &put);
    if (io == abi::Io::Again) break;
    if (io == abi::Io::Error) failed_ = true;
    at += put;
  }
  return at;
}

RecordIo::Flush RecordIo::flush() {
  WorkerBuffers &mine = buffers();
  if (!unsent_.empty()) {
    unsent_.erase(0, send(unsent_.data(), unsent_.size()));
    if (unsent_.empty()) unsent_.shrink_to_fit();
  } else if (mine.outbox_end > 0) {
    size_t sent = send(mine.outbox.get(), mine.outbox_end);
    unsent_.assign(mine.outbox.get() + sent, mine.outbox_end - sent);
    mine.outbox_end = 0;
  }
  if (failed_) return Flush::Failed;
  return unsent_.empty() ? Flush::Done : Flush::Blocked;
}

}  // namespace tls_offload
