"""Computes the reference answers of a small DeepSeek-V3.2 checkpoint with HF transformers in fp32.

    python tests/make_reference.py MODEL_DIR --text WIKITEXT_FILE --output REFERENCE_DIR

MODEL_DIR may be FP8 (it is decoded first, by decode_fp8.py) or BF16. Writes ref_tokens.json,
ref_logits, ref_hidden, ref_indexer_topk and ref_mtp (safetensors, fp32) and ppl.json. The MTP layer,
which transformers does not run, is put together here from transformers' own decoder layer.
Needs the environment of requirements/interop.txt.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.masking_utils import create_causal_mask

from blockptq_testing.hf_model import load_model, perplexity, token_nlls
from blockptq_testing.tensorfile import Checkpoint, write_file
from blockptq_testing.text import encode_chunks, wikitext_document
from decode_fp8 import decode

REFERENCE_TOKENS = 2048
HIDDEN_POSITIONS = 64
LOGIT_POSITIONS = 64
MTP_LOGIT_POSITIONS = 16
NLL_LENGTHS = (512, 1024, 2048)
MTP_LENGTH = 513
PPL_SETTINGS = ((512, 4), (1024, 16), (2048, 8))
PROCEDURE = (
    "rows of the WikiText-2 raw test text joined by two newlines, tokenised once with one BOS in front, "
    "non-overlapping chunks from the start, mean cross-entropy over the seq_len - 1 predicted tokens of "
    "every chunk (chunk_nll), ppl = exp(mean of chunk_nll)"
)
MTP_PROCEDURE = (
    "the MTP layer of a chunk sees the final-norm output of position t and token t + 1, t = 0 .. seq_len - 2, and "
    "predicts token t + 2: seq_len - 2 predictions; mtp_ppl = exp(mean over chunks of their mean cross-entropy)"
)


class Mtp:
    """The MTP layer: transformers' decoder layer with the input and output pieces that it leaves out.

    x_t = eh_proj([enorm(embed(token_{t+1})); hnorm(h_t)]), h_t = the main model's output after its final
    norm; one decoder layer; shared_head.norm; shared_head.head predicts token_{t+2}.
    """

    def __init__(self, model: PreTrainedModel, checkpoint: Checkpoint) -> None:
        self.model = model
        self.layer = model.model.layers[model.config.num_hidden_layers]
        self._checkpoint = checkpoint
        self._prefix = f"model.layers.{model.config.num_hidden_layers}."

    def _weight(self, name: str) -> torch.Tensor:
        name = self._prefix + name
        array = torch.from_numpy(self._checkpoint.read(name))
        is_bf16 = self._checkpoint.info(name).dtype == "BF16"
        return array.view(torch.bfloat16).float() if is_bf16 else array

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        eps = self.model.config.rms_norm_eps
        return torch.nn.functional.rms_norm(x, x.shape[-1:], self._weight(name), eps)

    @torch.inference_mode()
    def run(self, ids: list[int]) -> dict[str, torch.Tensor]:
        """The states of a sequence of T tokens: T - 1 rows, of which the last has no target."""
        base = self.model.model
        tokens = torch.tensor([ids])
        hidden = base(tokens, use_cache=False).last_hidden_state
        embedded = torch.nn.functional.embedding(tokens[:, 1:], self._weight("embed_tokens.weight"))
        joined = torch.cat((self._norm(embedded, "enorm.weight"), self._norm(hidden[:, :-1], "hnorm.weight")), dim=-1)
        x = joined @ self._weight("eh_proj.weight").T
        positions = torch.arange(x.shape[1]).unsqueeze(0)
        mask = create_causal_mask(
            config=self.model.config, inputs_embeds=x, attention_mask=None, past_key_values=None,
            position_ids=positions, allow_is_causal_skip=False,
        )  # fmt: skip
        out = self.layer(
            x, attention_mask=mask, position_ids=positions,
            position_embeddings=base.rotary_emb(x, position_ids=positions),
        )  # fmt: skip
        logits = self._norm(out, "shared_head.norm.weight") @ self._weight("shared_head.head.weight").T
        nll = cross_entropy(logits[0, :-1], tokens[0, 2:], reduction="none")
        return {"main_final_norm": hidden[0], "mtp_block_out": out[0], "mtp_logits": logits[0], "mtp_nll": nll}


@torch.inference_mode()
def hidden_reference(model: PreTrainedModel, ids: list[int]) -> dict[str, torch.Tensor]:
    """The residual stream after the embedding and after every block, and the output of the final norm."""
    outputs: dict[str, torch.Tensor] = {}
    hooks = [
        layer.register_forward_hook(lambda _module, _args, out, name=f"layer_{i}_out": outputs.update({name: out[0]}))
        for i, layer in enumerate(model.model.layers)
    ]
    states = model.model(torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    embed = model.model.embed_tokens(torch.tensor(ids))
    outputs = {"embed": embed} | outputs | {"final_norm": states.last_hidden_state[0]}
    return {name: tensor[:HIDDEN_POSITIONS] for name, tensor in outputs.items()}


@torch.inference_mode()
def topk_reference(model: PreTrainedModel, ids: list[int]) -> dict[str, torch.Tensor]:
    """Sorted key ids that the indexer of every block selects for the last query."""
    selected: dict[str, torch.Tensor] = {}
    last = len(ids) - 1
    hooks = [
        layer.self_attn.indexer.register_forward_hook(
            lambda _module, _args, out, name=f"topk_layer_{i}_seq{len(ids)}_pos{last}": selected.update(
                {name: out[0, last].sort().values.int()}
            )
        )
        for i, layer in enumerate(model.model.layers[: model.config.num_hidden_layers])
    ]
    model.model(torch.tensor([ids]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return selected


@torch.inference_mode()
def logits_reference(model: PreTrainedModel, ids: list[int]) -> dict[str, torch.Tensor]:
    """First logits of a sequence of 512 tokens, and the NLL of every token of 512, 1024 and 2048."""
    logits = model(torch.tensor([ids[:512]]), use_cache=False).logits[0, :LOGIT_POSITIONS]
    nlls = {f"nll_seq{n}": token_nlls(model, ids[:n]) for n in NLL_LENGTHS}
    return {f"logits_seq512_first{LOGIT_POSITIONS}": logits} | nlls


def mtp_reference(mtp: Mtp, ids: list[int]) -> dict[str, torch.Tensor]:
    states = mtp.run(ids)
    return {
        "tokens": torch.tensor(ids, dtype=torch.int32),
        f"main_final_norm_first{HIDDEN_POSITIONS}": states["main_final_norm"][:HIDDEN_POSITIONS],
        f"mtp_block_out_first{HIDDEN_POSITIONS}": states["mtp_block_out"][:HIDDEN_POSITIONS],
        f"mtp_logits_first{MTP_LOGIT_POSITIONS}": states["mtp_logits"][:MTP_LOGIT_POSITIONS],
        "mtp_nll": states["mtp_nll"],
    }


def ppl_rows(model: PreTrainedModel, mtp: Mtp | None, compute: str, chunks_of: Any) -> list[dict[str, Any]]:
    """One row per (length, chunks); with `mtp` also the perplexity of the MTP layer."""
    rows: list[dict[str, Any]] = []
    for seq_len, max_chunks in PPL_SETTINGS:
        chunks = chunks_of(seq_len, max_chunks)
        nlls = [token_nlls(model, ids).double().mean().item() for ids in chunks]
        row = {"compute": compute, "seq_len": seq_len, "chunks": len(chunks), "ppl": perplexity(nlls)}
        if mtp is not None:
            mtp_nlls = [mtp.run(ids)["mtp_nll"].double().mean().item() for ids in chunks]
            row["mtp_ppl"] = perplexity(mtp_nlls)
        rows.append(row | {"chunk_nll": nlls})
    return rows


def save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    names = {torch.float32: "F32", torch.int32: "I32"}
    write_file(path, {name: (names[t.dtype], t.contiguous().numpy()) for name, t in tensors.items()})


def dense_ppl(folder: Path, ids: list[list[int]]) -> float:
    """Perplexity when the indexer selects every key: shows that the sparse one is not dense."""
    model = load_model(folder, "fp32")
    for layer in model.model.layers:
        layer.self_attn.indexer.index_topk = len(ids[0])
    return perplexity([token_nlls(model, chunk).double().mean().item() for chunk in ids])


def make_reference(folders: dict[str, Path], document: str, output: Path) -> None:
    """Writes everything. `folders` holds the weights without FP8 for compute "fp32" and "bf16"."""
    exact = folders["fp32"]

    def chunks_of(seq_len: int, max_chunks: int) -> list[list[int]]:
        return encode_chunks(exact, document, seq_len, max_chunks)

    ids = chunks_of(REFERENCE_TOKENS, 1)[0]
    output.mkdir(parents=True, exist_ok=True)
    (output / "ref_tokens.json").write_text(json.dumps(ids) + "\n")
    model = load_model(exact, "fp32", extra_layers=1)
    mtp = Mtp(model, Checkpoint(exact))
    save_tensors(output / "ref_logits.safetensors", logits_reference(model, ids))
    save_tensors(output / "ref_hidden.safetensors", hidden_reference(model, ids[:512]))
    save_tensors(output / "ref_indexer_topk.safetensors", topk_reference(model, ids[:1024]))
    save_tensors(output / "ref_mtp.safetensors", mtp_reference(mtp, ids[:MTP_LENGTH]))
    results = ppl_rows(model, mtp, "fp32", chunks_of)
    results += ppl_rows(load_model(folders["bf16"], "bf16"), None, "bf16", chunks_of)
    dense = {"compute": "fp32", "seq_len": 2048, "chunks": 8, "dense_attention": True}
    results.append(dense | {"ppl": dense_ppl(exact, chunks_of(2048, 8))})
    answer = {
        "procedure": PROCEDURE,
        "mtp_procedure": MTP_PROCEDURE,
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}, sdpa",
        "results": results,
    }
    (output / "ppl.json").write_text(json.dumps(answer, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="WikiText file (lines are rows)")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    document = wikitext_document(options.text)
    is_fp8 = "quantization_config" in json.loads((options.model / "config.json").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        folders = dict.fromkeys(("fp32", "bf16"), options.model)
        if is_fp8:
            folders = {"fp32": Path(scratch, "f32"), "bf16": Path(scratch, "bf16")}
            decode(options.model, folders["fp32"], "f32")
            decode(options.model, folders["bf16"], "bf16")
        make_reference(folders, document, options.output)


if __name__ == "__main__":
    main()
