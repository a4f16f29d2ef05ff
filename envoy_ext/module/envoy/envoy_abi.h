// Is the Envoy that loads us one that this module was tested with?
//
// There is no call for Envoy's version, and the ABI's version string does not change with every change of the ABI. The
// set of callbacks that the executable exports can be determined for certain, and so far differs in each release.
#ifndef TLS_OFFLOAD_ENVOY_ABI_H
#define TLS_OFFLOAD_ENVOY_ABI_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tls_offload {

inline constexpr const char *kAbiVersion = "v0.2.0";
inline constexpr const char *kTestedEnvoy = "1.40.0";

struct CallbackSet {
  size_t count = 0;
  uint64_t digest = 0;  // of the names, in any order
};

// The callbacks exported by the running executable.
CallbackSet exported_callbacks();

// Names of the functions that this module calls and neither Envoy nor the module's own libraries define. The module is
// bound lazily, so that it can be loaded to report this; the first call of such a function would end Envoy.
std::vector<std::string> missing_symbols();
std::string missing_reason(const std::vector<std::string> &missing);

// False, with the remedy in `reason`, when this Envoy is not the tested one. TLS_OFFLOAD_UNTESTED_ENVOY=1 in the
// environment lets others pass. It does not help when symbols are missing: that is checked before.
bool envoy_is_tested(std::string &reason);

}  // namespace tls_offload

#endif
