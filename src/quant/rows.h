// A tensor as the rows of a matrix that the kernels of quantization read, chunk by chunk.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "kernels/row_groups.h"
#include "tensor/float_type.h"
#include "tensor/parallel.h"

namespace blockptq::fused {

/// A tensor as the rows of a matrix, in a type that kernels read.
struct Rows {
  at::Tensor tensor;  ///< contiguous
  kernels::FloatType type;
  kernels::RowGroups shape;
  int64_t groups;  ///< of a row

  Rows(const at::Tensor& x, int64_t group)
      : tensor(readable(x).contiguous()), type(float_type(tensor.scalar_type())) {
    BPTQ_ASSERT(x.dim() > 0 && x.size(-1) > 0 && group >= 0);
    const int64_t cols = x.size(-1);
    shape = {.rows = x.numel() / cols, .cols = cols, .group = group == 0 ? cols : group};
    groups = (cols + shape.group - 1) / shape.group;
  }

  static at::Tensor readable(const at::Tensor& x) {
    const bool known = x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf;
    return known ? x : x.to(at::kFloat);
  }
  const void* row(int64_t index) const {
    return at_element(tensor.const_data_ptr(), index * shape.cols, kernels::element_size(type));
  }
};

/// Row `index` of a contiguous tensor of `cols` columns.
inline void* row_of(const at::Tensor& matrix, int64_t index, int64_t cols) {
  return at_element(matrix.mutable_data_ptr(), index * cols,
                    static_cast<int64_t>(matrix.element_size()));
}

/// Calls body(first row, shape) for chunks of rows that fit the first-level cache, on all threads.
template <typename Body>
void for_each_chunk(const Rows& x, const Body& body) {
  constexpr int64_t kChunkElements = 4096;
  const int64_t chunk = std::max<int64_t>(1, kChunkElements / x.shape.cols);
  parallel_rows(x.shape.rows, x.shape.cols, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += chunk) {
      kernels::RowGroups shape = x.shape;
      shape.rows = std::min(chunk, end - row);
      body(row, shape);
    }
  });
}

/// One factor for all rows, or one per row.
class Factors {
 public:
  Factors(const at::Tensor& factor, int64_t rows)
      : values_(factor.detach().to(at::kFloat).contiguous()), step_(values_.numel() == 1 ? 0 : 1) {
    BPTQ_ASSERT(values_.numel() == 1 || values_.numel() == rows);
  }
  float operator[](int64_t row) const { return values_.const_data_ptr<float>()[step_ * row]; }

 private:
  at::Tensor values_;
  int64_t step_;
};

}  // namespace blockptq::fused
