/* A batch should be no longer than it has to be: results are sent when the whole batch is done, and the operations left
 * out can run on another core, or together with later ones.
 *   - When all shards are busy, work must not be wasted: on lanes, the batch with the lowest cost per operation is
 *     taken, in software the smallest batch within 1% of it. What is left over joins later arrivals.
 *   - When another shard is idle, it will take the rest at once: the size is the smallest for which splitting all
 *     operations into batches of it costs at most 6% more than the cheapest split.
 * On lanes, the curves cost the same for 1 and for 8 operations, so a batch takes all there are. RSA on lanes takes two
 * lanes per operation: 4 fill eight lanes, at 3% more per operation than 8 (the check is done once for all), so a shard
 * takes 8 when all others are busy, and 4 when another is idle. One is spread over eight lanes, and costs 1.7 times as
 * much as an eighth of a full batch; two fill four lanes, at 9% more than 8, on processors where four lanes are
 * worthwhile. In software, an operation costs the same in batches of any size, so one or a few are
 * run at a time.
 */
#include "offload/dataplane/batching/cost_model.h"

enum { SOFTWARE = 0, BUSY_TOLERANCE_PERCENT = 1, IDLE_TOLERANCE_PERCENT = 6 };

void cost_model_defaults(cost_model *model) {
  static const uint32_t software_us[KERNEL_ALGORITHMS] = {
      [KERNEL_RSA2048] = 640, [KERNEL_RSA3072] = 2000, [KERNEL_RSA4096] = 4500,
      [KERNEL_P256] = 56,     [KERNEL_P384] = 440,     [KERNEL_ED25519] = 27,
  };
  *model = (cost_model){.backends = 1, .overhead_ns = 5000};
  for (unsigned algorithm = 0; algorithm < KERNEL_ALGORITHMS; algorithm++) {
    for (unsigned count = 1; count <= KERNEL_LANES; count++) {
      model->ns[0][algorithm][count] = 1000ull * software_us[algorithm] * count;
    }
  }
  cost_model_settle(model);
}

/* The cost of `available` operations in batches of `size`, the last of which has what is left. */
static uint64_t cost_in_batches(const uint64_t cost[KERNEL_LANES + 1], unsigned available, unsigned size) {
  unsigned rest = available % size;
  return available / size * cost[size] + (rest > 0 ? cost[rest] : 0);
}

static unsigned size_when_idle(const uint64_t cost[KERNEL_LANES + 1], unsigned available) {
  uint64_t best = UINT64_MAX;
  for (unsigned size = 1; size <= available; size++) {
    uint64_t total = cost_in_batches(cost, available, size);
    if (total < best) best = total;
  }
  unsigned size = 1;
  while (cost_in_batches(cost, available, size) * 100 > best * (100 + IDLE_TOLERANCE_PERCENT)) size++;
  return size;
}

static unsigned size_when_busy(const uint64_t cost[KERNEL_LANES + 1], const uint8_t backend[KERNEL_LANES + 1],
                               unsigned available) {
  unsigned best = 1; /* the size with the lowest cost per operation: cost[a] / a < cost[b] / b without a division */
  for (unsigned size = 2; size <= available; size++) {
    if (cost[size] * best < cost[best] * size) best = size;
  }
  if (backend[best] != SOFTWARE) return best;
  unsigned size = 1;
  while (cost[size] * best * 100 > cost[best] * size * (100 + BUSY_TOLERANCE_PERCENT)) size++;
  return size;
}

void cost_model_settle(cost_model *model) {
  for (unsigned algorithm = 0; algorithm < KERNEL_ALGORITHMS; algorithm++) {
    uint64_t *best_ns = model->best_ns[algorithm];
    for (unsigned count = 1; count <= KERNEL_LANES; count++) {
      unsigned best = 0;
      for (unsigned backend = 1; backend < model->backends; backend++) {
        if (model->ns[backend][algorithm][count] < model->ns[best][algorithm][count]) best = backend;
      }
      model->best[algorithm][count] = (uint8_t)best;
      best_ns[count] = model->ns[best][algorithm][count] + model->overhead_ns;
    }
    const uint8_t *backend = model->best[algorithm];
    for (unsigned available = 1; available <= KERNEL_LANES; available++) {
      model->when_busy[algorithm][available] = (uint8_t)size_when_busy(best_ns, backend, available);
      model->when_idle[algorithm][available] = (uint8_t)size_when_idle(best_ns, available);
    }
  }
}

unsigned cost_model_crossover(const cost_model *model, kernel_algorithm algorithm, unsigned backend) {
  for (unsigned count = 1; count <= KERNEL_LANES; count++) {
    if (model->best[algorithm][count] == backend) return count;
  }
  return COST_NO_CROSSOVER;
}

unsigned cost_model_batch_size(const cost_model *model, kernel_algorithm algorithm, unsigned available,
                               bool others_idle) {
  if (available > KERNEL_LANES) available = KERNEL_LANES;
  return others_idle ? model->when_idle[algorithm][available] : model->when_busy[algorithm][available];
}
