// module_tests units FOLDER | exchanges DAEMON_SOCKET | connections DAEMON_SOCKET IDENTITY COUNT | identities
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "tests/native/module/tests.h"

namespace {

void run(const char *name, void (*test)()) {
  printf("%s\n", name);
  fflush(stdout);
  test();
}

}  // namespace

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "units") == 0) {
    run("reconnect_states", tests::reconnect_states);
    run("ticket_keys_rotate", tests::ticket_keys_rotate);
    run("server_names_match", tests::server_names_match);
    run("host_names", tests::host_names);
    run("text_is_escaped", tests::text_is_escaped);
    run("spiffe_ids_are_read_strictly", tests::spiffe_ids_are_read_strictly);
    run("spiffe_ids_match", tests::spiffe_ids_match);
    run("peers_are_judged", tests::peers_are_judged);
    run("weak_chains", tests::weak_chains);
    run("spoilt_chains", tests::spoilt_chains);
    run("configurations_of_all_kinds", tests::configurations_of_all_kinds);
    run("identities_of_all_kinds", tests::identities_of_all_kinds);
    run("worker_turns", tests::worker_turns);
    run("key_exchange", tests::key_exchange);
    run("no_daemon", tests::no_daemon);
    printf("rude_daemons\n");
    tests::rude_daemons(argv[2]);
    return 0;
  }
  if (argc == 5 && strcmp(argv[1], "connections") == 0) {
    tests::connections(argv[2], argv[3], atoi(argv[4]));
    return 0;
  }
  if (argc == 3 && strcmp(argv[1], "exchanges") == 0) {
    tests::exchanges(argv[2]);
    return 0;
  }
  if (argc == 2 && strcmp(argv[1], "identities") == 0) {
    tests::decode_identities(std::cin);
    return 0;
  }
  fprintf(stderr,
          "usage: module_tests units FOLDER | exchanges DAEMON_SOCKET | connections DAEMON_SOCKET IDENTITY COUNT | "
          "identities < MESSAGES\n");
  return 2;
}
