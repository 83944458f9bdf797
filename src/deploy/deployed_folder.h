// What blockptq.json says of a folder that this program wrote, as far as another layout of the same
// integers needs it.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "deploy/verify.h"
#include "models/model.h"
#include "quant/recipe.h"
#include "run/parameters.h"

namespace blockptq {

struct DeployedFolder {
  Recipe recipe;
  SiteFactors clips;                        ///< that the folder stores
  std::vector<std::string> clips_left_out;  ///< that its layout had no place for
  Json run;                                 ///< what identifies the run that chose the integers
  RelativeErrors errors;                    ///< against the source of that run
  Json extra;                               ///< other keys
};

/// Whether this program wrote the folder, and wrote integers.
bool is_deployed_folder(const Checkpoint& checkpoint);

/// Error naming the key that is missing or wrong.
DeployedFolder read_deployed_folder(const Checkpoint& checkpoint, const Model& model);

}  // namespace blockptq
