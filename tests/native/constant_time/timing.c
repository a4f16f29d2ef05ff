/* timing [--batches N] [--report FILE] [--sparse yes] [--way eight|four|lone] [ALGORITHM...]
 *
 * Does the time of a batch depend on secrets? The method is that of dudect (Reparaz, Balasch, Verbauwhede, "Dude, is my
 * code constant time?", 2017): batches of two classes run in random order on the native vector kernels, and Welch's t
 * compares their times. |t| above 4.5 means that the classes differ. Interrupts make the upper tail heavy, so t is
 * computed over all times and, again, over those below percentiles of the first thousand. Every algorithm has its own
 * number of batches; a control that leaks one bit on purpose must be detected.
 *
 * --way runs RSA in that form only. --sparse adds keys whose exponents or scalars are nearly all 0 (not real keys); RSA
 * is known to differ.
 *
 * Exits with 0 when no comparison except the control exceeds the threshold.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/testing_hooks.h"
#include "tests/native/constant_time/classes.h"
#include "tests/native/constant_time/welch.h"
#include "tests/native/constant_time/x25519_classes.h"

static const double THRESHOLD = 4.5;

/* The batches of one comparison. */
typedef struct batches_of {
  subject subject;
  comparison comparison;
} batches_of;

static void prepare_batch(void *context, int class) {
  batches_of *it = context;
  subject_prepare(&it->subject, it->comparison, class);
}

/* The leak of the control: adds about 1% of the batch's time when the first byte of the message is odd. */
static void leak(const subject *s) {
  volatile unsigned sink = 0;
  if (s->input[0][1] & 1) {
    for (unsigned i = 0; i < 250; i++) sink += i;
  }
}

static void run_batch(void *context) {
  batches_of *it = context;
  subject *s = &it->subject;
  kernel_ifma8.run[s->algorithm](s->lanes, s->count, s->workspace);
  if (it->comparison == CONTROL) leak(s);
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

enum { X25519_RUNS = 200000 };

static int leaks;

/* Compares and reports the outcome; with `is_control`, a difference must be found. */
static void judge(const trial *it, const char *what, const char *compared, unsigned long runs, bool is_control,
                  FILE *report) {
  double means[2], t = welch_compare(it, runs, means);
  bool differs = t > THRESHOLD;
  if (differs != is_control) leaks++;
  const char *verdict = is_control ? (differs ? "found, as it must be" : "NOT FOUND: the test is blind")
                                   : (differs ? "DIFFERS" : "no difference");
  char line[256];
  snprintf(line, sizeof line, "%-14s  %-32s %8lu batches   means %11.1f %11.1f   max |t| %7.2f   %s\n", what, compared,
           runs, means[0], means[1], t, verdict);
  fputs(line, stdout);
  fflush(stdout);
  if (report != NULL) fputs(line, report);
}

/* `way` is that of RSA (kernels/ifma8/rsa_ifma8_plan.h), whichever this host prefers. */
static void run_algorithm(kernel_algorithm algorithm, unsigned operations, const char *way, unsigned long batches,
                          bool sparse, FILE *report) {
  kernel_force_rsa_way(way);
  static batches_of it;
  if (!subject_new(&it.subject, algorithm, operations)) {
    fprintf(stderr, "timing: no memory for keys\n");
    exit(2);
  }
  char what[32];
  snprintf(what, sizeof what, "%s of %u", kernel_algorithm_name(algorithm), operations);
  const trial batches_trial = {.prepare = prepare_batch, .run = run_batch, .subject = &it};
  for (comparison c = 0; c < COMPARISONS; c++) {
    if (!comparison_exists(c, algorithm, sparse)) continue;
    it.comparison = c;
    judge(&batches_trial, what, comparison_name(c), batches, c == CONTROL, report);
  }
  subject_free(&it.subject);
}

static void run_x25519(unsigned long runs, FILE *report) {
  for (x25519_comparison c = 0; c < X25519_COMPARISONS; c++) {
    const trial keys_trial = x25519_trial(c);
    judge(&keys_trial, "x25519", x25519_comparison_name(c), runs, false, report);
  }
}

int main(int count, char **argument) {
  if (!kernel_ifma8.usable()) {
    fprintf(stderr, "timing: this host has no AVX-512 IFMA\n");
    return 77;
  }
  const char *batches = option("--batches", count, argument), *file = option("--report", count, argument);
  const char *way = option("--way", count, argument);
  bool sparse = option("--sparse", count, argument) != NULL;
  FILE *report = file != NULL ? fopen(file, "w") : NULL;
  if (file != NULL && report == NULL) {
    perror(file);
    return 2;
  }
  for (kernel_algorithm a = 0; a < KERNEL_ALGORITHMS; a++) {
    if (!wanted(kernel_algorithm_name(a), count, argument) || kernel_ifma8.run[a] == NULL) continue;
    unsigned long wanted_batches = batches != NULL ? strtoul(batches, NULL, 10) : default_batches(a);
    if (a > KERNEL_RSA4096) {
      run_algorithm(a, KERNEL_LANES, "", wanted_batches, sparse, report);
      continue;
    }
    /* Four operations fill eight lanes, two fill four, and one is spread over eight, where products are made one way.
     */
    static const struct {
      const char *way, *products;
      unsigned operations;
    } forms[] = {{"eight", "karatsuba", 4},
                 {"eight", "schoolbook", 4},
                 {"four", "karatsuba", 2},
                 {"four", "schoolbook", 2},
                 {"lone", "", 1}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
      if (way != NULL && strcmp(way, forms[i].way) != 0) continue;
      kernel_force_rsa_products(forms[i].products);
      run_algorithm(a, forms[i].operations, forms[i].way, wanted_batches, sparse, report);
    }
  }
  if (wanted("x25519", count, argument)) {
    run_x25519(batches != NULL ? strtoul(batches, NULL, 10) : X25519_RUNS, report);
  }
  if (report != NULL) fclose(report);
  return leaks == 0 ? 0 : 1;
}
