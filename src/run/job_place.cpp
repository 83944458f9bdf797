#include "run/job_place.h"

#include <array>
#include <charconv>
#include <cstdlib>
#include <string_view>

#include "base/error.h"

namespace blockptq {
namespace {

constexpr int kDefaultPort = 29500;

struct Launcher {
  const char* rank;
  const char* size;
  const char* local_rank;
  const char* local_size;
};

// The variables of a step, not of a Slurm job: a program that a batch script starts without srun is
// a job of its own.
constexpr std::array kLaunchers{
    Launcher{"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    Launcher{"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"},
    Launcher{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
             "OMPI_COMM_WORLD_LOCAL_SIZE"},
    Launcher{"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
};

int number(const char* name, std::string_view text) {
  int value = -1;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(status == std::errc() && end == text.data() + text.size() && value >= 0,
        "{}: expected a number, found '{}'", name, text);
  return value;
}

std::string address_of(const Environment& environment, const Launcher& launcher, int size) {
  if (const char* given = environment("MASTER_ADDR")) {
    return given;
  }
  if (const char* nodes = environment("SLURM_STEP_NODELIST")) {
    return first_host(nodes);
  }
  const char* local_size = environment(launcher.local_size);
  check(local_size != nullptr && number(launcher.local_size, local_size) == size,
        "MASTER_ADDR: expected the address of the host of rank 0 ({} is {})", launcher.size, size);
  return "127.0.0.1";
}

}  // namespace

std::string first_host(const std::string& list) {
  const size_t bracket = list.find('[');
  if (bracket == std::string::npos || bracket > list.find(',')) {
    return list.substr(0, list.find(','));
  }
  const size_t end = list.find_first_of("-,]", bracket);
  check(end != std::string::npos, "SLURM_STEP_NODELIST: expected a list of hosts, found '{}'",
        list);
  return list.substr(0, bracket) + list.substr(bracket + 1, end - bracket - 1);
}

std::optional<JobPlace> job_place(const Environment& environment) {
  for (const Launcher& launcher : kLaunchers) {
    const char* rank = environment(launcher.rank);
    const char* size = environment(launcher.size);
    if (rank == nullptr || size == nullptr) {
      continue;
    }
    JobPlace place;
    place.rank = number(launcher.rank, rank);
    place.size = number(launcher.size, size);
    check(place.rank < place.size, "{}: expected less than {} ({}), found {}", launcher.rank,
          place.size, launcher.size, place.rank);
    if (place.size == 1) {
      return std::nullopt;
    }
    if (const char* local = environment(launcher.local_rank)) {
      place.local_rank = number(launcher.local_rank, local);
    }
    place.address = address_of(environment, launcher, place.size);
    const char* port = environment("MASTER_PORT");
    place.port = port == nullptr ? kDefaultPort : number("MASTER_PORT", port);
    const char* given = environment("TORCHELASTIC_USE_AGENT_STORE");
    place.store_given = given != nullptr && std::string_view(given) == "True";
    const char* attempt = environment("TORCHELASTIC_RESTART_COUNT");
    place.attempt = attempt == nullptr ? "0" : attempt;
    return place;
  }
  return std::nullopt;
}

std::optional<JobPlace> job_place() {
  return job_place([](const char* name) -> const char* { return std::getenv(name); });
}

}  // namespace blockptq
