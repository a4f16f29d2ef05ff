// Verification without a connection: chains made here, valid ones, invalid ones, and ones with corrupted bytes.
#include "envoy_ext/module/peer/peer.h"

#include <openssl/bytestring.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/nid.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include <ctime>
#include <random>

#include "tests/native/module/check.h"
#include "tests/native/module/tests.h"

namespace tests {

using namespace tls_offload;

namespace {

constexpr long kHour = 3600;

bssl::UniquePtr<EVP_PKEY> make_key() {
  bssl::UniquePtr<EC_KEY> ec(EC_KEY_new_by_curve_name(NID_X9_62_prime256v1));
  bssl::UniquePtr<EVP_PKEY> key(EVP_PKEY_new());
  CHECK(ec != nullptr && EC_KEY_generate_key(ec.get()) && EVP_PKEY_set1_EC_KEY(key.get(), ec.get()));
  return key;
}

bssl::UniquePtr<EVP_PKEY> make_rsa_key(int bits) {
  bssl::UniquePtr<EVP_PKEY_CTX> context(EVP_PKEY_CTX_new_id(EVP_PKEY_RSA, nullptr));
  EVP_PKEY *key = nullptr;
  CHECK(EVP_PKEY_keygen_init(context.get()) && EVP_PKEY_CTX_set_rsa_keygen_bits(context.get(), bits) &&
        EVP_PKEY_keygen(context.get(), &key));
  return bssl::UniquePtr<EVP_PKEY>(key);
}

void add_extension(X509 *certificate, int nid, const char *value) {
  bssl::UniquePtr<X509_EXTENSION> extension(X509V3_EXT_nconf_nid(nullptr, nullptr, nid, value));
  CHECK(extension != nullptr && X509_add_ext(certificate, extension.get(), -1));
}

struct Ca {
  bssl::UniquePtr<EVP_PKEY> key = make_key();
  bssl::UniquePtr<X509> certificate;
};

// Issues a certificate signed by `issuer`, or self-signed when that has no certificate yet.
bssl::UniquePtr<X509> issue(const Ca &issuer, EVP_PKEY *key, const char *name, const char *uris, bool ca,
                            long ends = kHour, const EVP_MD *digest = EVP_sha256()) {
  bssl::UniquePtr<X509> certificate(X509_new());
  X509_NAME *subject = X509_get_subject_name(certificate.get());
  CHECK(X509_set_version(certificate.get(), X509_VERSION_3));
  CHECK(ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate.get()), 7));
  CHECK(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, reinterpret_cast<const uint8_t *>(name), -1, -1, 0));
  const X509_NAME *above = issuer.certificate ? X509_get_subject_name(issuer.certificate.get()) : subject;
  CHECK(X509_set_issuer_name(certificate.get(), const_cast<X509_NAME *>(above)));
  CHECK(X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -kHour));
  CHECK(X509_gmtime_adj(X509_getm_notAfter(certificate.get()), ends));
  CHECK(X509_set_pubkey(certificate.get(), key));
  add_extension(certificate.get(), NID_basic_constraints, ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
  add_extension(certificate.get(), NID_key_usage, ca ? "critical,keyCertSign,cRLSign" : "critical,digitalSignature");
  if (uris != nullptr) add_extension(certificate.get(), NID_subject_alt_name, uris);
  CHECK(X509_sign(certificate.get(), issuer.key.get(), digest));
  return certificate;
}

Ca make_ca(const char *name) {
  Ca ca;
  ca.certificate = issue(ca, ca.key.get(), name, nullptr, true);
  return ca;
}

bssl::UniquePtr<STACK_OF(X509)> chain_of(std::initializer_list<X509 *> certificates) {
  bssl::UniquePtr<STACK_OF(X509)> chain(sk_X509_new_null());
  for (X509 *certificate : certificates) CHECK(bssl::PushToStack(chain.get(), bssl::UpRef(certificate)));
  return chain;
}

struct Peers {
  Ca ours = make_ca("ours"), theirs = make_ca("theirs");
  bssl::UniquePtr<EVP_PKEY> key = make_key();
  Identity identity;
  SocketConfig config;
  Trust trust;

  Peers() {
    add_bundle("mesh.test", ours);
    add_bundle("other.test", theirs);
    config.peer_spiffe_ids = {{SpiffeMatch::Kind::Prefix, "spiffe://mesh.test"},
                              {SpiffeMatch::Kind::Exact, "spiffe://other.test/bob"}};
    std::string error;
    CHECK(trust.load(config, nullptr, error));
  }

  void add_bundle(const char *domain, const Ca &ca) {
    TrustBundle bundle{domain, {}};
    bundle.authorities.push_back(bssl::UpRef(ca.certificate));
    identity.trust_bundles.push_back(std::move(bundle));
  }

  PeerVerdict judge(const Ca &issuer, const char *uris, bool ca = false, long ends = kHour) const {
    auto leaf = issue(issuer, key.get(), "leaf", uris, ca, ends);
    return trust.judge(chain_of({leaf.get()}).get(), identity);
  }
};

}  // namespace

