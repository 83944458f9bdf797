"""Writes tests/fixtures/families/: small random models with the answers of HF transformers.

    .venv-interop/bin/python tests/make_family_fixtures.py

One model a folder: config.json, model.safetensors (BF16) and reference/ as make_reference.py has it,
for TOKENS random ids: ref_tokens.json, ref_logits and ref_hidden (safetensors, fp32). The weights are
normal numbers of a fixed seed, scaled so that activations stay near 1. Needs the environment of
requirements/interop.txt.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from blockptq_testing.hf_model import load_model, token_nlls
from make_reference import hidden_reference, save_tensors

OUTPUT = Path(__file__).parent / "fixtures" / "families"
TOKENS = 96
LOGIT_POSITIONS = 32
COMMON: dict[str, Any] = {
    "attention_bias": False, "hidden_act": "silu", "hidden_size": 64, "max_position_embeddings": 128,
    "num_attention_heads": 4, "torch_dtype": "bfloat16", "vocab_size": 256, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
# Spelled as in the checkpoints of these families, not as transformers 5 writes them.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"],
        "intermediate_size": 160, "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": False, "mlp_bias": False,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "qwen3": {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"],
        "head_dim": 32, "intermediate_size": 160, "num_hidden_layers": 2, "num_key_value_heads": 1,
        "rms_norm_eps": 1e-6, "rope_scaling": None, "rope_theta": 1000000, "tie_word_embeddings": True,
        "use_sliding_window": False, "sliding_window": None,
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"],
        "head_dim": 16, "intermediate_size": 96, "num_hidden_layers": 4, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": True,
        "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32, "norm_topk_prob": False,
        "decoder_sparse_step": 2, "mlp_only_layers": [3],
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    },
}  # fmt: skip


def random_model(folder: Path, seed: int) -> PreTrainedModel:
    """The model of folder/config.json with random BF16 weights."""
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() == 1:
                weight.copy_(1 + 0.1 * noise)
            else:
                weight.copy_(noise if "embed_tokens" in name else noise * weight.shape[-1] ** -0.5)
    return model


@torch.inference_mode()
def write_reference(folder: Path, ids: list[int]) -> None:
    folder.joinpath("reference").mkdir()
    (folder / "reference/ref_tokens.json").write_text(json.dumps(ids) + "\n")
    model = load_model(folder, "fp32")
    logits = model(torch.tensor([ids]), use_cache=False).logits[0, :LOGIT_POSITIONS]
    save_tensors(
        folder / "reference/ref_logits.safetensors",
        {f"logits_seq{TOKENS}_first{LOGIT_POSITIONS}": logits, f"nll_seq{TOKENS}": token_nlls(model, ids)},
    )
    save_tensors(folder / "reference/ref_hidden.safetensors", hidden_reference(model, ids))


def main() -> None:
    for seed, (name, config) in enumerate(CONFIGS.items()):
        folder = OUTPUT / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(COMMON | config, indent=2) + "\n")
        with tempfile.TemporaryDirectory() as scratch:
            random_model(folder, seed).save_pretrained(scratch)
            shutil.copyfile(Path(scratch, "model.safetensors"), folder / "model.safetensors")
        ids = torch.randint(COMMON["vocab_size"], (TOKENS,), generator=torch.Generator().manual_seed(seed))
        write_reference(folder, ids.tolist())


if __name__ == "__main__":
    main()
