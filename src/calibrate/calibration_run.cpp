#include "calibrate/calibration_run.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "calibrate/block_calibrator.h"
#include "calibrate/calibration_plan.h"
#include "calibrate/time_estimate.h"
#include "calibrate/weight_summary.h"
#include "eval/evaluate.h"
#include "eval/head.h"
#include "eval/model_pass.h"
#include "models/ends.h"
#include "models/piece.h"
#include "nn/norm.h"
#include "run/journal.h"
#include "run/parameters.h"
#include "run/run_folder.h"

namespace blockptq {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The weights of `piece` in the compute type.
Piece in_type(Piece piece, at::ScalarType type) {
  for (const Weight& weight : piece.weights()) {
    piece.replace(weight.name, weight.value.to(type));
  }
  return piece;
}

int64_t token_count(const std::vector<CalibrationText>& texts) {
  int64_t tokens = 0;
  for (const CalibrationText& text : texts) {
    tokens += text.sequences() * text.seq_len();
  }
  return tokens;
}

/// What a unit's time is counted as; nothing for the small ones between.
std::optional<Unit> unit_kind(const std::string& unit) {
  if (unit == "attention") {
    return Unit::attention;
  }
  if (unit == "mlp" || unit == "shared_experts") {
    return Unit::feed_forward;
  }
  return unit.starts_with("expert ") ? std::optional(Unit::expert) : std::nullopt;
}

std::string state_name(size_t text, const char* model) {
  return fmt::format("text_{}.{}", text, model);
}

/// One run in progress.
class CalibrationRun {
 public:
  CalibrationRun(const Checkpoint& checkpoint, const Model& model,
                 const std::vector<CalibrationText>& texts, const CalibrationOptions& options,
                 Progress& progress);

  CalibrationResult run();

 private:
  Json description() const;
  void open_states();
  void read_dump(int64_t block);
  void save_states(int64_t next_block);
  void run_block(PieceStream& stream, int64_t block);
  UnitHooks unit_hooks(int64_t block);
  std::optional<UnitResult> find_unit(int64_t block, const std::string& unit,
                                      const std::vector<Weight>& weights) const;
  void keep_unit(const UnitResult& result);
  BlockReport report_block(int64_t block, double seconds) const;
  void normalize(PieceStream& stream);
  void measure_held_out(PieceStream& stream);
  void enter_mtp(PieceStream& stream);
  void step(int64_t block, const std::string& detail);

