// Tensors that a pass both computes with and writes unquantized: kept in memory in between, so that
// the source is read once.
#pragma once

#include <cstdint>
#include <string>

#include "deploy/plan.h"

namespace blockptq {

class KeptTensors {
 public:
  /// Keeps the unquantized tensors of every block, which are in memory one block at a time, and of
  /// the rest of the model, each where it comes to at most `max_bytes`; the embeddings and output
  /// heads of a large model are read twice instead. Both arguments must outlive this.
  KeptTensors(const Checkpoint& source, const OutputPlan& plan, int64_t max_bytes);
  /// `part` is written.
  void drop(const std::string& part) const;

 private:
  const Checkpoint& source_;
  const OutputPlan& plan_;
};

}  // namespace blockptq
