#include "offload/dataplane/batching/batcher.h"

enum { GAP_WEIGHT = 8, GAPS_IN_WAIT = 2, GAPS_WITHOUT_ARRIVAL = 3, WAIT_PER_COST = 4 };

bool batcher_init(batcher *self, const cost_model *costs, uint32_t queue_limit, uint32_t source_limit,
                  uint32_t group_limit, uint64_t max_wait) {
  *self = (batcher){.costs = costs,
                    .queue_limit = queue_limit,
                    .source_limit = source_limit,
                    .group_limit = group_limit,
                    .max_wait = max_wait};
  for (unsigned i = 0; i < KERNEL_ALGORITHMS; i++) {
    list_init(&self->classes[i].turns);
    list_init(&self->classes[i].ages);
    self->classes[i].gap = max_wait; /* no arrivals seen yet: waiting is not worthwhile */
  }
  return deadlines_init(&self->deadlines, queue_limit);
}

void batcher_limit(batcher *self, uint32_t queue_limit, uint64_t max_wait) {
  self->queue_limit = queue_limit;
  if (self->max_wait == max_wait) return;
  self->max_wait = max_wait;
  for (unsigned i = 0; i < KERNEL_ALGORITHMS; i++) self->classes[i].gap = max_wait; /* as at the beginning */
}

void batcher_free(batcher *self) {
  deadlines_free(&self->deadlines);
}

void batch_group_init(batch_group *group) {
  group->load = 0;
  for (unsigned i = 0; i < KERNEL_ALGORITHMS; i++) {
    list_init(&group->shares[i].link);
    list_init(&group->shares[i].turns);
  }
}

void batch_source_init(batch_source *source, batch_group *group) {
  source->group = group;
  source->load = 0;
  for (unsigned i = 0; i < KERNEL_ALGORITHMS; i++) {
    list_init(&source->flows[i].link);
    list_init(&source->flows[i].items);
  }
}

/* ---- in and out ---- */

/* Long gaps count as max_wait: after a pause, a few quick arrivals are enough to wait again. */
static void note_arrival(const batcher *self, batch_class *queue, uint64_t arrived) {
  if (self->max_wait == 0) return;
  uint64_t gap = arrived > queue->latest ? arrived - queue->latest : 0;
  if (gap > self->max_wait) gap = self->max_wait;
  queue->gap = (queue->gap * (GAP_WEIGHT - 1) + gap) / GAP_WEIGHT;
  if (arrived > queue->latest) queue->latest = arrived;
}

/* A class that was empty gets no credit for that time: it restarts at the tag of the latest batch, or at the lowest tag
 * of any backlogged class if that is less. */
static void restart(const batcher *self, batch_class *queue) {
  uint64_t floor = self->latest_tag;
  for (unsigned algorithm = 0; algorithm < KERNEL_ALGORITHMS; algorithm++) {
    const batch_class *other = &self->classes[algorithm];
    if (other->queued > 0 && other->tag < floor) floor = other->tag;
  }
  if (queue->tag < floor) queue->tag = floor;
}

batch_refusal batcher_submit(batcher *self, batch_item *item) {
  batch_source *source = item->source;
  batch_group *group = source->group;
  if (source->load >= self->source_limit) return BATCH_SOURCE_FULL;
  bool in_reserve = source->load < BATCH_RESERVE && group->load < 2 * self->group_limit;
  if (group->load >= self->group_limit && !in_reserve) return BATCH_GROUP_FULL;
  if (self->queued >= self->queue_limit && !in_reserve) return BATCH_QUEUE_FULL;
  item->deadline.place = 0;
  if (item->deadline.at != NEVER && !deadlines_add(&self->deadlines, &item->deadline)) return BATCH_QUEUE_FULL;

  batch_class *queue = &self->classes[item->algorithm];
  batch_share *share = &group->shares[item->algorithm];
  batch_flow *flow = &source->flows[item->algorithm];
  if (queue->queued == 0) restart(self, queue);
  if (list_empty(&share->turns)) list_push(&queue->turns, &share->link);
  if (list_empty(&flow->items)) list_push(&share->turns, &flow->link);
  list_push(&flow->items, &item->link);
  list_push(&queue->ages, &item->age);
  item->state = BATCH_QUEUED;
  note_arrival(self, queue, item->arrived);
  queue->queued++;
  self->queued++;
  source->load++;
  group->load++;
  return BATCH_ACCEPTED;
}

