// blockptq report: a run folder as one page.
#include <fmt/format.h>

#include <memory>

#include "base/error.h"
#include "base/file.h"
#include "base/size.h"
#include "cli/command.h"
#include "cli/options.h"
#include "report/page.h"
#include "report/page_data.h"
#include "report/run_data.h"

namespace blockptq::cli {
namespace {

struct ReportArguments {
  std::filesystem::path folder;
  std::filesystem::path output;
  std::filesystem::path json;
};

void run_report(const ReportArguments& args) {
  const std::filesystem::path beside = run_folder_of(args.folder);
  check(is_run_folder(args.folder), "{}: expected the folder of a run{}", args.folder.string(),
        is_run_folder(beside) ? fmt::format("; is it {}?", beside.string()) : "");
  const RunData run = read_run(args.folder);
  const std::string command = run.description.value("command", std::string());
  check(command != "eval" && command != "extract",
        "{}: a run of {}; expected one of quantize or train", args.folder.string(), command);
  const std::filesystem::path folder = std::filesystem::canonical(args.folder);
  const Json data = page_data(run, folder.filename().string());
  const std::string page = render_page(data);
  write_file_atomically(args.output, page);
  fmt::print("{}\n", data["verdict"]["text"].get<std::string>());
  for (const Json& finding : data["findings"]) {
    fmt::print("{:<8} {}\n", finding["severity"].get<std::string>(),
               finding["text"].get<std::string>());
  }
  fmt::print("page     {}, {}\n", args.output.string(),
             format_bytes(static_cast<int64_t>(page.size())));
  write_json(args.json, data);
}

}  // namespace

std::function<void()> add_report(CLI::App& app) {
  auto args = std::make_shared<ReportArguments>();
  app.description("The run as one self-contained HTML page.");
  app.add_option("RUN_DIR", args->folder, "run folder of quantize or train")
      ->type_name("")
      ->required();
  app.add_option("--output", args->output, "HTML file to write")
      ->type_name("FILE")
      ->check(in_a_folder())
      ->required();
  add_json_option(app, args->json);
  return [args] { run_report(*args); };
}

}  // namespace blockptq::cli
