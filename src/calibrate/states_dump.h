// What `extract` wrote, as training reads it: the states that enter each block of the float model.
//
// Shapes: C sequences, L tokens of each, D hidden.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"

namespace blockptq {

class StatesDump {
 public:
  /// Of `sequences` the first ones are used; nothing: all. Error when `folder` holds no run of
  /// `extract`, fewer sequences, or states of another model, compute type or attention.
  StatesDump(std::filesystem::path folder, const Checkpoint& checkpoint, at::ScalarType type,
             bool dense_attention, std::optional<int64_t> sequences);

  int64_t sequences() const { return sequences_; }
  int64_t seq_len() const { return seq_len_; }
  /// Of the text.
  const std::string& fingerprint() const { return fingerprint_; }
  bool has_inputs(int64_t block) const;
  /// [C, L, hidden]; Error when they are not there or of another shape.
  at::Tensor inputs(int64_t block, int64_t hidden) const;

 private:
  std::filesystem::path folder_;
  at::ScalarType type_;
  int64_t extracted_ = 0;  ///< sequences in the files
  int64_t sequences_ = 0;
  int64_t seq_len_ = 0;
  std::string fingerprint_;
};

}  // namespace blockptq
