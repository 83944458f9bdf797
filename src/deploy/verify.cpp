#include "deploy/verify.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "deploy/error_sum.h"

namespace blockptq {
namespace {

constexpr int64_t kPortion = 256 << 10;  ///< elements; stay in the cache

double relative_error(const StoredTensor& written, const PlannedTensor& planned,
                      const WeightSource& weights) {
  const int64_t cols = written.row_size();
  const int64_t portion = std::max<int64_t>(2, kPortion / std::max<int64_t>(cols, 1) / 2 * 2);
  std::vector<float> expected(static_cast<size_t>(std::min(portion, written.rows()) * cols));
  std::vector<float> found(expected.size());
  ErrorSum sum;
  for (int64_t row = 0; row < written.rows(); row += portion) {
    const int64_t end = std::min(row + portion, written.rows());
    weights.values(planned, row, end, expected.data());
    written.format->decode_rows(written, row, end, kernels::FloatType::f32, found.data());
    sum.add(expected, found, (end - row) * cols);
  }
  return sum.relative();
}

bool same_bytes(const RawTensor& a, const RawTensor& b) {
  constexpr int64_t kBytes = 4 << 20;
  for (int64_t begin = 0; begin < a.info->nbytes; begin += kBytes) {
    const int64_t end = std::min(begin + kBytes, a.info->nbytes);
    const TensorBytes left = a.file->read(*a.info, begin, end);
    const TensorBytes right = b.file->read(*b.info, begin, end);
    if (std::memcmp(left.data(), right.data(), static_cast<size_t>(left.size())) != 0) {
      return false;
    }
  }
  return true;
}

}  // namespace

RelativeErrors verify_shard(const std::filesystem::path& path, const OutputPlan& plan,
                            const PlannedShard& shard, const Checkpoint& source,
                            const WeightSource& weights, const Json& quantization_config) {
  // Half a step of BF16, which unquantized tensors of quantized sources are rounded to.
  constexpr double kRounding = 1.0 / 256;
  std::vector<std::unique_ptr<SafetensorsFile>> files;
  files.push_back(std::make_unique<SafetensorsFile>(path));
  std::optional<JsonView> config;
  if (!quantization_config.is_null()) {
    config.emplace(quantization_config, path.string());
  }
  const std::vector<StoredTensor> found = recognise(files, config);
  std::unordered_map<std::string_view, const StoredTensor*> by_name;
  for (const StoredTensor& tensor : found) {
    by_name.emplace(tensor.name, &tensor);
  }
  RelativeErrors errors;
  for (size_t i = shard.begin; i < shard.end; ++i) {
    const PlannedTensor& planned = plan.tensors[i];
    if (planned.source == nullptr) {
      continue;
    }
    const auto written = by_name.find(planned.tensor.name);
    check(written != by_name.end() && written->second->shape == planned.tensor.shape,
          "{}: {}: expected shape {}, found {}", path.string(), planned.tensor.name,
          shape_text(planned.tensor.shape),
          written == by_name.end() ? "nothing" : shape_text(written->second->shape));
    if (planned.copied() && !weights.transformed(planned)) {
      check(same_bytes(planned.source->parts[0], written->second->parts[0]),
            "{}: differs from its source {}", written->second->where(), source.path().string());
      continue;
    }
    const double error = relative_error(*written->second, planned, weights);
    const bool exact = planned.tensor.quantized() && weights.exact();
    check(exact ? error == 0 : error < (planned.tensor.quantized() ? 1.0 : kRounding),
          "{}: relative error {} against its source {}", written->second->where(), error,
          source.path().string());
    if (planned.tensor.quantized() && !exact) {
      errors[planned.tensor.name] = error;
    }
  }
  return errors;
}

}  // namespace blockptq
