// Ranks that are processes, on LibTorch's c10d: they find each other at a TCPStore, their bytes
// travel through Gloo's TCP connections.
//
// Every rank leaves a sign of life in the store; one that leaves none, or whose connection breaks,
// is lost, and with it the job: all transfers of all ranks throw then.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "base/ranks.h"
#include "run/job_place.h"

namespace blockptq {

struct JoinOptions {
  std::chrono::milliseconds join_timeout{300'000};  ///< for all ranks to appear
  std::chrono::milliseconds lost_after{60'000};     ///< without a sign of life
};

/// Joins the job; returns when all ranks are there. Error on every rank when the programs are not
/// of the same `version`; RankLost when the others do not come. The process ignores SIGPIPE from
/// then on.
std::unique_ptr<Ranks> join_job(const JobPlace& place, const std::string& version,
                                const JoinOptions& options);

}  // namespace blockptq
