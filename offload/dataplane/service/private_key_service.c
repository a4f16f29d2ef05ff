#include "offload/dataplane/service/private_key_service.h"

#include <string.h>

#include "offload/dataplane/service/completion.h"
#include "offload/dataplane/service/submission.h"

static const call_method *find(const uint8_t *path, size_t size) {
  static const call_method *const methods[] = {&method_stream, &method_sign, &method_watch_identities, &method_watch,
                                               &method_decrypt};
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
    if (strlen(methods[i]->path) == size && memcmp(methods[i]->path, path, size) == 0) return methods[i];
  }
  return NULL;
}

const front_service private_key_service = {.find = find, .submit_all = submission_of_turn, .done = completion_of};
