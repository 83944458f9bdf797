"""Makes checkpoints with random weights in the official DeepSeek layout, of any size.

    python tests/make_checkpoint.py DIR --preset deepseek --blocks 2 --dense_blocks 0 --experts 64

Names, dtypes and shapes are those of DeepSeek-V3.2 (or DeepSeek-V3, the same without indexer). The
weights are slices of one pool of normal numbers, scaled so that activations stay near 1; the slice
depends on the name and the seed alone. Tensors are written in pieces: memory stays constant, and
the disk is the limit. The tokenizer is the one of the small model that ships with the project.
"""

from __future__ import annotations

import argparse
import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from blockptq_testing.models import SHIPPED
from blockptq_testing.numbers import FP8_MAX, f32_to_bf16, f32_to_fp8
from blockptq_testing.tensorfile import INDEX_NAME, NUMPY_TYPES, header_bytes

POOL_SIZE = 4_194_301  # a prime: rows of no matrix repeat
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
    vocab: int = 4096


PRESETS = {
    "tiny": Dims(),
    "deepseek": Dims(
        hidden=7168, intermediate=18432, moe_intermediate=2048, experts=256, topk=8, groups=8,
        topk_groups=4, blocks=61, dense_blocks=3, heads=128, q_lora=1536, kv_lora=512, nope=128,
        rope=64, value=128, index_heads=64, index_dim=128, index_topk=2048,
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


class Layout:
    """The tensors of a checkpoint, in the order of the blocks."""

    def __init__(self, dims: Dims, fp8: bool, indexer: bool) -> None:
        self.dims = dims
        self.fp8 = fp8
        self.indexer = indexer

    def tensors(self) -> Iterator[Tensor]:
        d = self.dims
        yield Tensor("model.embed_tokens.weight", "BF16", (d.vocab, d.hidden), 0.0, 1.0)
        for block in range(d.blocks):
            yield from self._block(f"model.layers.{block}.", moe=block >= d.dense_blocks)
        yield self._norm("model.norm", d.hidden)
        yield self._plain("lm_head", d.vocab, d.hidden)
        for layer in range(d.blocks, d.blocks + d.mtp):
            prefix = f"model.layers.{layer}."
            yield Tensor(prefix + "embed_tokens.weight", "BF16", (d.vocab, d.hidden), 0.0, 1.0)
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
        if not self.indexer:
            return
        yield from self._linear(prefix + "indexer.wq_b", d.index_heads * d.index_dim, d.q_lora)
        yield from self._linear(prefix + "indexer.wk", d.index_dim, d.hidden)
        yield self._norm(prefix + "indexer.k_norm", d.index_dim)
        yield Tensor(prefix + "indexer.k_norm.bias", "BF16", (d.index_dim,), 0.0, 0.1)
        yield self._plain(prefix + "indexer.weights_proj", d.index_heads, d.hidden)

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


class Pool:
    """Random numbers that every tensor takes a slice of, wrapped around at the end."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._normal = np.random.default_rng(seed).standard_normal(POOL_SIZE, dtype=np.float32)
        self._encoded: dict[tuple[str, float, float], memoryview] = {}

    def write(self, tensor: Tensor, file: BinaryIO) -> None:
        data = self._codes(tensor)
        offset = zlib.crc32(f"{self._seed} {tensor.name}".encode()) % POOL_SIZE
        position = offset * NUMPY_TYPES[tensor.dtype].itemsize
        left = tensor.nbytes
        while left:
            piece = data[position : position + left]
            file.write(piece)
            left -= len(piece)
            position = 0

    def _codes(self, tensor: Tensor) -> memoryview:
        """The whole pool as bytes of the tensor's dtype and distribution."""
        # FP8 codes do not depend on the distribution of the weight: the scale carries it.
        key = ("F8_E4M3", 0.0, 0.0) if tensor.dtype == "F8_E4M3" else (tensor.dtype, tensor.mean, tensor.std)
        if key not in self._encoded:
            self._encoded[key] = memoryview(self._encode(tensor)).cast("B")
        return self._encoded[key]

    def _encode(self, tensor: Tensor) -> np.ndarray:
        if tensor.dtype == "F8_E4M3":
            return f32_to_fp8(self._normal * np.float32(FP8_MAX / FP8_SIGMAS))
        if tensor.is_scale:
            return (tensor.mean * np.exp2(0.25 * self._normal)).astype(np.float32)
        values = tensor.mean + tensor.std * self._normal
        return f32_to_bf16(values) if tensor.dtype == "BF16" else values.astype(np.float32)


def config_json(dims: Dims, fp8: bool, indexer: bool) -> dict[str, Any]:
    """config.json as the official checkpoints have it."""
    family = "V32" if indexer else "V3"
    config: dict[str, Any] = {
        "architectures": [f"Deepseek{family}ForCausalLM"],
        "model_type": f"deepseek_{family.lower()}",
        "attention_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "first_k_dense_replace": dims.dense_blocks,
        "hidden_act": "silu",
        "hidden_size": dims.hidden,
        "intermediate_size": dims.intermediate,
        "kv_lora_rank": dims.kv_lora,
        "max_position_embeddings": 4096,
        "moe_intermediate_size": dims.moe_intermediate,
        "moe_layer_freq": 1,
        "n_group": dims.groups,
        "n_routed_experts": dims.experts,
        "n_shared_experts": dims.shared_experts,
        "norm_topk_prob": True,
        "num_attention_heads": dims.heads,
        "num_experts_per_tok": dims.topk,
        "num_hidden_layers": dims.blocks,
        "num_key_value_heads": dims.heads,
        "num_nextn_predict_layers": dims.mtp,
        "q_lora_rank": dims.q_lora,
        "qk_nope_head_dim": dims.nope,
        "qk_rope_head_dim": dims.rope,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {
            "beta_fast": 32, "beta_slow": 1, "factor": 4, "mscale": 1.0, "mscale_all_dim": 1.0,
            "original_max_position_embeddings": 1024, "type": "yarn",
        },
        "rope_theta": 10000,
        "routed_scaling_factor": 2.5,
        "scoring_func": "sigmoid",
        "tie_word_embeddings": False,
        "topk_group": dims.topk_groups,
        "topk_method": "noaux_tc",
        "torch_dtype": "bfloat16",
        "v_head_dim": dims.value,
        "vocab_size": dims.vocab,
    }  # fmt: skip
    if indexer:
        config["index_head_dim"] = dims.index_dim
        config["index_n_heads"] = dims.index_heads
        config["index_topk"] = dims.index_topk
    if fp8:
        config["quantization_config"] = {
            "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
            "weight_block_size": [FP8_BLOCK, FP8_BLOCK],
        }  # fmt: skip
    return config


def split_into_shards(tensors: list[Tensor], shard_bytes: int, split_scales: bool) -> list[list[Tensor]]:
    """Shards of at most `shard_bytes` (or one tensor); `split_scales` puts FP8 scales in shards of their own."""
    groups = [tensors]
    if split_scales:
        groups = [[t for t in tensors if t.is_scale == wanted] for wanted in (False, True)]
    shards: list[list[Tensor]] = []
    for group in groups:
        size = shard_bytes
        for tensor in group:
            if size + tensor.nbytes > shard_bytes:
                shards.append([])
                size = 0
            shards[-1].append(tensor)
            size += tensor.nbytes
    return shards


def write_checkpoint(
    folder: Path,
    dims: Dims,
    fp8: bool = False,
    indexer: bool = True,
    seed: int = 0,
    shard_bytes: int = 5_000_000_000,
    split_scales: bool = False,
) -> int:
    """Writes a checkpoint into a new folder and returns the bytes of its tensors."""
    tensors = list(Layout(dims, fp8, indexer).tensors())
    shards = split_into_shards(tensors, shard_bytes, split_scales)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_json(dims, fp8, indexer), indent=2) + "\n")
    for path in SHIPPED.glob("tokenizer*"):
        shutil.copyfile(path, folder / path.name)
    pool = Pool(seed)
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        # As the safetensors library does: wide elements first, so that every tensor is aligned.
        shard = sorted(shard, key=lambda t: (-NUMPY_TYPES[t.dtype].itemsize, t.name))
        with open(folder / name, "wb") as file:
            file.write(header_bytes((t.name, t.dtype, t.shape) for t in shard))
            for tensor in shard:
                pool.write(tensor, file)
        weight_map |= {t.name: name for t in shard}
    total_size = sum(t.nbytes for t in tensors)
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n")
    return total_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help="sizes that the options below change")
    parser.add_argument("--model_type", choices=("deepseek_v32", "deepseek_v3"), default="deepseek_v32")
    parser.add_argument("--dtype", choices=("bf16", "fp8"), default="bf16")
    parser.add_argument("--shard_bytes", type=int, default=5_000_000_000)
    parser.add_argument("--split_scales", action="store_true", help="FP8 scales in shards of their own")
    parser.add_argument("--seed", type=int, default=0)
    for name, default in asdict(Dims()).items():
        parser.add_argument(f"--{name}", type=int, help=f"tiny: {default}")
    options = parser.parse_args()
    given = {name: getattr(options, name) for name in asdict(Dims()) if getattr(options, name) is not None}
    total_size = write_checkpoint(
        options.folder, replace(PRESETS[options.preset], **given), fp8=options.dtype == "fp8",
        indexer=options.model_type == "deepseek_v32", seed=options.seed,
        shard_bytes=options.shard_bytes, split_scales=options.split_scales,
    )  # fmt: skip
    print(f"{options.folder}: {total_size:,} bytes of tensors")


if __name__ == "__main__":
    main()
