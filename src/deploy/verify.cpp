#include "deploy/verify.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "deploy/error_sum.h"
#include "deploy/ordered_work.h"

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

/// What was found of one tensor.
struct Written {
  const PlannedTensor* planned;
  const StoredTensor* tensor;
};

/// The relative error of a quantized weight against its source; nothing for what must be, and is,
/// the same.
std::optional<double> verify_tensor(const Written& written, const Checkpoint& source,
                                    const WeightSource& weights) {
  // Half a step of BF16, which unquantized tensors of quantized sources are rounded to.
  constexpr double kRounding = 1.0 / 256;
  const PlannedTensor& planned = *written.planned;
  if (planned.copied() && !weights.transformed(planned)) {
    check(same_bytes(planned.source->parts[0], written.tensor->parts[0]),
          "{}: differs from its source {}", written.tensor->where(), source.path().string());
    return std::nullopt;
  }
  const double error = relative_error(*written.tensor, planned, weights);
  const bool quantized = planned.tensor.quantized();
  const bool exact = quantized && weights.exact();
  check(exact ? error == 0 : error < (quantized ? 1.0 : kRounding),
        "{}: relative error {} against its source {}", written.tensor->where(), error,
        source.path().string());
  return quantized && !exact ? std::optional(error) : std::nullopt;
}

/// The tensors of a shard that come from the source, as they are found in `stored`.
std::vector<Written> find_written(const std::vector<StoredTensor>& stored,
                                  const std::filesystem::path& path, const OutputPlan& plan,
                                  const PlannedShard& shard) {
  std::unordered_map<std::string_view, const StoredTensor*> by_name;
  for (const StoredTensor& tensor : stored) {
    by_name.emplace(tensor.name, &tensor);
  }
  std::vector<Written> all;
  for (size_t i = shard.begin; i < shard.end; ++i) {
    const PlannedTensor& planned = plan.tensors[i];
    if (planned.source == nullptr) {
      continue;
    }
    const auto found = by_name.find(planned.tensor.name);
    check(found != by_name.end() && found->second->shape == planned.tensor.shape,
          "{}: {}: expected shape {}, found {}", path.string(), planned.tensor.name,
          shape_text(planned.tensor.shape),
          found == by_name.end() ? "nothing" : shape_text(found->second->shape));
    all.push_back({&planned, found->second});
  }
  return all;
}

}  // namespace

RelativeErrors verify_shard(const std::filesystem::path& path, const OutputPlan& plan,
                            const PlannedShard& shard, const Checkpoint& source,
                            const WeightSource& weights, const Json& quantization_config) {
  std::vector<std::unique_ptr<SafetensorsFile>> files;
  files.push_back(std::make_unique<SafetensorsFile>(path, SafetensorsFile::Reading::direct));
  std::optional<JsonView> config;
  if (!quantization_config.is_null()) {
    config.emplace(quantization_config, path.string());
  }
  const std::vector<StoredTensor> stored = recognise(files, config);
  const std::vector<Written> written = find_written(stored, path, plan, shard);
  const auto prefetch = [&](size_t index) {
    if (index < written.size() && weights.reads(*written[index].planned)) {
      source.prefetch(*written[index].planned->source);
    }
  };
  const int threads = 2 * at::get_num_threads();  // half of them wait for the disk
  std::vector<std::optional<double>> found(static_cast<size_t>(threads));
  RelativeErrors errors;
  produce_in_order(
      static_cast<int64_t>(written.size()), threads, threads,
      [&](int64_t item, int64_t slot) {
        prefetch(static_cast<size_t>(item + threads));
        found[slot] = verify_tensor(written[item], source, weights);
      },
      [&](int64_t item, int64_t slot) {
        if (found[slot]) {
          errors[written[item].planned->tensor.name] = *found[slot];
        }
      });
  return errors;
}

}  // namespace blockptq
