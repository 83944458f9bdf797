// Integers that a calibration has just chosen, from the unit files of its run folder.
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
  /// `files`: with the codes of every weight that will be asked for.
  UnitSource(const Checkpoint& checkpoint, const std::vector<std::filesystem::path>& files);
  void codes(const PlannedTensor& tensor, const TakeRows& take) override;

 private:
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
};

}  // namespace blockptq
