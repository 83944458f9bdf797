"""The model in HF transformers, as the judge of numbers and of speed (interop environment only)."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_model(folder: Path, dtype: str, experts: str = "eager", extra_layers: int = 0) -> PreTrainedModel:
    """The model of a folder without FP8, attention by sdpa.

    `extra_layers` MTP layers are loaded as further decoder layers; model(...) does not run them.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(folder)
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(f"{folder}: transformers would not decode FP8 on a CPU, decode it first")
    layers = config.num_hidden_layers
    if extra_layers:
        config.num_hidden_layers = layers + extra_layers
        config.mlp_layer_types = config.mlp_layer_types + ["sparse"] * extra_layers
    model = AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=DTYPES[dtype],
        attn_implementation="sdpa", experts_implementation=experts,
    )  # fmt: skip
    model.config.num_hidden_layers = layers
    return model.eval()


@torch.inference_mode()
def token_nlls(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """Cross-entropy in nats of the len(ids) - 1 next-token predictions of one sequence, fp32."""
    tokens = torch.tensor([ids])
    logits = model(tokens, use_cache=False).logits[0, :-1].float()
    return cross_entropy(logits, tokens[0, 1:], reduction="none")


def perplexity(chunk_nlls: list[float]) -> float:
    """exp of the mean over chunks of the chunks' mean cross-entropy."""
    return math.exp(math.fsum(chunk_nlls) / len(chunk_nlls))
