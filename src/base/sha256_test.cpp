#include "base/sha256.h"

#include <gtest/gtest.h>

namespace blockptq {
namespace {

// FIPS 180-2, appendix B.
TEST(Sha256, KnownAnswer) {
  Sha256 whole;
  whole.update("abc", 3);
  EXPECT_EQ(whole.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, PiecesAreOneMessageAndFieldsAreNot) {
  Sha256 pieces;
  pieces.update("a", 1);
  pieces.update("bc", 2);
  EXPECT_EQ(pieces.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 first;
  first.add_field("a");
  first.add_field("bc");
  Sha256 second;
  second.add_field("ab");
  second.add_field("c");
  EXPECT_NE(first.hex(), second.hex());
}

}  // namespace
}  // namespace blockptq
