// The application data of one connection: Envoy's buffers on one side, TLS records on the other.
//
// It is used after the handshake; before that, only its `io` is, which carries the handshake's records. Nothing here
// depends on which end of the connection this is.
#ifndef TLS_OFFLOAD_RECORD_STREAM_H
#define TLS_OFFLOAD_RECORD_STREAM_H

#include <openssl/ssl.h>

#include <string>

#include "envoy_ext/module/envoy/abi.h"
#include "envoy_ext/module/tls/record_io.h"

namespace tls_offload {

class RecordStream {
 public:
  explicit RecordStream(abi::Socket envoy) : envoy_(envoy) {}

  // To be called once, before the handshake. `ssl` must not outlive this object.
  void attach(SSL *ssl);

  // Every call from Envoy is enclosed in these two.
  void enter() { io_.enter(envoy_); }
  void leave() { io_.leave(); }

  // These return what the hooks do_read and do_write return. When the action is to close, `failure` may have a reason;
  // a peer's reset is not a failure.
  abi::IoResult read();
  abi::IoResult write(bool end_stream);
  const std::string &failure() const { return failure_; }

  void send_close_notify();
  // To be called after a fatal error: no more records may be written.
  void stop() { stopped_ = true; }

  // Sends records of the handshake.
  RecordIo::Flush flush() { return io_.flush(); }
  bool lost() const { return io_.lost(); }

 private:
  size_t encrypt(size_t most, bool &failed);
  bool flush_pending(uint64_t &drained, bool &failed);

  const abi::Socket envoy_;
  SSL *ssl_ = nullptr;
  RecordIo io_;
  bool close_notify_sent_ = false;
  bool stopped_ = false;
  std::string failure_;
  uint64_t encrypted_ = 0;  // bytes of Envoy's write buffer that are sealed, but not all taken by the socket
};

}  // namespace tls_offload

#endif
