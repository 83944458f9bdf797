// libFuzzer target: any bytes as a safetensors file. A header that is accepted must describe the
// file exactly.
#include <cstdlib>

#include "base/error.h"
#include "checkpoint/safetensors.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer looks for this name.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto file_size = static_cast<int64_t>(size);
    const blockptq::SafetensorsHeader header =
        blockptq::parse_safetensors_header({data, size}, file_size, "fuzz");
    int64_t end = header.nbytes;
    for (const blockptq::TensorInfo& tensor : header.tensors) {
      if (tensor.offset != end || tensor.nbytes < 0) {
        std::abort();
      }
      end += tensor.nbytes;
    }
    if (end != file_size) {
      std::abort();
    }
  } catch (const blockptq::Error&) {
    return 0;  // refused, as most inputs should be
  }
  return 0;
}
