"""Tensors and config.json of official checkpoints, of any size: for the generator of random ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .numbers import FP8_MAX
from .tensorfile import NUMPY_TYPES

FP8_BLOCK = 128
FP8_SIGMAS = 5.5  # the largest FP8 code stands for this many standard deviations


@dataclass(frozen=True)
class Dims:
    """Sizes of a model; the defaults are those of the small model."""

    hidden: int = 256
    intermediate: int = 768
    moe_intermediate: int = 128
    experts: int = 16
    topk: int = 4
    groups: int = 4
    topk_groups: int = 2
    shared_experts: int = 1
    blocks: int = 6
    dense_blocks: int = 2
    mtp: int = 0
    heads: int = 8
    q_lora: int = 128
    kv_lora: int = 128
    nope: int = 32
    rope: int = 32
    value: int = 32
    index_heads: int = 4
    index_dim: int = 64
    index_topk: int = 256
    kv_heads: int = 2
    head_dim: int = 32
    vocab: int = 4096
    sparse_step: int = 1  # of Qwen3-MoE: behind the dense blocks, only every so manieth block has experts
    tied: int = 0  # 1: the output head is the embedding


PRESETS = {
    "tiny": Dims(),
    "deepseek": Dims(
        hidden=7168, intermediate=18432, moe_intermediate=2048, experts=256, topk=8, groups=8,
        topk_groups=4, blocks=61, dense_blocks=3, heads=128, q_lora=1536, kv_lora=512, nope=128,
        rope=64, value=128, index_heads=64, index_dim=128, index_topk=2048,
    ),
    "qwen3_moe": Dims(
        hidden=4096, intermediate=12288, moe_intermediate=1536, experts=128, topk=8, blocks=94,
        dense_blocks=0, heads=64, kv_heads=4, head_dim=128,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """One tensor to be made: normal numbers, mean + std x N(0, 1). FP8 scales have the std of their weight."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    mean: float
    std: float

    @property
    def is_scale(self) -> bool:
        return self.name.endswith("_scale_inv")

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * NUMPY_TYPES[self.dtype].itemsize


