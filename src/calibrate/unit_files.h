// What was learned of the units of a run: a file in the run folder for each, whole or not there,
// whichever rank has made it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "calibrate/unit.h"
#include "quant/recipe.h"
#include "run/run_folder.h"

namespace blockptq {

class UnitFiles {
 public:
  /// The arguments outlive this. `keep_codes`: also where the scales give them.
  UnitFiles(const RunFolder& folder, const Recipe& recipe, bool keep_codes)
      : folder_(folder), recipe_(recipe), keep_codes_(keep_codes) {}

  /// The outcome of a unit that is finished, for its tensors.
  std::optional<UnitResult> find(int64_t block, const std::string& unit,
                                 const std::vector<Weight>& tensors) const;
  void keep(const UnitResult& result) const;

 private:
  const RunFolder& folder_;
  const Recipe& recipe_;
  bool keep_codes_;
};

}  // namespace blockptq
