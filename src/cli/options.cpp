#include "cli/options.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/file.h"
#include "base/size.h"
#include "run/run_folder.h"

namespace blockptq::cli {
namespace {

at::Device parse_device(const std::string& name) {
  if (name == "cpu") {
    return at::kCPU;
  }
  const std::string digits = name.starts_with("cuda:") ? name.substr(5) : name;
  int index = -1;
  const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
  check(status == std::errc() && end == digits.data() + digits.size() && index >= 0,
        "--dev: expected cpu, or a CUDA device as 0 or cuda:0, found '{}'", name);
#ifdef BLOCKPTQ_CUDA
  const int found = at::hasCUDA() ? static_cast<int>(at::getNumGPUs()) : 0;
  check(index < found, "--dev {}: this machine shows {} CUDA devices; expected one of them, or cpu",
        name, found);
  return {at::kCUDA, static_cast<c10::DeviceIndex>(index)};
#else
  fail("--dev {}: this program is built without CUDA (CONTRIBUTING.md, \"Set-up\"); use --dev cpu",
       name);
#endif
}

}  // namespace

void add_threads_option(CLI::App& app, int& threads) {
  app.add_option("--threads", threads, "CPU threads (default: OMP_NUM_THREADS, else the cores)")
      ->check(within(1, 4096));
}

void apply_threads(int threads) {
  if (threads > 0) {
    at::set_num_threads(threads);
  }
}

void ComputeOptions::add_to(CLI::App& app) {
  app.add_option("--dev", device,
                 "device: cpu, or a CUDA device as 0 or cuda:0; several share the work of the "
                 "command: 0,1,2,3 or cpu,cpu")
      ->type_name("DEVICE")
      ->capture_default_str();
  app.add_option("--dtype", dtype, "type to compute in")
      ->check(CLI::IsMember({"bf16", "fp32"}))
      ->capture_default_str();
  add_threads_option(app, threads);
  app.add_option("--max_memory", max_memory,
                 "bound of the memory to plan for, e.g. 16GB (default: none)")
      ->type_name("SIZE");
}

std::vector<at::Device> ComputeOptions::resolve_devices() const {
  std::vector<at::Device> devices;
  for (size_t begin = 0; begin <= device.size();) {
    const size_t end = std::min(device.find(',', begin), device.size());
    devices.push_back(parse_device(device.substr(begin, end - begin)));
    begin = end + 1;
  }
  return devices;
}

at::ScalarType ComputeOptions::resolve_dtype() const {
  return dtype == "fp32" ? at::kFloat : at::kBFloat16;
}

int64_t ComputeOptions::resolve_max_memory() const {
  return max_memory.empty() ? 0 : parse_size(max_memory, "--max_memory");
}

void TextOptions::add_to(CLI::App& app, const std::string& default_file, int64_t default_seq_len) {
  default_file_ = default_file;
  seq_len = default_seq_len;
  app.add_option(
         "--data", file,
         "text: .jsonl (an object with \"text\" a line), .txt or wikitext, also .gz and .zst "
         "(default: " +
             default_file + ", shipped)")
      ->type_name("FILE");
  app.add_option("--data_format", format, "of --data; auto: by its name")
      ->check(CLI::IsMember({"auto", "jsonl", "text", "wikitext"}))
      ->capture_default_str();
  app.add_option("--seq_len", seq_len, "tokens of a sequence")
      ->check(within(3, int64_t{1} << 24))
      ->capture_default_str();
}

Corpus TextOptions::read() const {
  return read_corpus(file.empty() ? shipped_file(default_file_) : std::filesystem::path(file),
                     parse_text_format(format));
}

std::string TextOptions::name() const {
  return file.empty() ? default_file_.substr(0, default_file_.find('.')) : file;
}

void add_nsamples_option(CLI::App& app, int64_t& nsamples) {
  app.add_option("--nsamples", nsamples, "sequences to calibrate on")
      ->check(within(1, 1'000'000))
      ->capture_default_str();
}

std::filesystem::path run_folder_of(const std::filesystem::path& output) {
  return (output.has_filename() ? output : output.parent_path()).string() + ".run";
}

std::filesystem::path shipped_file(const std::string& name) {
  const auto folder = std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path();
  for (const char* place : {"data", "share/blockptq"}) {
    if (std::filesystem::exists(folder / place / name)) {
      return folder / place / name;
    }
  }
  fail("{}: the text that ships with the program is not beside it; give --data FILE",
       (folder / "data" / name).string());
}

void add_json_option(CLI::App& app, std::filesystem::path& path) {
  app.add_option("--json", path, "write the result to this file as JSON (default: nowhere)")
      ->type_name("FILE")
      ->check(in_a_folder());
}

CLI::Validator within(int64_t low, int64_t high) {
  CLI::Validator range = CLI::Range(low, high);
  return range.description(fmt::format("{}..{}", low, high));
}

CLI::Validator in_a_folder() {
  const auto refusal = [](const std::string& path) {
    std::error_code status;
    const std::filesystem::path folder = std::filesystem::absolute(path).parent_path();
    return std::filesystem::is_directory(folder, status)
               ? std::string()
               : fmt::format("{}: the folder of this file does not exist", path);
  };
  return {refusal, ""};
}

void write_json(const std::filesystem::path& path, const Json& result) {
  if (!path.empty()) {
    write_file_atomically(path, result.dump(2) + "\n");
  }
}

void write_result(const std::filesystem::path& run_folder, const std::filesystem::path& path,
                  const Json& result) {
  if (!run_folder.empty()) {
    write_json(run_folder / kResultName, result);
  }
  write_json(path, result);
}

}  // namespace blockptq::cli
