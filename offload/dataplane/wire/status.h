/* gRPC status codes (https://grpc.github.io/grpc/core/md_doc_statuscodes.html), for the daemon and its clients. */
#ifndef OFFLOAD_STATUS_H
#define OFFLOAD_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum rpc_status {
  RPC_OK,
  RPC_CANCELLED,
  RPC_UNKNOWN,
  RPC_INVALID_ARGUMENT,
  RPC_DEADLINE_EXCEEDED,
  RPC_NOT_FOUND,
  RPC_ALREADY_EXISTS,
  RPC_PERMISSION_DENIED,
  RPC_RESOURCE_EXHAUSTED,
  RPC_FAILED_PRECONDITION,
  RPC_ABORTED,
  RPC_OUT_OF_RANGE,
  RPC_UNIMPLEMENTED,
  RPC_INTERNAL,
  RPC_UNAVAILABLE,
  RPC_DATA_LOSS,
  RPC_UNAUTHENTICATED,
  RPC_STATUSES, /* how many there are */
} rpc_status;

/* "OK", "INVALID_ARGUMENT", ...; "no status" for any other number. */
const char *rpc_status_name(int status);

#ifdef __cplusplus
}
#endif
#endif
