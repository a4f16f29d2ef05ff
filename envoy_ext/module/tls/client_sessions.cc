#include "envoy_ext/module/tls/client_sessions.h"

#include <algorithm>

namespace tls_offload {

void ClientSessions::put(const Context &context, bssl::UniquePtr<SSL_SESSION> session) {
  if (most_ == 0) return;
  std::lock_guard lock(mutex_);
  kept_.push_front({context, std::move(session)});
  if (kept_.size() > most_) kept_.pop_back();
}

bssl::UniquePtr<SSL_SESSION> ClientSessions::take(const Context &context) {
  std::lock_guard lock(mutex_);
  auto found = std::find_if(kept_.begin(), kept_.end(), [&](const Kept &one) { return one.context == context; });
  if (found == kept_.end()) return nullptr;
  if (!SSL_SESSION_should_be_single_use(found->session.get())) return bssl::UpRef(found->session);
  bssl::UniquePtr<SSL_SESSION> session = std::move(found->session);
  kept_.erase(found);
  return session;
}

}  // namespace tls_offload
