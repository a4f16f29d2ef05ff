// The parts of the module that need neither Envoy nor the daemon.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "envoy_ext/module/client/grpc_connection.h"
#include "envoy_ext/module/client/identity.h"
#include "envoy_ext/module/client/key_client.h"
#include "envoy_ext/module/client/reconnect.h"
#include "envoy_ext/module/config/config.h"
#include "envoy_ext/module/envoy/escaped.h"
#include "envoy_ext/module/spiffe/spiffe_id.h"
#include "envoy_ext/module/tls/server_name.h"
#include "envoy_ext/module/tls/session_tickets.h"
#include "tests/native/module/check.h"
#include "tests/native/module/tests.h"

namespace tests {

using namespace tls_offload;
using std::chrono::milliseconds;

void reconnect_states() {
  uint32_t bits = UINT32_MAX;  // the longest delay
  auto random = [](void *state) { return *static_cast<uint32_t *>(state); };
  Time now{};
  Reconnect reconnect({milliseconds(10), milliseconds(250)}, now, random, &bits);
  CHECK(reconnect.state() == Reconnect::State::Waiting);
  CHECK(reconnect.tick(now) == Reconnect::Action::Connect);
  CHECK(reconnect.tick(now) == Reconnect::Action::None);  // one attempt at a time
  int expected[] = {10, 20, 40, 80, 160, 250, 250};
  for (int delay : expected) {
    reconnect.lost(now);
    reconnect.lost(now);  // reported twice, counted once
    CHECK(reconnect.next_attempt() - now == milliseconds(delay));
    CHECK(reconnect.tick(now + milliseconds(delay) - Duration(1)) == Reconnect::Action::None);
    now += milliseconds(delay);
    CHECK(reconnect.tick(now) == Reconnect::Action::Connect);
  }
  reconnect.established();
  CHECK(reconnect.state() == Reconnect::State::Connected);
  CHECK(reconnect.tick(now + milliseconds(1000)) == Reconnect::Action::None);
  reconnect.lost(now);
  CHECK(reconnect.next_attempt() - now == milliseconds(250));  // the connection delivered nothing
  reconnect.useful();                                          // for a connection that has ended
  now += milliseconds(250);
  CHECK(reconnect.tick(now) == Reconnect::Action::Connect);
  reconnect.useful();  // ignored: it is not established yet
  reconnect.lost(now);
  CHECK(reconnect.next_attempt() - now == milliseconds(250));
  now += milliseconds(250);
  CHECK(reconnect.tick(now) == Reconnect::Action::Connect);
  reconnect.established();
  reconnect.useful();
  reconnect.lost(now);
  CHECK(reconnect.next_attempt() - now == milliseconds(10));  // the smallest again
  bits = 0;
  CHECK(reconnect.tick(now + milliseconds(10)) == Reconnect::Action::Connect);
  reconnect.lost(now);
  CHECK(reconnect.next_attempt() - now == milliseconds(10));  // half of 20: the earliest
  reconnect.established();                                    // for an attempt that has ended
  CHECK(reconnect.state() == Reconnect::State::Waiting);
}

void ticket_keys_rotate() {
  TicketKeys keys(std::chrono::seconds(100));
  Time start = Time{} + std::chrono::hours(1);
  auto at = [&](int seconds) { return start + std::chrono::seconds(seconds); };
  TicketKeys::Key first = keys.sealing(at(0)), key;
  bool renew;
  CHECK(keys.opening(first.name.data(), at(99), key, renew) && !renew && key.cipher_key == first.cipher_key);
  CHECK(keys.sealing(at(99)).name == first.name);
  TicketKeys::Key second = keys.sealing(at(100));
  CHECK(second.name != first.name && second.cipher_key != first.cipher_key);
  CHECK(keys.opening(first.name.data(), at(150), key, renew) && renew);
  CHECK(!keys.opening(first.name.data(), at(200), key, renew));
  keys.sealing(at(201));
  CHECK(!keys.opening(first.name.data(), at(201), key, renew));
  CHECK(keys.opening(second.name.data(), at(201), key, renew) && renew);
  uint8_t unknown[SSL_TICKET_KEY_NAME_LEN] = {};
  CHECK(!keys.opening(unknown, at(201), key, renew));
}

void server_names_match() {
  Credential credential;
  credential.dns_names = {"web.test", "*.shop.test", "*", "*."};
  using Match = Credential::Match;
  CHECK(credential.match("web.test") == Match::Exact);
  CHECK(credential.match("de.shop.test") == Match::Wildcard);
  CHECK(credential.match("a.de.shop.test") == Match::None);
  CHECK(credential.match("shop.test") == Match::None);
  CHECK(credential.match(".shop.test") == Match::None);
  CHECK(credential.match("*.shop.test") == Match::Exact);
  CHECK(credential.match("other.test") == Match::None);
  CHECK(credential.match("") == Match::None);
}

void host_names() {
  const std::string label(63, 'a');
  const std::string longest = label + "." + label + "." + label + "." + std::string(61, 'a');
  for (const std::string &good : {std::string("a"), std::string("web.test"), std::string("web.test."),
                                  std::string("_dns.1-a.b"), std::string("127.0.0.1"), longest}) {
    CHECK(is_host_name(good));
  }
  for (const std::string &bad :
       {std::string(), std::string("."), std::string("a..b"), std::string(".a"), std::string("a.."), std::string("a b"),
        std::string("a\nb"), std::string("a\0b", 3), std::string("*.a"), std::string("a:1"), std::string("[::1]"),
        std::string("l\xc3\xa4.test"), std::string("a\"b"), std::string("a;b"), label + "a", longest + "a"}) {
    CHECK(!is_host_name(bad));
  }
}

void text_is_escaped() {
  CHECK(escaped("plain text, with = and ;") == "plain text, with = and ;");
  CHECK(escaped(std::string_view("a\n\0\x1b\x7f\xff", 6)) == "a\\x0a\\x00\\x1b\\x7f\\xff");
  CHECK(escaped("'\"\\") == "\\x27\\x22\\x5c");
  CHECK(escaped("'\"\\\n", Quotes::Keep) == "'\"\\\\x0a");
  CHECK(escaped("abcd", Quotes::Keep, 4) == "abcd" && escaped("abcde", Quotes::Keep, 4) == "abcd...");
  std::mt19937 random(5);
  for (int i = 0; i < 2000; i++) {
    std::string text(random() % 40, 0);
    for (char &c : text) c = static_cast<char>(random());
    std::string once = escaped(text);
    for (char c : once) CHECK(c >= 0x20 && c <= 0x7e && c != '"' && c != '\'');
    CHECK(escaped(once, Quotes::Keep) == once);
  }
}

void spiffe_ids_are_read_strictly() {
  for (const char *good : {"spiffe://a/b", "spiffe://mesh.example/ns/shop/sa/cart", "spiffe://1_a-b.c/A.z_-9/..."}) {
    CHECK(spiffe_id_fault(good).empty());
  }
  for (const char *bad : {"",
                          "spiffe",
                          "spiffe://",
                          "spiffe:///a",
                          "spiffe://a",
                          "spiffe://a/",
                          "spiffe://a//b",
                          "spiffe://a/b/",
                          "spiffe://a/.",
                          "spiffe://a/../b",
                          "spiffe://A/b",
                          "spiffe://a:1/b",
                          "spiffe://u@a/b",
                          "spiffe://a/b?c",
                          "spiffe://a/b#c",
                          "spiffe://a/%41",
                          "spiffe://a/b c",
                          "spiffe://a/b,c",
                          "spiffe://a/b;c",
                          "spiffe://a/b=c",
                          "spiffe://a/b\"c",
                          "spiffe://a/b\nc",
                          "http://a/b",
                          "SPIFFE://a/b",
                          "spiffe://\xc3\xa4/b"}) {
    CHECK(!spiffe_id_fault(bad).empty());
  }
  std::string longest = "spiffe://a/" + std::string(2048 - 11, 'x');
  CHECK(spiffe_id_fault(longest).empty() && !spiffe_id_fault(longest + "x").empty());
  std::string domain(255, 'd');
  CHECK(spiffe_id_fault("spiffe://" + domain + "/x").empty() && !spiffe_id_fault("spiffe://d" + domain + "/x").empty());
  CHECK(!spiffe_id_fault(std::string_view("spiffe://a/b\0c", 14)).empty());
  CHECK(trust_domain_of("spiffe://mesh.example/ns/shop") == "mesh.example");
}

// The control plane's permissions have the same semantics (tests/control/policies/test_spiffe_matches.py).
void spiffe_ids_match() {
  std::ifstream file(SPIFFE_MATCHES);
  size_t cases = 0;
  for (const auto &one : nlohmann::json::parse(file)) {
    bool prefix = one.contains("prefix");
    SpiffeMatch match{prefix ? SpiffeMatch::Kind::Prefix : SpiffeMatch::Kind::Exact, one[prefix ? "prefix" : "exact"]};
    for (const std::string id : one["fits"]) CHECK(match.matches(id) && ++cases > 0);
    for (const std::string id : one["not"]) CHECK(!match.matches(id) && ++cases > 0);
    CHECK(!match.matches(""));
  }
  CHECK(cases > 20);
  SpiffeMatch exact{SpiffeMatch::Kind::Exact, "spiffe://a/ns/shop"}, domain{SpiffeMatch::Kind::Prefix, "spiffe://a"};
  CHECK(any_matches({exact, domain}, "spiffe://a/x") && !any_matches({}, "spiffe://a/x"));
}

// Mutations of a valid configuration never crash, and a rejection always has a reason.
void configurations_of_all_kinds() {
  const std::string good =
      R"({"daemon_socket":"/d","identities":["a","b"],"alpn":["h2"],"tls_minimum":"1.2","operation_timeout_ms":5.0,)"
      R"("session_tickets":true,"groups":["X25519"],"client_certificate":"optional","trust_domains":["x"]})";
  std::string error;
  CHECK(parse_socket_config(good, Direction::Downstream, error));
  CHECK(!parse_socket_config("", Direction::Downstream, error) && !error.empty());
  std::mt19937 random(1);
  for (int i = 0; i < 20000; i++) {
    std::string text = good;
    for (unsigned n = random() % 4 + 1; n > 0; n--) {
      size_t at = random() % text.size();
      switch (random() % 3) {
        case 0: text[at] = static_cast<char>(random()); break;
        case 1: text.erase(at, random() % 8); break;
        default: text.insert(at, text.substr(random() % text.size(), random() % 12)); break;
      }
      if (text.empty()) text = "{";
    }
    bool parsed = parse_socket_config(text, Direction::Downstream, error).has_value();
    CHECK(parsed == error.empty());
  }
}

namespace {

std::string field(int number, const std::string &bytes) {
  std::string result(1, static_cast<char>(number << 3 | 2));
  for (size_t size = bytes.size();; size >>= 7) {
    result += static_cast<char>((size & 0x7f) | (size > 0x7f ? 0x80 : 0));
    if (size <= 0x7f) break;
  }
  return result + bytes;
}

}  // namespace

void identities_of_all_kinds() {
  std::string certificate(300, '\x30');
  std::string credential = field(1, std::string(32, 'k')) + field(2, certificate) + field(3, "\x84\x10\x83\x08") +
                           std::string("\x20\x01", 2) + field(5, "web.test");
  std::string bundle = field(1, "mesh.test") + field(2, certificate);
  std::string message = field(1, "web") + std::string("\x10\x07", 2) + field(3, credential) + field(4, bundle);
  std::mt19937 random(2);
  for (int i = 0; i < 20000; i++) {
    std::string mutated = message;
    if (i > 0) {
      for (unsigned n = random() % 6; n > 0; n--) mutated[random() % mutated.size()] = static_cast<char>(random());
      mutated.resize(random() % 8 == 0 ? random() % mutated.size() : mutated.size());
    }
    std::string error;
    auto identity = Identity::decode({reinterpret_cast<const uint8_t *>(mutated.data()), mutated.size()}, error);
    CHECK(identity == nullptr && !error.empty());  // its certificate is invalid
  }
}

void decode_identities(std::istream &messages) {
  uint32_t size;
  while (messages.read(reinterpret_cast<char *>(&size), sizeof size)) {
    std::string message(size, '\0'), error;
    messages.read(message.data(), size);
    auto identity = Identity::decode({reinterpret_cast<const uint8_t *>(message.data()), message.size()}, error);
    printf("%s\n", identity != nullptr ? "good" : error.c_str());
  }
}

namespace {

class CountingWaker final : public Waker {
 public:
  std::atomic<int> woken{0};

