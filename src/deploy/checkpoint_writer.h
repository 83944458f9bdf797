// Writes a deployed checkpoint, part by part: the embedding, each block, the head.
//
// A shard is computed, written and verified in a pipeline: while one is on its way to the disk and
// being read back, the next is computed. Memory: one weight in work, some MB on the way.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "deploy/output_folder.h"
#include "deploy/plan.h"
#include "deploy/verify.h"
#include "deploy/weight_source.h"

namespace blockptq {

struct WriterOptions {
  bool verify = true;
  bool restart = false;
  std::string version;  ///< of the program
  Json run;  ///< what identifies the run besides scheme and shards; "source" where it is another
             ///< than the folder that is read
  /// Called as tensors are done, with the share of all bytes, 0 to 1.
  std::function<void(const PlannedShard& shard, double done)> progress;
};

class CheckpointWriter {
 public:
  /// Opens or continues the output folder. Error when it is not ours or the disk has no room.
  /// `source` and `plan` outlive the writer.
  CheckpointWriter(const Checkpoint& source, const OutputPlan& plan, const Recipe& recipe,
                   const std::filesystem::path& folder, WriterOptions options);
  /// Without `finish`, what is recorded stays and a later writer continues behind it.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Whether everything is there already.
  bool complete() const { return folder_.complete(); }
  /// Whether all shards of a part ("block 3") are finished.
  bool has(const std::string& part) const;
  /// Writes the shards of a part that are not finished. The last may still be on its way when this
  /// returns; it keeps `weights` until then.
  void write(const std::string& part, const std::shared_ptr<WeightSource>& weights);
  /// Waits until everything handed over is on disk, verified and recorded.
  void flush();
  /// After all parts: small files, config.json, blockptq.json (`extra` added to it), the index.
  /// `known`: errors of weights that were not verified against their source here. Warns of outliers
  /// among those that were.
  void finish(const Json& extra = Json::object(), const RelativeErrors& known = {});

  /// Bytes written by this process.
  int64_t bytes_written() const { return bytes_written_; }
  /// Relative errors of the verified weights and of rounded ones, those of earlier processes
  /// included.
  const RelativeErrors& errors() const { return errors_; }

 private:
  struct Pending;

  void write_shard(const PlannedShard& shard, const std::shared_ptr<WeightSource>& weights);
  void write_tensor(const PlannedTensor& tensor, WeightSource& weights, const Append& append,
                    RelativeErrors& rounded) const;
  void check_space() const;
  Json config_json() const;
  Json tensors_json(const RelativeErrors& known) const;
  Json index_json() const;
  void warn_of_outliers() const;

  const Checkpoint& source_;
  const OutputPlan& plan_;
  WriterOptions options_;
  Json quantization_config_;
  OutputFolder folder_;
  std::unique_ptr<Pending> pending_;
  RelativeErrors errors_;
  int64_t bytes_written_ = 0;
  int64_t bytes_done_ = 0;  ///< of the tensors, earlier processes' included
};

}  // namespace blockptq
