/* Tests the shares of the gRPC front's loop, which is driven by hand: one call is one turn. Run by test_shares.py.
 *
 *   front_shares NAME
 *
 * Every connection is one end of a socket pair; what the front has written can be read at the other end. Nothing here
 * depends on how fast the machine is: a share is 100 us, in which no machine writes to CROWD sockets, and a slower one
 * writes to fewer.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "offload/dataplane/grpc/connection.h"
#include "offload/dataplane/grpc/control.h"
#include "offload/dataplane/grpc/front.h"
#include "offload/dataplane/grpc/loop.h"
#include "offload/dataplane/grpc/principal.h"
#include "offload/dataplane/service/private_key_service.h"

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      abort();                                                                       \
    }                                                                                \
  } while (false)

enum { CROWD = 1500, TURNS_MAX = 1000000 };

typedef struct peer {
  connection *connection; /* valid while its end is open */
  int end;
} peer;

static work_queue work;
static counters counts;
static refusal_log refusals;
static front *tested;
static peer crowd[CROWD], other;

static void set_up(void) {
  char error[KERNEL_ERROR_MAX];
  struct rlimit files = {.rlim_cur = 2 * CROWD + 64, .rlim_max = 2 * CROWD + 64}, now;
  CHECK(getrlimit(RLIMIT_NOFILE, &now) == 0);
  if (now.rlim_cur < files.rlim_cur) {
    if (now.rlim_max > files.rlim_max) files.rlim_max = now.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
  }
  refusals_init(&refusals);
  work_queue_init(&work, 64, 32, 48, 0);
  work.backends[0] = &kernel_software;
  work.counters = &counts;
  front_settings settings = {.max_connections = 2 * CROWD,
                             .max_connections_per_user = 2 * CROWD,
                             .max_connections_without_identity = 2 * CROWD,
                             .max_streams = 20,
                             .connection_queue_limit = 32,
                             .user_memory = (size_t)1 << 30,
                             .idle_timeout_ns = NEVER,
                             .stalled_timeout_ns = NEVER,
                             .drain_timeout_ns = 1000000000};
  tested = front_new(&settings, &private_key_service, &work, &counts, &refusals, error);
  CHECK(tested != NULL);
}

static void tear_down(void) {
  for (unsigned i = 0; i < CROWD; i++) close(crowd[i].end);
  close(other.end);
  front_free(tested);
  work_queue_free(&work);
  refusals_free(&refusals);
}

static peer connect_as(uid_t uid, bool is_stranger) {
  int pair[2];
  caller who;
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
  CHECK(fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(pair[1], F_SETFL, O_NONBLOCK) == 0);
  CHECK(caller_read(pair[1], "main", &who));
  who.uid = uid;
  connection_open(tested, pair[1], &who, is_stranger);
  return (peer){.connection = LIST_ENTRY(tested->connections.previous, connection, link), .end = pair[0]};
}

/* Reads what has arrived, and returns whether there was anything. */
static bool has_been_written_to(const peer *it) {
  static uint8_t sink[65536];
  ssize_t got = recv(it->end, sink, sizeof sink, MSG_DONTWAIT);
  return got >= 0; /* also true when the connection was closed */
}

static unsigned count_written(void) {
  unsigned count = 0;
  for (unsigned i = 0; i < CROWD; i++) count += has_been_written_to(&crowd[i]);
  return count;
}

static void turn(void) {
  loop_turn(tested, 0);
}

/* Runs turns until every one of the crowd has been written to. */
static void turn_until_all(unsigned written) {
  for (unsigned turns = 0; written < CROWD; turns++) {
    CHECK(turns < TURNS_MAX);
    turn();
    written += count_written();
  }
}

/* Connects a crowd, with the SETTINGS that a connection begins with; and one other user, who comes last. */
static void connect_all(bool crowd_is_strange) {
  for (unsigned i = 0; i < CROWD; i++) crowd[i] = connect_as(1001, crowd_is_strange);
  other = connect_as(1002, false);
}

static void write_something_to(const peer *it) {
  CHECK(nghttp2_submit_ping(it->connection->session, NGHTTP2_FLAG_NONE, NULL) == 0);
  connection_mark_dirty(it->connection);
}

/* The other user is written to in the first turn, the crowd within its share, and all of it in the end. */
static void check_shares(bool crowd_is_strange) {
  connect_all(crowd_is_strange);
  turn();
  CHECK(has_been_written_to(&other));
  unsigned written = count_written();
  CHECK(written > 0 && written < CROWD);
  turn_until_all(written);

  for (unsigned i = 0; i < CROWD; i++) write_something_to(&crowd[i]);
  write_something_to(&other);
  turn();
  CHECK(has_been_written_to(&other));
  written = count_written();
  CHECK(written < CROWD); /* none, when strangers rest */
  turn_until_all(written);
}

static void test_strangers(void) {
  check_shares(true);
}

static void test_users(void) {
  check_shares(false);
}

