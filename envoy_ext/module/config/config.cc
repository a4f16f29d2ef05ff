#include "envoy_ext/module/config/config.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/un.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>

#include "envoy_ext/module/config/filter_state.h"
#include "envoy_ext/module/spiffe/spiffe_id.h"

namespace tls_offload {
namespace {

using Json = nlohmann::json;

// Takes fields out of one JSON object and remembers the first error. `finish` then rejects fields that were not taken,
// so that a misspelt field never silently becomes the default.
class Fields {
 public:
  Fields(std::string_view text, std::string &error) : error_(error) {
    error_.clear();
    json_ = text.empty() ? Json::object() : Json::parse(text, nullptr, false);
    if (json_.is_discarded() || !json_.is_object()) {
      refuse("the configuration is not a JSON object; give it as a google.protobuf.Struct");
      json_ = Json::object();
    }
  }

  bool ok() const { return error_.empty(); }
  void refuse(const std::string &reason) {
    if (error_.empty()) error_ = reason;
  }

  std::string text(const char *name, bool required) {
    const Json *value = take(name, required);
    if (value == nullptr) return {};
    if (!value->is_string() || value->get_ref<const std::string &>().empty()) {
      refuse(std::string(name) + ": must be a non-empty string, is " + value->dump());
      return {};
    }
    return value->get<std::string>();
  }

  // The index of the text in `allowed`.
  size_t choice(const char *name, std::initializer_list<const char *> allowed, size_t otherwise) {
    const Json *value = take(name, false);
    if (value == nullptr) return otherwise;
    size_t index = 0;
    std::string list;
    for (const char *text : allowed) {
      if (value->is_string() && value->get_ref<const std::string &>() == text) return index;
      list += (index++ > 0 ? ", \"" : "\"") + std::string(text) + "\"";
    }
    refuse(std::string(name) + ": must be one of " + list + ", is " + value->dump());
    return otherwise;
  }

  int64_t number(const char *name, int64_t least, int64_t most, int64_t otherwise) {
    const Json *value = take(name, false);
    if (value == nullptr) return otherwise;
    // Numbers of a protobuf Struct are doubles.
    double number = value->is_number() ? value->get<double>() : NAN;
    if (!(number >= static_cast<double>(least) && number <= static_cast<double>(most)) ||
        number != std::floor(number)) {
      refuse(std::string(name) + ": must be a whole number from " + std::to_string(least) + " to " +
             std::to_string(most) + ", is " + value->dump());
      return otherwise;
    }
    return static_cast<int64_t>(number);
  }

  bool flag(const char *name, bool otherwise) {
    const Json *value = take(name, false);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) refuse(std::string(name) + ": must be true or false, is " + value->dump());
    return value->is_boolean() ? value->get<bool>() : otherwise;
  }

  // Distinct strings of 1 to `longest` bytes.
  std::vector<std::string> list(const char *name, size_t least, size_t most, size_t longest) {
    const Json *value = take(name, least > 0);
    std::vector<std::string> result;
    if (value == nullptr) return result;
    bool good = value->is_array() && value->size() >= least && value->size() <= most;
    for (size_t i = 0; good && i < value->size(); i++) {
      const Json &item = (*value)[i];
      good = item.is_string() && item.get_ref<const std::string &>().size() <= longest;
      if (good) result.push_back(item.get<std::string>());
    }
    if (!good || std::set(result.begin(), result.end()).size() != result.size()) {
      refuse(std::string(name) + ": must be a list of " + std::to_string(least) + " to " + std::to_string(most) +
             " different strings of at most " + std::to_string(longest) + " bytes, is " + value->dump());
      return {};
    }
    return result;
  }

  // A list of {"exact": id} and {"prefix": id}.
  std::vector<SpiffeMatch> spiffe_matches(const char *name) {
    const Json *value = take(name, false);
    std::vector<SpiffeMatch> result;
    if (value == nullptr) return result;
    bool good = value->is_array() && value->size() <= 256;
    for (size_t i = 0; good && i < value->size(); i++) {
      const Json &item = (*value)[i];
      good = item.is_object() && item.size() == 1 && (item.contains("exact") || item.contains("prefix")) &&
             item.front().is_string();
      std::string id = good ? item.front().get<std::string>() : std::string();
      if (good && !check_spiffe_match(name, id, item.contains("prefix"))) return {};
      auto kind = good && item.contains("exact") ? SpiffeMatch::Kind::Exact : SpiffeMatch::Kind::Prefix;
      if (good) result.push_back({kind, std::move(id)});
    }
    if (!good) {
      refuse(
          std::string(name) +
          ": must be a list of at most 256 of {\"exact\": \"spiffe://...\"} and {\"prefix\": \"spiffe://...\"}, is " +
          value->dump());
    }
    return result;
  }

