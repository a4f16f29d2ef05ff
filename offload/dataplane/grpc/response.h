/* Responses: headers, messages from the method, trailers. */
#ifndef OFFLOAD_GRPC_RESPONSE_H
#define OFFLOAD_GRPC_RESPONSE_H

#include "offload/dataplane/grpc/call.h"

void response_open(call *it);   /* headers, then data from the method */
void response_resume(call *it); /* there is more data, or the status is final */
void response_trailers_only(call *it);
void response_give_credit(call *it); /* returns the window that no answer has returned */
void response_free_partial(call *it);
size_t response_fill_partial(call *it, uint8_t *to, size_t room); /* copies from call->partial */
void response_http_status(call *it, const char *status);          /* for requests that are not gRPC: 405, 415 */

#endif
