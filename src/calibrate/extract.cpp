#include "calibrate/extract.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/size.h"
#include "eval/gather_states.h"
#include "eval/model_pass.h"
#include "run/run_folder.h"
#include "run/tensor_file.h"

namespace blockptq {
namespace {

namespace fs = std::filesystem;

/// What is left to do in the folder.
struct Work {
  Route route;                 ///< begin: where the pass starts
  fs::path states;             ///< that enter it; empty: the embeddings do
  int64_t files_to_write = 0;  ///< without further names of the same file
};

/// The finished files of a folder.
struct Finished {
  fs::path folder;
  int64_t blocks;  ///< of the model, without MTP layers
  bool restart;    ///< they do not count

  bool inputs(int64_t block) const { return there(block_inputs_path(folder, block)); }
  bool outputs(int64_t block) const { return there(block_outputs_path(folder, block)); }
  /// The states that enter `block`; empty: not there. (The inputs of an MTP layer are made of such
  /// states and of the text.)
  fs::path entering(int64_t block) const {
    if (block > 0 && outputs(block - 1)) {
      return block_outputs_path(folder, block - 1);
    }
    return block < blocks && inputs(block) ? block_inputs_path(folder, block) : fs::path();
  }

 private:
  bool there(const fs::path& path) const { return !restart && fs::exists(path); }
};

Work remaining_work(const Model& model, const PassSettings& settings) {
  const int64_t blocks = model.spec().blocks;
  const Finished finished{settings.run_folder, blocks, settings.restart};
  Work work{make_route(model, settings), {}, 0};
  work.route.head = work.route.mtp;
  work.route.logits = false;
  int64_t first = work.route.end;
  for (int64_t block = work.route.end - 1; block >= work.route.begin; --block) {
    const bool inputs = finished.inputs(block);
    const bool outputs = finished.outputs(block);
    const bool linked =
        block < blocks && (block > work.route.begin || !finished.entering(block).empty());
    work.files_to_write += (outputs ? 0 : 1) + (inputs || linked ? 0 : 1);
    first = inputs && outputs ? first : block;
  }
  if (first == work.route.end) {  // all is there
    work.route = {first, first, false, false, false};
    return work;
  }
  work.route.begin = std::min(first, blocks);
  work.states = finished.entering(work.route.begin);
  while (work.states.empty() && work.route.begin > 0) {
    work.states = finished.entering(--work.route.begin);
  }
  return work;
}

int64_t states_bytes(const Model& model, const TokenWindows& windows, at::ScalarType type) {
  return windows.count() * windows.seq_len * model.spec().hidden_size *
         static_cast<int64_t>(at::elementSize(type));
}

/// One extraction in progress.
class Extraction {
 public:
  /// windows: of all ranks.
  Extraction(const Subject& subject, const TokenWindows& windows, const PassSettings& settings,
             Progress& progress, Ranks& ranks);

  ExtractResult run(int64_t workspace_bytes);

 private:
  at::Tensor read_states() const;
  at::Tensor start_states() const;
  void run_block(int64_t block);
  bool link_inputs(int64_t block) const;
  void write_states(const fs::path& path) const;

