#include "envoy_ext/module/tls/handshake.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <ctime>
#include <utility>

#include "envoy_ext/module/envoy/escaped.h"
#include "envoy_ext/module/tls/server_name.h"

namespace tls_offload {
namespace {

int ex_index() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

constexpr size_t kPremasterSize = 48;

// A new session must not outlive what the peer was verified with: resumption does not verify anything.
void limit_session(SSL *ssl, int64_t valid_until) {
  SSL_SESSION *session = SSL_get_session(ssl);
  int64_t left = std::max<int64_t>(valid_until - time(nullptr), 0);
  if (session == nullptr || left >= SSL_SESSION_get_timeout(session)) return;
  SSL_SESSION_set_timeout(session, static_cast<uint32_t>(left));
}

}  // namespace

Handshake::Handshake(const TlsContext &context, Observer &observer)
    : context_(context), observer_(observer), ssl_(context.new_ssl()), given_up_(context.watches().size()) {
  context.is_client() ? SSL_set_connect_state(ssl_.get()) : SSL_set_accept_state(ssl_.get());
  SSL_set_ex_data(ssl_.get(), ex_index(), this);
  set_private_key_user(ssl_.get(), this);
}

Handshake &Handshake::of(const SSL *ssl) {
  return *static_cast<Handshake *>(SSL_get_ex_data(ssl, ex_index()));
}

bool Handshake::cancel() {
  if (operation_ == nullptr) return false;
  bool under_way = !operation_->finished();
  context_.client().cancel(operation_);
  operation_.reset();
  return under_way;
}

Handshake::Progress Handshake::advance() {
  if (context_.is_client() && identity_ == nullptr) {
    Progress prepared = prepare_client();
    if (prepared != Progress::Done) return prepared;
  }
  ERR_clear_error();
  int done = SSL_do_handshake(ssl_.get());
  if (done == 1) return Progress::Done;
  switch (SSL_get_error(ssl_.get(), done)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
    case SSL_ERROR_PENDING_CERTIFICATE:
    case SSL_ERROR_WANT_PRIVATE_KEY_OPERATION: return Progress::Waits;
    case SSL_ERROR_ZERO_RETURN:
    case SSL_ERROR_SYSCALL:
      if (failure_.empty()) failure_ = "peer closed the connection during the handshake";
      return Progress::Failed;
    default: note_failure(); return Progress::Failed;
  }
}

// The reason that this module gave takes precedence over BoringSSL's, which would only be that a callback failed.
void Handshake::note_failure() {
  uint32_t error = ERR_peek_last_error();
  if (failure_.empty()) {
    const char *reason = ERR_reason_error_string(error);
    failure_ = std::string("TLS handshake failed: ") + (reason != nullptr ? reason : "no reason given");
  }
  // These are failures that BoringSSL finds by itself, before it calls us.
  if (ERR_GET_LIB(error) == ERR_LIB_SSL) {
    int reason = ERR_GET_REASON(error);
    if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) observer_.on_peer_rejected(PeerFault::NoCertificate);
    if (reason == SSL_R_KEY_USAGE_BIT_INCORRECT) observer_.on_peer_rejected(PeerFault::Unsuitable);
  }
  ERR_clear_error();
}

// ---- identity ----

// Takes the answer after waiting for an identity; false while it has not come.
bool Handshake::take_identity_answer() {
  if (operation_ == nullptr) return true;
  if (!operation_->finished()) return false;
  observer_.on_operation(*operation_);
  waited_ += operation_->elapsed();
  if (operation_->answer().failure != Failure::None) {
    const auto &watches = context_.watches();
    auto failed = std::find(watches.begin(), watches.end(), operation_->watch) - watches.begin();
    given_up_[static_cast<size_t>(failed)] = true;
    if (wait_failure_.empty()) wait_failure_ = operation_->answer().reason;
  }
  operation_.reset();
  return true;
}