void batcher_regroup(batcher *self, batch_source *source, batch_group *group) {
  batch_group *before = source->group;
  if (before == group) return;
  for (unsigned i = 0; i < KERNEL_ALGORITHMS; i++) {
    batch_flow *flow = &source->flows[i];
    if (list_empty(&flow->items)) continue;
    list_remove(&flow->link);
    if (list_empty(&before->shares[i].turns)) list_remove(&before->shares[i].link);
    if (list_empty(&group->shares[i].turns)) list_push(&self->classes[i].turns, &group->shares[i].link);
    list_push(&group->shares[i].turns, &flow->link);
  }
  before->load -= source->load;
  group->load += source->load;
  source->group = group;
}

/* Takes an item out of its queue. The load of its source is unchanged. */
static void unqueue(batcher *self, batch_item *item, batch_state state) {
  batch_flow *flow = &item->source->flows[item->algorithm];
  batch_share *share = &item->source->group->shares[item->algorithm];
  list_remove(&item->link);
  list_remove(&item->age);
  if (list_empty(&flow->items)) list_remove(&flow->link);
  if (list_empty(&share->turns)) list_remove(&share->link);
  deadlines_remove(&self->deadlines, &item->deadline);
  self->classes[item->algorithm].queued--;
  self->queued--;
  item->state = (uint8_t)state;
}

static void forget_load(batch_item *item) {
  item->source->load--;
  item->source->group->load--;
}

bool batcher_cancel(batcher *self, batch_item *item) {
  if (item->state != BATCH_QUEUED) return false;
  unqueue(self, item, BATCH_OUTSIDE);
  forget_load(item);
  return true;
}

void batcher_expire(batcher *self, uint64_t now, list_node *expired) {
  deadline *due;
  while ((due = deadlines_take_due(&self->deadlines, now)) != NULL) {
    batch_item *item = LIST_ENTRY(due, batch_item, deadline);
    batcher_cancel(self, item);
    list_push(expired, &item->link);
  }
}

void batcher_complete(batcher *self, batch_item *const items[], unsigned count) {
  for (unsigned i = 0; i < count; i++) {
    forget_load(items[i]);
    items[i]->state = BATCH_OUTSIDE;
  }
}

/* ---- choice ---- */

/* The arrival of the oldest operation of a class; the caller's clock does not run backwards. */
static uint64_t oldest_arrival(const batch_class *queue) {
  return LIST_ENTRY(queue->ages.next, batch_item, age)->arrived;
}

/* Whether waiting for more would gain little: 4 operations fill the lanes with RSA, and software gains nothing at all.
 */
static bool is_full(const batcher *self, unsigned algorithm) {
  const batch_class *queue = &self->classes[algorithm];
  return queue->queued >= cost_model_batch_size(self->costs, algorithm, KERNEL_LANES, true);
}

/* How long a class may wait; 0 when waiting gains nothing, because it is not allowed or too few operations come. */
static uint64_t longest_wait(const batcher *self, unsigned algorithm) {
  uint64_t wait = WAIT_PER_COST * self->costs->best_ns[algorithm][1];
  if (wait > self->max_wait) wait = self->max_wait;
  return self->classes[algorithm].gap * GAPS_IN_WAIT <= wait ? wait : 0;
}

/* When a class may be served: 0 for now. */
static uint64_t ready_at(const batcher *self, unsigned algorithm) {
  const batch_class *queue = &self->classes[algorithm];
  if (queue->queued == 0) return NEVER;
  uint64_t wait = longest_wait(self, algorithm);
  if (wait == 0 || is_full(self, algorithm)) return 0;
  uint64_t latest = queue->latest + GAPS_WITHOUT_ARRIVAL * queue->gap;
  uint64_t oldest = oldest_arrival(queue) + wait;
  return latest < oldest ? latest : oldest;
}