  // Rejects what cannot match any id; a prefix may end after any segment.
  bool check_spiffe_match(const char *name, const std::string &id, bool prefix) {
    constexpr size_t scheme = std::string_view("spiffe://").size();
    std::string whole = prefix && id.size() > scheme && id.back() == '/' ? id.substr(0, id.size() - 1) : id;
    if (prefix && whole.find('/', scheme) == std::string::npos) whole += "/x";
    std::string_view fault = spiffe_id_fault(whole);
    if (!fault.empty()) refuse(std::string(name) + ": \"" + id + "\" " + std::string(fault));
    return fault.empty();
  }

  // Called when all known fields are taken; those that are left are unknown.
  void finish() {
    for (const auto &[name, value] : json_.items()) {
      if (taken_.count(name) == 0) refuse("unknown field '" + name + "'");
    }
  }

 private:
  const Json *take(const char *name, bool required) {
    taken_.insert(name);
    auto found = json_.find(name);
    if (found != json_.end()) return &*found;
    if (required) refuse(std::string(name) + ": is missing");
    return nullptr;
  }

  Json json_;
  std::set<std::string> taken_;
  std::string &error_;
};

std::string daemon_socket(Fields &fields) {
  std::string path = fields.text("daemon_socket", true);
  if (fields.ok() && (path[0] != '/' || path.size() >= sizeof(sockaddr_un::sun_path))) {
    fields.refuse("daemon_socket: must be an absolute path of at most " +
                  std::to_string(sizeof(sockaddr_un::sun_path) - 1) + " bytes, is \"" + path + "\"");
  }
  return path;
}

std::string joined(const std::vector<std::string> &names) {
  std::string result;
  for (const std::string &name : names) result += (result.empty() ? "" : ":") + name;
  return result;
}

// Checks names one by one, so that the error can say which one BoringSSL does not know.
void check_names(Fields &fields, const char *field, const std::vector<std::string> &names,
                 int (*set)(SSL_CTX *, const char *)) {
  bssl::UniquePtr<SSL_CTX> context(SSL_CTX_new(TLS_method()));
  for (const std::string &name : names) {
    if (name.find(':') != std::string::npos || !set(context.get(), name.c_str())) {
      fields.refuse(std::string(field) + ": BoringSSL does not know '" + name + "'");
    }
  }
  if (!set(context.get(), joined(names).c_str())) fields.refuse(std::string(field) + ": BoringSSL rejects the list");
  ERR_clear_error();
}

void protocol(Fields &fields, SocketConfig &config) {
  constexpr uint16_t versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
  config.tls_minimum = versions[fields.choice("tls_minimum", {"1.2", "1.3"}, 0)];
  config.tls_maximum = versions[fields.choice("tls_maximum", {"1.2", "1.3"}, 1)];
  if (config.tls_minimum > config.tls_maximum) fields.refuse("tls_minimum: is above tls_maximum");
  config.alpn = fields.list("alpn", 0, 16, 255);
  if (std::count(config.alpn.begin(), config.alpn.end(), "")) fields.refuse("alpn: a protocol name is empty");
  config.cipher_suites = fields.list("cipher_suites", 0, 32, 64);
  if (config.cipher_suites.empty()) {
    // Only suites with forward secrecy and authenticated encryption: what stock Envoy offers, without its CBC and
    // static RSA suites.
    config.cipher_suites = {"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
                            "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
                            "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"};
  }
  config.groups = fields.list("groups", 0, 16, 32);
  // X25519MLKEM768 is not a default: it costs larger flights and more CPU in every handshake.
  if (config.groups.empty()) config.groups = {"X25519", "P-256"};
  check_names(fields, "cipher_suites", config.cipher_suites, SSL_CTX_set_strict_cipher_list);
  check_names(fields, "groups", config.groups, SSL_CTX_set1_groups_list);
}

void trust(Fields &fields, SocketConfig &config) {
  config.trusted_ca_file = fields.text("trusted_ca_file", false);
  config.trust_domains = fields.list("trust_domains", 0, 256, 255);
  if (!config.trusted_ca_file.empty() && !config.trust_domains.empty()) {
    fields.refuse("trusted_ca_file: excludes trust_domains");
  }
  config.crl_file = fields.text("crl_file", false);
  config.clock_skew = std::chrono::seconds(fields.number("clock_skew_s", 0, 3600, 10));
  config.peer_spiffe_ids = fields.spiffe_matches("peer_spiffe_ids");
}

void clients(Fields &fields, SocketConfig &config) {
  constexpr ClientCertificate modes[] = {ClientCertificate::Off, ClientCertificate::Optional,
                                         ClientCertificate::Required};
  config.client_certificate = modes[fields.choice("client_certificate", {"off", "optional", "required"}, 0)];
  bool trusts = !config.trusted_ca_file.empty() || !config.trust_domains.empty() || !config.peer_spiffe_ids.empty() ||
                !config.crl_file.empty();
  if (trusts && config.client_certificate == ClientCertificate::Off) {
    fields.refuse(
        "client_certificate: is \"off\", so trusted_ca_file, crl_file, trust_domains and peer_spiffe_ids would have no "
        "effect");
  }
  config.unknown_server_name = fields.choice("unknown_server_name", {"first", "reject"}, 0) == 0
                                   ? UnknownServerName::First
                                   : UnknownServerName::Reject;
}

void servers(Fields &fields, SocketConfig &config) {
  config.server_name = fields.text("server_name", false);
  if (config.server_name.size() > TLSEXT_MAXLEN_host_name) fields.refuse("server_name: is longer than 255 bytes");
  config.peer_dns_names = fields.list("peer_dns_names", 0, 256, 255);
  if (std::count(config.peer_dns_names.begin(), config.peer_dns_names.end(), "")) {
    fields.refuse("peer_dns_names: a name is empty");
  }
  // Otherwise any holder of a certificate of the trust domain could impersonate the server.
  if (config.peer_spiffe_ids.empty() && config.peer_dns_names.empty()) {
    fields.refuse(
        "peer_spiffe_ids: is missing: name the accepted peers, for instance [{\"exact\": \"spiffe://...\"}], or give "
        "peer_dns_names");
  }
  config.sessions_kept = static_cast<size_t>(fields.number("sessions_kept", 0, 1024, 16));
}

}  // namespace

