#ifndef TLS_OFFLOAD_TESTS_TESTS_H
#define TLS_OFFLOAD_TESTS_TESTS_H

#include <istream>
#include <string>

namespace tests {

void reconnect_states();
void ticket_keys_rotate();
void server_names_match();
void host_names();
void text_is_escaped();
void spiffe_ids_are_read_strictly();
void spiffe_ids_match();
void peers_are_judged();
void weak_chains();
void spoilt_chains();
void configurations_of_all_kinds();
void identities_of_all_kinds();
void worker_turns();
void key_exchange();
void no_daemon();
void rude_daemons(const std::string &folder);

// Against the daemon at `daemon_socket`: connections with data in both directions, and connections dropped at any
// moment.
void connections(const std::string &daemon_socket, const std::string &identity, int count);

// Operations that workers exchange with that daemon by themselves.
void exchanges(const std::string &daemon_socket);

// Reads Identity messages, each after its size (4 bytes, little-endian), and prints "good", or why the module rejects
// it.
void decode_identities(std::istream &messages);

}  // namespace tests

#endif
