#include "report/findings.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "base/size.h"

namespace blockptq {
namespace {

constexpr double kHighKl = 0.05;        // nats per token
constexpr double kLostKl = 0.5;         // nats per token
constexpr double kJump = 4;             // times the block before
constexpr double kJumpFloor = 1e-3;     // relative squared error below which no jump matters
constexpr double kHighError = 0.25;     // relative squared error of a block
constexpr double kManyFallbacks = 0.1;  // share of the units
constexpr size_t kListed = 8;           // names in one sentence
using Texts = std::vector<std::string>;

std::string listed(const std::vector<std::string>& names, std::string_view noun) {
  return names.size() <= kListed
             ? fmt::format("{} {}", noun, fmt::join(names, ", "))
             : fmt::format("{} {} and {} more", noun,
                           fmt::join(names.begin(), names.begin() + kListed, ", "),
                           names.size() - kListed);
}

std::string name_of(const UnitEntry& unit) {
  return fmt::format("block {} {}", unit.block, unit.unit);
}

/// One sentence about all of `names`, or none.
Texts about(std::string_view what, const std::vector<std::string>& names) {
  return names.empty() ? Texts() : Texts{listed(names, what) + "."};
}

Texts not_a_number(const RunData& run) {
  std::vector<std::string> names;
  for (const UnitEntry& unit : run.units) {
    const bool weights =
        std::all_of(unit.weights.begin(), unit.weights.end(),
                    [](const WeightEntry& weight) { return std::isfinite(weight.relative_error); });
    if (!weights || !std::isfinite(unit.loss_before) || !std::isfinite(unit.loss_after)) {
      names.push_back(name_of(unit));
    }
  }
  for (const BlockEntry& block : run.blocks) {
    if (!std::isfinite(block.relative_error) || !std::isfinite(block.held_out_error.value_or(0))) {
      names.push_back(fmt::format("block {}", block.block));
    }
  }
  if (run.held_out && !std::isfinite(run.held_out->kl + run.held_out->ppl +
                                     run.held_out->float_ppl + run.held_out->top1_agreement)) {
    names.emplace_back("held-out text");
  }
  return about("Errors or metrics that are not numbers:", names);
}

Texts kl_above(const RunData& run, double low, double high) {
  if (!run.held_out || !(run.held_out->kl > low) || run.held_out->kl > high) {
    return {};
  }
  return {fmt::format("KL divergence on the held-out text is {:.4g} nats per token.",
                      run.held_out->kl)};
}

Texts lost(const RunData& run) {
  return kl_above(run, kLostKl, std::numeric_limits<double>::infinity());
}
Texts high_kl(const RunData& run) {
  return kl_above(run, kHighKl, kLostKl);
}

Texts block_jump(const RunData& run) {
  Texts texts;
  for (size_t i = 1; i < run.blocks.size(); ++i) {
    const BlockEntry& before = run.blocks[i - 1];
    const BlockEntry& block = run.blocks[i];
    if (block.block == before.block + 1 && !block.mtp &&
        block.relative_error > kJump * before.relative_error && block.relative_error > kJumpFloor) {
      texts.push_back(fmt::format("Block {}: the relative error jumps from {:.4g} to {:.4g}.",
                                  block.block, before.relative_error, block.relative_error));
    }
  }
  return texts;
}

Texts high_error(const RunData& run) {
  std::vector<std::string> names;
  for (const BlockEntry& block : run.blocks) {
    if (block.relative_error > kHighError) {
      names.push_back(fmt::format("{} ({:.3g})", block.block, block.relative_error));
    }
  }
  return about("High relative error: block", names);
}

Texts no_tokens(const RunData& run) {
  std::vector<std::string> names;
  for (const UnitEntry& unit : run.units) {
    if (unit.tokens == 0) {
      names.push_back(name_of(unit));
    }
  }
  return about("No calibration token reached:", names);
}

Texts worse(const RunData& run) {
  std::vector<std::string> names;
  for (const UnitEntry& unit : run.units) {
    if (unit.loss_after > unit.loss_before) {
      names.push_back(name_of(unit));
    }
  }
  return about("Worse than plain rounding:", names);
}

std::map<std::string, size_t> fallbacks(const RunData& run) {
  std::map<std::string, size_t> reasons;
  for (const UnitEntry& unit : run.units) {
    if (!unit.fallback.empty()) {
      ++reasons[unit.fallback];
    }
  }
  return reasons;
}

Texts fallback(const RunData& run) {
  Texts texts;
  for (const auto& [reason, count] : fallbacks(run)) {
    texts.push_back(fmt::format("{} of {} units kept plain rounding: {}.",
                                format_count(static_cast<int64_t>(count)),
                                format_count(static_cast<int64_t>(run.units.size())), reason));
  }
  return texts;
}

Texts many_fallbacks(const RunData& run) {
  size_t count = 0;
  for (const auto& reason : fallbacks(run)) {
    count += reason.second;
  }
  const double share = static_cast<double>(count) / static_cast<double>(run.units.size());
  return share > kManyFallbacks
             ? Texts{fmt::format("{:.0f} % of the units kept plain rounding.", 100 * share)}
             : Texts();
}

Texts unfinished(const RunData& run) {
  return run.finished ? Texts() : Texts{"The run has not ended: the folder has no result.json."};
}

Texts no_held_out(const RunData& run) {
  return run.held_out ? Texts()
                      : Texts{"No held-out text was measured: perplexity and KL are not known."};
}

std::string counted(size_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string measured(const HeldOutEntry& held_out) {
  return fmt::format(
      "On held-out text the perplexity goes from {:.5g} to {:.5g}, the KL divergence is {:.3g} "
      "nats "
      "per token, and {:.1f} % of the most likely tokens stay the same.",
      held_out.float_ppl, held_out.ppl, held_out.kl, 100 * held_out.top1_agreement);
}

}  // namespace

std::string_view severity_name(Severity severity) {
  switch (severity) {
    case Severity::note:
      return "note";
    case Severity::warning:
      return "warning";
    case Severity::error:
      return "error";
  }
  return "";
}

std::span<const Check> checks() {
  static const std::vector<Check> kChecks{
      {"not_a_number", Severity::error, "Every error and metric is a finite number.",
       &not_a_number},
      {"model_lost", Severity::error,
       fmt::format("KL divergence on held-out text is at most {} nats per token.", kLostKl), &lost},
      {"high_kl", Severity::warning,
       fmt::format("KL divergence on held-out text is at most {} nats per token.", kHighKl),
       &high_kl},
      {"block_jump", Severity::warning,
       fmt::format("No block's relative error exceeds {} times that of the block before "
                   "(errors up to {} aside).",
                   kJump, kJumpFloor),
       &block_jump},
      {"high_error", Severity::warning,
       fmt::format("Every block's relative error is at most {}.", kHighError), &high_error},
      {"no_tokens", Severity::warning, "Every unit saw calibration tokens.", &no_tokens},
      {"worse", Severity::warning, "No unit's error is above that of plain rounding.", &worse},
      {"many_fallbacks", Severity::warning,
       fmt::format("At most {:.0f} % of the units kept plain rounding.", 100 * kManyFallbacks),
       &many_fallbacks},
      {"fallback", Severity::note, "No unit kept plain rounding.", &fallback},
      {"unfinished", Severity::note, "The run has ended.", &unfinished},
      {"no_held_out", Severity::note, "Held-out text was measured.", &no_held_out},
  };
  return kChecks;
}

std::vector<Finding> find_suspicious(const RunData& run) {
  std::vector<Finding> findings;
  for (const Check& check : checks()) {
    for (std::string& text : check.find(run)) {
      findings.push_back({check.severity, std::string(check.name), std::move(text)});
    }
  }
  std::stable_sort(findings.begin(), findings.end(),
                   [](const Finding& a, const Finding& b) { return a.severity > b.severity; });
  return findings;
}

Verdict verdict(const RunData& run, const std::vector<Finding>& findings) {
  if (run.units.empty() && run.blocks.empty()) {
    return {"empty", "Nothing is finished yet, so there is nothing to judge."};
  }
  const auto count = [&](Severity severity) {
    return static_cast<size_t>(
        std::count_if(findings.begin(), findings.end(),
                      [&](const Finding& finding) { return finding.severity == severity; }));
  };
  const std::string start =
      run.finished ? ""
                   : fmt::format("Unfinished, {} so far. ", counted(run.blocks.size(), "block"));
  const std::string end = run.held_out ? " " + measured(*run.held_out) : "";
  if (const size_t errors = count(Severity::error); errors > 0) {
    return {"error",
            fmt::format("{}Do not deploy this: {} found.{}", start, counted(errors, "error"), end)};
  }
  if (const size_t warnings = count(Severity::warning); warnings > 0) {
    return {"warning", fmt::format("{}Look before you deploy: {} found.{}", start,
                                   counted(warnings, "warning"), end)};
  }
  return {"good", fmt::format("{}Nothing suspicious was found.{}", start, end)};
}

}  // namespace blockptq
