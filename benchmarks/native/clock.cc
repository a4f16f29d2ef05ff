#include "benchmarks/native/clock.h"

#include <dirent.h>
#include <time.h>

#include <cstdio>
#include <string>

namespace load {
namespace {

Nanoseconds read_clock(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return Nanoseconds(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

Nanoseconds now() {
  return read_clock(CLOCK_MONOTONIC);
}

Nanoseconds own_cpu() {
  return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

Nanoseconds process_cpu(pid_t pid) {
  std::string folder = "/proc/" + std::to_string(pid) + "/task/";
  DIR *tasks = opendir(folder.c_str());
  if (!tasks) return -1;
  Nanoseconds sum = 0;
  while (const dirent *entry = readdir(tasks)) {
    if (entry->d_name[0] == '.') continue;
    FILE *file = fopen((folder + entry->d_name + "/schedstat").c_str(), "r");
    if (!file) continue;  // the thread ended between readdir and here
    unsigned long long on_cpu = 0;
    if (fscanf(file, "%llu", &on_cpu) == 1) sum += Nanoseconds(on_cpu);
    fclose(file);
  }
  closedir(tasks);
  return sum;
}

}  // namespace load