  const Subject& subject_;
  const TokenWindows& all_windows_;
  const TokenWindows windows_;  ///< of this rank
  const PassSettings& settings_;
  Progress& progress_;
  Ranks& ranks_;
  std::optional<RunFolder> folder_;  ///< on rank 0
  Work work_;                        ///< `states` on rank 0
  std::unique_ptr<ModelPass> pass_;
};

Extraction::Extraction(const Subject& subject, const TokenWindows& windows,
                       const PassSettings& settings, Progress& progress, Ranks& ranks)
    : subject_(subject),
      all_windows_(windows),
      windows_(part_of(windows, ranks.rank(), ranks.size())),
      settings_(settings),
      progress_(progress),
      ranks_(ranks) {
  const Json description = run_description("extract", subject, windows, settings);
  const Route route = make_route(subject.model, settings);
  check_same_job(ranks, {{"run", description}, {"blocks", {route.begin, route.end}}});
  const AbandonOnError abandon_on_error(ranks);
  if (ranks.rank() == 0) {
    folder_.emplace(settings.run_folder, description, settings.restart);
    work_ = remaining_work(subject.model, settings);
  }
  broadcast(ranks, Channel::states, &work_.route, sizeof(work_.route), 0);
}

/// On rank 0; undefined: the embeddings.
at::Tensor Extraction::read_states() const {
  if (work_.states.empty()) {
    return {};
  }
  const NamedTensors tensors = read_tensors(work_.states);
  const auto states = tensors.find("states");
  const std::vector<int64_t> shape{all_windows_.count(), all_windows_.seq_len,
                                   subject_.model.spec().hidden_size};
  check(states != tensors.end() && states->second.sizes() == shape &&
            states->second.scalar_type() == settings_.type,
        "{}: expected states of this run; use --restart", work_.states.string());
  log(LogLevel::info, "{}: continuing at block {}", settings_.run_folder.string(),
      work_.route.begin);
  return states->second;
}

/// Of this rank; undefined: the embeddings.
at::Tensor Extraction::start_states() const {
  at::Tensor whole = read_states();
  bool there = whole.defined();
  broadcast(ranks_, Channel::states, &there, sizeof(there), 0);
  if (!there) {
    return whole;
  }
  return own_rows(ranks_, whole,
                  {windows_.count(), windows_.seq_len, subject_.model.spec().hidden_size},
                  settings_.type, 0);
}

/// Whether the inputs of `block` are there, maybe as another name of the outputs of the one before.
bool Extraction::link_inputs(int64_t block) const {
  bool there = false;
  if (folder_) {
    const fs::path path = block_inputs_path(folder_->path(), block);
    const fs::path same = block_outputs_path(folder_->path(), block - 1);
    std::error_code failed;
    if (!fs::exists(path) && block > 0 && block < subject_.model.spec().blocks &&
        fs::exists(same)) {
      fs::create_hard_link(same, path, failed);
    }
    there = fs::exists(path);
  }
  broadcast(ranks_, Channel::states, &there, sizeof(there), 0);
  return there;
}

/// Those of all ranks.
void Extraction::write_states(const fs::path& path) const {
  const at::Tensor whole = gather_rows(ranks_, pass_->states(), 0);
  if (folder_) {
    write_tensors(path, {{"states", whole}});
  }
}

void Extraction::run_block(int64_t block) {
  const bool written = block >= settings_.begin;
  if (written && !link_inputs(block)) {
    write_states(block_inputs_path(settings_.run_folder, block));
  }
  const int64_t steps = windows_.count() + 1 + subject_.model.experts(block);
  const auto blocks = static_cast<double>(work_.route.end - work_.route.begin);
  int64_t step = 0;
  pass_->run_block(block, [&](const std::string& detail) {
    const double within = static_cast<double>(++step) / static_cast<double>(steps);
    progress_.update({block, work_.route.end - work_.route.begin,
                      windows_.count() * windows_.seq_len,
                      (static_cast<double>(block - work_.route.begin) + within) / blocks, detail});
  });
  if (written) {
    write_states(block_outputs_path(settings_.run_folder, block));
  }
}

ExtractResult Extraction::run(int64_t workspace_bytes) {
  const AbandonOnError abandon_on_error(ranks_);
  const int64_t blocks = subject_.model.spec().blocks;
  const Route& route = work_.route;
  if (route.begin < route.end) {
    const nn::AttentionOptions attention{settings_.dense_attention, workspace_bytes};
    pass_ = std::make_unique<ModelPass>(subject_, windows_, route,
                                        PassOptions{settings_.type, settings_.device, attention},
                                        start_states(), ranks_);
  }
  for (int64_t block = route.begin; block < std::min(route.end, blocks); ++block) {
    run_block(block);
  }
  if (route.mtp) {
    pass_->normalize();
    pass_->enter_mtp();
    run_block(blocks);
  }
  return {route.begin, route.end, 0, 0};
}

}  // namespace

fs::path block_inputs_path(const fs::path& folder, int64_t block) {
  return folder / fmt::format("block_{:03}.inputs.safetensors", block);
}

fs::path block_outputs_path(const fs::path& folder, int64_t block) {
  return folder / fmt::format("block_{:03}.outputs.safetensors", block);
}

ExtractPlan plan_extract(const Subject& subject, const TokenWindows& windows,
                         const PassSettings& settings) {
  const Work work = remaining_work(subject.model, settings);
  ExtractPlan plan;
  plan.pass = plan_evaluation(subject, nullptr, windows.count(), windows.seq_len, settings);
  plan.pass.blocks = work.route.end - work.route.begin;
  plan.pass.bytes_to_read =
      stored_bytes(subject.checkpoint, route_pieces(subject.model, work.route, settings.type));
  plan.pass.disk_bytes = work.files_to_write * states_bytes(subject.model, windows, settings.type);
  plan.free_bytes = free_bytes(settings.run_folder);
  return plan;
}

ExtractResult extract(const Subject& subject, const TokenWindows& windows,
                      const PassSettings& settings,
                      const std::function<void(const ExtractPlan&)>& on_start, Progress& progress,
                      Ranks& ranks) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t read_before = subject.checkpoint.bytes_read();
  Extraction extraction(subject, windows, settings, progress, ranks);
  const ExtractPlan plan = plan_extract(subject, windows, settings);
  if (ranks.rank() == 0) {
    const AbandonOnError abandon_on_error(ranks);
    check(plan.pass.disk_bytes <= plan.free_bytes, "{}: the states need {} of disk, {} are free",
          settings.run_folder.string(), format_bytes(plan.pass.disk_bytes),
          format_bytes(plan.free_bytes));
    on_start(plan);
  }
  ExtractResult result = extraction.run(plan.pass.workspace_bytes);
  result.bytes_read = subject.checkpoint.bytes_read() - read_before;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace blockptq
