/* offload.v1.PrivateKeyService: its methods, each in the file named after it, and the callbacks by which the front
 * serves it.
 */
#ifndef OFFLOAD_SERVICE_PRIVATE_KEY_SERVICE_H
#define OFFLOAD_SERVICE_PRIVATE_KEY_SERVICE_H

#include "offload/dataplane/grpc/call.h"

extern const front_service private_key_service;

extern const call_method method_sign, method_decrypt; /* method_unary.c */
extern const call_method method_stream, method_watch, method_watch_identities;

#endif
