// What a calibration has just chosen, from the unit files of its run folder.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "checkpoint/safetensors.h"
#include "deploy/weight_source.h"

namespace blockptq {

/// One whole weight's codes are in memory at a time.
class UnitSource final : public WeightSource {
 public:
  /// `files`: with the codes of every weight that will be asked for, what is folded into tensors
  /// that stay in floating point, and what a rotation changed, but for the ends of a model with a
  /// rotated stream.
  UnitSource(const Checkpoint& checkpoint, const std::vector<std::filesystem::path>& files,
             const StreamRotation* rotation = nullptr);
  void codes(const PlannedTensor& tensor, const TakeRows& take) override;
  bool reads(const PlannedTensor& tensor) const override;
  bool transformed(const PlannedTensor& tensor) const override;
  void values(const PlannedTensor& tensor, int64_t row_begin, int64_t row_end,
              float* out) const override;

 protected:
  FoldedFactors folded(const PlannedTensor& tensor) const override;

 private:
  /// The file that has `name`, or null.
  const SafetensorsFile* file_with(const std::string& name) const;

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
};

}  // namespace blockptq
