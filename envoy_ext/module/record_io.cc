#include "record_io.h"

#include <algorithm>
#include <cstring>
#include <memory>

namespace tls_offload {
namespace {

// Four full records; more per system call gained nothing measurable on loopback.
constexpr size_t kInboxSize = 64 * 1024;

struct WorkerBuffers {
  std::unique_ptr<char[]> inbox{new char[kInboxSize]};
  size_t inbox_at = 0;
  size_t inbox_end = 0;
  std::string outbox;
};

WorkerBuffers &buffers() {
  thread_local WorkerBuffers instance;
  return instance;
}

}  // namespace

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
  mine.inbox_at = mine.inbox_end = 0;
  mine.outbox.clear();
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
    std::memcpy(into, unread_.data(), taken);
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
  std::memcpy(into, mine.inbox.get() + mine.inbox_at, taken);
  mine.inbox_at += taken;
  return static_cast<int>(taken);
}

int RecordIo::bio_write(BIO *bio, const char *from, int size) {
  BIO_clear_retry_flags(bio);
  auto &self = *static_cast<RecordIo *>(BIO_get_data(bio));
  if (self.failed_) return -1;
  std::string &into = self.unsent_.empty() ? buffers().outbox : self.unsent_;
  into.append(from, static_cast<size_t>(size));
  return size;
}

RecordIo::Flush RecordIo::flush() {
  std::string &from = unsent_.empty() ? buffers().outbox : unsent_;
  size_t at = 0;
  while (at < from.size() && !failed_) {
    size_t put = 0;
    abi::Io io =
        envoy_dynamic_module_callback_transport_socket_io_write(socket_, from.data() + at, from.size() - at, &put);
    if (io == abi::Io::Again) break;
    if (io == abi::Io::Error) failed_ = true;
    at += put;
  }
  if (failed_) return Flush::Failed;
  bool done = at == from.size();
  if (&from == &unsent_) {
    unsent_.erase(0, at);
    if (done) unsent_.shrink_to_fit();
  } else {
    unsent_.assign(from, at);
    from.clear();
  }
  return done ? Flush::Done : Flush::Blocked;
}

}  // namespace tls_offload
