// What is quantized, as the command line says it: options that `eval` and `train` share.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "models/model.h"
#include "quant/recipe.h"

namespace blockptq::cli {

/// The recipe of that preset or file. A warning for rules of a file that match nothing of `model`:
/// a misspelt role quantizes nothing.
Recipe load_recipe(const std::string& preset_or_file, const Model& model);

struct QuantOptions {
  std::optional<std::string> recipe;
  std::optional<int> w_bits, a_bits, q_bits, k_bits, v_bits;
  std::optional<std::string> cls;

  void add_to(CLI::App& app);
  /// Whether any of the options was given.
  bool given() const;
  /// The preset for --w_bits, or --recipe, with the other options on top.
  Recipe resolve(const Model& model) const;
};

}  // namespace blockptq::cli
