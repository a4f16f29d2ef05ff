/* timing [--batches N] [--report FILE] [--sparse yes] [ALGORITHM...]
 *
 * Does the time of a batch depend on secrets? After dudect (Reparaz, Balasch, Verbauwhede, "Dude, is my code constant
 * time?", 2017): batches of two classes, in random order, on the native 8-lane kernels; Welch's t of the times. |t|
 * above 4.5 says that the classes differ. Interrupts make the upper tail heavy, so t is taken over all times and,
 * again, over those below percentiles of the first thousand. Every algorithm has its own number of batches; a control
 * that leaks one bit on purpose must be found.
 *
 * --sparse adds keys whose exponents or scalars are nearly all 0 (not real keys); RSA is known to differ.
 *
 * Ends with 0 when no comparison but the control exceeds the threshold.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <x86intrin.h>

#include "tests/native/constant_time/classes.h"

static const double THRESHOLD = 4.5;

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

/* What the control adds to the batch: about 1% of its time where the first byte of the message is odd. */
static void leak(const subject *s) {
  volatile unsigned sink = 0;
  if (s->input[0][1] & 1) {
    for (unsigned i = 0; i < 250; i++) sink += i;
  }
}

static double time_of_batch(subject *s, comparison c) {
  unsigned aux;
  kernel_run *run = kernel_ifma8.run[s->algorithm];
  /* The preparation's stores have left, and the core is as quiet after either class. */
  _mm_mfence();
  for (int i = 0; i < 20; i++) _mm_pause();
  _mm_lfence();
  uint64_t start = __rdtsc();
  _mm_lfence();
  run(s->lanes, s->count, s->workspace);
  if (c == CONTROL) leak(s);
  uint64_t end = __rdtscp(&aux);
  _mm_lfence();
  return (double)(end - start);
}

/* The largest |t| over the cuts; `means` are those of all times, in cycles of the time stamp counter. */
static double compare(subject *s, comparison c, unsigned long batches, double means[2]) {
  static double first[CALIBRATION];
  double limit[CUTS] = {INFINITY};
  welch w[CUTS] = {0};
  for (unsigned long i = 0; i < batches + CALIBRATION; i++) {
    int class = rand() & 1; /* public, and the same on every run */
    subject_prepare(s, c, class);
    double time = time_of_batch(s, c);
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

/* The count bounds the run: RSA-4096 takes 18 minutes, all others together 10. */
static unsigned long default_batches(kernel_algorithm algorithm) {
  static const unsigned long batches[KERNEL_ALGORITHMS] = {100000, 100000, 100000, 200000, 100000, 200000};
  return batches[algorithm];
}

static bool wanted(const char *name, int count, char **argument) {
  bool any = false;
  for (int i = 1; i < count; i++) {
    if (argument[i][0] == '-') {
      i++;
      continue;
    }
    any = true;
    if (strcmp(argument[i], name) == 0) return true;
  }
  return !any;
}

static const char *option(const char *name, int count, char **argument) {
  for (int i = 1; i + 1 < count; i++) {
    if (strcmp(argument[i], name) == 0) return argument[i + 1];
  }
  return NULL;
}

static int leaks;

static void run_algorithm(kernel_algorithm algorithm, unsigned operations, unsigned long batches, bool sparse,
                          FILE *report) {
  static subject s;
  if (!subject_new(&s, algorithm, operations)) {
    fprintf(stderr, "timing: no memory for keys\n");
    exit(2);
  }
  for (comparison c = 0; c < COMPARISONS; c++) {
    if (!comparison_exists(c, algorithm, sparse)) continue;
    double means[2], t = compare(&s, c, batches, means);
    bool differs = t > THRESHOLD, as_it_should = differs == (c == CONTROL);
    if (!as_it_should) leaks++;
    char line[256];
    snprintf(line, sizeof line, "%-8s of %u  %-32s %8lu batches   means %11.1f %11.1f   max |t| %7.2f   %s\n",
             kernel_algorithm_name(algorithm), operations, comparison_name(c), batches, means[0], means[1], t,
             c == CONTROL ? (differs ? "found, as it must be" : "NOT FOUND: the test is blind")
                          : (differs ? "DIFFERS" : "no difference"));
    fputs(line, stdout);
    fflush(stdout);
    if (report != NULL) fputs(line, report);
  }
  subject_free(&s);
}

int main(int count, char **argument) {
  if (!kernel_ifma8.usable()) {
    fprintf(stderr, "timing: this host has no AVX-512 IFMA\n");
    return 77;
  }
  const char *batches = option("--batches", count, argument), *file = option("--report", count, argument);
  bool sparse = option("--sparse", count, argument) != NULL;
  FILE *report = file != NULL ? fopen(file, "w") : NULL;
  if (file != NULL && report == NULL) {
    perror(file);
    return 2;
  }
  for (kernel_algorithm a = 0; a < KERNEL_ALGORITHMS; a++) {
    if (!wanted(kernel_algorithm_name(a), count, argument) || kernel_ifma8.run[a] == NULL) continue;
    unsigned long wanted_batches = batches != NULL ? strtoul(batches, NULL, 10) : default_batches(a);
    bool rsa = a <= KERNEL_RSA4096;
    /* Four RSA operations fill eight lanes, two fill four. */
    run_algorithm(a, rsa ? 4 : KERNEL_LANES, wanted_batches, sparse, report);
    if (rsa) run_algorithm(a, 2, wanted_batches, sparse, report);
  }
  if (report != NULL) fclose(report);
  return leaks == 0 ? 0 : 1;
}
