/* Connections that are rejected or ended: each is told the reason in the debug data of a GOAWAY frame. The text names
 * the setting that decides.
 */
#include "offload/dataplane/grpc/farewell.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum { REASON_MAX = 200 };

static void write_reason(const front *front, refusal_reason reason, char text[REASON_MAX]) {
  const front_settings *settings = &front->settings;
  switch (reason) {
    case REFUSED_USER_CONNECTIONS:
      snprintf(text, REASON_MAX, "too many connections of this user (data_plane.max_connections_per_user: %u)",
               settings->max_connections_per_user);
      break;
    case REFUSED_STRANGER_CONNECTIONS:
      snprintf(text, REASON_MAX,
               "too many connections of callers without an identity "
               "(data_plane.max_connections_without_identity: %u), or they connect too often",
               settings->max_connections_without_identity);
      break;
    case REFUSED_USER_MEMORY:
      snprintf(text, REASON_MAX,
               "the memory limit of this user, or of all callers without an identity together, is reached "
               "(data_plane.user_memory_mib: %zu)",
               settings->user_memory >> 20);
      break;
    case REFUSED_FLOOD:
      snprintf(text, REASON_MAX, "too many frames without payload (PING, SETTINGS, empty DATA) or too many headers");
      break;
    default:
      snprintf(text, REASON_MAX, "too many connections to the daemon (data_plane.max_connections: %u)",
               settings->max_connections);
  }
}

/* Sends a GOAWAY frame in place of the SETTINGS that a server begins with. So gRPC clients see a failed connection and
 * report UNAVAILABLE at once; after SETTINGS they would consider it established, and retry until the deadline of the
 * call. The Envoy module shows the reason. The frame is sent once: a new connection's socket buffer is empty, and has
 * room for it. */
static void say(int descriptor, const char *reason) {
  enum { FRAME_HEADER = 9, FIXED = 8 };
  uint8_t frame[FRAME_HEADER + FIXED + REASON_MAX] = {0};
  size_t size = strlen(reason) < REASON_MAX ? strlen(reason) : REASON_MAX;
  frame[2] = (uint8_t)(FIXED + size);
  frame[3] = NGHTTP2_GOAWAY;
  frame[FRAME_HEADER + FIXED - 1] = NGHTTP2_ENHANCE_YOUR_CALM;
  memcpy(frame + FRAME_HEADER + FIXED, reason, size);
  ssize_t sent = send(descriptor, frame, FRAME_HEADER + FIXED + size, MSG_NOSIGNAL | MSG_DONTWAIT);
  (void)sent;
}

void farewell_refuse(front *front, int descriptor, refusal_reason reason, const caller *who) {
  char text[REASON_MAX];
  refusals_add(front->refusals, reason, who, NULL);
  write_reason(front, reason, text);
  say(descriptor, text);
}

void farewell_without_descriptors(int descriptor) {
  say(descriptor, "the daemon has no file descriptors left for connections (LimitNOFILE= in its unit, ulimit -n)");
}

void farewell_end(connection *it, refusal_reason reason) {
  if (it->ending) return; /* caused by input that the peer sent before it received the GOAWAY */
  char text[REASON_MAX];
  it->ending = true;
  it->paused_at = it->resumable = false;
  refusals_add(it->front->refusals, reason, &it->caller, NULL);
  write_reason(it->front, reason, text);
  int32_t last = nghttp2_session_get_last_proc_stream_id(it->session);
  nghttp2_submit_goaway(it->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_ENHANCE_YOUR_CALM, (const uint8_t *)text,
                        strlen(text));
  connection_mark_dirty(it);
}
