#include "calibrate/calibration_plan.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/size.h"
#include "calibrate/unit_memory.h"
#include "eval/memory.h"

namespace blockptq {
namespace {

constexpr int64_t kCalibrationLibraries = int64_t{48} << 20;  // factors and products in fp32

std::string unit_name(const ModelTensor& tensor) {
  switch (tensor.unit) {
    case Unit::attention:
      return fmt::format("block {} attention", tensor.block);
    case Unit::feed_forward:
      return fmt::format("block {} MLP", tensor.block);
    case Unit::expert:
      return fmt::format("block {} expert {}", tensor.block, tensor.expert);
    default:
      return "output head";
  }
}

/// Integers of the block that has most: its unit files, before they go where they belong.
int64_t largest_block(const std::vector<PieceSpec>& pieces, const Recipe& recipe) {
  std::map<int64_t, int64_t> blocks;
  int64_t largest = 0;
  for (const PieceSpec& piece : pieces) {
    for (const TensorSlice& slice : piece.tensors) {
      const ModelTensor& tensor = slice.spec;
      if (tensor.shape.size() == 2 && recipe.quantizes(tensor.role, tensor.name)) {
        largest = std::max(largest, blocks[tensor.block] += tensor.shape[0] * tensor.shape[1]);
      }
    }
  }
  return largest;
}

}  // namespace

void check_memory(const CalibrationPlan& plan, int64_t max_memory) {
  check(max_memory == 0 || plan.peak_bytes() <= max_memory, "--max_memory {}: expected at least {}",
        format_bytes(max_memory), format_bytes(plan.peak_bytes()));
}

void check_space(const CalibrationPlan& plan, const std::filesystem::path& folder,
                 const Ranks& ranks) {
  if (ranks.rank() != 0) {
    return;
  }
  int64_t there = 0;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) {
    there += entry.is_regular_file() ? static_cast<int64_t>(entry.file_size()) : 0;
  }
  const int64_t needed = plan.disk_bytes - there;
  const int64_t available = free_bytes(folder);
  check(available >= needed, "{}: no space: {} are needed, {} are free", folder.string(),
        format_bytes(needed), format_bytes(available));
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

std::vector<PieceSpec> calibration_pieces(const Model& model, const Route& route,
                                          at::ScalarType type, bool from_dump) {
  return from_dump ? block_pieces(model.tensors(), route.begin, route.end)
                   : route_pieces(model, route, type);
}

CalibrationPlan plan_calibration(const Checkpoint& checkpoint, const Model& model,
                                 const std::vector<CalibrationText>& texts,
                                 const CalibrationOptions& options) {
  const Route route = calibration_route(model, options, texts);
  const auto pieces =
      calibration_pieces(model, route, options.type, texts.front().dump.has_value());
  const PieceLoader loader(checkpoint, options.type, options.device);
  const auto element_bytes = static_cast<int64_t>(at::elementSize(options.type));
  PassShape shape{.slice_tokens = expert_slice_tokens(model.spec(), kCalibrationWorkspace),
                  .element_bytes = element_bytes,
                  .workspace_bytes = kCalibrationWorkspace,
                  .compared = route.logits};
  int64_t all_tokens = 0;
  int64_t observed_tokens = 0;
  for (const CalibrationText& text : texts) {  // work is done on slices of one text
    const int64_t tokens = text.sequences() * text.seq_len();
    all_tokens += tokens;
    shape.tokens = std::max(shape.tokens, tokens);
    shape.seq_len = std::max(shape.seq_len, text.seq_len());
    observed_tokens = std::max(observed_tokens, text.calibrate ? tokens : 0);
  }
  const int64_t states = 2 * all_tokens * model.spec().hidden_size * element_bytes;
  CalibrationPlan plan;
  plan.states_bytes = 2 * states;
  plan.disk_bytes = 2 * states + largest_block(pieces, options.recipe);
  plan.exchange_bytes = options.ranks == 1 ? 0 : states;
  plan.program_bytes = program_bytes() + kCalibrationLibraries;
  plan.bytes_to_read = stored_bytes(checkpoint, pieces);
  plan.units = static_cast<int64_t>(pieces.size());
  const bool rotates = options.recipe.transforms().rotate_seed.has_value();
  const int64_t held = held_bytes(loader, pieces, kNoneAhead);
  for (size_t i = 0; i < pieces.size(); ++i) {
    const int64_t next = i + 1 < pieces.size() ? loader.loaded_bytes(pieces[i + 1]) : 0;
    const int64_t turned =  // on its way in, in fp32
        rotates ? 3 * largest_matrix(pieces[i]) * int64_t{sizeof(float)} : 0;
    const int64_t weights = std::min(held, loader.loaded_bytes(pieces[i]) + next) + turned;
    const UnitMemory memory = unit_memory(pieces[i], options, shape, observed_tokens);
    if (weights + memory.bytes() >
        plan.weights_bytes + plan.statistics_bytes + plan.temporary_bytes) {
      plan.weights_bytes = weights;
      plan.statistics_bytes = memory.statistics_bytes;
      plan.temporary_bytes = memory.other_bytes;
      plan.unit = unit_name(pieces[i].tensors.front().spec);
    }
  }
  check_memory(plan, options.max_memory);
  return plan;
}

}  // namespace blockptq
