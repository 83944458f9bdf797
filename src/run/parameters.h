// What was learned, in a run folder: quant_parameters_N.safetensors for block N.
//
//   X.weight_scale     F32 [O]     scales of X.weight
//   X.weight_codes     I8 [O, I]   its codes, where an algorithm chose them one by one
//   X.weight_clip_max  F32 [O]     LWC logits: the weight is clamped to sigmoid() of them times its
//   X.weight_clip_min  F32 [O]     extremes first (arXiv 2308.13137)
//   X.weight_rows      F32 [O]     the weight's rows are divided by these first
//   X.weight_columns   F32 [I]     and its columns are multiplied by these (smoothing)
//   X.input_clip       F32 [1]     LAC logit of the activation in front of X (of the cache point
//                                  that X reads): the dynamic maximum times its sigmoid
//   X.weight           F32         what `quantize` puts in the place of a tensor that stays in
//                                  floating point, where a transform is folded into it
//
// X is a weight's name without ".weight". Shapes: O output channels, I input features.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/safetensors.h"
#include "quant/qtensor.h"
#include "quant/transforms/smooth.h"
#include "run/tensor_file.h"

namespace blockptq {

/// Factors on dynamic maxima, by the weight behind the site: fp32, one element each.
using SiteFactors = NamedTensors;

/// "X" + suffix for the weight "X.weight".
std::string parameter_name(std::string_view weight, std::string_view suffix);

/// The file of `block`.
std::filesystem::path parameters_path(const std::filesystem::path& folder, int64_t block);

/// The parameter folders of one or more runs.
class Parameters {
 public:
  Parameters() = default;
  /// Error when a folder holds no parameters, or those of another model (run.json names another
  /// fingerprint).
  Parameters(const std::vector<std::filesystem::path>& folders,
             const std::string& model_fingerprint);

  /// The integers of a weight (fp32 [O, I]): its learned codes; else under its learned scales; else
  /// clamped as learned; else plain rounding. Error for parameters that do not fit the weight.
  QTensor quantize(int64_t block, std::string_view name, const at::Tensor& w_OI, int bits) const;

  /// What smoothing folds into a tensor of that shape, whether it becomes integers or not. Error
  /// for factors that do not fit.
  FoldedFactors folded(int64_t block, std::string_view name, at::IntArrayRef shape) const;

  /// Identifies them as Checkpoint::fingerprint does a model.
  std::string fingerprint() const;

  /// sigmoid of every LAC logit.
  SiteFactors site_factors() const;

 private:
  std::optional<at::Tensor> find(int64_t block, std::string_view name) const;

  std::multimap<int64_t, std::unique_ptr<SafetensorsFile>> files_;
};

/// The integers of the weight `name` (fp32 [O, I]) by the learned parameters that `find` knows by
/// their names in the file; see Parameters::quantize.
QTensor quantize_as_learned(
    std::string_view name, const at::Tensor& w_OI, int bits,
    const std::function<std::optional<at::Tensor>(const std::string&)>& find);

/// What to keep of the chosen integers of a weight: what was folded into it, scales, and codes
/// where the scales do not give them by plain rounding of target_OI (the weight with what was
/// folded in), or always.
void keep_learned(std::string_view name, const at::Tensor& target_OI, const FoldedFactors& folded,
                  const QTensor& chosen, bool always_codes, NamedTensors& parameters);

/// Writes what the files `units` hold as one file, tensor by tensor, atomically.
void join_parameters(const std::vector<std::filesystem::path>& units,
                     const std::filesystem::path& path);

/// The weight clamped by LWC factors, on the grid of what is left.
QTensor quantize_clamped(const at::Tensor& w_OI, int bits, const at::Tensor& low_O,
                         const at::Tensor& high_O);

}  // namespace blockptq
