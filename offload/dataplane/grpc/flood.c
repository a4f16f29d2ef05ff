/* Frames that carry nothing but make us work: pings, settings, priorities, data frames that are empty or only padding.
 * A client may send CONTROL_BURST of them at once and CONTROL_RATE a second after that (a stock gRPC client probes its
 * bandwidth with a ping per read at most); beyond that, the connection is ended with GOAWAY(ENHANCE_YOUR_CALM), as gRPC
 * servers do. A frame that costs more than others counts as several.
 */
#include "offload/dataplane/grpc/flood.h"

#include "offload/dataplane/grpc/farewell.h"

enum { CONTROL_BURST = 2000, CONTROL_RATE = 500 };

void flood_control_frame(connection *it, uint32_t cost) {
  uint64_t now = it->front->now;
  uint64_t earned = (now - it->control_credited_at) * CONTROL_RATE / 1000000000u;
  if (earned > 0) {
    it->control_credit = it->control_credit + earned < CONTROL_BURST ? it->control_credit + earned : CONTROL_BURST;
    it->control_credited_at = now;
  }
  if (it->control_credit >= cost) {
    it->control_credit -= cost;
    return;
  }
  it->control_credit = 0;
  farewell_end(it, REFUSED_FLOOD);
}
