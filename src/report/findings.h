// What is suspicious about a run: the checks that its page lists and that `--strict` insists on.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "report/run_data.h"

namespace blockptq {

/// note: worth knowing; warning: look before you deploy; error: do not deploy.
enum class Severity { note, warning, error };
std::string_view severity_name(Severity severity);

struct Finding {
  Severity severity;
  std::string check;  ///< its name, e.g. "block_jump"
  std::string text;   ///< one sentence
};

/// A rule with its thresholds in words, and what breaks it (one sentence each).
struct Check {
  std::string_view name;
  Severity severity;
  std::string rule;
  std::vector<std::string> (*find)(const RunData& run);
};
std::span<const Check> checks();

/// All that the checks find, the worst first.
std::vector<Finding> find_suspicious(const RunData& run);

struct Verdict {
  std::string level;  ///< "good", "warning", "error", or "empty": nothing is finished
  std::string text;   ///< a few plain sentences
};
/// `findings`: those of `run`.
Verdict verdict(const RunData& run, const std::vector<Finding>& findings);

}  // namespace blockptq
