// keyload requests signatures from the offload daemon, and counts and times them; see `keyload --help`.

#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "benchmarks/native/argument.h"
#include "benchmarks/native/keyload/channel.h"
#include "benchmarks/native/keyload/report.h"

namespace load {
namespace {

constexpr Nanoseconds kDrain = 10'000'000'000;  // for operations still in flight at the end
constexpr Nanoseconds kIdle = 100'000'000;

class Run {
 public:
  explicit Run(const Options &options) : options_(options), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    for (unsigned i = 0; i < options.connections; i++) {
      channels_.push_back(std::make_unique<Channel>(options, tally_));
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.u32 = i;
      epoll_ctl(epoll_, EPOLL_CTL_ADD, channels_[i]->fd(), &event);
    }
    waiting_to_write_.resize(options.connections);
  }
  ~Run() { close(epoll_); }

  std::string go() {
    begin();
    warm_ = options_.warmup == 0;
    while (true) {
      if (!sent_all_) sent_all_ = send_due();
      for (uint32_t i = 0; i < channels_.size(); i++) write(i);
      if (all_broken() || (sent_all_ && idle())) break;
      if (sent_all_ && now() > end_of_sending_ + kDrain) {
        tally_.fail("operations without an answer at the end");
        break;
      }
      wait();
      if (!warm_ && tally_.operations + tally_.failures >= options_.warmup) {
        warm_ = true;
        tally_ = Tally{};
        begin();
      }
    }
    Spent spent{now() - begin_, own_cpu() - own_begin_, -1};
    if (options_.daemon) spent.daemon_cpu = process_cpu(options_.daemon) - daemon_begin_;
    return report(options_, tally_, spent);
  }

  bool succeeded() const { return tally_.failures == 0 && tally_.operations > 0; }

 private:
  void begin() {
    if (options_.daemon && (daemon_begin_ = process_cpu(options_.daemon)) < 0)
      usage_error("--daemon-pid: no such process");
    own_begin_ = own_cpu();
    begin_ = now();
    sent_ = 0;
  }

  bool all_broken() const {
    return std::all_of(channels_.begin(), channels_.end(), [](const auto &each) { return each->broken(); });
  }
  bool idle() const {
    return std::all_of(channels_.begin(), channels_.end(),
                       [](const auto &each) { return each->broken() || each->in_flight() == 0; });
  }

  // The operations that may still be sent; the bounds count from the end of the warm-up.
  uint64_t budget() const {
    if (!warm_) return UINT64_MAX;
    if (options_.duration && now() - begin_ >= options_.duration) return 0;
    return options_.count ? options_.count - std::min(options_.count, sent_) : UINT64_MAX;
  }

  bool send_due() {
    if (options_.rate > 0) return send_arrivals();
    for (auto &channel : channels_) {
      while (!channel->broken() && channel->room() >= options_.batch) {
        unsigned operations = unsigned(std::min<uint64_t>(options_.batch, budget()));
        if (operations == 0) return stop_sending();
        channel->submit(operations, now());
        sent_ += operations;
      }
    }
    return false;
  }

  bool send_arrivals() {
    while (next_arrival() <= now()) {
      if (budget() == 0) return stop_sending();
      Channel *channel = next_with_room();
      if (!channel) return false;  // its latency counts from when it was due
      channel->submit(1, next_arrival());
      sent_++;
    }
    return false;
  }

  bool stop_sending() {
    end_of_sending_ = now();
    return true;
  }

  Nanoseconds next_arrival() const { return begin_ + Nanoseconds(double(sent_) * 1e9 / options_.rate); }

  Channel *next_with_room() {
    for (size_t tried = 0; tried < channels_.size(); tried++) {
      Channel &channel = *channels_[next_channel_];
      next_channel_ = (next_channel_ + 1) % channels_.size();
      if (!channel.broken() && channel.room()) return &channel;
    }
    return nullptr;
  }

  void write(uint32_t index) {
    Channel &channel = *channels_[index];
    channel.flush();
    bool wanted = channel.wants_write() && !channel.broken();
    if (channel.broken()) {
      epoll_ctl(epoll_, EPOLL_CTL_DEL, channel.fd(), nullptr);
    } else if (wanted != waiting_to_write_[index]) {
      epoll_event event{};
      event.events = EPOLLIN | (wanted ? uint32_t(EPOLLOUT) : 0u);
      event.data.u32 = index;
      epoll_ctl(epoll_, EPOLL_CTL_MOD, channel.fd(), &event);
      waiting_to_write_[index] = wanted;
    }
  }

  void wait() {
    Nanoseconds sleep = kIdle;
    if (options_.rate > 0 && !sent_all_ && next_with_room())
      sleep = std::clamp<Nanoseconds>(next_arrival() - now(), 0, kIdle);
    timespec timeout{.tv_sec = 0, .tv_nsec = sleep};
    epoll_event events[256];
    int ready = epoll_pwait2(epoll_, events, 256, &timeout, nullptr);
    for (int i = 0; i < ready; i++) channels_[events[i].data.u32]->receive();
  }

  const Options &options_;
  int epoll_;
  Tally tally_;
  std::vector<std::unique_ptr<Channel>> channels_;
  std::vector<bool> waiting_to_write_;
  Nanoseconds begin_ = 0, own_begin_ = 0, daemon_begin_ = 0, end_of_sending_ = 0;
  uint64_t sent_ = 0;
  size_t next_channel_ = 0;
  bool warm_ = false, sent_all_ = false;
};

}  // namespace
}  // namespace load

int main(int argc, char **argv) {
  load::Options options = load::parse_options(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1UL);
  load::Run run(options);
  puts(run.go().c_str());
  return run.succeeded() ? 0 : 1;
}
