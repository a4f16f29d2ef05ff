/* The batching policy. It has no threads, no clock and no I/O; only batcher_init allocates memory. The caller
 * serializes the calls and passes the time.
 *
 * Operations of one class (algorithm and size) are interchangeable: any of them can share a batch.
 *
 * Which operations: selection is fair between users first, then between the connections of a user. Within a class, the
 * users that have operations (a batch_group: the uid behind a connection, or a dedicated socket) take turns, and so do
 * the connections of a user (a batch_flow), one operation each, so a batch draws on as many users and connections as
 * possible. With m users waiting in a class, the k-th operation of any user is preceded by at most k * (m - 1) later
 * operations of other users, whatever they send and over however many connections; the same holds for the connections
 * within a user's share.
 *
 * Which class: kernel time is shared by fair queueing. Each class has a tag, which grows by the cost of each of its
 * batches; the batch goes to the cheapest class whose tag is not above the average of those that have operations. A
 * class that was empty restarts at the tag of the latest batch, or at the lowest tag if that is less. So backlogged
 * classes share kernel time evenly, no class is ahead of the average by more than one batch, and a class that needs
 * less than its share is always first in line: the first shard that becomes free takes its operation. A P-256 operation
 * beside RSA-4096 load therefore waits for at most the rest of one RSA batch, with two or more shards for the one that
 * ends first.
 *
 * When: a free shard takes what is queued ("natural batching"). With max_wait set, a class with less than a full batch
 * waits for more while that looks worthwhile: only if, on average, at least two operations arrive in the time that the
 * class may wait; for at most three average gaps after the latest arrival; and for at most that time after the oldest.
 * That time is max_wait, or four times what a lone operation costs if that is less: cheap operations have little to
 * gain. So an operation that arrives alone is served at once, and P-256 is practically always served at once, whatever
 * max_wait is.
 *
 * Bounds: there is one per connection and one per user (queued and running), and one overall (queued). Beyond the
 * overall bound and its user's bound, a connection may still have BATCH_RESERVE operations, so that other connections
 * cannot lock it out, not even those of the same user; a user never has more than twice its bound, except for what a
 * connection brought along (batcher_regroup). The true overall bound is limit + BATCH_RESERVE * connections.
 */
#ifndef OFFLOAD_BATCHER_H
#define OFFLOAD_BATCHER_H

#include "offload/dataplane/batching/cost_model.h"
#include "offload/dataplane/batching/deadlines.h"
#include "offload/dataplane/batching/list.h"

enum { BATCH_RESERVE = 4 };

typedef struct batch_source batch_source;
typedef struct batch_group batch_group;

typedef enum batch_state { BATCH_OUTSIDE, BATCH_QUEUED, BATCH_TAKEN } batch_state;

/* One operation as the batcher sees it; embedded in the caller's. */
typedef struct batch_item {
  list_node link; /* in its flow while queued; free for the caller otherwise */
  list_node age;  /* in its class while queued, the oldest first */
  batch_source *source;
  deadline deadline; /* .at is NEVER for none */
  uint64_t arrived;
  uint8_t algorithm;
  uint8_t state; /* batch_state */
} batch_item;

typedef struct batch_flow {
  list_node link; /* in its user's turns while it has items */
  list_node items;
} batch_flow;

/* One connection as the batcher sees it. */
struct batch_source {
  batch_flow flows[KERNEL_ALGORITHMS];
  batch_group *group;
  uint32_t load; /* operations queued and taken */
};

typedef struct batch_share {
  list_node link;  /* in the class's turns while there are any below */
  list_node turns; /* flows with items, the next to be served first */
} batch_share;

/* One user as the batcher sees it. */
struct batch_group {
  batch_share shares[KERNEL_ALGORITHMS];
  uint32_t load; /* operations queued and taken */
};

typedef struct batch_class {
  list_node turns; /* shares with flows, the next to be served first */
  list_node ages;  /* every queued operation, the oldest first */
  uint64_t tag;    /* start tag of its next batch, in nanoseconds of kernel time */
  uint64_t latest; /* arrival of the newest operation */
  uint64_t gap;    /* moving average of the time between arrivals; kept only with max_wait */
  uint32_t queued;
} batch_class;

typedef struct batcher {
  batch_class classes[KERNEL_ALGORITHMS];
  const cost_model *costs;
  deadline_heap deadlines;
  uint64_t latest_tag;
  uint64_t max_wait; /* nanoseconds */
  uint32_t queued;
  uint32_t queue_limit;
  uint32_t source_limit;
  uint32_t group_limit;
} batcher;

typedef enum batch_refusal { BATCH_ACCEPTED, BATCH_QUEUE_FULL, BATCH_SOURCE_FULL, BATCH_GROUP_FULL } batch_refusal;

/* Why a batch was closed. */
typedef enum batch_reason {
  BATCH_FULL,       /* the best size for the class, see cost_model.c; more may be waiting */
  BATCH_IDLE_SHARD, /* all that was queued: a shard had nothing else to do */
  BATCH_MAX_WAIT,   /* it waited until no more was expected soon, or max_wait had passed */
  BATCH_REASONS,
} batch_reason;

typedef struct batch {
  batch_item *items[KERNEL_LANES];
  unsigned count; /* 0: there is nothing to run now */
  kernel_algorithm algorithm;
  unsigned backend; /* index in the cost model */
  batch_reason reason;
} batch;

/* The caller keeps ownership of `costs` and may change it between calls. False when memory ran out. */
bool batcher_init(batcher *self, const cost_model *costs, uint32_t queue_limit, uint32_t source_limit,
                  uint32_t group_limit, uint64_t max_wait);
void batcher_free(batcher *self);

/* Changes the limits from now on; what is queued stays queued. */
void batcher_limit(batcher *self, uint32_t queue_limit, uint64_t max_wait);

void batch_group_init(batch_group *group);
void batch_source_init(batch_source *source, batch_group *group);

/* From now on the source belongs to that user, with what it has queued and running: it is served in the user's turns,
 * and may take the user above its bound until enough of that has completed. */
void batcher_regroup(batcher *self, batch_source *source, batch_group *group);

/* The caller has set source, algorithm, arrived and deadline. */
batch_refusal batcher_submit(batcher *self, batch_item *item);

/* Moves every queued operation whose deadline has passed to the end of `expired`, in state BATCH_OUTSIDE. */
void batcher_expire(batcher *self, uint64_t now, list_node *expired);

/* The next batch to run now. `others_idle`: another shard has nothing to do. Call batcher_expire before. */
void batcher_take(batcher *self, uint64_t now, bool others_idle, batch *out);

/* Removes a queued operation; false when it is not queued, or no longer. */
bool batcher_cancel(batcher *self, batch_item *item);

/* Tells the batcher that the items of a batch have been run. */
void batcher_complete(batcher *self, batch_item *const items[], unsigned count);

/* When batcher_take will next give a batch: 0 for now, NEVER when nothing is queued. */
uint64_t batcher_ready_at(const batcher *self, uint64_t now);

/* How many shards the queued operations would occupy, at most `limit`. */
unsigned batcher_shards_wanted(const batcher *self, unsigned limit);

#endif
