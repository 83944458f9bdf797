#include "run/parameters.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "checkpoint/safetensors_writer.h"
#include "quant/grid.h"

namespace blockptq {
namespace {

constexpr std::string_view kPrefix = "quant_parameters_";
constexpr std::string_view kWeight = ".weight";

Dtype stored_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kChar ? Dtype::i8 : Dtype::f32;
}

at::Tensor read_tensor(const SafetensorsFile& file, const TensorInfo& info) {
  check(info.dtype == Dtype::i8 || info.dtype == Dtype::f32, "{}: {}: expected F32 or I8, found {}",
        file.path().string(), info.name, dtype_name(info.dtype));
  at::Tensor tensor = at::empty(info.shape, info.dtype == Dtype::i8 ? at::kChar : at::kFloat);
  const TensorBytes bytes = file.read(info);
  std::copy_n(bytes.data(), bytes.size(), static_cast<uint8_t*>(tensor.mutable_data_ptr()));
  file.release(info);
  return tensor;
}

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

}  // namespace

std::string parameter_name(std::string_view weight, std::string_view suffix) {
  BPTQ_ASSERT(weight.ends_with(kWeight));
  return std::string(weight.substr(0, weight.size() - kWeight.size())) + std::string(suffix);
}

void write_parameters(const std::filesystem::path& folder, int64_t block,
                      const BlockParameters& parameters) {
  std::vector<at::Tensor> host;
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, value] : parameters) {
    host.push_back(value.cpu().contiguous());
    tensors.push_back(
        {{name, stored_type(value), value.sizes().vec()}, host.back().const_data_ptr()});
  }
  write_safetensors(folder / fmt::format("{}{}.safetensors", kPrefix, block), tensors);
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

QTensor Parameters::quantize(int64_t block, std::string_view name, const at::Tensor& w_OI,
                             int bits) const {
  const auto scales = find(block, parameter_name(name, ".weight_scale"));
  const auto codes = find(block, parameter_name(name, ".weight_codes"));
  const auto high = find(block, parameter_name(name, ".weight_clip_max"));
  const auto low = find(block, parameter_name(name, ".weight_clip_min"));
  for (const auto& vector : {scales, high, low}) {
    check(!vector || vector->numel() == w_OI.size(0),
          "{}: learned parameters: expected {} output channels, found {}", name, w_OI.size(0),
          vector ? vector->numel() : 0);
  }
  if (codes) {
    check(scales && codes->sizes() == w_OI.sizes() &&
              codes->abs().max().item<int64_t>() <= q_max(bits) + 1,
          "{}: learned codes: expected {} of {} bits with scales", name,
          shape_text(w_OI.sizes().vec()), bits);
    return {*codes, *scales, bits};
  }
  if (scales) {
    return quantize_weight(w_OI, bits, *scales);
  }
  if (high && low) {
    return quantize_clamped(w_OI, bits, at::sigmoid(*low), at::sigmoid(*high));
  }
  return quantize_weight(w_OI, bits, weight_scales(w_OI, bits));
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

QTensor quantize_clamped(const at::Tensor& w_OI, int bits, const at::Tensor& low_O,
                         const at::Tensor& high_O) {
  const at::Tensor high = (w_OI.amax(1) * high_O.flatten()).unsqueeze(1);
  const at::Tensor low = (w_OI.amin(1) * low_O.flatten()).unsqueeze(1);
  const at::Tensor clamped = w_OI.clamp(low, high);
  return quantize_weight(clamped, bits, weight_scales(clamped, bits));
}

}  // namespace blockptq