 private:
  void wake_armed() override { woken++; }
};

OperationPtr make_operation(std::shared_ptr<Waker> waker, int timeout_ms) {
  auto operation = std::make_shared<Operation>();
  operation->scheme = 0x0403;
  operation->input.assign(130, 0x20);
  operation->timeout = operation->connect_timeout = milliseconds(timeout_ms);
  operation->waker = std::move(waker);
  return operation;
}

void wait_for(const std::function<bool()> &condition) {
  for (int i = 0; i < 2000 && !condition(); i++) std::this_thread::sleep_for(milliseconds(5));
  CHECK(condition());
}

// A server at `path` that answers each connection with `bytes`, then closes it or not.
class RudeServer {
 public:
  RudeServer(const std::string &path, std::function<std::string()> bytes, bool closes)
      : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    unlink(path.c_str());
    CHECK(bind(fd_, reinterpret_cast<sockaddr *>(&address), sizeof address) == 0);
    CHECK(listen(fd_, 16) == 0);
    thread_ = std::thread([this, bytes = std::move(bytes), closes] {
      std::vector<int> kept;
      for (int peer; (peer = accept(fd_, nullptr, nullptr)) >= 0;) {
        std::string answer = bytes();
        [[maybe_unused]] ssize_t sent = send(peer, answer.data(), answer.size(), MSG_NOSIGNAL);
        served++;
        if (closes) {
          ::close(peer);
        } else {
          kept.push_back(peer);
        }
      }
      for (int peer : kept) ::close(peer);
    });
  }
  ~RudeServer() {
    shutdown(fd_, SHUT_RDWR);
    thread_.join();
    ::close(fd_);
  }
  std::atomic<int> served{0};

