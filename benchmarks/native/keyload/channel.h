// One gRPC connection to the daemon: an HTTP/2 session with one long-lived Stream call, or a Sign call per operation.
// It reads and writes a non-blocking socket; the event loop is in main.cc.
#pragma once

#include <nghttp2/nghttp2.h>

#include <memory>
#include <string>
#include <vector>

#include "benchmarks/native/keyload/options.h"
#include "benchmarks/native/keyload/tally.h"
#include "offload/dataplane/wire/wire.h"

namespace load {

class Channel {
 public:
  // Connects; ends the program with status 2 and the reason when it cannot.
  Channel(const Options &options, Tally &tally);
  ~Channel();
  Channel(const Channel &) = delete;
  Channel &operator=(const Channel &) = delete;

  int fd() const { return fd_; }
  size_t room() const { return free_.size(); }
  size_t in_flight() const { return slots_.size() - free_.size(); }
  bool broken() const { return broken_; }
  bool wants_write() const { return written_ < outgoing_.size(); }

  void submit(unsigned operations, Nanoseconds due);  // in one message; room() must suffice
  void receive();
  void flush();

 private:
  struct Slot {
    bool busy = false;
    Nanoseconds due = 0;
    size_t key = 0;
    std::vector<uint8_t> input;
    // Unary calls only.
    std::string request, response, status, message;
    size_t sent = 0;
  };

  void connect_to(const std::string &path);
  void start_session();
  int32_t start_call(const char *path, void *user_data);
  void prepare(Slot &slot, Nanoseconds due);
  void append_message(unsigned operations, Nanoseconds due);
  void take_stream_data(const uint8_t *data, size_t size);
  void take_results(wire_view message);
  void take_result(const wire_result &result);
  void finish_call(Slot &slot);
  void release(Slot &slot);
  void break_off(const std::string &why);

  static ssize_t read_stream(nghttp2_session *, int32_t, uint8_t *, size_t, uint32_t *, nghttp2_data_source *, void *);
  static ssize_t read_call(nghttp2_session *, int32_t, uint8_t *, size_t, uint32_t *, nghttp2_data_source *, void *);
  static int on_data(nghttp2_session *, uint8_t, int32_t, const uint8_t *, size_t, void *);
  static int on_header(nghttp2_session *, const nghttp2_frame *, const uint8_t *, size_t, const uint8_t *, size_t,
                       uint8_t, void *);
  static int on_close(nghttp2_session *, int32_t, uint32_t, void *);

  const Options &options_;
  Tally &tally_;
  int fd_ = -1;
  nghttp2_session *session_ = nullptr;
  int32_t stream_ = -1;
  std::string stream_status_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::string messages_;  // gRPC messages that wait to be framed
  size_t framed_ = 0;
  std::string outgoing_;  // frames that wait to be written
  size_t written_ = 0;
  std::string incoming_;  // a message that is not complete yet
  bool broken_ = false;
  size_t next_key_ = 0;
};

}  // namespace load
