// libFuzzer target: any bytes as model.safetensors.index.json. No accepted shard name may leave the
// folder.
#include <cstdlib>

#include "base/error.h"
#include "checkpoint/index.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer looks for this name.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    for (const auto& [name, shard] : blockptq::parse_index(text, "fuzz")) {
      const std::filesystem::path path(shard);
      if (path.has_parent_path() || path.filename() == ".." || shard.empty() ||
          shard.find('\0') != std::string::npos) {
        std::abort();
      }
    }
  } catch (const blockptq::Error&) {
    return 0;  // refused, as most inputs should be
  }
  return 0;
}
