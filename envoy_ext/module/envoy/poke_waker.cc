#include "envoy_ext/module/envoy/poke_waker.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace tls_offload {

std::shared_ptr<PokeWaker> PokeWaker::of(int descriptor) {
  int domain = 0, type = 0;
  socklen_t size = sizeof domain;
  if (descriptor < 0 || getsockopt(descriptor, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 ||
      getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) {
    return nullptr;
  }
  if (domain == AF_INET || domain == AF_INET6) {
    return std::make_shared<PokeWaker>(descriptor, IPPROTO_TCP, TCP_NOTSENT_LOWAT);
  }
  return domain == AF_UNIX ? std::make_shared<PokeWaker>(descriptor, SOL_SOCKET, SO_SNDBUF) : nullptr;
}

void PokeWaker::wake_armed() {
  int value = 0;
  socklen_t size = sizeof value;
  if (getsockopt(descriptor_, level_, option_, &value, &size) != 0) return;  // broken: Envoy notices that by itself
  if (option_ == SO_SNDBUF && level_ == SOL_SOCKET) value /= 2;
  setsockopt(descriptor_, level_, option_, &value, sizeof value);
}

}  // namespace tls_offload
