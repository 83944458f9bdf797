#include "deploy/checkpoint_writer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/size.h"
#include "base/system.h"
#include "checkpoint/index.h"
#include "deploy/error_sum.h"
#include "deploy/shard_stream.h"
#include "kernels/convert.h"

namespace blockptq {
namespace {

constexpr int64_t kCopyBytes = 8 << 20;

void copy_bytes(const StoredTensor& source, const Append& append) {
  const RawTensor& part = source.parts.front();
  for (int64_t begin = 0; begin < part.info->nbytes; begin += kCopyBytes) {
    const TensorBytes bytes =
        part.file->read(*part.info, begin, std::min(begin + kCopyBytes, part.info->nbytes));
    append(bytes.data(), static_cast<size_t>(bytes.size()));
  }
}

/// The tensor's values, rounded to the type that is written. Returns the relative error of that.
double write_values(const PlannedTensor& tensor, const WeightSource& weights,
                    const Append& append) {
  const auto type = float_type(tensor.specs.front().dtype);
  BPTQ_ASSERT(type.has_value());
  const int64_t cols = std::max<int64_t>(tensor.source->row_size(), 1);
  const int64_t portion = std::max<int64_t>(1, kCopyBytes / 4 / cols);
  std::vector<float> values;
  std::vector<float> rounded;
  std::vector<uint8_t> bytes;
  ErrorSum error;
  for (int64_t row = 0; row < tensor.source->rows(); row += portion) {
    const int64_t end = std::min(row + portion, tensor.source->rows());
    values.resize(static_cast<size_t>((end - row) * cols));
    bytes.resize(values.size() * static_cast<size_t>(kernels::element_size(*type)));
    weights.values(tensor, row, end, values.data());
    const auto count = static_cast<int64_t>(values.size());
    kernels::convert(values.data(), kernels::FloatType::f32, count, *type, bytes.data());
    append(bytes.data(), bytes.size());
    rounded.resize(values.size());
    kernels::convert(bytes.data(), *type, count, kernels::FloatType::f32, rounded.data());
    error.add(values, rounded, count);
  }
  return error.relative();
}

/// What identifies the run: another one must not continue it.
Json run_json(const Checkpoint& source, const OutputPlan& plan, const Recipe& recipe,
              const WriterOptions& options) {
  Json run = options.run;
  if (!run.contains("source")) {
    run["source"] = source.fingerprint();
  }
  run["recipe"] = recipe.json();
  run["format"] = plan.format->name();
  run["shards"] = plan.shards.size();
  run["tensor_bytes"] = plan.tensor_bytes;
  return run;
}

std::string scheme_name(const PlannedTensor& tensor) {
  if (!tensor.tensor.quantized()) {
    return std::string(dtype_name(tensor.specs.front().dtype));
  }
  return fmt::format("w{}a{}", tensor.tensor.weight_bits, tensor.tensor.activation_bits);
}

}  // namespace

/// A shard whose bytes are all handed over.
struct CheckpointWriter::Pending {
  const PlannedShard* shard;
  RelativeErrors rounded;                                      ///< of what a transform changed
  std::future<std::pair<std::string, RelativeErrors>> result;  ///< hash and errors
};

CheckpointWriter::CheckpointWriter(const Checkpoint& source, const OutputPlan& plan,
                                   const Recipe& recipe, const std::filesystem::path& folder,
                                   WriterOptions options)
    : source_(source),
      plan_(plan),
      options_(std::move(options)),
      quantization_config_(plan.format->quantization_config(plan.scheme)),
      folder_((check(!std::filesystem::exists(folder) ||
                         !std::filesystem::equivalent(folder, source.path()),
                     "{}: the output folder is the source", folder.string()),
               check_small_files(source.path()), folder),
              run_json(source, plan, recipe, options_), options_.restart) {
  for (const PlannedShard& shard : plan_.shards) {
    if (const Json* finished = folder_.finished(shard.name)) {
      bytes_done_ += shard.nbytes;
      for (const auto& [name, error] : finished->at("errors").items()) {
        errors_[name] = error.get<double>();
      }
    }
  }
  if (!complete()) {
    check_space();
  }
}

CheckpointWriter::~CheckpointWriter() {
  try {
    flush();
  } catch (...) {  // the error that ended the run is on its way already; the shard is done again
  }
}

void CheckpointWriter::check_space() const {
  constexpr int64_t kSmallFiles = 64 << 20;
  const int64_t needed = plan_.file_bytes - bytes_done_ + kSmallFiles;
  const int64_t available = free_bytes(folder_.path());
  check(available >= needed, "{}: no space: {} are needed, {} are free", folder_.path().string(),
        format_bytes(needed), format_bytes(available));
}

bool CheckpointWriter::has(const std::string& part) const {
  return std::ranges::all_of(plan_.shards, [&](const PlannedShard& shard) {
    return shard.part != part || folder_.finished(shard.name) != nullptr;
  });
}

void CheckpointWriter::write(const std::string& part,
                             const std::shared_ptr<WeightSource>& weights) {
  for (const PlannedShard& shard : plan_.shards) {
    if (shard.part == part && folder_.finished(shard.name) == nullptr) {
      write_shard(shard, weights);
    }
  }
}

void CheckpointWriter::write_tensor(const PlannedTensor& tensor, WeightSource& weights,
                                    const Append& append, RelativeErrors& rounded) const {
  if (tensor.source == nullptr) {
    append(tensor.constant.data(), tensor.constant.size());
  } else if (tensor.tensor.quantized()) {
    const auto encoder = plan_.format->encoder(tensor.tensor);
    weights.codes(tensor, [&](const CodeRows& rows) { encoder->add(rows, append); });
    encoder->finish(append);
  } else if (tensor.copied() && !weights.transformed(tensor)) {
    copy_bytes(*tensor.source, append);
  } else if (const double error = write_values(tensor, weights, append);
             error > 0 && weights.transformed(tensor)) {
    rounded[tensor.tensor.name] = error;
  }
}

void CheckpointWriter::write_shard(const PlannedShard& shard,
                                   const std::shared_ptr<WeightSource>& weights) {
  const std::filesystem::path path = folder_.path() / shard.name;
  auto stream = std::make_shared<ShardStream>(path, plan_.specs(shard), shard_metadata());
  const auto append = [&](const void* data, size_t size) { stream->append(data, size); };
  RelativeErrors rounded;
  for (size_t i = shard.begin; i < shard.end; ++i) {
    check_stop();
    if (i + 1 < shard.end && weights->reads(plan_.tensors[i + 1])) {
      source_.prefetch(*plan_.tensors[i + 1].source);
    }
    write_tensor(plan_.tensors[i], *weights, append, rounded);
    for (const TensorSpec& spec : plan_.tensors[i].specs) {
      bytes_done_ += tensor_nbytes(spec);
    }
    if (options_.progress) {
      options_.progress(shard,
                        static_cast<double>(bytes_done_) / static_cast<double>(plan_.file_bytes));
    }
  }
  stream->close();
  flush();
  pending_ = std::make_unique<Pending>();
  pending_->shard = &shard;
  pending_->rounded = std::move(rounded);
  pending_->result = std::async(std::launch::async, [this, stream, weights, path, &shard] {
    const std::string hash = stream->wait();
    return std::pair(hash, options_.verify ? verify_shard(path, plan_, shard, source_, *weights,
                                                          quantization_config_)
                                           : RelativeErrors());
  });
}

void CheckpointWriter::flush() {
  if (const auto pending = std::exchange(pending_, nullptr)) {
    auto [hash, errors] = pending->result.get();
    errors.merge(pending->rounded);
    folder_.record(pending->shard->name, {{"sha256", hash}, {"errors", errors}});
    errors_.insert(errors.begin(), errors.end());
    bytes_written_ += pending->shard->nbytes;
  }
}

Json CheckpointWriter::config_json() const {
  Json config = source_.config();
  config.erase("quantization_config");
  if (plan_.untied_head) {
    config["tie_word_embeddings"] = false;
  }
  if (!quantization_config_.is_null()) {
    config["quantization_config"] = quantization_config_;
  }
  return config;
}

Json CheckpointWriter::tensors_json(const RelativeErrors& known) const {
  RelativeErrors errors = errors_;
  errors.insert(known.begin(), known.end());
  Json tensors = Json::object();
  for (const PlannedTensor& tensor : plan_.tensors) {
    Json entry{{"role", tensor.tensor.role}, {"scheme", scheme_name(tensor)}};
    if (const auto error = errors.find(tensor.tensor.name); error != errors.end()) {
      entry["relative_error"] = error->second;
    }
    tensors[tensor.tensor.name] = std::move(entry);
  }
  return tensors;
}

Json CheckpointWriter::index_json() const {
  Json weight_map = Json::object();
  for (const PlannedShard& shard : plan_.shards) {
    for (const TensorSpec& spec : plan_.specs(shard)) {
      weight_map[spec.name] = shard.name;
    }
  }
  return {{"metadata", {{"total_size", plan_.tensor_bytes}}}, {"weight_map", weight_map}};
}

void CheckpointWriter::warn_of_outliers() const {
  constexpr double kFactor = 3;  // times the median of the same scheme
  std::map<std::string, std::vector<std::pair<double, std::string>>> by_scheme;
  for (const PlannedTensor& tensor : plan_.tensors) {
    if (const auto error = errors_.find(tensor.tensor.name); error != errors_.end()) {
      by_scheme[scheme_name(tensor)].emplace_back(error->second, error->first);
    }
  }
  for (auto& [scheme, errors] : by_scheme) {
    std::ranges::sort(errors);
    const double bound = kFactor * errors[errors.size() / 2].first;
    const auto first = std::ranges::find_if(errors, [&](const auto& e) { return e.first > bound; });
    if (first != errors.end()) {
      const auto& [error, name] = errors.back();
      log(LogLevel::warning,
          "{}: {} of {} {} weights have more than {} times the median relative error, worst {} "
          "({:.3g}); blockptq.json has them all",
          folder_.path().string(), errors.end() - first, errors.size(), scheme, kFactor, name,
          error);
    }
  }
}

void CheckpointWriter::finish(const Json& extra, const RelativeErrors& known) {
  flush();
  for (const PlannedShard& shard : plan_.shards) {
    BPTQ_ASSERT(folder_.finished(shard.name) != nullptr);
  }
  Json description = extra;
  description["version"] = options_.version;
  description["format"] = plan_.format->name();
  description["cache"] = plan_.scheme.int8_cache ? "c8" : "c16";
  description["tensors"] = tensors_json(known);
  description["clips_left_out"] = plan_.clips_left_out;
  folder_.complete_with(source_.path(), config_json(), std::move(description), index_json());
  warn_of_outliers();
}

}  // namespace blockptq
