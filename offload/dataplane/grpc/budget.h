/* The work that a connection may cause in its turn. */
#ifndef OFFLOAD_GRPC_BUDGET_H
#define OFFLOAD_GRPC_BUDGET_H

#include "offload/dataplane/grpc/connection.h"

enum {
  WORK_PER_TURN = 32 * 1024, /* of one connection, in the units of budget.c */
  OUTBOUND_MAX = 64,         /* frames that wait to be written before a connection is read from again */
};

void budget_spend(connection *it, uint32_t work);
bool budget_is_spent(const connection *it);
/* Watching or unwatching an identity costs what a refused operation does. */
enum { WORK_FRAME = 128, WORK_HEADER = 64, WORK_CANCEL = 64, WORK_OPERATION = 512, WORK_CALL = 2048 };

#endif
