/* libshifted_clock.so: preloaded into a process, it shifts that process's wall clock forward or back by the seconds in
 * the file $SHIFTED_CLOCK (one int64_t in native byte order). The file is mapped: a change makes the clocks of all
 * processes that map it jump at once. The monotonic clocks run on, as they do when a real clock is set.
 *
 * Waits for a wall-clock time (pthread_cond_timedwait with CLOCK_REALTIME) are not shifted; neither Envoy's loops nor
 * the daemon use them.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t none;
static const volatile int64_t *shift = &none;

__attribute__((constructor)) static void map(void) {
  const char *path = getenv("SHIFTED_CLOCK");
  int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) abort();
  shift = mapped;
}

static int (*real_clock_gettime(void))(clockid_t, struct timespec *) {
  static int (*real)(clockid_t, struct timespec *);
  if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
  return real;
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = real_clock_gettime()(clock, now);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI)) {
    now->tv_sec += *shift;
  }
  return result;
}

__attribute__((visibility("default"))) int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec precise;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &precise);
  *now = (struct timeval){.tv_sec = precise.tv_sec, .tv_usec = precise.tv_nsec / 1000};
  return 0;
}

__attribute__((visibility("default"))) time_t time(time_t *now) {
  struct timespec precise;
  clock_gettime(CLOCK_REALTIME, &precise);
  if (now != NULL) *now = precise.tv_sec;
  return precise.tv_sec;
}

__attribute__((visibility("default"))) int timespec_get(struct timespec *now, int base) {
  return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}