  const Checkpoint& checkpoint_;
  const Model& model_;
  const std::vector<CalibrationText>& texts_;
  const CalibrationOptions& options_;
  Progress& progress_;
  Route route_;
  RunFolder folder_;
  Journal journal_;
  CalibrationContext context_;
  FakeQuantExec quant_exec_;
  std::vector<TextStates> states_;
  std::vector<std::filesystem::path> unit_files_;  ///< of the block in work
  std::optional<TimeEstimate> estimate_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point last_step_ = start_;
};

CalibrationRun::CalibrationRun(const Checkpoint& checkpoint, const Model& model,
                               const std::vector<CalibrationText>& texts,
                               const CalibrationOptions& options, Progress& progress)
    : checkpoint_(checkpoint),
      model_(model),
      texts_(texts),
      options_(options),
      progress_(progress),
      route_(calibration_route(model, options, texts)),
      folder_(options.folder, description(), options.restart),
      journal_(options.folder / "journal.jsonl"),
      context_{options.recipe, options.default_algorithm, options.type, {}, options.learn_clips},
      quant_exec_(options.recipe) {
  open_states();
}

Json CalibrationRun::description() const {
  Json texts = Json::array();
  for (const CalibrationText& text : texts_) {
    texts.push_back({{"text", text.fingerprint},
                     {"sequences", text.sequences()},
                     {"seq_len", text.seq_len()},
                     {"calibrate", text.calibrate}});
  }
  return {{"command", options_.command},
          {"begin", route_.begin},
          {"model", checkpoint_.fingerprint()},
          {"texts", texts},
          {"recipe", options_.recipe.json()},
          {"algorithm", options_.default_algorithm},
          {"learn_clips", options_.learn_clips ? options_.learn_clips->json() : Json()},
          {"dtype", dtype_name(options_.type)},
          {"attention", attention_name(options_.dense_attention)}};
}

/// The states at the last finished block; else what the dump has, or the embeddings.
void CalibrationRun::open_states() {
  const auto saved = folder_.newest_states(route_.end);
  if (saved && *saved >= route_.begin) {
    const NamedTensors tensors = *folder_.load_states(*saved);
    for (size_t i = 0; i < texts_.size(); ++i) {
      states_.push_back({tensors.at(state_name(i, "float")).to(options_.device),
                         tensors.at(state_name(i, "quant")).to(options_.device),
                         texts_[i].calibrate});
    }
    route_.begin = *saved;
    route_.head = route_.head && *saved <= model_.spec().blocks;
    route_.mtp = route_.mtp && *saved < route_.end;
    log(LogLevel::info, "{}: continuing at block {}", options_.folder.string(), *saved);
    return;
  }
  if (texts_.front().dump) {
    read_dump(route_.begin);
    return;
  }
  const std::vector<ModelTensor> table = model_.tensors();
  const ModelTensor& embedding = tensor_of(table, Unit::embedding, "embedding");
  for (const CalibrationText& text : texts_) {
    const at::Tensor states = embed(checkpoint_, embedding, text.windows.ids, options_.type)
                                  .view({text.windows.count(), text.windows.seq_len, -1})
                                  .to(options_.device);
    states_.push_back({states, states.clone(), text.calibrate});
  }
}

/// Both models from what enters `block` of the float model.
void CalibrationRun::read_dump(int64_t block) {
  states_.clear();
  for (const CalibrationText& text : texts_) {
    const at::Tensor states =
        text.dump->inputs(block, model_.spec().hidden_size).to(options_.device);
    states_.push_back({states, states.clone(), text.calibrate});
  }
}

void CalibrationRun::save_states(int64_t next_block) {
  NamedTensors tensors;
  for (size_t i = 0; i < states_.size(); ++i) {
    tensors[state_name(i, "float")] = states_[i].float_CLD;
    tensors[state_name(i, "quant")] = states_[i].quant_CLD;
  }
  folder_.save_states(next_block, tensors);
}

std::optional<UnitResult> CalibrationRun::find_unit(int64_t block, const std::string& unit,
                                                    const std::vector<Weight>& weights) const {
  const std::filesystem::path path = folder_.unit_path(block, unit);
  const Json* entry = journal_.find(block, unit);
  if (entry == nullptr || !std::filesystem::exists(path)) {
    return std::nullopt;
  }
  const NamedTensors tensors = read_tensors(path);
  const auto find = [&](const std::string& name) {
    const auto found = tensors.find(name);
    return found == tensors.end() ? std::nullopt : std::optional(found->second);
  };
  UnitResult result;
  for (const Weight& weight : weights) {
    const int bits = options_.recipe.linear(weight.role, weight.name).weight_bits;
    if (bits != kFloatBits) {
      result.weights[weight.name] = quantize_as_learned(weight.name, weight.value, bits, find);
    }
    if (const auto clip = find(parameter_name(weight.name, ".input_clip"))) {
      result.input_clips[weight.name] = *clip;
    }
  }
  for (const auto& [name, value] : tensors) {
    if (name.ends_with(".weight")) {
      result.transformed[name] = value;
    }
  }
  result.report.block = block;
  result.report.unit = unit;
  return result;
}

void CalibrationRun::keep_unit(const UnitResult& result) {
  NamedTensors tensors(result.transformed.begin(), result.transformed.end());
  Json entry = result.report.json();
  entry["weights"] = Json::array();
  for (const Weight& weight : result.targets) {
    const auto chosen = result.weights.find(weight.name);
    if (chosen != result.weights.end()) {
      keep_learned(weight.name, weight.value, chosen->second, options_.keep_codes, tensors);
      entry["weights"].push_back(summarize_weight(weight.name, weight.value, chosen->second));
    }
  }
  for (const auto& [name, logit] : result.input_clips) {
    tensors[parameter_name(name, ".input_clip")] = logit;
  }
  write_tensors(folder_.unit_path(result.report.block, result.report.unit), tensors);
  journal_.append(entry);
}

UnitHooks CalibrationRun::unit_hooks(int64_t block) {
  return {[this, block](const std::string& unit, const std::vector<Weight>& weights) {
            return find_unit(block, unit, weights);
          },
          [this, block](const UnitResult& result, bool fresh) {
            if (fresh) {
              keep_unit(result);
            }
            unit_files_.push_back(folder_.unit_path(block, result.report.unit));
            step(block, result.report.unit);
          }};
}

void CalibrationRun::step(int64_t block, const std::string& detail) {
  if (const auto unit = unit_kind(detail)) {
    estimate_->finished(*unit, block, seconds_since(last_step_));
    last_step_ = Clock::now();
  }
  const double elapsed = seconds_since(start_);
  progress_.update({block, route_.end - route_.begin, token_count(texts_),
                    elapsed / (elapsed + estimate_->remaining()), detail});
}

void CalibrationRun::run_block(PieceStream& stream, int64_t block) {
  const auto start = Clock::now();
  unit_files_.clear();
  const nn::AttentionOptions attention{options_.dense_attention, kCalibrationWorkspace};
  BlockCalibrator(context_, quant_exec_, model_, attention,
                  expert_slice_tokens(model_.spec(), kCalibrationWorkspace), unit_hooks(block))
      .run(stream, block, states_);
  if (options_.on_block) {
    options_.on_block(block, unit_files_);
  }
  if (options_.keep_parameters) {
    join_parameters(unit_files_, parameters_path(options_.folder, block));
  }
  if (journal_.find(block, "block") == nullptr) {
    journal_.append(report_block(block, seconds_since(start)).json());
  }
  save_states(block + 1);
  folder_.remove_units(block);
}

BlockReport CalibrationRun::report_block(int64_t block, double seconds) const {
  RelativeError calibration;
  RelativeError held_out;
  bool any = false;
  for (const TextStates& text : states_) {
    any = any || !text.calibrate;
    for (int64_t c = 0; c < text.float_CLD.size(0); ++c) {
      (text.calibrate ? calibration : held_out).add(text.quant_CLD[c], text.float_CLD[c], {});
    }
  }
  return {block, block >= model_.spec().blocks, calibration.value(),
          any ? std::optional(held_out.value()) : std::nullopt, seconds};
}

/// The norm in front of an output head, on all states.
void CalibrationRun::normalize(PieceStream& stream) {
  const at::Tensor norm_D = stream.next().only().clone();
  for (TextStates& text : states_) {
    for (const at::Tensor& states : {text.float_CLD, text.quant_CLD}) {
      for (int64_t c = 0; c < states.size(0); ++c) {
        states[c].copy_(nn::rms_norm(states[c], norm_D, model_.spec().rms_norm_eps));
      }
    }
  }
}

void CalibrationRun::measure_held_out(PieceStream& stream) {
  normalize(stream);
  size_t text = 0;
  while (text < texts_.size() && texts_[text].calibrate) {
    ++text;
  }
  const bool any = text < texts_.size();
  const TokenWindows& windows = texts_[any ? text : 0].windows;
  const at::Tensor targets_N = target_tokens(windows, 1);
  HeadMeasure quant(targets_N);
  HeadMeasure exact(targets_N);
  for (int64_t tile = 0; tile < head_tiles(model_, Unit::head, at::kFloat); ++tile) {
    const at::Tensor head_VD = stream.next().only().to(options_.type);
    if (any) {
      const at::Tensor float_ND = states_[text].float_CLD.flatten(0, 1);
      exact.add(float_ND, head_VD);
      quant.add(states_[text].quant_CLD.flatten(0, 1), head_VD, float_ND, head_VD);
    }
  }
  if (any && journal_.find(-1, "held_out") == nullptr) {
    journal_.append({{"block", -1},
                     {"unit", "held_out"},
                     {"float_ppl", perplexity(exact.losses(), windows, 1)},
                     {"ppl", perplexity(quant.losses(), windows, 1)},
                     {"kl", quant.divergence().mean().item<double>()},
                     {"top1_agreement", quant.agreement().to(at::kDouble).mean().item<double>()}});
  }
}

void CalibrationRun::enter_mtp(PieceStream& stream) {
  const Piece piece = in_type(stream.next(), options_.type);
  for (size_t i = 0; i < texts_.size(); ++i) {
    blockptq::enter_mtp(checkpoint_, model_, piece, texts_[i].windows, states_[i].float_CLD);
    blockptq::enter_mtp(checkpoint_, model_, piece, texts_[i].windows, states_[i].quant_CLD);
  }
}

CalibrationResult CalibrationRun::run() {
  const auto start = Clock::now();
  const int64_t read_before = checkpoint_.bytes_read();
  const int64_t blocks = model_.spec().blocks;
  CalibrationResult result;
  PieceLoader loader(checkpoint_, at::kFloat, options_.device);
  const bool from_dump = texts_.front().dump.has_value();
  const std::vector<PieceSpec> pieces = calibration_pieces(model_, route_, from_dump);
  estimate_.emplace(pieces, options_.recipe, token_count(texts_), model_.spec().expert_share);
  PieceStream stream(loader, pieces);
  for (int64_t block = route_.begin; block < std::min(route_.end, blocks); ++block) {
    run_block(stream, block);
  }
  if (route_.head) {
    measure_held_out(stream);
  }
  if (route_.mtp) {
    if (from_dump) {
      read_dump(blocks);
    } else {
      enter_mtp(stream);
    }
    run_block(stream, blocks);
  }
  for (const Json& entry : journal_.entries()) {
    const auto unit = entry.at("unit").get<std::string>();
    (unit == "block" ? result.blocks : result.units).push_back(entry);
  }
  if (const Json* held_out = journal_.find(-1, "held_out")) {
    result.units.erase(std::find(result.units.begin(), result.units.end(), *held_out));
    result.held_out = *held_out;
  }
  result.end = route_.end;
  result.bytes_read = checkpoint_.bytes_read() - read_before;
  result.seconds = seconds_since(start);
  return result;
}

}  // namespace

Json BlockReport::json() const {
  Json json{{"block", block},
            {"unit", "block"},
            {"relative_error", calibration_error},
            {"seconds", seconds}};
  if (mtp) {
    json["mtp"] = true;
  }
  if (held_out_error) {
    json["held_out_relative_error"] = *held_out_error;
  }
  return json;
}

CalibrationResult calibrate(const Checkpoint& checkpoint, const Model& model,
                            const std::vector<CalibrationText>& texts,
                            const CalibrationOptions& options, Progress& progress) {
  plan_calibration(checkpoint, model, texts, options);
  return CalibrationRun(checkpoint, model, texts, options, progress).run();
}

}  // namespace blockptq
