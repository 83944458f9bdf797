// When a fused kernel may stand in for composed tensor operations: on the CPU, and where no
// gradient is wanted.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <cstddef>

namespace blockptq::nn {

inline bool can_fuse(const at::Tensor& x) {
  return x.is_cpu() && !x.requires_grad();
}

/// Splits [0, rows) over the threads in parts of at least `min_elements` elements of `row_size`
/// each.
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

}  // namespace blockptq::nn
