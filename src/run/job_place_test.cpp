#include "run/job_place.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

namespace blockptq {
namespace {

std::optional<JobPlace> place(const std::map<std::string, const char*>& variables) {
  return job_place([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second;
  });
}

TEST(JobPlace, OneProcessHasNone) {
  EXPECT_FALSE(place({}));
  EXPECT_FALSE(place({{"RANK", "0"}, {"WORLD_SIZE", "1"}}));
  // A batch script's own environment: srun has not started this program.
  EXPECT_FALSE(place({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}));
}

TEST(JobPlace, Torchrun) {
  const auto job = place({{"RANK", "5"},
                          {"WORLD_SIZE", "16"},
                          {"LOCAL_RANK", "1"},
                          {"MASTER_ADDR", "10.0.0.1"},
                          {"MASTER_PORT", "1234"},
                          {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                          {"TORCHELASTIC_RESTART_COUNT", "2"}});
  ASSERT_TRUE(job);
  EXPECT_EQ(job->rank, 5);
  EXPECT_EQ(job->size, 16);
  EXPECT_EQ(job->local_rank, 1);
  EXPECT_EQ(job->address, "10.0.0.1");
  EXPECT_EQ(job->port, 1234);
  EXPECT_TRUE(job->store_given);
  EXPECT_EQ(job->attempt, "2");
}

TEST(JobPlace, SlurmTakesTheFirstHost) {
  const auto job = place({{"SLURM_PROCID", "1"},
                          {"SLURM_STEP_NUM_TASKS", "2"},
                          {"SLURM_LOCALID", "0"},
                          {"SLURM_STEP_NODELIST", "gpu[07-08]"}});
  ASSERT_TRUE(job);
  EXPECT_EQ(job->address, "gpu07");
  EXPECT_EQ(job->rank, 1);
}

TEST(JobPlace, MpiOnOneHostNeedsNoAddress) {
  EXPECT_EQ(place({{"OMPI_COMM_WORLD_RANK", "1"},
                   {"OMPI_COMM_WORLD_SIZE", "2"},
                   {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                   {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}})
                ->address,
            "127.0.0.1");
  EXPECT_THROW(place({{"OMPI_COMM_WORLD_RANK", "1"},
                      {"OMPI_COMM_WORLD_SIZE", "4"},
                      {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}),
               Error);
  EXPECT_EQ(place({{"PMI_RANK", "0"}, {"PMI_SIZE", "3"}, {"MASTER_ADDR", "a"}})->size, 3);
}

TEST(JobPlace, RefusesNonsense) {
  EXPECT_THROW(place({{"RANK", "2"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}}), Error);
  EXPECT_THROW(place({{"RANK", "x"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}}), Error);
  EXPECT_THROW(place({{"RANK", "0"}, {"WORLD_SIZE", "2"}}), Error);
}

TEST(JobPlace, FirstHostOfSlurmsList) {
  EXPECT_EQ(first_host("one"), "one");
  EXPECT_EQ(first_host("one,two[1-2]"), "one");
  EXPECT_EQ(first_host("node[003-005,9],x1"), "node003");
  EXPECT_EQ(first_host("n[7]"), "n7");
}

}  // namespace
}  // namespace blockptq
