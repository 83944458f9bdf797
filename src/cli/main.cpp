// The program: finds the subcommand, runs it, turns exceptions into exit codes.
//
// 0 done, 2 bad usage or bad input, 1 anything else, 130 / 143 stopped by a signal.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/system.h"
#include "cli/command.h"
#include "cli/version.h"
#include "text/utf8.h"

namespace blockptq::cli {
namespace {

struct CommandRow {
  const char* name;
  AddCommand add;
  bool plans;  ///< has --dry_run
};

constexpr std::array kCommands{
    CommandRow{"quantize", &add_quantize, true}, CommandRow{"extract", &add_extract, true},
    CommandRow{"train", &add_train, true},       CommandRow{"eval", &add_eval, true},
    CommandRow{"deploy", &add_deploy, true},     CommandRow{"inspect", &add_inspect, false},
    CommandRow{"report", &add_report, false},
};

constexpr const char* kFooter =
    "`blockptq plan COMMAND ...` is `blockptq COMMAND ... --dry_run`: what it would take.\n"
    "Options may be written with - or _. Sizes: bytes, or as 16GB, 512MiB.\n"
    "Exit codes: 0 done, 2 bad usage or bad input, 1 anything else, 130 and 143 stopped by a "
    "signal, with the work so far kept.";

/// Error unless `name` is a command, and one with --dry_run where that is wanted.
void check_command(const std::string& name, bool plans) {
  std::vector<std::string_view> names;
  for (const CommandRow& row : kCommands) {
    if (row.plans || !plans) {
      names.emplace_back(row.name);
    }
  }
  check(std::ranges::find(names, name) != names.end(), "{} '{}', expected one of: {} (see --help)",
        plans ? "plan: command" : "unknown command", name, fmt::join(names, ", "));
}

/// "--quant-type=x" becomes "--quant_type=x"; "plan COMMAND ..." becomes "COMMAND ... --dry_run".
/// Error for a command that there is not.
std::vector<std::string> normalize(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  for (std::string& argument : arguments) {
    if (argument.starts_with("--")) {
      const auto end = argument.begin() +
                       static_cast<std::ptrdiff_t>(std::min(argument.find('='), argument.size()));
      std::replace(argument.begin() + 2, end, '-', '_');
    }
  }
  const bool plans = !arguments.empty() && arguments.front() == "plan";
  if (plans) {
    arguments.erase(arguments.begin());
    arguments.emplace_back("--dry_run");
  }
  if (arguments.empty() || plans || !arguments.front().starts_with('-')) {
    check_command(arguments.empty() ? "" : arguments.front(), plans);
  }
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
  return arguments;
}

const char* level_name(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return "debug";
    case LogLevel::info:
      return "info";
    case LogLevel::warning:
      return "warning";
    case LogLevel::error:
      return "error";
  }
  return "";
}

/// `text` on one line and in valid UTF-8: control characters and broken bytes, which a file name or
/// a checkpoint may bring, as \\xNN.
std::string printable(const std::string& text) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char character = decode_utf8(text, i);
    if (!character.valid || character.value < 0x20 || character.value == 0x7f) {
      result += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i]));
      ++i;
    } else {
      result.append(text, i, character.size);
      i += character.size;
    }
  }
  return result;
}

void print_log(LogLevel level, const std::string& message) {
  fmt::print(stderr, "blockptq: {}: {}\n", level_name(level), printable(message));
}

int report(int code, const std::string& message) {
  print_log(LogLevel::error, message);
  return code;
}

void install_log(const std::string& lowest) {
  const std::array<LogLevel, 4> levels{LogLevel::debug, LogLevel::info, LogLevel::warning,
                                       LogLevel::error};
  const auto* level = std::find_if(levels.begin(), levels.end(), [&](LogLevel candidate) {
    return lowest == level_name(candidate);
  });
  set_log_sink([from = *level](LogLevel at, const std::string& message) {
    if (at >= from) {
      print_log(at, message);
    }
  });
}

int run(int argc, char** argv) {
  CLI::App app(
      "blockptq: post-training quantization of mixture-of-experts language models, block "
      "by block.",
      "blockptq");
  app.footer(kFooter);
  app.set_version_flag("--version", version_text);
  app.require_subcommand(1);
  std::string log_level = "warning";
  std::function<void()> action;
  for (const CommandRow& row : kCommands) {
    CLI::App* command = app.add_subcommand(row.name);
    command->add_option("--log_level", log_level, "messages on stderr")
        ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
        ->capture_default_str();
    command->final_callback([&action, run_command = row.add(*command)] { action = run_command; });
  }
  try {
    app.parse(normalize(argc, argv));
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return report(2, fmt::format("{} (see --help)", error.what()));
  }
  install_log(log_level);
  catch_stop_signals();
  action();
  return 0;
}

}  // namespace
}  // namespace blockptq::cli

int main(int argc, char** argv) {
  blockptq::configure_memory();
  try {
    return blockptq::cli::run(argc, argv);
  } catch (const blockptq::Stopped& stopped) {
    return 128 + stopped.signal();
  } catch (const blockptq::Error& error) {
    return blockptq::cli::report(2, error.what());
  } catch (const std::bad_alloc&) {
    return blockptq::cli::report(1, "out of memory");
  } catch (const std::exception& error) {
    return blockptq::cli::report(1, error.what());
  }
}
