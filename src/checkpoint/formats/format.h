// Formats: the ways in which checkpoints store a weight. One file per format and one row in the
// table (formats.cpp).
//
// A checkpoint folder holds raw tensors (what the safetensors headers name); a model knows logical
// ones ("...q_b_proj.weight"). A format claims the raw tensors that it understands, yields the
// logical tensors that they make up, and decodes rows of them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "kernels/types.h"

namespace blockptq {

class Format;

/// A logical tensor: what a model calls a weight, whatever raw tensors it is stored as.
struct StoredTensor {
  std::string name;
  const Format* format = nullptr;  ///< static
  Shape shape;                     ///< logical; [out, in] for a linear
  /// The raw tensors that it is made of; the first holds the values or codes, the order of the
  /// others is the format's.
  std::vector<RawTensor> parts;
  int bits = 0;  ///< width of a code; 0 when values are stored as they are
  /// One scale serves block_rows x block_cols elements.
  int64_t block_rows = 1;
  int64_t block_cols = 1;
  /// Symmetric integers with one scale per row: what `Checkpoint::decode_codes` reads.
  bool row_codes = false;
  /// No weight: it describes how the model is quantized (a clip, a rotation).
  bool auxiliary = false;
  /// Bits of the integer activations that the folder wants in front of the weight, symmetric and
  /// dynamic per token; 0: floating point; nothing: another scheme.
  std::optional<int> activation_bits = 0;

  /// The leading dimension; 1 for ranks 0 and 1, whose elements are one row.
  int64_t rows() const;
  /// Elements of one row.
  int64_t row_size() const;
  /// Bytes of all parts.
  int64_t nbytes() const;
  /// The element type of the first part.
  Dtype stored_dtype() const { return parts.front().info->dtype; }
  /// The type that its values are written in where they stay in floating point: as they are, or
  /// BF16 where they are codes.
  Dtype float_dtype() const { return bits == 0 ? stored_dtype() : Dtype::bf16; }
  /// "path: tensor name" of the first part, for messages.
  std::string where() const { return parts.front().where(); }
};

/// What the raw tensors of a folder have been recognised as so far.
class Claims {
 public:
  /// `raw` in file order; config.json's `quantization_config`, if there is one.
  Claims(std::span<const std::unique_ptr<SafetensorsFile>> files,
         std::optional<JsonView> quantization_config);

  bool has_quantization_config() const { return quantization_config_.has_value(); }
  const JsonView& quantization_config() const { return quantization_config_.value(); }
  /// All raw tensors, in file order (file, then offset).
  const std::vector<RawTensor>& raw_tensors() const { return raw_tensors_; }
  /// The raw tensor `name`, claimed or not; nothing when the folder has none.
  std::optional<RawTensor> find(const std::string& name) const;
  bool claimed(const RawTensor& tensor) const { return claimed_.contains(tensor.info); }

  /// Adds a logical tensor and claims its parts. Error when a part is claimed already.
  void yield(StoredTensor tensor);
  /// The logical tensors so far, in file order of their first parts.
  std::vector<StoredTensor> take();

 private:
  std::optional<JsonView> quantization_config_;
  std::vector<RawTensor> raw_tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;  // into raw_tensors_
  std::unordered_set<const TensorInfo*> claimed_;
  std::vector<StoredTensor> stored_;
};

/// Stateless and static; thread-safe.
class Format {
 public:
  virtual ~Format() = default;

  virtual std::string_view name() const = 0;
  /// The `quant_method` of the folders that it reads; empty: every folder.
  virtual std::string_view quant_method() const = 0;
  /// Claims what is stored in this format; called for folders of its quant_method only. Error when
  /// names, types or shapes do not fit.
  virtual void claim(Claims& claims) const = 0;
  /// Decodes rows [row_begin, row_end) of a tensor of this format to `out`
  /// [row_end - row_begin, row_size]. The caller asks for pieces that may be in memory at once.
  /// Error when the bytes are no valid numbers (NaN codes, scales that are not positive).
  virtual void decode_rows(const StoredTensor& tensor, int64_t row_begin, int64_t row_end,
                           kernels::FloatType type, void* out) const = 0;
  /// Rows of a tensor with `row_codes` as they are on the grid: int8 codes [row_end - row_begin,
  /// row_size], in [-2^(bits-1), 2^(bits-1) - 1] whatever the width they are stored in, and one
  /// fp32 scale per row. Error as for decode_rows. BPTQ_ASSERT in a format without such tensors.
  virtual void decode_codes(const StoredTensor& tensor, int64_t row_begin, int64_t row_end,
                            int8_t* codes, float* scales) const;
};

/// The table of formats, in the order in which they claim; the last one takes what is left.
std::span<const Format* const> all_formats();

/// Every raw tensor as part of exactly one logical tensor. Error when a format refuses, or when no
/// format understands `quantization_config`.
std::vector<StoredTensor> recognise(std::span<const std::unique_ptr<SafetensorsFile>> files,
                                    std::optional<JsonView> quantization_config);

}  // namespace blockptq
