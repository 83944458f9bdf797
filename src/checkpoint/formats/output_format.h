// The write side of formats: how a quantized model is laid out in a checkpoint folder. One file per
// format and one row in the table (output_formats.cpp).
//
// A format decides which raw tensors stand for a quantized weight and what config.json says about
// them. Tensors that are not quantized are stored plainly in every format.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "checkpoint/safetensors_writer.h"

namespace blockptq {

/// A tensor of the model and how it is quantized.
struct OutputTensor {
  std::string name;          ///< e.g. "model.layers.3.mlp.experts.7.up_proj.weight"
  std::string role;          ///< e.g. "expert.up_proj"
  Shape shape;               ///< [out, in] where it is quantized
  int64_t block = -1;        ///< -1 outside the blocks
  int weight_bits = 16;      ///< 16: not quantized
  int activation_bits = 16;  ///< of the input

  bool quantized() const { return weight_bits < 16; }
};

/// A quantized model as far as formats describe it.
struct OutputScheme {
  std::vector<OutputTensor> tensors;  ///< in the order of the model's table
  bool int8_cache = false;            ///< latent, indexer query and key are int8 at run time
  int64_t cache_group = 0;            ///< features of the latent that share a scale
  /// Learned factors on the dynamic maximum of the activation in front of a weight (of the cache
  /// point that it reads), by the weight's name.
  std::map<std::string, float, std::less<>> clips;
};

/// Rows of a quantized weight: value[i, j] = scales[i] * codes[i, j].
struct CodeRows {
  const int8_t* codes = nullptr;  ///< [rows, cols]
  const float* scales = nullptr;  ///< [rows]
  int64_t rows = 0;
  int64_t cols = 0;
};

/// Turns the rows of one weight into the bytes of its tensors, one tensor after the other.
class WeightEncoder {
 public:
  WeightEncoder() = default;
  virtual ~WeightEncoder() = default;
  WeightEncoder(const WeightEncoder&) = delete;
  WeightEncoder& operator=(const WeightEncoder&) = delete;

  /// The next rows, from the top; an even number of them except in the last call.
  virtual void add(const CodeRows& rows, const Append& append) = 0;
  /// Call once after the last row.
  virtual void finish(const Append& append) = 0;
};

/// A tensor whose bytes follow from the scheme alone.
struct ConstantTensor {
  TensorSpec spec;
  std::string bytes;
  std::string after;  ///< the tensor of the model that it is stored behind
};

/// Stateless and static; thread-safe.
class OutputFormat {
 public:
  OutputFormat() = default;
  virtual ~OutputFormat() = default;
  OutputFormat(const OutputFormat&) = delete;
  OutputFormat& operator=(const OutputFormat&) = delete;

  /// As `--format` takes it.
  virtual std::string_view name() const = 0;
  /// Error naming what of the scheme this format cannot carry. Returns the clips (by weight) that
  /// it has no place for and that are left out.
  virtual std::vector<std::string> check_scheme(const OutputScheme& scheme) const = 0;
  /// The tensors that a quantized weight is stored as, in the order in which they are encoded.
  virtual std::vector<TensorSpec> weight_specs(const OutputTensor& tensor) const = 0;
  virtual std::unique_ptr<WeightEncoder> encoder(const OutputTensor& tensor) const = 0;
  /// What is stored besides weights.
  virtual std::vector<ConstantTensor> constants(const OutputScheme& scheme) const = 0;
  /// `quantization_config` of config.json; null when nothing is quantized.
  virtual Json quantization_config(const OutputScheme& scheme) const = 0;
};

/// The format of that name; Error listing the names.
const OutputFormat& output_format(std::string_view name);
/// Their names, the default first.
std::vector<std::string> output_format_names();

/// What the formats share: one int8 code per byte and F32 scales [out, 1].
std::vector<TensorSpec> int8_specs(const OutputTensor& tensor);
std::unique_ptr<WeightEncoder> int8_encoder();
/// "a.b" of "a.b.weight".
std::string module_name(const OutputTensor& tensor);
/// Whether the tensor is the weight of a linear that stays in floating point.
bool is_float_linear(const OutputTensor& tensor);

}  // namespace blockptq