class Layout(ABC):
    """What a checkpoint of a model type consists of."""

    def __init__(self, model_type: str, dims: Dims, fp8: bool) -> None:
        self.model_type = model_type
        self.dims = dims
        self.fp8 = fp8

    def tensors(self) -> Iterator[Tensor]:
        """In the order of the blocks."""
        d = self.dims
        yield self._embedding("model.")
        for block in range(d.blocks):
            yield from self._block(f"model.layers.{block}.", self._is_moe(block))
        yield self._norm("model.norm", d.hidden)
        if not d.tied:
            yield self._plain("lm_head", d.vocab, d.hidden)

    def _is_moe(self, block: int) -> bool:
        return block >= self.dims.dense_blocks

    @abstractmethod
    def _block(self, prefix: str, moe: bool) -> Iterator[Tensor]:
        """The tensors of a block."""

    @abstractmethod
    def _family_config(self) -> dict[str, Any]:
        """The keys of config.json that not all families share."""

    def config(self) -> dict[str, Any]:
        """config.json as the official checkpoints have it."""
        d = self.dims
        config: dict[str, Any] = {
            "model_type": self.model_type,
            "attention_bias": False,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "hidden_act": "silu",
            "hidden_size": d.hidden,
            "intermediate_size": d.intermediate,
            "max_position_embeddings": 4096,
            "moe_intermediate_size": d.moe_intermediate,
            "norm_topk_prob": True,
            "num_attention_heads": d.heads,
            "num_experts_per_tok": d.topk,
            "num_hidden_layers": d.blocks,
            "rms_norm_eps": 1e-06,
            "rope_theta": 10000,
            "tie_word_embeddings": bool(d.tied),
            "torch_dtype": "bfloat16",
            "vocab_size": d.vocab,
        }
        config |= self._family_config()
        if self.fp8:
            config["quantization_config"] = {
                "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                "weight_block_size": [FP8_BLOCK, FP8_BLOCK],
            }  # fmt: skip
        return config

    def _embedding(self, prefix: str) -> Tensor:
        return Tensor(prefix + "embed_tokens.weight", "BF16", (self.dims.vocab, self.dims.hidden), 0.0, 1.0)

    def _mlp(self, prefix: str, width: int) -> Iterator[Tensor]:
        yield from self._linear(prefix + "gate_proj", width, self.dims.hidden)
        yield from self._linear(prefix + "up_proj", width, self.dims.hidden)
        yield from self._linear(prefix + "down_proj", self.dims.hidden, width)

    def _linear(self, name: str, rows: int, columns: int) -> Iterator[Tensor]:
        """A linear that official FP8 checkpoints hold in FP8."""
        if not self.fp8:
            yield self._plain(name, rows, columns)
            return
        std = columns**-0.5
        grid = (-(-rows // FP8_BLOCK), -(-columns // FP8_BLOCK))
        yield Tensor(name + ".weight", "F8_E4M3", (rows, columns), 0.0, std)
        yield Tensor(name + ".weight_scale_inv", "F32", grid, FP8_SIGMAS * std / FP8_MAX, 0.0)

    def _plain(self, name: str, rows: int, columns: int) -> Tensor:
        return Tensor(name + ".weight", "BF16", (rows, columns), 0.0, columns**-0.5)

    def _norm(self, name: str, size: int) -> Tensor:
        return Tensor(name + ".weight", "BF16", (size,), 1.0, 0.1)


class DeepSeekLayout(Layout):
    """DeepSeek-V3.2, and DeepSeek-V3: the same without indexer."""

    @property
    def _has_indexer(self) -> bool:
        return self.model_type == "deepseek_v32"

    def tensors(self) -> Iterator[Tensor]:
        d = self.dims
        yield from super().tensors()
        for layer in range(d.blocks, d.blocks + d.mtp):
            prefix = f"model.layers.{layer}."
            yield self._embedding(prefix)
            yield self._norm(prefix + "enorm", d.hidden)
            yield self._norm(prefix + "hnorm", d.hidden)
            yield self._plain(prefix + "eh_proj", d.hidden, 2 * d.hidden)
            yield from self._block(prefix, moe=True)
            yield self._norm(prefix + "shared_head.norm", d.hidden)
            yield self._plain(prefix + "shared_head.head", d.vocab, d.hidden)

    def _block(self, prefix: str, moe: bool) -> Iterator[Tensor]:
        d = self.dims
        yield self._norm(prefix + "input_layernorm", d.hidden)
        yield from self._attention(prefix + "self_attn.")
        yield self._norm(prefix + "post_attention_layernorm", d.hidden)
        if not moe:
            yield from self._mlp(prefix + "mlp.", d.intermediate)
            return
        yield self._plain(prefix + "mlp.gate", d.experts, d.hidden)
        yield Tensor(prefix + "mlp.gate.e_score_correction_bias", "F32", (d.experts,), 0.0, 0.01)
        for expert in range(d.experts):
            yield from self._mlp(f"{prefix}mlp.experts.{expert}.", d.moe_intermediate)
        yield from self._mlp(prefix + "mlp.shared_experts.", d.moe_intermediate * d.shared_experts)

    def _attention(self, prefix: str) -> Iterator[Tensor]:
        d = self.dims
        yield from self._linear(prefix + "q_a_proj", d.q_lora, d.hidden)
        yield self._norm(prefix + "q_a_layernorm", d.q_lora)
        yield from self._linear(prefix + "q_b_proj", d.heads * (d.nope + d.rope), d.q_lora)
        yield from self._linear(prefix + "kv_a_proj_with_mqa", d.kv_lora + d.rope, d.hidden)
        yield self._norm(prefix + "kv_a_layernorm", d.kv_lora)
        yield from self._linear(prefix + "kv_b_proj", d.heads * (d.nope + d.value), d.kv_lora)
        yield from self._linear(prefix + "o_proj", d.hidden, d.heads * d.value)
        if not self._has_indexer:
            return
        yield from self._linear(prefix + "indexer.wq_b", d.index_heads * d.index_dim, d.q_lora)
        yield from self._linear(prefix + "indexer.wk", d.index_dim, d.hidden)
        yield self._norm(prefix + "indexer.k_norm", d.index_dim)
        yield Tensor(prefix + "indexer.k_norm.bias", "BF16", (d.index_dim,), 0.0, 0.1)
        yield self._plain(prefix + "indexer.weights_proj", d.index_heads, d.hidden)

    def _family_config(self) -> dict[str, Any]:
        d = self.dims
        config: dict[str, Any] = {
            "architectures": [f"Deepseek{'V32' if self._has_indexer else 'V3'}ForCausalLM"],
            "first_k_dense_replace": d.dense_blocks,
            "kv_lora_rank": d.kv_lora,
            "moe_layer_freq": 1,
            "n_group": d.groups,
            "n_routed_experts": d.experts,
            "n_shared_experts": d.shared_experts,
            "num_key_value_heads": d.heads,
            "num_nextn_predict_layers": d.mtp,
            "q_lora_rank": d.q_lora,
            "qk_nope_head_dim": d.nope,
            "qk_rope_head_dim": d.rope,
            "rope_scaling": {
                "beta_fast": 32, "beta_slow": 1, "factor": 4, "mscale": 1.0, "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 1024, "type": "yarn",
            },
            "routed_scaling_factor": 2.5,
            "scoring_func": "sigmoid",
            "topk_group": d.topk_groups,
            "topk_method": "noaux_tc",
            "v_head_dim": d.value,
        }  # fmt: skip
        if self._has_indexer:
            config |= {"index_head_dim": d.index_dim, "index_n_heads": d.index_heads, "index_topk": d.index_topk}
        return config


class GroupedQueryLayout(Layout):
    """Llama, Qwen3 and Qwen3-MoE, whose first `dense_blocks` blocks are dense."""

    @property
    def _has_norms(self) -> bool:
        return self.model_type != "llama"

    def _is_moe(self, block: int) -> bool:
        return self.model_type == "qwen3_moe" and super()._is_moe(block) and (block + 1) % self.dims.sparse_step == 0

    def _block(self, prefix: str, moe: bool) -> Iterator[Tensor]:
        d = self.dims
        yield self._norm(prefix + "input_layernorm", d.hidden)
        yield from self._linear(prefix + "self_attn.q_proj", d.heads * d.head_dim, d.hidden)
        yield from self._linear(prefix + "self_attn.k_proj", d.kv_heads * d.head_dim, d.hidden)
        yield from self._linear(prefix + "self_attn.v_proj", d.kv_heads * d.head_dim, d.hidden)
        if self._has_norms:
            yield self._norm(prefix + "self_attn.q_norm", d.head_dim)
            yield self._norm(prefix + "self_attn.k_norm", d.head_dim)
        yield from self._linear(prefix + "self_attn.o_proj", d.hidden, d.heads * d.head_dim)
        yield self._norm(prefix + "post_attention_layernorm", d.hidden)
        if not moe:
            yield from self._mlp(prefix + "mlp.", d.intermediate)
            return
        yield self._plain(prefix + "mlp.gate", d.experts, d.hidden)
        for expert in range(d.experts):
            yield from self._mlp(f"{prefix}mlp.experts.{expert}.", d.moe_intermediate)

    def _family_config(self) -> dict[str, Any]:
        d = self.dims
        names = {"qwen3_moe": "Qwen3MoeForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
        config: dict[str, Any] = {
            "architectures": [names[self.model_type]],
            "head_dim": d.head_dim,
            "num_key_value_heads": d.kv_heads,
            "rope_scaling": None,
        }
        if self.model_type == "llama":
            return config | {"mlp_bias": False}
        config |= {"sliding_window": None, "use_sliding_window": False}
        if self.model_type == "qwen3_moe":
            config |= {
                "decoder_sparse_step": d.sparse_step,
                "mlp_only_layers": list(range(d.dense_blocks)),
                "num_experts": d.experts,
            }
        return config


LAYOUTS: dict[str, type[Layout]] = {
    "deepseek_v32": DeepSeekLayout,
    "deepseek_v3": DeepSeekLayout,
    "qwen3_moe": GroupedQueryLayout,
    "qwen3": GroupedQueryLayout,
    "llama": GroupedQueryLayout,
}
