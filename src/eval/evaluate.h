// Perplexity of a checkpoint on token windows, block by block: every weight is read once, and
// memory holds the hidden states of the text and a few pieces of one block.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "base/ranks.h"
#include "checkpoint/checkpoint.h"
#include "eval/model_pass.h"
#include "text/windows.h"

namespace blockptq {

/// What of a model is passed over a text, how, and where the work is kept.
struct PassSettings {
  at::ScalarType type = at::kBFloat16;  ///< compute type: bf16 or fp32
  at::Device device = at::kCPU;
  bool dense_attention = false;  ///< ignore the indexer
  bool mtp = false;              ///< the MTP layer too
  int64_t begin = 0;             ///< first block
  int64_t end = -1;  ///< one past the last block, MTP layers counted after the last; -1: all
  std::filesystem::path run_folder;  ///< empty: none
  bool restart = false;
  std::string text_fingerprint;  ///< of the text, for the run folder
  int64_t max_memory = 0;        ///< bytes; 0: no bound
  int ranks = 1;                 ///< that share the work; a plan is for each of them
};

/// The states that enter `begin` come from the run folder unless it is 0.
struct EvalOptions : PassSettings {
  std::filesystem::path
      final_states;  ///< where to write the normalised final states; empty: nowhere
  /// Called with the index of a finished block and its output [C, L, D].
  std::function<void(int64_t block, const at::Tensor& states_CLD)> on_block;
};

struct EvalResult {
  std::optional<double> ppl;      ///< nothing when the run ended before the last block
  std::optional<double> mtp_ppl;  ///< perplexity of the token after the next
  at::Tensor losses_CL;           ///< fp64 [C, L - 1], nats; undefined without ppl
  at::Tensor mtp_losses_CL;       ///< fp64 [C, L - 2]
  std::optional<double> kl;       ///< KL(reference || subject), nats, mean over all positions
  std::optional<double> top1_agreement;  ///< share of positions where both put the same id first
  std::vector<double>
      block_errors;  ///< per block, squared error relative to the reference's output
  int64_t end = 0;   ///< one past the last block that was run
  int64_t bytes_read = 0;
  double seconds = 0;
};

/// What an evaluation will take.
struct EvalPlan {
  int64_t states_bytes = 0;     ///< hidden states, and what a block adds to them
  int64_t weights_bytes = 0;    ///< largest weights held at a time
  int64_t exchange_bytes = 0;   ///< tokens on their way between ranks
  int64_t temporary_bytes = 0;  ///< what comes and goes
  int64_t program_bytes = 0;    ///< libraries, tokenizer, text
  int64_t workspace_bytes = 0;  ///< bound of attention's temporaries
  int64_t bytes_to_read = 0;
  int64_t disk_bytes = 0;  ///< states in the run folder
  int64_t blocks = 0;

  int64_t peak_bytes() const {
    return states_bytes + weights_bytes + exchange_bytes + temporary_bytes + program_bytes;
  }
};

/// Error when `max_memory` cannot hold it. `reference`: null, or what is evaluated beside.
EvalPlan plan_evaluation(const Subject& subject, const Subject* reference, int64_t windows,
                         int64_t seq_len, const PassSettings& settings);

/// The blocks of the settings; Error for begin or end outside the model, and for an MTP layer that
/// it does not have.
Route make_route(const Model& model, const PassSettings& settings);
/// How run.json names a compute type, and which keys a query sees.
std::string dtype_name(at::ScalarType type);
std::string attention_name(bool dense);
/// Identifies the run of `command` in its folder.
Json run_description(const std::string& command, const Subject& subject,
                     const TokenWindows& windows, const PassSettings& settings);

/// Evaluates `subject`, and compares it with `reference` unless that is null: both pass each block
/// before the next one is touched. Error for begin or end outside the model, for states that are
/// not in the run folder, for a reference of another shape, and for everything that reading
/// refuses.
///
/// Called on each of the `ranks` with the same windows: each evaluates a range of the sequences and
/// holds a part of the experts. All get the same result; rank 0 keeps the run folder and files, and
/// `on_block` sees the states of its own sequences.
EvalResult evaluate(const Subject& subject, const Subject* reference, const TokenWindows& windows,
                    const EvalOptions& options, Progress& progress, Ranks& ranks = alone());

}  // namespace blockptq
