#include "calibrate/calibration_plan.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.h"
#include "base/size.h"

namespace blockptq {
namespace {

/// Bytes of the largest tensor of a piece.
int64_t largest_tensor(const PieceLoader& loader, const PieceSpec& piece) {
  int64_t largest = 0;
  for (const TensorSlice& tensor : piece.tensors) {
    largest = std::max(largest, loader.loaded_bytes({{tensor}}));
  }
  return largest;
}

}  // namespace

void check_memory(const CalibrationPlan& plan, int64_t max_memory) {
  check(max_memory == 0 || plan.peak_bytes() <= max_memory, "--max_memory {}: expected at least {}",
        format_bytes(max_memory), format_bytes(plan.peak_bytes()));
}

Route calibration_route(const Model& model, const CalibrationOptions& options,
                        const std::vector<CalibrationText>& texts) {
  const ModelSpec& spec = model.spec();
  const auto& dump = texts.front().dump;
  const bool mtp = options.mtp && spec.mtp_layers > 0 && (!dump || dump->has_inputs(spec.blocks));
  const int64_t last = spec.blocks + (mtp ? 1 : 0);
  Route route;
  route.begin = options.begin;
  route.end = options.end < 0 ? last : options.end;
  check(route.begin < route.end && route.end <= last,
        "--begin {} --end {}: expected 0 <= begin < end <= {}", route.begin, route.end, last);
  check(route.begin == 0 || dump,
        "--begin {}: what enters this block is not known; expected --data_dir", route.begin);
  route.mtp = route.end > spec.blocks;
  const bool held_out = std::any_of(texts.begin(), texts.end(),
                                    [](const CalibrationText& text) { return !text.calibrate; });
  route.head = !dump && (route.mtp || (held_out && route.end >= spec.blocks));
  route.logits = held_out;
  return route;
}

std::vector<PieceSpec> calibration_pieces(const Model& model, const Route& route, bool from_dump) {
  return from_dump ? block_pieces(model.tensors(), route.begin, route.end)
                   : route_pieces(model, route, at::kFloat);
}

CalibrationPlan plan_calibration(const Checkpoint& checkpoint, const Model& model,
                                 const std::vector<CalibrationText>& texts,
                                 const CalibrationOptions& options) {
  const auto pieces = calibration_pieces(model, calibration_route(model, options, texts),
                                         texts.front().dump.has_value());
  const PieceLoader loader(checkpoint, at::kFloat, options.device);
  CalibrationPlan plan;
  int64_t states = 0;
  for (const CalibrationText& text : texts) {
    states += 2 * text.sequences() * text.seq_len() * model.spec().hidden_size *
              static_cast<int64_t>(at::elementSize(options.type));
  }
  plan.states_bytes = 2 * states;  // and what a block adds to them
  plan.disk_bytes = 2 * states;
  plan.exchange_bytes = options.ranks == 1 ? 0 : states;
  plan.runtime_bytes = kCalibrationRuntime;
  plan.workspace_bytes = kCalibrationWorkspace;
  plan.bytes_to_read = stored_bytes(checkpoint, pieces);
  plan.units = static_cast<int64_t>(pieces.size());
  const bool rotates = options.recipe.transforms().rotate_seed.has_value();
  for (const PieceSpec& piece : pieces) {
    const int64_t turned = rotates ? 3 * largest_tensor(loader, piece) : 0;  // on its way in
    plan.weights_bytes = std::max(plan.weights_bytes, 3 * loader.loaded_bytes(piece) + turned);
  }
  const int64_t hidden = model.spec().hidden_size;
  plan.hessian_bytes = 4 * hidden * hidden * int64_t{4};
  check_memory(plan, options.max_memory);
  return plan;
}

}  // namespace blockptq