 private:
  int fd_;
  std::thread thread_;
};

// Handshakes that hold the identity continue with it; a new handshake waits for the daemon's next message.
void refused_identity_is_not_handed_out() {
  IdentityWatch watch("web");
  auto identity = std::make_shared<const Identity>();
  watch.replace(identity);
  watch.drop_refused();
  CHECK(watch.current() == identity);
  watch.refuse();
  CHECK(watch.current() == identity);
  watch.drop_refused();
  CHECK(watch.current() == nullptr);
  watch.replace(identity);
  watch.drop_refused();
  CHECK(watch.current() == identity);
}

}  // namespace

void no_daemon() {
  refused_identity_is_not_handed_out();
  KeyClient client("/nonexistent/offload.sock");
  auto waker = std::make_shared<CountingWaker>();
  auto operation = make_operation(waker, 50);
  client.submit(operation);
  wait_for([&] { return operation->finished(); });
  CHECK(operation->answer().failure == Failure::Unavailable);
  CHECK(operation->answer().reason.find("/nonexistent/offload.sock") != std::string::npos);
  CHECK(waker->woken == 1);
  auto cancelled = make_operation(waker, 10000);
  client.submit(cancelled);
  client.cancel(cancelled);
  client.cancel(cancelled);
  auto left = make_operation(waker, 10000);  // still in the client when that is destroyed
  client.submit(left);
}

