// Lets a worker that is awake anyway exchange requests and answers with the daemon by itself.
//
// Otherwise each operation is handed over between threads twice: the worker wakes the key client's thread to send it,
// and the thread wakes the worker with the answer. Here, one of a worker's connections that wait for the daemon is
// called back in the next turn of the event loop (it is made writable). That call sends in one message what the turn's
// connections have submitted, and takes the answers that have arrived. This repeats as long as the worker has other
// work between two such calls; after a turn in which nothing else happened, the key client's thread takes over and
// wakes the worker when an answer comes. So a worker never spins, and an idle one sleeps.
#ifndef TLS_OFFLOAD_WORKER_TURN_H
#define TLS_OFFLOAD_WORKER_TURN_H

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tls_offload {

class KeyClient;

class WorkerTurn {
 public:
  // A connection of this worker that may wait for the daemon.
  class Member {
   public:
    virtual ~Member() = default;
    virtual bool still_waits() const = 0;
    // Makes Envoy call `do_write` in the next turn of the loop, which calls `called`.
    virtual void call_back() = 0;
    virtual KeyClient &key_client() const = 0;

   private:
    friend class WorkerTurn;
    static constexpr size_t kOut = SIZE_MAX;
    size_t at_ = kOut;
  };

  static WorkerTurn &of_this_thread();

  // Envoy called a hook of a connection. A hook of the connection that is called back does not count as other work.
  void event(const Member &member) { others_ran_ = others_ran_ || next_ != &member; }
  // To be called when it has submitted an operation, and when it no longer waits or is closed. Both may be repeated.
  void join(Member &member);
  void leave(Member &member);
  // `do_write` was called on a waiting member. False when it is not the one that had been called back, or when nothing
  // else happened meanwhile and the key client's thread has taken over.
  bool called(Member &member);

 private:
  void exchange(bool again);
  void call_next();
  void call(Member &member);

  std::vector<Member *> members_;
  Member *next_ = nullptr;   // called back, and not yet called
  bool others_ran_ = false;  // since that one was called back
};

}  // namespace tls_offload

#endif
