// Rows of a tensor's memory over ATen's threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace blockptq {

/// Splits [0, rows), rows of `row_size` elements, over the threads; a part is worth a thread.
template <typename Body>
void parallel_rows(int64_t rows, int64_t row_size, const Body& body) {
  constexpr int64_t kMinElements = 32768;
  at::parallel_for(0, rows, std::max<int64_t>(1, kMinElements / std::max<int64_t>(row_size, 1)),
                   body);
}

/// Address of element `index` of a buffer of `element_bytes` each.
inline const std::byte* at_element(const void* buffer, int64_t index, int64_t element_bytes) {
  return static_cast<const std::byte*>(buffer) + index * element_bytes;
}
inline std::byte* at_element(void* buffer, int64_t index, int64_t element_bytes) {
  return static_cast<std::byte*>(buffer) + index * element_bytes;
}

}  // namespace blockptq
