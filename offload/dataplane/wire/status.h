/* gRPC status codes that this server gives (https://grpc.github.io/grpc/core/md_doc_statuscodes.html). */
#ifndef OFFLOAD_STATUS_H
#define OFFLOAD_STATUS_H

typedef enum rpc_status {
  RPC_OK = 0,
  RPC_CANCELLED = 1,
  RPC_INVALID_ARGUMENT = 3,
  RPC_DEADLINE_EXCEEDED = 4,
  RPC_NOT_FOUND = 5,
  RPC_PERMISSION_DENIED = 7,
  RPC_RESOURCE_EXHAUSTED = 8,
  RPC_UNIMPLEMENTED = 12,
  RPC_INTERNAL = 13,
  RPC_UNAVAILABLE = 14,
  RPC_STATUSES = 17,
} rpc_status;

/* "OK", "INVALID_ARGUMENT", ...; "UNKNOWN" for what is not listed. */
const char *rpc_status_name(rpc_status status);

#endif
