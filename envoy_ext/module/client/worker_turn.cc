#include "envoy_ext/module/client/worker_turn.h"

#include <algorithm>

#include "envoy_ext/module/client/key_client.h"

namespace tls_offload {

WorkerTurn &WorkerTurn::of_this_thread() {
  thread_local WorkerTurn instance;
  return instance;
}

void WorkerTurn::join(Member &member) {
  if (member.at_ != Member::kOut) return;
  member.at_ = members_.size();
  members_.push_back(&member);
  if (next_ == nullptr) call(member);
}

void WorkerTurn::leave(Member &member) {
  if (member.at_ == Member::kOut) return;
  members_.back()->at_ = member.at_;
  members_[member.at_] = members_.back();
  members_.pop_back();
  member.at_ = Member::kOut;
  if (next_ != &member) return;
  next_ = nullptr;
  call_next();
  // No further call will come, so submitted operations must be sent now, and the thread receives the answers.
  if (next_ == nullptr) member.key_client().exchange(false);
}

bool WorkerTurn::called(Member &member) {
  if (next_ != &member) return false;
  next_ = nullptr;
  bool busy = others_ran_;
  exchange(busy);
  if (!busy) return false;
  call_next();
  if (next_ == nullptr) exchange(false);
  return next_ != nullptr;
}

// Exchanges with each key client that a member waits for; nearly always there is one.
void WorkerTurn::exchange(bool again) {
  std::vector<KeyClient *> done;
  for (Member *member : members_) {
    KeyClient *client = &member->key_client();
    if (std::find(done.begin(), done.end(), client) != done.end()) continue;
    done.push_back(client);
    client->exchange(again);
  }
}

void WorkerTurn::call_next() {
  auto waits = std::find_if(members_.rbegin(), members_.rend(), [](Member *one) { return one->still_waits(); });
  if (waits != members_.rend()) call(**waits);
}

void WorkerTurn::call(Member &member) {
  next_ = &member;
  others_ran_ = false;
  member.call_back();
}

}  // namespace tls_offload
