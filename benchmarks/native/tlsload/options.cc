#include "benchmarks/native/tlsload/options.h"

#include <getopt.h>
#include <netdb.h>
#include <openssl/ssl.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "benchmarks/native/argument.h"

namespace load {
namespace {

const char kHelp[] = R"(Usage: tlsload [options] HOST:PORT [HOST:PORT ...]

Makes full TLS handshakes against one or more addresses (round robin), each on a new TCP connection, and prints one
JSON object: handshakes, failures by reason, latency percentiles, and the generator's own CPU time.

Load (one of --count and --duration is required)
  --count N            stop after N connections
  --duration SECONDS   stop starting connections after this time; those in flight finish
  --concurrency N      closed loop: connections open at once, a new one starts when one ends    [16]
                       open loop: the most that may be open at once; later arrivals wait, and their waiting counts
  --rate R             open loop: R connections start per second, whether or not earlier ones have ended. Latency
                       counts from the moment a connection was due, so a server that stalls cannot hide it
                       (no coordinated omission)
  --poisson            with --rate: exponentially distributed gaps in place of equal ones
  --threads N          event loops; concurrency and rate are divided among them                 [1]
  --histogram          report the latency histograms too, not only their quantiles
  --warmup N           make N connections first that are not reported                           [0]
  --timeout SECONDS    of one connection, from connect to close                                 [10]

What one connection does after the handshake
  (default)            closes properly: close_notify, then waits for the server's end
  --get PATH           one HTTP/1.1 GET; any status but 200 is a failure
  --plaintext          no TLS here: with --get, of a proxy that makes a TLS connection for each request. A response
                       counts as a handshake, and its latency as the handshake's
  --resume             offers the session of an earlier connection to that target; a handshake that the server does not
                       resume is counted as a failure ("session not resumed"). The connection that gets the first
                       session of a target is not reported, and the others wait for it
  --abort              drop the connection at a random moment instead, half by FIN and half by RST
  --abort-within MS    the latest moment for --abort, from connect                              [3]
  --seed N             of the random choices                                                    [1]

TLS
  --tls 1.2|1.3        this version only                                                        [both]
  --groups LIST        key exchange groups, e.g. X25519:P-256                                   [BoringSSL's]
  --ciphers LIST       TLS 1.2 cipher suites, OpenSSL's names
  --sigalgs LIST       accepted signatures, e.g. rsa_pss_rsae_sha256:ecdsa_secp256r1_sha256; chooses the
                       certificate of a server that has several
  --alpn LIST          e.g. h2,http/1.1                                                         [none]
  --sni NAME           server name                                                              [none]
  --ca FILE            verify the server's chain against these PEM certificates, and its name if --sni is given
  --cert FILE --key FILE  client certificate chain and key, PEM

Examples
  tlsload --count 2000 --concurrency 50 --tls 1.3 127.0.0.1:8443
  tlsload --rate 500 --duration 10 --get / --alpn http/1.1 127.0.0.1:8443
  tlsload --count 1000 --abort 127.0.0.1:8443

Exit status: 0 when there was no failure, 1 when there was one, 2 for a usage error.
)";

enum LongOption {
  kCount = 256,
  kDuration,
  kConcurrency,
  kRate,
  kPoisson,
  kThreads,
  kWarmup,
  kTimeout,
  kHistogram,
  kGet,
  kPlaintext,
  kResume,
  kAbort,
  kAbortWithin,
  kSeed,
  kTls,
  kGroups,
  kCiphers,
  kSigalgs,
  kAlpn,
  kSni,
  kCa,
  kCert,
  kKey,
  kHelpOption
};

const option kOptions[] = {
    {"count", required_argument, nullptr, kCount},
    {"duration", required_argument, nullptr, kDuration},
    {"concurrency", required_argument, nullptr, kConcurrency},
    {"rate", required_argument, nullptr, kRate},
    {"poisson", no_argument, nullptr, kPoisson},
    {"threads", required_argument, nullptr, kThreads},
    {"warmup", required_argument, nullptr, kWarmup},
    {"histogram", no_argument, nullptr, kHistogram},
    {"timeout", required_argument, nullptr, kTimeout},
    {"get", required_argument, nullptr, kGet},
    {"plaintext", no_argument, nullptr, kPlaintext},
    {"resume", no_argument, nullptr, kResume},
    {"abort", no_argument, nullptr, kAbort},
    {"abort-within", required_argument, nullptr, kAbortWithin},
    {"seed", required_argument, nullptr, kSeed},
    {"tls", required_argument, nullptr, kTls},
    {"groups", required_argument, nullptr, kGroups},
    {"ciphers", required_argument, nullptr, kCiphers},
    {"sigalgs", required_argument, nullptr, kSigalgs},
    {"alpn", required_argument, nullptr, kAlpn},
    {"sni", required_argument, nullptr, kSni},
    {"ca", required_argument, nullptr, kCa},
    {"cert", required_argument, nullptr, kCert},
    {"key", required_argument, nullptr, kKey},
    {"help", no_argument, nullptr, kHelpOption},
    {nullptr, 0, nullptr, 0},
};

Nanoseconds seconds(const char *option, const char *text) {
  return Nanoseconds(real_number(option, text, 0.001, 86400) * 1e9);
}

uint16_t version(const std::string &text) {
  if (text == "1.2") return TLS1_2_VERSION;
  if (text == "1.3") return TLS1_3_VERSION;
  usage_error("--tls is '" + text + "', wanted is 1.2 or 1.3");
}

std::string alpn_wire_form(const std::string &list) {
  std::string wire;
  for (const std::string &name : split(list, ',')) {
    if (name.empty() || name.size() > 255) usage_error("--alpn '" + list + "': a name has 1 to 255 characters");
    wire += char(name.size());
    wire += name;
  }
  return wire;
}

std::vector<uint16_t> signature_algorithms(const std::string &list) {
  static const uint16_t known[] = {0x0401, 0x0501, 0x0601, 0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0807};
  std::vector<uint16_t> chosen;
  for (const std::string &name : split(list, ':')) {
    size_t before = chosen.size();
    for (uint16_t candidate : known)
      if (const char *its = SSL_get_signature_algorithm_name(candidate, 1); its && name == its)
        chosen.push_back(candidate);
    if (chosen.size() == before) usage_error("--sigalgs: '" + name + "' is not a name of RFC 8446, 4.2.3 known here");
  }
  return chosen;
}

Target resolve(const std::string &name) {
  size_t colon = name.rfind(':');
  if (colon == std::string::npos || colon + 1 == name.size())
    usage_error("target '" + name + "' has no port: HOST:PORT is wanted");
  std::string host = name.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  int status = getaddrinfo(host.c_str(), name.c_str() + colon + 1, &hints, &found);
  if (status) usage_error("target '" + name + "': " + gai_strerror(status));
  Target target;
  target.name = name;
  target.address_size = found->ai_addrlen;
  memcpy(&target.address, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  return target;
}

void check(const Options &options) {
  if (options.targets.empty()) usage_error("no target: HOST:PORT is wanted");
  if (!options.count && !options.duration) usage_error("the load needs a bound: --count or --duration");
  if (options.certificate.empty() != options.key.empty()) usage_error("--cert and --key belong together");
  if (options.poisson && options.rate == 0) usage_error("--poisson needs --rate");
  if (options.abort && (options.resume || !options.get.empty()))
    usage_error("--abort excludes --resume and --get: an aborted connection gets to neither");
  if (options.plaintext &&
      (options.get.empty() || options.resume || options.max_version || !options.certificate.empty()))
    usage_error("--plaintext needs --get, and excludes --resume, --tls and --cert: there is no TLS");
  if (options.concurrency < options.threads) usage_error("--concurrency must be at least --threads");
}

}  // namespace

Options parse_options(int argc, char **argv) {
  Options options;
  int choice;
  while ((choice = getopt_long(argc, argv, "h", kOptions, nullptr)) != -1) {
    switch (choice) {
      case kCount: options.count = whole_number("count", optarg, 1, 1'000'000'000); break;
      case kDuration: options.duration = seconds("duration", optarg); break;
      case kConcurrency: options.concurrency = unsigned(whole_number("concurrency", optarg, 1, 20'000)); break;
      case kRate: options.rate = real_number("rate", optarg, 0.01, 1e6); break;
      case kPoisson: options.poisson = true; break;
      case kThreads: options.threads = unsigned(whole_number("threads", optarg, 1, 256)); break;
      case kWarmup: options.warmup = whole_number("warmup", optarg, 0, 1'000'000); break;
      case kHistogram: options.histogram = true; break;
      case kTimeout: options.timeout = seconds("timeout", optarg); break;
      case kGet: options.get = optarg; break;
      case kPlaintext: options.plaintext = true; break;
      case kResume: options.resume = true; break;
      case kAbort: options.abort = true; break;
      case kAbortWithin:
        options.abort_within = Nanoseconds(real_number("abort-within", optarg, 0, 60'000) * 1e6);
        break;
      case kSeed: options.seed = whole_number("seed", optarg, 0, UINT64_MAX); break;
      case kTls: options.min_version = options.max_version = version(optarg); break;
      case kGroups: options.groups = optarg; break;
      case kCiphers: options.ciphers = optarg; break;
      case kSigalgs: options.verify_algorithms = signature_algorithms(optarg); break;
      case kAlpn: options.alpn = alpn_wire_form(optarg); break;
      case kSni: options.sni = optarg; break;
      case kCa: options.ca = optarg; break;
      case kCert: options.certificate = optarg; break;
      case kKey: options.key = optarg; break;
      case kHelpOption:
      case 'h': fputs(kHelp, stdout); exit(0);
      default: usage_error("the options are wrong");
    }
  }
  for (int index = optind; index < argc; index++) options.targets.push_back(resolve(argv[index]));
  check(options);
  return options;
}

}  // namespace load
