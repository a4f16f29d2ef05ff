// Wakes the worker of a connection that has no filter: an upstream connection, for which Envoy gives modules no means
// to do so.
//
// Setting a socket option to its current value makes the kernel report the socket as writable once more (it calls the
// socket's write-space callback, which an edge-triggered epoll counts as a new edge), so Envoy calls `do_write` on the
// worker that owns the connection. TCP: TCP_NOTSENT_LOWAT. Unix: SO_SNDBUF (which the kernel doubles when set). The
// descriptor must not be used after Envoy closed it, since its number may belong to another connection by then: the
// `close` hook runs before that and disarms the waker.
#ifndef TLS_OFFLOAD_POKE_WAKER_H
#define TLS_OFFLOAD_POKE_WAKER_H

#include <memory>

#include "envoy_ext/module/envoy/waker.h"

namespace tls_offload {

class PokeWaker final : public Waker {
 public:
  // Null when a descriptor cannot be woken like this: it is invalid, or not a TCP or Unix stream socket.
  static std::shared_ptr<PokeWaker> of(int descriptor);

  PokeWaker(int descriptor, int level, int option) : descriptor_(descriptor), level_(level), option_(option) {}

 private:
  void wake_armed() override;

  const int descriptor_;
  const int level_;
  const int option_;
};

}  // namespace tls_offload

#endif
