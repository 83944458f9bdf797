// The ends of both models, where the vocabulary is: what enters the first block, what enters an MTP
// layer, and the output head.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "calibrate/calibration_run.h"
#include "calibrate/held_out.h"
#include "calibrate/text_states.h"
#include "calibrate/unit.h"
#include "models/model.h"
#include "models/piece.h"

namespace blockptq {

/// The embeddings of a text: in the quantized model, as they are written.
TextStates embed_text(const CalibrationContext& context, const Model& model,
                      const CalibrationText& text, at::Device device);

/// A tile of the output head: rows of it in fp32.
HeadTile head_tile(const CalibrationContext& context, const Model& model, const Piece& tile);

/// Replaces the final states (normalised) of `texts` by what enters the MTP layer; `piece`: its
/// input in fp32, as the source has it. Where the stream is rotated, returns what the quantized
/// model has in its place; its loss is that of the rotation alone (models/stream_rotation.h).
std::optional<UnitResult> enter_mtp(const CalibrationContext& context, const Model& model,
                                    const Piece& piece, const std::vector<CalibrationText>& texts,
                                    std::vector<TextStates>& states);

}  // namespace blockptq
