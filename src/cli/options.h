// Options that several subcommands share; each is defined once, here.
#pragma once

#include <ATen/core/Tensor.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "text/corpus.h"

namespace blockptq::cli {

/// "--threads N"; 0 is the default.
void add_threads_option(CLI::App& app, int& threads);
void apply_threads(int threads);

/// Machine and precision.
struct ComputeOptions {
  std::string device = "cpu";
  std::string dtype = "bf16";
  int threads = 0;
  std::string max_memory;

  void add_to(CLI::App& app);
  /// Error for devices that this build or machine does not have.
  std::vector<at::Device> resolve_devices() const;
  at::ScalarType resolve_dtype() const;
  int64_t resolve_max_memory() const;  ///< 0: no bound
  void apply_threads() const { cli::apply_threads(threads); }
};

/// The text that a command works on.
struct TextOptions {
  std::string file;  ///< empty: the text that ships with the program
  std::string format = "auto";
  int64_t seq_len = 0;

  /// `default_file`: name of the shipped text.
  void add_to(CLI::App& app, const std::string& default_file, int64_t default_seq_len);
  Corpus read() const;
  /// For results: the file, or the name of the shipped text.
  std::string name() const;

 private:
  std::string default_file_;
};

/// "--nsamples N" of calibration text.
void add_nsamples_option(CLI::App& app, int64_t& nsamples);

/// Where `quantize` keeps the run that writes `output`, unless it is told otherwise.
std::filesystem::path run_folder_of(const std::filesystem::path& output);

/// A file that the program ships with (data/ of the project, share/blockptq/ of an installation).
std::filesystem::path shipped_file(const std::string& name);

constexpr int64_t kMaxBlocks = 100'000;

/// Numbers from `low` to `high`.
CLI::Validator within(int64_t low, int64_t high);
/// Files that can be there: found out before the work, not after it.
CLI::Validator in_a_folder();

/// "--json FILE".
void add_json_option(CLI::App& app, std::filesystem::path& path);
/// Writes `result` to `path`, atomically, unless `path` is empty.
void write_json(const std::filesystem::path& path, const Json& result);
/// The end of a run: writes `result` into its folder, if it has one, and to `path` as above.
void write_result(const std::filesystem::path& run_folder, const std::filesystem::path& path,
                  const Json& result);

}  // namespace blockptq::cli