void peers_are_judged() {
  Peers peers;
  PeerVerdict good = peers.judge(peers.ours, "URI:spiffe://mesh.test/alice");
  CHECK(good.good() && good.reason.empty());
  int64_t end = time(nullptr) + kHour + peers.config.clock_skew.count();
  CHECK(good.valid_until > end - 60 && good.valid_until <= end);
  CHECK(peers.judge(peers.theirs, "URI:spiffe://other.test/bob").good());
  struct {
    const Ca &issuer;
    const char *uris;
    PeerFault fault;
    bool ca = false;
    long ends = kHour;
  } refused[] = {
      {peers.theirs, "URI:spiffe://other.test/carol", PeerFault::NotAccepted},
      {peers.theirs, "URI:spiffe://mesh.test/alice", PeerFault::UnknownCa},
      {peers.ours, "URI:spiffe://other.test/bob", PeerFault::UnknownCa},
      {peers.ours, "URI:spiffe://third.test/dave", PeerFault::UnknownCa},
      {peers.ours, "DNS:mesh.test", PeerFault::UnknownCa},
      {peers.ours, nullptr, PeerFault::UnknownCa},
      {peers.ours, "URI:spiffe://mesh.test", PeerFault::SpiffeId},
      {peers.ours, "URI:spiffe://mesh.test/a,URI:spiffe://mesh.test/b", PeerFault::SpiffeId},
      {peers.ours, "URI:https://mesh.test/,URI:spiffe://mesh.test/b", PeerFault::SpiffeId},
      {peers.ours, "URI:Spiffe://mesh.test/a", PeerFault::SpiffeId},
      {peers.ours, "URI:spiffe://mesh.test/alice", PeerFault::Unsuitable, true},
      {peers.ours, "URI:spiffe://mesh.test/alice", PeerFault::Expired, false, -60},
  };
  for (const auto &one : refused) {
    PeerVerdict verdict = peers.judge(one.issuer, one.uris, one.ca, one.ends);
    CHECK(verdict.fault == one.fault && !verdict.reason.empty());
    CHECK(alert_of(verdict.fault) != 0);
  }
  std::string before = peers.trust.fingerprint(peers.identity);
  peers.identity.bundles_digest[0] ^= 1;
  CHECK(peers.trust.fingerprint(peers.identity) != before);
}

// Weak keys and digests are rejected; an anchor's own signature is not checked.
void weak_chains() {
  Peers peers;
  const char *alice = "URI:spiffe://mesh.test/alice";
  auto judge = [&](X509 *leaf, X509 *above) {
    auto chain = above != nullptr ? chain_of({leaf, above}) : chain_of({leaf});
    return peers.trust.judge(chain.get(), peers.identity);
  };
  for (int bits : {1024, 2048}) {
    auto key = make_rsa_key(bits);
    PeerFault expected = bits < 2048 ? PeerFault::Unsuitable : PeerFault::None;
    auto leaf = issue(peers.ours, key.get(), "leaf", alice, false);
    CHECK(judge(leaf.get(), nullptr).fault == expected);
    Ca between{std::move(key), nullptr};
    between.certificate = issue(peers.ours, between.key.get(), "between", nullptr, true);
    auto below = issue(between, peers.key.get(), "leaf", alice, false);
    CHECK(judge(below.get(), between.certificate.get()).fault == expected);
  }
  auto old = issue(peers.ours, peers.key.get(), "leaf", alice, false, kHour, EVP_sha1());
  CHECK(judge(old.get(), nullptr).fault == PeerFault::Unsuitable);
  Ca anchor;
  anchor.certificate = issue(anchor, anchor.key.get(), "old anchor", nullptr, true, kHour, EVP_sha1());
  peers.add_bundle("mesh.test", anchor);
  auto leaf = issue(anchor, peers.key.get(), "leaf", alice, false);
  CHECK(judge(leaf.get(), nullptr).good());
}

// Whatever bytes are changed in a chain, the change never gets a rejected peer accepted.
void spoilt_chains() {
  Peers peers;
  Ca between;
  between.certificate = issue(peers.ours, between.key.get(), "between", "URI:spiffe://mesh.test", true);
  auto leaf = issue(between, peers.key.get(), "leaf", "URI:spiffe://mesh.test/alice", false);
  CHECK(peers.trust.judge(chain_of({leaf.get(), between.certificate.get()}).get(), peers.identity).good());
  std::mt19937 random(5);
  int judged = 0;
  for (int i = 0; i < 20000; i++) {
    bool spoil_leaf = random() % 2 != 0;
    uint8_t *der = nullptr;
    int size = i2d_X509(spoil_leaf ? leaf.get() : between.certificate.get(), &der);
    CHECK(size > 0);
    std::vector<uint8_t> bytes(der, der + size);
    OPENSSL_free(der);
    size_t at = random() % bytes.size();
    bytes[at] ^= static_cast<uint8_t>(1 + random() % 255);
    const uint8_t *read = bytes.data();
    bssl::UniquePtr<X509> spoilt(d2i_X509(nullptr, &read, static_cast<long>(bytes.size())));
    ERR_clear_error();
    if (spoilt == nullptr) continue;
    judged++;
    auto chain =
        spoil_leaf ? chain_of({spoilt.get(), between.certificate.get()}) : chain_of({leaf.get(), spoilt.get()});
    PeerVerdict verdict = peers.trust.judge(chain.get(), peers.identity);
    CHECK(!verdict.good() && !verdict.reason.empty());
    CHECK(ERR_peek_error() == 0);
  }
  CHECK(judged > 1000);
}

}  // namespace tests