// A client knows its identity from the start: identity, server name and session are set before the first byte.
Handshake::Progress Handshake::prepare_client() {
  if (waker_ == nullptr) {  // fails at once, not only when there is something to wait for
    failure_ = "this connection has no TCP or Unix socket (an internal listener?), so no answer could wake it";
    return Progress::Failed;
  }
  if (!take_identity_answer()) return Progress::Waits;
  IdentityPtr identity = context_.watches()[0]->current();
  if (identity == nullptr && !given_up_[0]) return await(0) ? Progress::Waits : Progress::Failed;
  if (identity == nullptr) {
    failure_ = wait_failure_;
    return Progress::Failed;
  }
  const std::string &name = context_.config().server_name;
  if (!use(std::move(identity), Credential::Match::None) ||
      (!name.empty() && !SSL_set_tlsext_host_name(ssl_.get(), name.c_str()))) {
    note_failure();
    return Progress::Failed;
  }
  bssl::UniquePtr<SSL_SESSION> session = context_.sessions().take(session_context_);
  if (session != nullptr) SSL_set_session(ssl_.get(), session.get());
  return Progress::Done;
}

int Handshake::session_callback(SSL *ssl, SSL_SESSION *session) {
  Handshake &self = of(ssl);
  self.context_.sessions().put(self.session_context_, bssl::UniquePtr<SSL_SESSION>(session));
  return 1;  // 1: this callback has taken ownership of the session
}

ssl_select_cert_result_t Handshake::select_callback(const SSL_CLIENT_HELLO *hello) {
  return of(hello->ssl).select(hello);
}

