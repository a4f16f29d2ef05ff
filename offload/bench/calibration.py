"""What cannot be measured without Envoy: CPU of stock Envoy's and the module's handshakes besides the signatures.

All values come from one run of benchmarks.handshake with AVX-512 IFMA (docs/performance: 2 cores of AMD EPYC, a virtual
machine, commit 43ad377, full run of 2026-11-28, one Envoy worker, 64 concurrent connections, TLS 1.3): microseconds per
handshake of the whole processes, at saturation. On another host they are scaled by the ratio of signing times. They
should be renewed after a full run on a quieter host.
"""

from __future__ import annotations

# Stock Envoy as the server with P-256, 209, less its signature, 12.
SERVER_REST_US = 197.0
# Both Envoys of an mTLS connection and the request that it carries, with P-256: 1090, less two signatures.
MTLS_REST_US = 1066.0
# X25519 on the vector units in place of BoringSSL's, for each Envoy with the module (docs/decisions/0041).
KEY_EXCHANGE_SAVED_US = 44.0
# What requests to the daemon cost the module beyond stock: P-256's 190 less the daemon's 17 and 3 for wakes (the worker
# was idle for a tenth of its time, and a wake served a batch of 4) is 170, and stock's rest less the key exchange 153.
# Between two Envoys each of which waits for the other: 1205 less 31 is 1174, stock's rest less two key exchanges 978.
SERVER_HANDOVER_US = 17.0
MTLS_HANDOVER_US = 98.0  # for each of the two
# With a single connection both ends sleep and are woken for each signature: 388 in place of stock's 268.
ALONE_US = 120.0
# The client's end of a handshake without verifying P-384: about the same as the server's. It only serves to tell who
# limits the throughput of a host; with P-384 the client does (docs/performance: 91% busy).
CLIENT_US = SERVER_REST_US

# Stock Envoy's BoringSSL is built with clang and faster with P-256 than ours: 12 us (an estimate from its samples,
# docs/decisions/0039) where ours takes 35.
STOCK_SIGNATURE_SHARE = {"p256": 12 / 35}
# Verifying the peers' chains and signatures, at both ends together, beyond P-256; in units of that key's signatures.
# P-384: stock's mTLS 3024 less two signatures of 507 and the rest above. RSA verifies as fast as P-256.
MTLS_VERIFICATIONS = {"p384": 1.86}

# Our software signatures on that host: the ratio to another host's scales everything else.
REFERENCE_SIGNATURE_US = {"rsa2048": 561.0, "p256": 35.0}
