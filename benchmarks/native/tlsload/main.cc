// tlsload makes TLS handshakes with an address, and counts and times them; see `tlsload --help`.

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <cstdio>
#include <thread>

#include "benchmarks/native/tlsload/report.h"

namespace {

load::Results run_all(std::vector<std::unique_ptr<load::Worker>> &workers, load::Load &load) {
  std::vector<load::Results> results(workers.size());
  std::vector<std::thread> threads;
  load.begin = load::now();
  for (size_t i = 1; i < workers.size(); i++) threads.emplace_back([&, i] { results[i] = workers[i]->run(load); });
  results[0] = workers[0]->run(load);
  for (std::thread &thread : threads) thread.join();
  for (size_t i = 1; i < results.size(); i++) results[0].merge(results[i]);
  return std::move(results[0]);
}

}  // namespace

int main(int argc, char **argv) {
  load::Options options = load::parse_options(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1UL);  // open loop arrivals on time; threads inherit it
  rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  std::vector<std::unique_ptr<load::Worker>> workers;
  for (unsigned i = 0; i < options.threads; i++) workers.push_back(std::make_unique<load::Worker>(options, i));
  if (options.warmup) {
    load::Load warmup;
    warmup.count = options.warmup;
    run_all(workers, warmup);
  }
  load::Load load;
  load.count = options.count;
  load.duration = options.duration;
  load.rate = options.rate;
  load::Nanoseconds cpu = load::own_cpu();
  load::Results results = run_all(workers, load);
  cpu = load::own_cpu() - cpu;
  puts(load::report(options, results, results.finished - load.begin, cpu).c_str());
  return results.failures ? 1 : 0;
}
