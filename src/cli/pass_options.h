// What commands share that pass a text through a checkpoint, block by block.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "checkpoint/checkpoint.h"
#include "eval/evaluate.h"
#include "models/families.h"

namespace blockptq::cli {

/// A checkpoint and what the program knows of it.
struct Opened {
  explicit Opened(const std::filesystem::path& folder)
      : checkpoint(Checkpoint::open(folder)), model(open_model(checkpoint)) {}

  Checkpoint checkpoint;
  std::unique_ptr<Model> model;
};

/// The range of blocks, the MTP layer, the indexer and --restart.
void add_pass_options(CLI::App& app, PassSettings& settings);

}  // namespace blockptq::cli
