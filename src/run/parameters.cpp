#include "run/parameters.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "checkpoint/safetensors_writer.h"
#include "quant/algorithms/nearest.h"
#include "quant/grid.h"

namespace blockptq {
namespace {

constexpr std::string_view kPrefix = "quant_parameters_";
constexpr std::string_view kWeight = ".weight";

void check_model(const std::filesystem::path& folder, const std::string& fingerprint) {
  const std::filesystem::path path = folder / "run.json";
  const Json run = parse_json(read_file(path), path.string());
  const std::string found = JsonView(run, path.string()).at("model").string();
  check(found == fingerprint,
        "{}: model: these parameters belong to another model (expected {}, found {})",
        path.string(), fingerprint, found);
}

std::optional<int64_t> block_of(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  if (!name.starts_with(kPrefix) || path.extension() != ".safetensors") {
    return std::nullopt;
  }
  int64_t block = 0;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), block);
  return block;
}

constexpr const char* kRows = ".weight_rows";
constexpr const char* kColumns = ".weight_columns";

}  // namespace

std::string parameter_name(std::string_view weight, std::string_view suffix) {
  BPTQ_ASSERT(weight.ends_with(kWeight));
  return std::string(weight.substr(0, weight.size() - kWeight.size())) + std::string(suffix);
}

std::filesystem::path parameters_path(const std::filesystem::path& folder, int64_t block) {
  return folder / fmt::format("{}{}.safetensors", kPrefix, block);
}

Parameters::Parameters(const std::vector<std::filesystem::path>& folders,
                       const std::string& model_fingerprint) {
  for (const std::filesystem::path& folder : folders) {
    check(std::filesystem::is_directory(folder), "{}: expected a folder of learned parameters",
          folder.string());
    bool any = false;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (const auto block = block_of(entry.path())) {
        files_.emplace(*block, std::make_unique<SafetensorsFile>(entry.path()));
        any = true;
      }
    }
    check(any, "{}: expected learned parameters ({}N.safetensors), found none", folder.string(),
          kPrefix);
    check_model(folder, model_fingerprint);
  }
}

std::optional<at::Tensor> Parameters::find(int64_t block, std::string_view name) const {
  const auto [begin, end] = files_.equal_range(block);
  for (auto file = begin; file != end; ++file) {
    if (const TensorInfo* info = file->second->find(name)) {
      return read_tensor(*file->second, *info);
    }
  }
  return std::nullopt;
}

QTensor Parameters::quantize(int64_t block, std::string_view name, const TargetWeight& weight,
                             int bits) const {
  return quantize_as_learned(name, weight, bits,
                             [&](const std::string& parameter) { return find(block, parameter); });
}

FoldedFactors Parameters::folded(int64_t block, std::string_view name,
                                 at::IntArrayRef shape) const {
  return learned_factors(name, shape,
                         [&](const std::string& parameter) { return find(block, parameter); });
}

std::string Parameters::fingerprint() const {
  Sha256 hash;
  for (const auto& [block, file] : files_) {
    file->add_to(hash);
  }
  return hash.hex();
}

SiteFactors Parameters::site_factors() const {
  constexpr std::string_view kSuffix = ".input_clip";
  SiteFactors factors;
  for (const auto& [block, file] : files_) {
    for (const TensorInfo& info : file->header().tensors) {
      if (info.name.ends_with(kSuffix)) {
        const std::string layer = info.name.substr(0, info.name.size() - kSuffix.size());
        factors[layer + std::string(kWeight)] = at::sigmoid(read_tensor(*file, info));
      }
    }
  }
  return factors;
}

FoldedFactors learned_factors(std::string_view name, at::IntArrayRef shape,
                              const FindParameter& find) {
  if (!name.ends_with(kWeight)) {
    return {};
  }
  const auto factors = [&](const char* suffix, size_t dimension) {
    const auto found = dimension < shape.size() ? find(parameter_name(name, suffix)) : std::nullopt;
    check(!found || found->numel() == shape[dimension],
          "{}: learned factors: expected {} features, found {}", name, shape[dimension],
          found ? found->numel() : 0);
    return found.value_or(at::Tensor());
  };
  return {factors(kRows, 0), factors(kColumns, 1)};
}

QTensor quantize_as_learned(std::string_view name, const TargetWeight& weight, int bits,
                            const FindParameter& find) {
  const auto scales = find(parameter_name(name, ".weight_scale"));
  const auto codes = find(parameter_name(name, ".weight_codes"));
  const auto high = find(parameter_name(name, ".weight_clip_max"));
  const auto low = find(parameter_name(name, ".weight_clip_min"));
  for (const auto& vector : {scales, high, low}) {
    check(!vector || vector->numel() == weight.channels(),
          "{}: learned parameters: expected {} output channels, found {}", name, weight.channels(),
          vector ? vector->numel() : 0);
  }
  if (codes) {
    check(scales && codes->sizes() == weight.value().sizes() &&
              codes->abs().max().item<int64_t>() <= q_max(bits) + 1,
          "{}: learned codes: expected {} of {} bits with scales", name,
          shape_text(weight.value().sizes().vec()), bits);
    return {*codes, *scales, bits};
  }
  if (scales) {
    return nearest(weight, bits, *scales);
  }
  if (high && low) {
    return quantize_clamped(weight.whole(), bits, at::sigmoid(*low), at::sigmoid(*high));
  }
  return nearest(weight, bits);
}

void keep_factors(std::string_view name, const FoldedFactors& folded, NamedTensors& parameters) {
  for (const auto& [suffix, factors] :
       {std::pair{kRows, folded.rows_O}, std::pair{kColumns, folded.columns_I}}) {
    if (factors.defined()) {
      parameters[parameter_name(name, suffix)] = factors;
    }
  }
}

void keep_learned(std::string_view name, const TargetWeight& weight, const QTensor& chosen,
                  bool always_codes, NamedTensors& parameters) {
  parameters[parameter_name(name, ".weight_scale")] = chosen.scales_O;
  if (always_codes ||
      !at::equal(chosen.codes_OI, nearest(weight, chosen.bits, chosen.scales_O).codes_OI)) {
    parameters[parameter_name(name, ".weight_codes")] = chosen.codes_OI;
  }
}

void join_parameters(const std::vector<std::filesystem::path>& units,
                     const std::filesystem::path& path) {
  std::vector<std::unique_ptr<SafetensorsFile>> files;
  std::vector<TensorSpec> specs;
  std::vector<std::pair<const SafetensorsFile*, const TensorInfo*>> sources;
  for (const auto& unit : units) {
    files.push_back(std::make_unique<SafetensorsFile>(unit));
    for (const TensorInfo& info : files.back()->header().tensors) {
      specs.push_back({info.name, info.dtype, info.shape});
      sources.emplace_back(files.back().get(), &info);
    }
  }
  write_safetensors(path, specs, {}, [&](size_t index, const Append& append) {
    const auto& [file, info] = sources[index];
    const TensorBytes bytes = file->read(*info);
    append(bytes.data(), bytes.size());
    file->release(*info);
  });
}

QTensor quantize_clamped(const at::Tensor& w_OI, int bits, const at::Tensor& low_O,
                         const at::Tensor& high_O) {
  const at::Tensor high = (w_OI.amax(1) * high_O.flatten()).unsqueeze(1);
  const at::Tensor low = (w_OI.amin(1) * low_O.flatten()).unsqueeze(1);
  const at::Tensor clamped = w_OI.clamp(low, high);
  return quantize_weight(clamped, bits, weight_scales(clamped, bits));
}

}  // namespace blockptq
