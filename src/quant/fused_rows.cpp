#include "quant/fused_rows.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "kernels/quantize_rows.h"
#include "kernels/row_range.h"
#include "quant/qtensor.h"
#include "tensor/float_type.h"
#include "tensor/parallel.h"

namespace blockptq::fused {
namespace {

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
void* row_of(const at::Tensor& matrix, int64_t index, int64_t cols) {
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

float scale_of(float absmax, float factor, int bits) {
  const float scale = absmax * factor / static_cast<float>(q_max(bits));
  return scale == 0 ? 1 : scale;
}

/// The scales of a chunk of rows.
void find_scales(const Rows& x, const Factors& factors, int bits, int64_t row,
                 const kernels::RowGroups& shape, float* scales) {
  kernels::group_absmax(x.row(row), x.type, shape, scales);
  for (int64_t i = 0; i < shape.rows * x.groups; ++i) {
    scales[i] = scale_of(scales[i], factors[row + i / x.groups], bits);
  }
}

}  // namespace

at::Tensor absmax_scales(const at::Tensor& w_OI, int bits, const at::Tensor& factor) {
  const Rows w(w_OI, 0);
  const Factors factors(factor, w.shape.rows);
  at::Tensor scales_O = at::empty({w.shape.rows}, at::kFloat);
  auto* scales = scales_O.mutable_data_ptr<float>();
  for_each_chunk(w, [&](int64_t row, const kernels::RowGroups& shape) {
    find_scales(w, factors, bits, row, shape, scales + row);
  });
  return scales_O;
}

at::Tensor codes(const at::Tensor& w_OI, int bits, const at::Tensor& scales_O) {
  const Rows w(w_OI, 0);
  const at::Tensor dense_scales_O = scales_O.contiguous();
  const auto* scales = dense_scales_O.const_data_ptr<float>();
  at::Tensor codes_OI = at::empty(w_OI.sizes(), at::kChar);
  auto* out = codes_OI.mutable_data_ptr<int8_t>();
  for_each_chunk(w, [&](int64_t row, const kernels::RowGroups& shape) {
    kernels::quantize_rows(w.row(row), w.type, shape, bits, scales + row, out + row * shape.cols);
  });
  return codes_OI;
}

QActivation quantize(const at::Tensor& x, int bits, int64_t group, const at::Tensor& factor) {
  const Rows rows(x, group);
  const Factors factors(factor, rows.shape.rows);
  std::vector<int64_t> scale_sizes = x.sizes().vec();
  scale_sizes.back() = rows.groups;
  QActivation out{at::empty(x.sizes(), at::kChar), at::empty(scale_sizes, at::kFloat)};
  auto* codes = out.codes.mutable_data_ptr<int8_t>();
  auto* all_scales = out.scales.mutable_data_ptr<float>();
  for_each_chunk(rows, [&](int64_t row, const kernels::RowGroups& shape) {
    float* scales = all_scales + row * rows.groups;
    find_scales(rows, factors, bits, row, shape, scales);
    kernels::quantize_rows(rows.row(row), rows.type, shape, bits, scales, codes + row * shape.cols);
  });
  return out;
}

at::Tensor fake_quantize(const at::Tensor& x, int bits, int64_t group, const at::Tensor& factor,
                         at::ScalarType type) {
  const Rows rows(x, group);
  const Factors factors(factor, rows.shape.rows);
  at::Tensor out = at::empty(x.sizes(), type);
  for_each_chunk(rows, [&](int64_t row, const kernels::RowGroups& shape) {
    std::vector<float> scales(static_cast<size_t>(shape.rows * rows.groups));
    find_scales(rows, factors, bits, row, shape, scales.data());
    kernels::fake_quantize_rows(rows.row(row), rows.type, shape, bits, scales.data(), {},
                                float_type(type), row_of(out, row, shape.cols));
  });
  return out;
}

}  // namespace blockptq::fused