/* The whole crowd reaches the idle timeout at the same moment: they are told and closed, a few in each turn. */
static void test_timeouts(void) {
  connect_all(true);
  turn_until_all(0);
  CHECK(has_been_written_to(&other));
  tested->settings.idle_timeout_ns = 0;
  turn();
  unsigned told = count_written();
  CHECK(told < CROWD);
  turn_until_all(told);
  while (counter_read(&counts.connections) > 0) {
    uint64_t before = counter_read(&counts.connections);
    turn();
    CHECK(before - counter_read(&counts.connections) < CROWD);
  }
}

/* The whole crowd hangs up at the same moment while something is unsent to them: they are closed, a few in each
 * turn. */
static void test_hanging_up(void) {
  connect_all(true);
  turn_until_all(0);
  CHECK(has_been_written_to(&other));
  for (unsigned i = 0; i < CROWD; i++) {
    uint8_t *unsent = calloc(1, 16);
    CHECK(unsent != NULL);
    crowd[i].connection->unsent = unsent;
    crowd[i].connection->unsent_size = 16;
    principal_owe(crowd[i].connection, 16);
    close(crowd[i].end);
    crowd[i].end = -1;
  }
  turn();
  CHECK(counter_read(&counts.connections) > CROWD / 2);
  for (unsigned turns = 0; counter_read(&counts.connections) > 1; turns++) {
    CHECK(turns < TURNS_MAX);
    turn();
  }
}

/* A connection that changes from stranger to user, or back, keeps its place among those to be written to. */
static void test_standing(void) {
  connect_all(true);
  turn_until_all(0);
  CHECK(has_been_written_to(&other));
  for (unsigned i = 0; i < CROWD; i++) write_something_to(&crowd[i]);
  keyring *ring = keyring_new();
  selector who = {.has_uid = true, .uid = 1001};
  const char *duplicate;
  keyring_add_identity(ring, "www", 3, (const uint8_t *)"", 0);
  keyring_add_selector(ring, &who);
  CHECK(keyring_seal(ring, &duplicate));
  front_set_keyring(tested, ring);
  turn_until_all(0);
  while (!list_empty(&tested->unreviewed)) turn();
  for (list_node *node = tested->principals.next; node != &tested->principals; node = node->next) {
    const principal *it = LIST_ENTRY(node, principal, link);
    CHECK(it->is_stranger == (it->uid == 1002));
  }
}

static unsigned taken_in(void) {
  return (unsigned)(counter_read(&counts.connections) + refusals_count(&refusals, REFUSED_STRANGER_CONNECTIONS));
}

/* Puts the crowd into the queue of a listener. */
static void come_all(void) {
  char error[KERNEL_ERROR_MAX];
  struct sockaddr_un address = {.sun_family = AF_UNIX}; /* abstract, with a name that the kernel chooses */
  socklen_t size = sizeof address;
  int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(bind(listening, (struct sockaddr *)&address, sizeof(sa_family_t)) == 0 && listen(listening, CROWD) == 0);
  CHECK(getsockname(listening, (struct sockaddr *)&address, &size) == 0);
  CHECK(front_add_listener(tested, "main", listening, error));
  other.end = listening;
  for (unsigned i = 0; i < CROWD; i++) {
    crowd[i].end = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(connect(crowd[i].end, (struct sockaddr *)&address, size) == 0);
  }
}

/* A crowd in the queue of a listener is accepted a few at a time, and after each time accepting rests for longer. */
static void test_arriving(void) {
  come_all();
  unsigned rested = 0;
  for (unsigned turns = 0, taken = 0; taken < CROWD; turns++) {
    CHECK(turns < TURNS_MAX);
    uint64_t until = tested->accept_rests_until;
    turn();
    CHECK(taken_in() < taken + CROWD);
    if (tested->now < until) {
      CHECK(taken_in() == taken);
      rested++;
    }
    taken = taken_in();
  }
  CHECK(rested > 0);
}

/* A client that comes while no descriptor is left is accepted when there are some again, even if nobody else comes. */
static void test_without_descriptors(void) {
  come_all();
  struct rlimit enough, none;
  CHECK(getrlimit(RLIMIT_NOFILE, &enough) == 0);
  none = (struct rlimit){.rlim_cur = 0, .rlim_max = enough.rlim_max};
  close(tested->spare);
  tested->spare = -1;
  CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
  for (unsigned turns = 0; turns < 10; turns++) turn();
  CHECK(taken_in() == 0);
  CHECK(setrlimit(RLIMIT_NOFILE, &enough) == 0);
  for (unsigned turns = 0; taken_in() < CROWD; turns++) {
    CHECK(turns < TURNS_MAX);
    turn();
  }
}

typedef struct test {
  const char *name;
  void (*run)(void);
} test;

static const test tests[] = {{"strangers", test_strangers},
                             {"users", test_users},
                             {"timeouts", test_timeouts},
                             {"hanging_up", test_hanging_up},
                             {"standing", test_standing},
                             {"arriving", test_arriving},
                             {"without_descriptors", test_without_descriptors}};

int main(int count, char **arguments) {
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    if (count != 2 || strcmp(arguments[1], tests[i].name) != 0) continue;
    set_up();
    tests[i].run();
    tear_down();
    puts(tests[i].name);
    return 0;
  }
  fprintf(
      stderr,
      "usage: front_shares strangers | users | timeouts | hanging_up | standing | arriving | without_descriptors\n");
  return 2;
}
