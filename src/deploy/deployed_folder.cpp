#include "deploy/deployed_folder.h"

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "checkpoint/verify_folder.h"
#include "models/stored_clip.h"

namespace blockptq {

bool is_deployed_folder(const Checkpoint& checkpoint) {
  return std::filesystem::exists(checkpoint.path() / kDescriptionName) &&
         std::ranges::any_of(checkpoint.tensors(),
                             [](const StoredTensor& stored) { return stored.row_codes; });
}

DeployedFolder read_deployed_folder(const Checkpoint& checkpoint, const Model& model) {
  const std::string path = (checkpoint.path() / kDescriptionName).string();
  const Json json = parse_json(read_file(path), path);
  const JsonView view(json, path);
  DeployedFolder folder;
  folder.run = view.at("run").raw();
  folder.recipe = Recipe::parse(view.at("run").at("recipe").raw(), path);
  for (const auto& [name, entry] : view.at("tensors").raw().items()) {
    if (const auto error = view.at("tensors").at(name).find("relative_error")) {
      folder.errors[name] = error->number();
    }
  }
  const JsonView left_out = view.at("clips_left_out");
  for (size_t i = 0; i < left_out.size(); ++i) {
    folder.clips_left_out.push_back(left_out.at(i).string());
  }
  for (const ModelTensor& tensor : model.tensors()) {
    if (auto clip = stored_clip(checkpoint, tensor)) {
      folder.clips[tensor.name] = std::move(*clip);
    }
  }
  folder.extra = json;
  for (const char* key :
       {"version", "format", "cache", "tensors", "clips_left_out", "run", "shards"}) {
    folder.extra.erase(key);
  }
  return folder;
}

}  // namespace blockptq
