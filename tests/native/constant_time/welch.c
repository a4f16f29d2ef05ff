#include "tests/native/constant_time/welch.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <x86intrin.h>

enum { CALIBRATION = 1000, CUTS = 4 };
static const double PERCENTILES[CUTS] = {1.0, 0.8, 0.5, 0.2};

/* Running mean and variance (Welford) of two classes. */
typedef struct welch {
  double n[2], mean[2], square[2];
} welch;

static void welch_add(welch *w, int class, double x) {
  double delta = x - w->mean[class];
  w->n[class] += 1;
  w->mean[class] += delta / w->n[class];
  w->square[class] += delta * (x - w->mean[class]);
}

static double welch_t(const welch *w) {
  if (w->n[0] < 2 || w->n[1] < 2) return 0;
  double error = 0;
  for (int c = 0; c < 2; c++) error += w->square[c] / (w->n[c] - 1) / w->n[c];
  return error > 0 ? (w->mean[0] - w->mean[1]) / sqrt(error) : 0;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double timed(const trial *it) {
  unsigned aux;
  /* Waits until the preparation's stores are done, so that the core is equally idle after either class. */
  _mm_mfence();
  for (int i = 0; i < 20; i++) _mm_pause();
  _mm_lfence();
  uint64_t start = __rdtsc();
  _mm_lfence();
  it->run(it->subject);
  uint64_t end = __rdtscp(&aux);
  _mm_lfence();
  return (double)(end - start);
}

double welch_compare(const trial *it, unsigned long runs, double means[2]) {
  static double first[CALIBRATION];
  double limit[CUTS] = {INFINITY};
  welch w[CUTS] = {0};
  for (unsigned long i = 0; i < runs + CALIBRATION; i++) {
    int class = rand() & 1; /* public, and the same sequence in every run */
    it->prepare(it->subject, class);
    double time = timed(it);
    if (i < CALIBRATION) {
      first[i] = time;
      if (i + 1 == CALIBRATION) {
        qsort(first, CALIBRATION, sizeof *first, by_value);
        for (int cut = 1; cut < CUTS; cut++) limit[cut] = first[(int)(PERCENTILES[cut] * CALIBRATION)];
      }
      continue;
    }
    for (int cut = 0; cut < CUTS; cut++) {
      if (time <= limit[cut]) welch_add(&w[cut], class, time);
    }
  }
  double largest = 0;
  for (int cut = 0; cut < CUTS; cut++) {
    double t = fabs(welch_t(&w[cut]));
    if (t > largest) largest = t;
  }
  means[0] = w[0].mean[0];
  means[1] = w[0].mean[1];
  return largest;
}
