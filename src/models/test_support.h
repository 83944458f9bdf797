// What the tests of families share.
#pragma once

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "checkpoint/checkpoint.h"
#include "models/families.h"

namespace blockptq {

/// The table of the model has the tensors of its checkpoint, each once.
inline void expect_table_of_all_tensors(const Checkpoint& checkpoint) {
  std::set<std::string> in_table;
  for (const ModelTensor& tensor : open_model(checkpoint)->tensors()) {
    EXPECT_TRUE(in_table.insert(tensor.name).second) << tensor.name;
  }
  std::set<std::string> in_checkpoint;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    in_checkpoint.insert(tensor.name);
  }
  EXPECT_EQ(in_table, in_checkpoint);
}

}  // namespace blockptq
