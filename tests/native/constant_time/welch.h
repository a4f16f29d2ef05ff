/* Whether two classes take the same time: Welch's t over many timed runs, in random order. See timing.c. */
#ifndef TESTS_CONSTANT_TIME_WELCH_H
#define TESTS_CONSTANT_TIME_WELCH_H

/* One comparison. `prepare` sets up a run of class 0 or 1, at the same addresses; `run` is timed. */
typedef struct trial {
  void (*prepare)(void *subject, int class);
  void (*run)(void *subject);
  void *subject;
} trial;

/* The largest |t| over all cuts of the upper tail; `means` are those of all times, in cycles of the time stamp counter.
 */
double welch_compare(const trial *it, unsigned long runs, double means[2]);

#endif
