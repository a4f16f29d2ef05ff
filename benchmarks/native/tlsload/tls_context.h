// The client-side TLS configuration, one SSL_CTX per thread.
#pragma once

#include <openssl/ssl.h>

#include <string>

#include "benchmarks/native/tlsload/options.h"

namespace load {

// Ends the program with status 2 and the reason when a file or a list is not usable.
bssl::UniquePtr<SSL_CTX> make_context(const Options &options);

// A connection's handshake state for the socket `fd`.
bssl::UniquePtr<SSL> make_connection(SSL_CTX *context, const Options &options, int fd);

// Returns why the last call on this thread failed: "TLS alert from the server: handshake failure", or BoringSSL's
// reason. Empties the thread's error queue.
std::string take_tls_error();

}  // namespace load