/* The cheapest of the classes that may be served and whose tag is not above the average. Choosing the lowest tag alone
 * would not do: tags grow by whole batches, so an expensive class that has not had its first batch yet would be served
 * before a cheap class that has had a few microseconds. */
static int choose_class(const batcher *self, uint64_t now) {
  bool is_ready[KERNEL_ALGORITHMS];
  uint64_t sum = 0, ready = 0;
  for (unsigned algorithm = 0; algorithm < KERNEL_ALGORITHMS; algorithm++) {
    is_ready[algorithm] = ready_at(self, algorithm) <= now;
    if (!is_ready[algorithm]) continue;
    sum += self->classes[algorithm].tag;
    ready++;
  }
  int chosen = -1;
  for (unsigned algorithm = 0; algorithm < KERNEL_ALGORITHMS; algorithm++) {
    if (!is_ready[algorithm] || self->classes[algorithm].tag * ready > sum) continue;
    if (chosen < 0 || self->costs->best_ns[algorithm][1] < self->costs->best_ns[chosen][1]) chosen = (int)algorithm;
  }
  return chosen;
}

static void to_the_end(list_node *turns, list_node *link) {
  list_remove(link);
  list_push(turns, link);
}

/* Takes one operation of the user whose turn it is, from the connection whose turn it is; both go to the end of their
 * lines. */
static batch_item *take_one(batcher *self, batch_class *queue) {
  batch_share *share = LIST_ENTRY(queue->turns.next, batch_share, link);
  batch_flow *flow = LIST_ENTRY(share->turns.next, batch_flow, link);
  batch_item *item = LIST_ENTRY(flow->items.next, batch_item, link);
  to_the_end(&queue->turns, &share->link);
  to_the_end(&share->turns, &flow->link);
  unqueue(self, item, BATCH_TAKEN);
  return item;
}

void batcher_take(batcher *self, uint64_t now, bool others_idle, batch *out) {
  out->count = 0;
  int chosen = choose_class(self, now);
  if (chosen < 0) return;
  batch_class *queue = &self->classes[chosen];
  unsigned available = queue->queued;
  unsigned count = cost_model_batch_size(self->costs, (kernel_algorithm)chosen, available, others_idle);
  bool waited = longest_wait(self, (unsigned)chosen) > 0 && !is_full(self, (unsigned)chosen);

  out->algorithm = (kernel_algorithm)chosen;
  out->backend = self->costs->best[chosen][count];
  out->reason = count < available || count == KERNEL_LANES ? BATCH_FULL : waited ? BATCH_MAX_WAIT : BATCH_IDLE_SHARD;
  if (queue->tag > self->latest_tag) self->latest_tag = queue->tag;
  queue->tag += self->costs->best_ns[chosen][count];
  while (out->count < count) out->items[out->count++] = take_one(self, queue);
}

uint64_t batcher_ready_at(const batcher *self, uint64_t now) {
  uint64_t earliest = NEVER;
  for (unsigned algorithm = 0; algorithm < KERNEL_ALGORITHMS; algorithm++) {
    uint64_t at = ready_at(self, algorithm);
    if (at < earliest) earliest = at;
  }
  return earliest <= now ? 0 : earliest;
}

unsigned batcher_shards_wanted(const batcher *self, unsigned limit) {
  unsigned wanted = 0;
  for (unsigned algorithm = 0; algorithm < KERNEL_ALGORITHMS && wanted < limit; algorithm++) {
    unsigned queued = self->classes[algorithm].queued;
    if (queued == 0) continue;
    unsigned size = cost_model_batch_size(self->costs, algorithm, queued, true);
    wanted += (queued + size - 1) / size;
  }
  return wanted < limit ? wanted : limit;
}
