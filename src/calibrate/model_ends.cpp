#include "calibrate/model_ends.h"

#include <ATen/ATen.h>

#include <functional>
#include <span>
#include <utility>

#include "eval/model_pass.h"
#include "models/ends.h"

namespace blockptq {
namespace {

/// Rows `ids` of the embedding `spec` in both models, as states of the text.
TextStates embed_rows(const CalibrationContext& context, const ModelTensor& spec,
                      std::span<const int32_t> ids, const CalibrationText& text,
                      at::Device device) {
  const at::Tensor rows_CLD = embed(*context.source, spec, ids, at::kFloat)
                                  .view({text.windows.count(), text.windows.seq_len, -1});
  const at::TensorOptions options(device);
  TextStates states{at::empty(rows_CLD.sizes(), options.dtype(context.type)),
                    at::empty(rows_CLD.sizes(), options.dtype(context.type)), text.calibrate};
  for (int64_t c = 0; c < rows_CLD.size(0); ++c) {
    const at::Tensor exact_LD =
        context.rotation == nullptr ? rows_CLD[c] : context.rotation->apply(spec.name, rows_CLD[c]);
    states.float_CLD[c].copy_(exact_LD);
    states.quant_CLD[c].copy_(as_written(context, {spec.name, spec.role, exact_LD}));
  }
  return states;
}

/// `piece` in the compute type, each tensor as `value` gives it.
Piece replaced(Piece piece, at::ScalarType type,
               const std::function<at::Tensor(const Weight&)>& value) {
  for (const Weight& tensor : piece.tensors()) {
    piece.replace({tensor.name, tensor.role, value(tensor)});
  }
  for (const Weight& weight : piece.weights()) {
    piece.replace({weight.name, weight.role, weight.value.to(type)});
  }
  return piece;
}

/// What enters an MTP layer, in both models.
class MtpInput {
 public:
  /// states: final ones, normalised; where the stream is rotated, without the weight of the final
  /// norm.
  MtpInput(const CalibrationContext& context, const Model& model, const Piece& piece,
           const std::vector<TextStates>& states)
      : context_(context), rotation_(context.rotation), model_(model) {
    exact_ = replaced(piece, context.type, [](const Weight& tensor) { return tensor.value; });
    if (rotation_ != nullptr) {
      const std::vector<ModelTensor> table = model.tensors();
      norm_D_ = rotation_->norm(tensor_of(table, Unit::head, "norm").name);
      const double inverse_size = mean_inverse_size(states);
      for (const Weight& tensor : piece.tensors()) {
        unit_.transformed[tensor.name] = rotation_->apply(tensor.name, tensor.value, inverse_size);
      }
    }
    quantized_ = replaced(piece, context.type, [&](const Weight& tensor) {
      const auto found = unit_.transformed.find(tensor.name);
      const at::Tensor& value = found == unit_.transformed.end() ? tensor.value : found->second;
      return as_written(context, {tensor.name, tensor.role, value});
    });
  }

  /// Replaces the states of one text; `embedded`: its next tokens.
  void enter(const TextStates& embedded, TextStates& text) {
    for (int64_t c = 0; c < text.float_CLD.size(0); ++c) {
      at::Tensor float_LD = text.float_CLD[c];
      at::Tensor quant_LD = text.quant_CLD[c];
      const at::Tensor exact_LD = exact(embedded.float_CLD[c], float_LD);
      if (rotation_ != nullptr && text.calibrate) {
        error_.add(quantized(embedded.quant_CLD[c], float_LD), exact_LD, {});
        unit_.report.tokens += float_LD.size(0);
      }
      float_LD.copy_(exact_LD);
      quant_LD.copy_(quantized(embedded.quant_CLD[c], quant_LD));
    }
  }

  /// What takes the place of the source's tensors, if anything does.
  std::optional<UnitResult> result() && {
    if (rotation_ == nullptr) {
      return std::nullopt;
    }
    unit_.report.block = model_.spec().blocks;
    unit_.report.unit = "mtp_input";
    unit_.report.loss_before = unit_.report.loss_after = error_.value();
    return std::move(unit_);
  }

 private:
  /// By the source's tensors in the source's basis, then brought into that of the stream.
  at::Tensor exact(const at::Tensor& embedded_LD, const at::Tensor& hidden_LD) const {
    const int64_t block = model_.spec().blocks;
    if (rotation_ == nullptr) {
      return model_.mtp_input(exact_, block, embedded_LD, hidden_LD);
    }
    return rotation_->rotate(model_.mtp_input(exact_, block,
                                              rotation_->rotate_back(embedded_LD).to(context_.type),
                                              final_states(hidden_LD).to(context_.type)));
  }
  at::Tensor quantized(const at::Tensor& embedded_LD, const at::Tensor& hidden_LD) const {
    return model_.mtp_input(quantized_, model_.spec().blocks, embedded_LD, hidden_LD);
  }
  /// The final states of the source, fp32, from those of the rotated float model.
  at::Tensor final_states(const at::Tensor& hidden_LD) const {
    return rotation_->rotate_back(hidden_LD) * norm_D_.to(hidden_LD.device());
  }
  /// 1 / the root mean square of the final states, on average.
  double mean_inverse_size(const std::vector<TextStates>& states) const {
    double sum = 0;
    int64_t tokens = 0;
    for (const TextStates& text : states) {
      for (int64_t c = 0; text.calibrate && c < text.float_CLD.size(0); ++c) {
        const at::Tensor size_L = final_states(text.float_CLD[c]).square().mean(-1).sqrt();
        sum += size_L.reciprocal().sum(at::kDouble).item<double>();
        tokens += size_L.numel();
      }
    }
    return sum / static_cast<double>(tokens);
  }

  const CalibrationContext& context_;
  const StreamRotation* rotation_;
  const Model& model_;
  at::Tensor norm_D_;  ///< the weight of the final norm
  Piece exact_;
  Piece quantized_;
  UnitResult unit_;
  RelativeError error_;
};

}  // namespace

TextStates embed_text(const CalibrationContext& context, const Model& model,
                      const CalibrationText& text, at::Device device) {
  const std::vector<ModelTensor> table = model.tensors();
  return embed_rows(context, tensor_of(table, Unit::embedding, "embedding"), text.windows.ids, text,
                    device);
}

HeadTile head_tile(const CalibrationContext& context, const Model& model, const Piece& tile) {
  const std::vector<ModelTensor> table = model.tensors();
  const ModelTensor& head = head_weight(table, Unit::head);
  const at::Tensor& rows_VD = tile.only();
  return {rows_VD.to(context.type),
          as_written(context, {head.source(), head.role, rows_VD}).to(context.type)};
}

std::optional<UnitResult> enter_mtp(const CalibrationContext& context, const Model& model,
                                    const Piece& piece, const std::vector<CalibrationText>& texts,
                                    std::vector<TextStates>& states) {
  const std::vector<ModelTensor> table = model.tensors();
  const ModelTensor& embedding = tensor_of(table, Unit::mtp_input, "embedding");
  MtpInput input(context, model, piece, states);
  for (size_t i = 0; i < texts.size(); ++i) {
    input.enter(embed_rows(context, embedding, next_tokens(texts[i].windows), texts[i],
                           states[i].float_CLD.device()),
                states[i]);
  }
  return std::move(input).result();
}

}  // namespace blockptq
