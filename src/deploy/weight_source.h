// Where the integers of a deployed checkpoint come from: rounding on the way, what was learned
// earlier, or another layout of them (and what a run has just computed: unit_source.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "deploy/plan.h"
#include "models/stream_rotation.h"
#include "quant/qtensor.h"
#include "run/parameters.h"

namespace blockptq {

using TakeRows = std::function<void(const CodeRows&)>;

/// `values` is called from another thread than `codes`, at the same time.
class WeightSource {
 public:
  /// `rotation`: of the residual stream, which the output has and the checkpoint has not; null:
  /// none.
  explicit WeightSource(const Checkpoint& checkpoint, const StreamRotation* rotation = nullptr)
      : checkpoint_(checkpoint), rotation_(rotation) {}
  virtual ~WeightSource() = default;
  WeightSource(const WeightSource&) = delete;
  WeightSource& operator=(const WeightSource&) = delete;

  /// Hands all rows of a quantized weight to `take`, from the top, in even portions but the last.
  virtual void codes(const PlannedTensor& tensor, const TakeRows& take) = 0;
  /// Whether anything of the tensor is read from the source checkpoint.
  virtual bool reads(const PlannedTensor& tensor) const;
  /// Whether the float values of the output differ from the source's because a transform was folded
  /// in.
  virtual bool transformed(const PlannedTensor& tensor) const;
  /// Rows [row_begin, row_end) of what the output stands for, in fp32: what is written where it is
  /// not quantized, and what verification compares with. All rows of what writes to a rotated
  /// stream.
  virtual void values(const PlannedTensor& tensor, int64_t row_begin, int64_t row_end,
                      float* out) const;
  /// Whether `values` of quantized weights are what the integers stand for, so that the output must
  /// hold the same.
  virtual bool exact() const { return false; }

 protected:
  const Checkpoint& checkpoint() const { return checkpoint_; }
  /// What smoothing folds into the tensor.
  virtual FoldedFactors folded(const PlannedTensor& /*tensor*/) const { return {}; }
  /// As `values`, without it.
  void unfolded_values(const PlannedTensor& tensor, int64_t row_begin, int64_t row_end,
                       float* out) const;

 private:
  bool rotated(const PlannedTensor& tensor) const;

  const Checkpoint& checkpoint_;
  const StreamRotation* rotation_;
};

/// Plain rounding of the source, some rows at a time.
class NearestSource final : public WeightSource {
 public:
  explicit NearestSource(const Checkpoint& checkpoint, const StreamRotation* rotation = nullptr);
  void codes(const PlannedTensor& tensor, const TakeRows& take) override;

 private:
  struct Portion {
    at::Tensor buffer;  ///< fp32 rows
    QTensor quantized;
  };
  std::vector<Portion> portions_;  ///< in work
};

/// The source under learned parameters; one whole weight is in memory.
class LearnedSource final : public WeightSource {
 public:
  LearnedSource(const Checkpoint& checkpoint, const Parameters& parameters)
      : WeightSource(checkpoint), parameters_(parameters) {}
  void codes(const PlannedTensor& tensor, const TakeRows& take) override;

 protected:
  FoldedFactors folded(const PlannedTensor& tensor) const override;

 private:
  const Parameters& parameters_;
};

/// The integers of a deployed folder as they are.
class DeployedSource final : public WeightSource {
 public:
  using WeightSource::WeightSource;
  void codes(const PlannedTensor& tensor, const TakeRows& take) override;
  bool exact() const override { return true; }
};

}  // namespace blockptq