std::optional<SocketConfig> parse_socket_config(std::string_view json, Direction direction, std::string &error) {
  bool downstream = direction == Direction::Downstream;
  Fields fields(json, error);
  SocketConfig config;
  config.direction = direction;
  config.daemon_socket = daemon_socket(fields);
  config.identities = fields.list("identities", 1, downstream ? 64 : 1, 2048);
  if (std::count(config.identities.begin(), config.identities.end(), "")) fields.refuse("identities: a name is empty");
  protocol(fields, config);
  config.operation_timeout = std::chrono::milliseconds(fields.number("operation_timeout_ms", 1, 60000, 2000));
  config.handshake_wait = std::chrono::milliseconds(fields.number("handshake_wait_ms", 0, 60000, 1000));
  config.session_tickets = fields.flag("session_tickets", true);
  config.session_lifetime = std::chrono::seconds(fields.number("session_lifetime_s", 1, 604800, 7200));
  trust(fields, config);
  downstream ? clients(fields, config) : servers(fields, config);
  fields.finish();
  if (!fields.ok()) return std::nullopt;
  return config;
}

std::optional<FilterSettings> parse_filter_settings(std::string_view json, std::string &error) {
  Fields fields(json, error);
  FilterSettings settings;
  settings.daemon_socket = daemon_socket(fields);
  settings.publish = fields.list("publish", 0, kPublishable.size(), 64);
  for (const std::string &key : settings.publish) {
    if (std::find(kPublishable.begin(), kPublishable.end(), key) != kPublishable.end()) continue;
    fields.refuse("publish: unknown key '" + key + "'");
  }
  fields.finish();
  if (!fields.ok()) return std::nullopt;
  return settings;
}

}  // namespace tls_offload
