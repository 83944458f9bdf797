// A subcommand: one file, one row in the table of main.cpp.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace blockptq::cli {

/// Adds the subcommand's options to `app`; the returned action runs after parsing. Results go to
/// stdout; errors are thrown.
using AddCommand = std::function<void()> (*)(CLI::App& app);

std::function<void()> add_deploy(CLI::App& app);
std::function<void()> add_eval(CLI::App& app);
std::function<void()> add_extract(CLI::App& app);
std::function<void()> add_inspect(CLI::App& app);
std::function<void()> add_quantize(CLI::App& app);
std::function<void()> add_report(CLI::App& app);
std::function<void()> add_train(CLI::App& app);

}  // namespace blockptq::cli
