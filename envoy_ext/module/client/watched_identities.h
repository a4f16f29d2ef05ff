// The identities that a key client watches at its daemon, and the operations that wait for the first answer about one.
//
// Belongs to the loop: the caller holds the key client's loop mutex.
#ifndef TLS_OFFLOAD_WATCHED_IDENTITIES_H
#define TLS_OFFLOAD_WATCHED_IDENTITIES_H

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "envoy_ext/module/client/grpc_connection.h"
#include "envoy_ext/module/client/identity.h"
#include "envoy_ext/module/client/live_operations.h"
#include "envoy_ext/module/envoy/stats.h"

namespace tls_offload {

class WatchedIdentities {
 public:
  WatchedIdentities(const std::string &socket_path, LiveOperations &operations, ClientStats &stats)
      : socket_path_(socket_path), operations_(operations), stats_(stats) {}

  // Watches the identity from now on. True when the daemon is asked again, because it had refused the identity.
  bool want(const std::shared_ptr<IdentityWatch> &watch);
  // Takes an accepted operation of kind AwaitIdentity.
  void await(const Operation &operation);

  // There is a new connection: all identities are asked for again, at once.
  void connected();
  // Asks on the current connection, which may be null.
  void ask(GrpcConnection *connection, Time now);
  Time next_ask() const;  // the far future when there is none

  // Takes an answer of the daemon. True when it is useful, that is, when it holds the identity.
  bool receive(const std::string &name, wire_view message);
  void refused(const std::string &name, const std::string &reason);
  // The watch has ended, and the identity is asked for again after a while; `status` is an rpc_status. False when the
  // identity is not watched here.
  bool closed(const std::string &name, int status, const std::string &reason);

 private:
  struct Watched {
    std::weak_ptr<IdentityWatch> watch;
    std::vector<uint64_t> waiting;
    std::string refusal;  // the daemon's last answer, if it was a refusal
    Time ask_again{};     // when refused
    Duration ask_delay{};
    bool asked = false;  // on the current connection
  };

  void refuse(const std::string &name, Watched &watched, const std::string &reason);

  const std::string &socket_path_;
  LiveOperations &operations_;
  ClientStats &stats_;
  std::map<std::string, Watched> watched_;
};

}  // namespace tls_offload

#endif