ssl_select_cert_result_t Handshake::select(const SSL_CLIENT_HELLO *hello) {
  const auto &watches = context_.watches();
  if (!take_identity_answer()) return ssl_select_cert_retry;
  const char *name = SSL_get_servername(hello->ssl, TLSEXT_NAMETYPE_host_name);
  server_name_ = name != nullptr ? name : "";
  std::transform(server_name_.begin(), server_name_.end(), server_name_.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  // A malformed host name must not match a certificate (a wildcard would accept any label), and is not published:
  // readers of tls_offload.server_name may rely on its form. The client is served as if it had sent no name.
  if (!server_name_.empty() && !is_host_name(server_name_)) malformed_name_ = std::exchange(server_name_, {});
  std::vector<IdentityPtr> known;
  known.reserve(watches.size());
  for (const auto &watch : watches) known.push_back(watch->current());
  Selection selection = select_identity(known, server_name_);
  // An exact match cannot be improved; otherwise an identity that is still unknown may be the right one.
  if (selection.match != Credential::Match::Exact) {
    for (size_t i = 0; i < known.size(); i++) {
      bool needed = !server_name_.empty() || i == 0;
      if (known[i] != nullptr || given_up_[i] || !needed) continue;
      return await(i) ? ssl_select_cert_retry : ssl_select_cert_error;
    }
  }
  if (selection.match == Credential::Match::None) {
    if (context_.config().unknown_server_name == UnknownServerName::Reject) {
      failure_ = no_identity();
      return ssl_select_cert_error;
    }
    selection.index = 0;
  }
  if (known[selection.index] == nullptr) {
    failure_ = wait_failure_;
    return ssl_select_cert_error;
  }
  return use(std::move(known[selection.index]), selection.match) ? ssl_select_cert_success : ssl_select_cert_error;
}

// Why no identity matches; one that the daemon did not provide may be the one that was meant.
std::string Handshake::no_identity() const {
  if (!malformed_name_.empty()) return "client sent a malformed server name '" + escaped(malformed_name_) + "'";
  if (server_name_.empty()) return "client sent no server name";
  std::string others = wait_failure_.empty() ? "" : "; " + wait_failure_;
  return "no identity for server name '" + server_name_ + "'" + others;
}

bool Handshake::use(IdentityPtr identity, Credential::Match match) {
  identity_ = std::move(identity);
  match_ = match;
  session_context_ = context_.session_context(*identity_);
  if (!SSL_set_session_id_context(ssl_.get(), session_context_.data(), session_context_.size())) return false;
  // A clear version failure is better than a handshake that finds no credential.
  if (!identity_->any_tls12() && context_.config().tls_maximum >= TLS1_3_VERSION) {
    return SSL_set_min_proto_version(ssl_.get(), TLS1_3_VERSION) == 1;
  }
  return true;
}

// One handshake waits for at most handshake_wait in total, for all identities and for the connection to the daemon.
Duration Handshake::wait_left() const {
  return std::max<Duration>(context_.config().handshake_wait - waited_, Duration::zero());
}

bool Handshake::await(size_t watch) {
  auto operation = make_operation(Operation::Kind::AwaitIdentity);
  operation->watch = context_.watches()[watch];
  operation->timeout = wait_left();
  return submit(operation);
}

int Handshake::credentials_callback(SSL *ssl, void *) {
  Handshake &self = of(ssl);
  if (self.credentials_added_) return 1;
  // The version is known by now. Only the credentials that match the name as well as the best one are added.
  bool tls12 = SSL_version(ssl) <= TLS1_2_VERSION;
  size_t added = 0;
  for (const auto &credential : self.identity_->credentials) {
    if ((tls12 && !credential->tls12) || credential->match(self.server_name_) < self.match_) continue;
    if (!SSL_add1_credential(ssl, credential->credential.get())) return 0;
    added++;
  }
  self.credentials_added_ = true;
  if (added == 0) self.failure_ = "no key of identity '" + self.identity_->name + "' may be used with TLS 1.2";
  return added > 0 ? 1 : 0;
}

ssl_verify_result_t Handshake::verify_callback(SSL *ssl, uint8_t *alert) {
  Handshake &self = of(ssl);
  PeerVerdict verdict = self.context_.trust().judge(ssl, *self.identity_);
  if (verdict.good()) {
    limit_session(ssl, verdict.valid_until);
    return ssl_verify_ok;
  }
  *alert = alert_of(verdict.fault);
  self.failure_ = verdict.reason;
  self.observer_.on_peer_rejected(verdict.fault);
  return ssl_verify_invalid;
}

// ---- private key ----

OperationPtr Handshake::make_operation(Operation::Kind kind) const {
  auto operation = std::make_shared<Operation>();
  operation->kind = kind;
  operation->timeout = context_.config().operation_timeout;
  operation->connect_timeout = wait_left();
  operation->waker = waker_;
  return operation;
}

bool Handshake::submit(const OperationPtr &operation) {
  if (waker_ == nullptr) {
    failure_ = "this filter chain lacks the companion network filter 'tls_offload', which must be its first";
    return false;
  }
  operation_ = operation;
  context_.client().submit(operation_, true);  // the socket joins its worker's turn
  return true;
}

ssl_private_key_result_t Handshake::begin_private_key(Operation::Kind kind, uint16_t scheme, const uint8_t *in,
                                                      size_t size) {
  const Credential *credential = credential_of(SSL_get0_selected_credential(ssl_.get()));
  if (credential == nullptr || size > WIRE_INPUT_MAX) {
    failure_ = "the handshake to be signed has " + std::to_string(size) + " bytes, more than the daemon accepts (" +
               std::to_string(WIRE_INPUT_MAX) + ")";
    return ssl_private_key_failure;
  }
  auto operation = make_operation(kind);
  operation->key_id = credential->key_id;
  operation->scheme = scheme;
  operation->input.assign(in, in + size);
  return submit(operation) ? ssl_private_key_retry : ssl_private_key_failure;
}

ssl_private_key_result_t Handshake::complete_private_key(uint8_t *out, size_t *out_size, size_t room) {
  if (operation_ == nullptr) return ssl_private_key_failure;
  if (!operation_->finished()) return ssl_private_key_retry;
  signed_ = std::move(operation_);
  operation_.reset();
  const Answer &answer = signed_->answer();
  observer_.on_operation(*signed_);
  if (answer.failure != Failure::None) {
    failure_ = answer.reason;
    return ssl_private_key_failure;
  }
  if (signed_->kind == Operation::Kind::Decrypt) {
    // BoringSSL removes the padding itself, in constant time. The daemon has done so already (and answers wrong padding
    // with a pseudo-random premaster), so its answer is padded again: 0, 2, non-zero bytes, 0, premaster.
    size_t modulus = signed_->input.size();
    if (answer.output.size() != kPremasterSize || modulus > room || modulus < kPremasterSize + 11) {
      failure_ = "daemon answered with a premaster secret of the wrong size";
      return ssl_private_key_failure;
    }
    std::memset(out, 0xff, modulus);
    out[0] = 0;
    out[1] = 2;
    out[modulus - kPremasterSize - 1] = 0;
    std::memcpy(out + modulus - kPremasterSize, answer.output.data(), kPremasterSize);
    *out_size = modulus;
    return ssl_private_key_success;
  }
  if (answer.output.empty() || answer.output.size() > room) {
    failure_ = "daemon answered with a signature of the wrong size";
    return ssl_private_key_failure;
  }
  std::memcpy(out, answer.output.data(), answer.output.size());
  *out_size = answer.output.size();
  return ssl_private_key_success;
}

}  // namespace tls_offload
