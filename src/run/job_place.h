// Where this process stands in a job of several, as its launcher says in the environment: torchrun,
// Slurm's srun, Open MPI's or MPICH's mpirun.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace blockptq {

struct JobPlace {
  int rank = 0;
  int size = 1;
  int local_rank = 0;   ///< among the ranks of this host
  std::string address;  ///< of the host of rank 0
  int port = 0;
  bool store_given = false;  ///< the launcher keeps the store (torchrun); else rank 0 does
  std::string attempt;       ///< of the launcher, which keeps attempts apart in its store
};

/// A variable of the environment; null: not set.
using Environment = std::function<const char*(const char* name)>;

/// Nothing in a job of one process. Error for variables that contradict each other.
std::optional<JobPlace> job_place(const Environment& environment);
/// From the environment of this process.
std::optional<JobPlace> job_place();

/// The first host of Slurm's list: "node[003-005,9],x1" is "node003".
std::string first_host(const std::string& list);

}  // namespace blockptq
