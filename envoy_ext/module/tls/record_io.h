// Bytes between BoringSSL and Envoy's socket, without a system call per record.
//
// A worker has one large buffer for each direction, used by the connection that it is serving: reads fetch as much as
// there is, writes gather what BoringSSL produces until `flush`. Only what the socket does not take, or BoringSSL does
// not read yet, is kept per connection.
#ifndef TLS_OFFLOAD_RECORD_IO_H
#define TLS_OFFLOAD_RECORD_IO_H

#include <openssl/bio.h>

#include <string>

#include "envoy_ext/module/envoy/abi.h"

namespace tls_offload {

// memcpy for records. glibc's uses `rep movsb` from 2 KiB on, which is five times slower on AMD's Zen when the target
// lies slightly after the source modulo a page, as it does for the second of two adjacent records.
void copy_bytes(char *to, const char *from, size_t size);

class RecordIo {
 public:
  enum class Flush { Done, Blocked, Failed };

  // A BIO for SSL_set_bio that reads and writes here; it must not outlive this object's use.
  bssl::UniquePtr<BIO> make_bio();

  // Every call from Envoy is enclosed in these two: `socket` is Envoy's object.
  void enter(abi::Socket socket);
  void leave();

  Flush flush();
  bool blocked() const { return !unsent_.empty(); }
  bool has_unread() const;
  bool peer_closed() const { return end_of_stream_; }
  bool lost() const { return end_of_stream_ || failed_; }

 private:
  static int bio_read(BIO *bio, char *into, int size);
  static int bio_write(BIO *bio, const char *from, int size);
  static const BIO_METHOD *method();

  int read(BIO *bio, char *into, size_t size);
  int write(const char *from, size_t size);
  size_t send(const char *from, size_t size);

  abi::Socket socket_ = nullptr;
  std::string unread_;  // received, but BoringSSL has not read it
  std::string unsent_;  // written by BoringSSL, but the socket did not take it
  bool end_of_stream_ = false;
  bool failed_ = false;
};

}  // namespace tls_offload

#endif
