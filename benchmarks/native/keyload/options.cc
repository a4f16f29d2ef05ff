#include "benchmarks/native/keyload/options.h"

#include <getopt.h>

#include <cstdio>
#include <cstdlib>

#include "benchmarks/native/argument.h"
#include "offload/dataplane/wire/wire.h"

namespace load {
namespace {

const char kHelp[] = R"(Usage: keyload --socket PATH (--certificate FILE | --key-id HEX --scheme NAME) [options]

Loads the offload daemon with signatures, as the Envoy module would ask for them: gRPC (offload.v1.PrivateKeyService)
over a Unix socket, on nghttp2, in one thread. Prints one JSON object: operations, failures by status, latency
percentiles, backends, batch sizes, and with --daemon-pid the daemon's CPU time per operation beside the kernel.

Which key (may be repeated; operations take the keys in turn)
  --certificate FILE   PEM certificate of the key; gives the key id and the scheme
  --key-id HEX         SHA-256 of the SubjectPublicKeyInfo, 64 hex digits; needs --scheme
  --scheme NAME        TLS SignatureScheme as a name of RFC 8446 or a number (0x0804); for the keys that follow
                       [rsa_pss_rsae_sha256, ecdsa_secp256r1_sha256, ecdsa_secp384r1_sha384, ed25519 by key]

Load (one of --count and --duration is required)
  --count N            stop after N operations
  --duration SECONDS   stop sending after this time
  --connections N      connections, one stream each                          [1]
  --in-flight N        operations in flight on each connection               [64]
  --batch N            operations in one message; a message goes when there is room for all of them   [8]
  --rate R             open loop: R operations per second over all connections, one per message. Latency counts from
                       the moment an operation was due
  --unary              the Sign call in place of the stream, one operation per call
  --input-size N       N random bytes in place of a TLS 1.3 CertificateVerify (the key's usage must allow it)
  --histogram          report the latency histogram too, not only its quantiles
  --warmup N           the first N results are not reported                  [0]

What is measured
  --check              verify each signature (needs --certificate; the time is the client's)
  --daemon-pid PID     the daemon's CPU time. "kernel" is what the results say of their batches (run_us), so
                       overhead is CPU per operation less kernel time per operation. run_us is wall time: on a machine
                       that is short of cores it is too large, and the overhead too small

Examples
  keyload --socket /run/offload/keys.sock --certificate www.pem --count 100000 --daemon-pid $(pidof offload)
  keyload --socket /run/offload/keys.sock --certificate www.pem --in-flight 1 --batch 1 --count 2000

Exit status: 0 when every operation succeeded, 1 when one did not, 2 for a usage error.
)";

enum LongOption {
  kSocket = 256,
  kCertificate,
  kKeyId,
  kScheme,
  kCount,
  kDuration,
  kConnections,
  kInFlight,
  kBatch,
  kRate,
  kUnary,
  kInputSize,
  kWarmup,
  kHistogram,
  kCheck,
  kDaemonPid,
  kHelpOption
};

const option kOptions[] = {
    {"socket", required_argument, nullptr, kSocket},
    {"certificate", required_argument, nullptr, kCertificate},
    {"key-id", required_argument, nullptr, kKeyId},
    {"scheme", required_argument, nullptr, kScheme},
    {"count", required_argument, nullptr, kCount},
    {"duration", required_argument, nullptr, kDuration},
    {"connections", required_argument, nullptr, kConnections},
    {"in-flight", required_argument, nullptr, kInFlight},
    {"batch", required_argument, nullptr, kBatch},
    {"rate", required_argument, nullptr, kRate},
    {"unary", no_argument, nullptr, kUnary},
    {"input-size", required_argument, nullptr, kInputSize},
    {"histogram", no_argument, nullptr, kHistogram},
    {"warmup", required_argument, nullptr, kWarmup},
    {"check", no_argument, nullptr, kCheck},
    {"daemon-pid", required_argument, nullptr, kDaemonPid},
    {"help", no_argument, nullptr, kHelpOption},
    {nullptr, 0, nullptr, 0},
};

void check(const Options &options) {
  if (options.socket.empty()) usage_error("--socket is missing: the daemon's Unix socket");
  if (options.keys.empty()) usage_error("no key: --certificate or --key-id is wanted");
  if (!options.count && !options.duration) usage_error("the load needs a bound: --count or --duration");
  if (options.batch > options.in_flight) usage_error("--batch is larger than --in-flight: no message could ever go");
  for (const LoadKey &key : options.keys)
    if (options.check && !key.public_key) usage_error("--check needs the public key: give --certificate, not --key-id");
}

}  // namespace

Options parse_options(int argc, char **argv) {
  Options options;
  uint16_t scheme = 0;
  int choice;
  while ((choice = getopt_long(argc, argv, "h", kOptions, nullptr)) != -1) {
    switch (choice) {
      case kSocket: options.socket = optarg; break;
      case kCertificate: options.keys.push_back(key_of_certificate(optarg, scheme)); break;
      case kKeyId: options.keys.push_back(key_of_id(optarg, scheme)); break;
      case kScheme: scheme = scheme_by_name(optarg); break;
      case kCount: options.count = whole_number("count", optarg, 1, 1'000'000'000); break;
      case kDuration: options.duration = Nanoseconds(real_number("duration", optarg, 0.001, 86400) * 1e9); break;
      case kConnections: options.connections = unsigned(whole_number("connections", optarg, 1, 10'000)); break;
      case kInFlight: options.in_flight = unsigned(whole_number("in-flight", optarg, 1, 65'536)); break;
      case kBatch: options.batch = unsigned(whole_number("batch", optarg, 1, WIRE_OPERATIONS_MAX)); break;
      case kRate: options.rate = real_number("rate", optarg, 0.01, 1e7); break;
      case kUnary: options.unary = true; break;
      case kInputSize: options.input_size = whole_number("input-size", optarg, 1, WIRE_INPUT_MAX); break;
      case kHistogram: options.histogram = true; break;
      case kWarmup: options.warmup = whole_number("warmup", optarg, 0, 1'000'000'000); break;
      case kCheck: options.check = true; break;
      case kDaemonPid: options.daemon = pid_t(whole_number("daemon-pid", optarg, 1, 1 << 30)); break;
      case kHelpOption:
      case 'h': fputs(kHelp, stdout); exit(0);
      default: usage_error("the options are wrong");
    }
  }
  if (optind < argc) usage_error(std::string("'") + argv[optind] + "' is not an option");
  if (options.unary || options.rate > 0) options.batch = 1;
  check(options);
  return options;
}

}  // namespace load
