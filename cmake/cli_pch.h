// Precompiled for the program.
#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
