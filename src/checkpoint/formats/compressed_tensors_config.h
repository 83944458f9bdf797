// The `quantization_config` of compressed-tensors checkpoints: which integer scheme the weights of
// a module have.
//
// Source: compressed-tensors 0.12, quantization/quant_config.py, quant_args.py, utils/match.py.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/formats/format.h"

namespace blockptq {

/// How the weights of a module are quantized: integers with one scale per row and group.
struct IntScheme {
  int bits = 8;            ///< 4 or 8
  bool symmetric = true;   ///< otherwise there are zero points
  int64_t group_size = 0;  ///< columns that share a scale; 0: all of the row (per channel)
  std::optional<int> activation_bits = 0;  ///< as in StoredTensor
};

class CompressedTensorsConfig {
 public:
  /// Error for whatever this program cannot decode: other formats than integers, other widths,
  /// transforms, sparsity.
  explicit CompressedTensorsConfig(const JsonView& quantization_config);
  ~CompressedTensorsConfig();
  CompressedTensorsConfig(const CompressedTensorsConfig&) = delete;
  CompressedTensorsConfig& operator=(const CompressedTensorsConfig&) = delete;

  /// The scheme of the linear `module` ("model.layers.0.mlp.up_proj"). Targets are matched as the
  /// library does: a name before a "re:" pattern (anchored at the start) before the class "Linear".
  /// Error naming `where` when no target matches or the weights are not integers of 4 or 8 bits.
  IntScheme scheme_of(const std::string& module, const std::string& where) const;

 private:
  struct Target;

  std::string where_;
  std::vector<Target> targets_;  // in the order in which they are tried
};

/// Columns of `weight` [out, cols] that share a scale; Error when its groups do not divide `cols`.
int64_t group_columns(const RawTensor& weight, const IntScheme& scheme, int64_t cols);
/// Columns of the matrix of scales.
int64_t scale_columns(int64_t cols, int64_t group_columns);
/// Error when the columns of the module's weight are stored in another order (`weight_g_idx`).
void refuse_column_order(const Claims& claims, const std::string& module);

}  // namespace blockptq
