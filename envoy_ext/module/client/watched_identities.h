// The identities that a key client watches at its daemon, and the operations that wait for the first answer about one.
//
// Belongs to the loop: whoever calls holds the key client's loop mutex.
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

  // The daemon is asked for the identity from now on. True when it is asked once more, because it had refused it.
  bool want(const std::shared_ptr<IdentityWatch> &watch);
  // An accepted operation of kind AwaitIdentity.
  void await(const Operation &operation);

  // A new connection: all are asked for again, at once.
  void connected();
  // On the present connection, which may be null.
  void ask(GrpcConnection *connection, Time now);
  Time next_ask() const;  // the far future when there is none

  // What the daemon said. True when it is of use: the identity is there.
  bool receive(const std::string &name, wire_view message);
  void refused(const std::string &name, const std::string &reason);
  // It is watched no more, and asked for again after a while; `status` is an rpc_status. False: it is not one of ours.
  bool closed(const std::string &name, int status, const std::string &reason);

 private:
  struct Watched {
    std::weak_ptr<IdentityWatch> watch;
    std::vector<uint64_t> waiting;
    std::string refusal;  // the daemon's last word, if it was a refusal
    Time ask_again{};     // when refused
    Duration ask_delay{};
    bool asked = false;  // on the present connection
  };

  void refuse(const std::string &name, Watched &watched, const std::string &reason);

  const std::string &socket_path_;
  LiveOperations &operations_;
  ClientStats &stats_;
  std::map<std::string, Watched> watched_;
};

}  // namespace tls_offload

#endif