void rude_daemons(const std::string &folder) {
  std::string path = folder + "/rude.sock";
  const std::string settings("\0\0\0\4\0\0\0\0\0", 9);
  std::mt19937 random(3);
  auto garbage = [&] {
    std::string bytes = random() % 2 ? settings : "";
    for (unsigned n = random() % 600; n > 0; n--) bytes += static_cast<char>(random());
    return bytes;
  };
  for (bool closes : {true, false}) {
    for (int kind = 0; kind < 3; kind++) {
      RudeServer server(
          path, [&, kind] { return kind == 0   ? std::string()
                                   : kind == 1 ? settings
                                               : garbage(); }, closes);
      KeyClient client(path, {milliseconds(1), milliseconds(5)});
      auto watch = client.watch("web");
      auto waker = std::make_shared<CountingWaker>();
      std::vector<OperationPtr> operations;
      for (int i = 0; i < 20; i++) {
        operations.push_back(make_operation(waker, 100 + i * 5));
        operations.back()->kind = i % 4 ? Operation::Kind::Sign : Operation::Kind::AwaitIdentity;
        operations.back()->watch = watch;
        client.submit(operations.back());
      }
      wait_for([&] {
        for (auto &operation : operations) {
          if (!operation->finished()) return false;
        }
        return true;
      });
      for (auto &operation : operations) CHECK(operation->answer().failure != Failure::None);
      CHECK(waker->woken == 20);
      CHECK(server.served > 0);
    }
  }
}

}  // namespace tests
