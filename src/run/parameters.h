// What was learned, in a run folder: quant_parameters_N.safetensors for block N.
//
//   X.weight_scale     F32 [O]     scales of X.weight
//   X.weight_codes     I8 [O, I]   its codes, where an algorithm chose them one by one
//   X.weight_clip_max  F32 [O]     LWC logits: the weight is clamped to sigmoid() of them times its
//   X.weight_clip_min  F32 [O]     extremes first (arXiv 2308.13137)
//   X.weight_rows      F32 [O]     the rows of X.weight (of a norm: its elements) are divided by
//                                  these first
//   X.weight_columns   F32 [I]     and its columns are multiplied by these (smoothing)
//   X.input_clip       F32 [1]     LAC logit of the activation in front of X (of the cache point
//                                  that X reads): the dynamic maximum times its sigmoid
//   X.weight           F32         what `quantize` puts in the place of a tensor that stays in
//                                  floating point, where a rotation has changed it
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
#include "quant/target_weight.h"
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

  /// The integers of a weight that has what is folded into it: its learned codes; else under its
  /// learned scales; else clamped as learned; else plain rounding. Error for parameters that do not
  /// fit the weight.
  QTensor quantize(int64_t block, std::string_view name, const TargetWeight& weight,
                   int bits) const;

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

/// Learned parameters by their names in the file.
using FindParameter = std::function<std::optional<at::Tensor>(const std::string& name)>;

/// See Parameters::quantize and Parameters::folded.
QTensor quantize_as_learned(std::string_view name, const TargetWeight& weight, int bits,
                            const FindParameter& find);
FoldedFactors learned_factors(std::string_view name, at::IntArrayRef shape,
                              const FindParameter& find);

/// What to keep of the chosen integers of a weight: scales, and codes where the scales do not give
/// them by plain rounding of `weight`, or always.
void keep_learned(std::string_view name, const TargetWeight& weight, const QTensor& chosen,
                  bool always_codes, NamedTensors& parameters);

/// And of what is folded into a tensor.
void keep_factors(std::string_view name, const FoldedFactors& folded, NamedTensors& parameters);

/// Writes what the files `units` hold as one file, tensor by tensor, atomically.
void join_parameters(const std::vector<std::filesystem::path>& units,
                     const std::filesystem::path& path);

/// The weight clamped by LWC factors, on the grid of what is left.
QTensor quantize_clamped(const at::Tensor& w_OI, int bits, const at::Tensor& low_O,
                         const at::Tensor& high_O);

}  // namespace blockptq
