#include "deploy/weight_source.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "deploy/ordered_work.h"
#include "quant/grid.h"

namespace blockptq {
namespace {

/// Elements of one portion: a few MB of fp32, which stay in the cache.
constexpr int64_t kPortion = 512 << 10;

/// Rows of a portion, an even number.
int64_t portion_rows(int64_t cols) {
  return std::max<int64_t>(2, kPortion / std::max<int64_t>(cols, 1) / 2 * 2);
}

void take_all(const QTensor& q, const TakeRows& take) {
  const at::Tensor codes_OI = q.codes_OI.contiguous();
  const at::Tensor scales_O = q.scales_O.contiguous();
  take({codes_OI.const_data_ptr<int8_t>(), scales_O.const_data_ptr<float>(), codes_OI.size(0),
        codes_OI.size(1)});
}

}  // namespace

bool WeightSource::reads(const PlannedTensor& tensor) const {
  return tensor.source != nullptr;
}

bool WeightSource::rotated(const PlannedTensor& tensor) const {
  return rotation_ != nullptr && rotation_->changes(tensor.tensor.name);
}

bool WeightSource::transformed(const PlannedTensor& tensor) const {
  return rotated(tensor) || folded(tensor).defined();
}

void WeightSource::unfolded_values(const PlannedTensor& tensor, int64_t row_begin, int64_t row_end,
                                   float* out) const {
  checkpoint_.decode_rows(*tensor.source, row_begin, row_end, kernels::FloatType::f32, out);
  if (rotated(tensor)) {
    const at::Tensor rows =
        at::from_blob(out, {row_end - row_begin, tensor.source->row_size()}, at::kFloat);
    rows.copy_(rotation_->apply(tensor.tensor.name, rows));
  }
}

void WeightSource::values(const PlannedTensor& tensor, int64_t row_begin, int64_t row_end,
                          float* out) const {
  unfolded_values(tensor, row_begin, row_end, out);
  if (FoldedFactors factors = folded(tensor); factors.defined()) {
    const bool vector = tensor.tensor.shape.size() == 1;  // one row of all its elements
    const at::Tensor rows =
        vector ? at::from_blob(out, tensor.tensor.shape, at::kFloat)
               : at::from_blob(out, {row_end - row_begin, tensor.source->row_size()}, at::kFloat);
    if (factors.rows_O.defined() && !vector) {
      factors.rows_O = factors.rows_O.slice(0, row_begin, row_end);
    }
    rows.copy_(fold(rows, factors));
  }
}

NearestSource::NearestSource(const Checkpoint& checkpoint, const StreamRotation* rotation)
    : WeightSource(checkpoint, rotation),
      portions_(static_cast<size_t>(2 * at::get_num_threads())) {}

void NearestSource::codes(const PlannedTensor& tensor, const TakeRows& take) {
  const int64_t rows = tensor.tensor.shape[0];
  const int64_t cols = tensor.tensor.shape[1];
  const int bits = tensor.tensor.weight_bits;
  const int64_t portion = portion_rows(cols);
  produce_in_order(
      (rows + portion - 1) / portion, at::get_num_threads(), static_cast<int64_t>(portions_.size()),
      [&](int64_t item, int64_t slot) {
        const int64_t row = item * portion;
        const int64_t row_end = std::min(row + portion, rows);
        auto& [buffer, quantized] = portions_[slot];
        if (!buffer.defined() || buffer.numel() < portion * cols) {
          buffer = at::empty({portion * cols}, at::kFloat);
        }
        const at::Tensor w_OI = buffer.slice(0, 0, (row_end - row) * cols).view({-1, cols});
        values(tensor, row, row_end, w_OI.mutable_data_ptr<float>());
        quantized = quantize_weight(w_OI, bits, weight_scales(w_OI, bits));
      },
      [&](int64_t /*item*/, int64_t slot) { take_all(portions_[slot].quantized, take); });
}

void LearnedSource::codes(const PlannedTensor& tensor, const TakeRows& take) {
  at::Tensor w_OI = at::empty(tensor.tensor.shape, at::kFloat);
  const int64_t cols = w_OI.size(1);
  auto* out = w_OI.mutable_data_ptr<float>();
  const int64_t portion = portion_rows(cols);
  at::parallel_for(0, (w_OI.size(0) + portion - 1) / portion, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i * portion;
      unfolded_values(tensor, row, std::min(row + portion, w_OI.size(0)), out + row * cols);
    }
  });
  take_all(parameters_.quantize(tensor.tensor.block, tensor.tensor.name, {w_OI, folded(tensor)},
                                tensor.tensor.weight_bits),
           take);
}

FoldedFactors LearnedSource::folded(const PlannedTensor& tensor) const {
  return parameters_.folded(tensor.tensor.block, tensor.tensor.name, tensor.tensor.shape);
}

void DeployedSource::codes(const PlannedTensor& tensor, const TakeRows& take) {
  const StoredTensor& source = *tensor.source;
  const int64_t cols = source.row_size();
  const int64_t portion = portion_rows(cols);
  std::vector<int8_t> codes(static_cast<size_t>(std::min(portion, source.rows()) * cols));
  std::vector<float> scales(static_cast<size_t>(std::min(portion, source.rows())));
  for (int64_t row = 0; row < source.rows(); row += portion) {
    const int64_t end = std::min(row + portion, source.rows());
    checkpoint().decode_codes(source, row, end, codes.data(), scales.data());
    take({codes.data(), scales.data(), end - row, cols});
  }
}

}  // namespace blockptq
