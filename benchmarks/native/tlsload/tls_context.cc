#include "benchmarks/native/tlsload/tls_context.h"

#include <openssl/err.h>

#include "benchmarks/native/argument.h"

namespace load {

std::string take_tls_error() {
  uint32_t error = ERR_peek_error();
  ERR_clear_error();
  if (!error) return "unknown";
  int reason = ERR_GET_REASON(error);
  // Reasons from SSL_AD_REASON_OFFSET on are alerts that the peer sent.
  if (ERR_GET_LIB(error) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET)
    return std::string("TLS alert from the server: ") + SSL_alert_desc_string_long(reason - SSL_AD_REASON_OFFSET);
  const char *text = ERR_reason_error_string(error);
  return std::string("TLS: ") + (text ? text : "unknown");
}

bssl::UniquePtr<SSL_CTX> make_context(const Options &options) {
  bssl::UniquePtr<SSL_CTX> context(SSL_CTX_new(TLS_client_method()));
  auto must = [](int ok, const std::string &what) {
    if (!ok) usage_error(what + ": " + take_tls_error());
  };
  SSL_CTX *ctx = context.get();
  must(ctx != nullptr, "SSL_CTX_new");
  if (options.max_version) {
    must(SSL_CTX_set_min_proto_version(ctx, options.min_version), "--tls");
    must(SSL_CTX_set_max_proto_version(ctx, options.max_version), "--tls");
  }
  if (!options.groups.empty()) must(SSL_CTX_set1_groups_list(ctx, options.groups.c_str()), "--groups");
  if (!options.ciphers.empty()) must(SSL_CTX_set_strict_cipher_list(ctx, options.ciphers.c_str()), "--ciphers");
  if (!options.verify_algorithms.empty())
    must(SSL_CTX_set_verify_algorithm_prefs(ctx, options.verify_algorithms.data(), options.verify_algorithms.size()),
         "--sigalgs");
  if (!options.alpn.empty())  // here, zero means success
    must(SSL_CTX_set_alpn_protos(ctx, reinterpret_cast<const uint8_t *>(options.alpn.data()), options.alpn.size()) == 0,
         "--alpn");
  if (!options.ca.empty()) {
    must(SSL_CTX_load_verify_locations(ctx, options.ca.c_str(), nullptr), "--ca " + options.ca);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, nullptr);
  }
  if (!options.certificate.empty()) {
    must(SSL_CTX_use_certificate_chain_file(ctx, options.certificate.c_str()), "--cert " + options.certificate);
    must(SSL_CTX_use_PrivateKey_file(ctx, options.key.c_str(), SSL_FILETYPE_PEM), "--key " + options.key);
  }
  // Sessions are kept by the worker, per target, not by BoringSSL's cache.
  SSL_CTX_set_session_cache_mode(
      ctx, options.resume ? SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL : SSL_SESS_CACHE_OFF);
  return context;
}

bssl::UniquePtr<SSL> make_connection(SSL_CTX *context, const Options &options, int fd) {
  bssl::UniquePtr<SSL> ssl(SSL_new(context));
  if (!ssl || !SSL_set_fd(ssl.get(), fd)) usage_error("SSL_new: " + take_tls_error());
  SSL_set_connect_state(ssl.get());
  if (!options.sni.empty()) {
    SSL_set_tlsext_host_name(ssl.get(), options.sni.c_str());
    if (!options.ca.empty()) SSL_set1_host(ssl.get(), options.sni.c_str());
  }
  return ssl;
}

}  // namespace load
