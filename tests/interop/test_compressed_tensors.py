"""Deployed folders in the hands of the compressed-tensors library and of transformers.

Run by `make test-interop`, in the environment of requirements/interop.txt.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from compressed_tensors.utils import is_match, match_targets
from safetensors.torch import load_file

from blockptq_testing.deployed import DeployedFolder, deploy
from blockptq_testing.hf_model import load_model, perplexity, token_nlls
from blockptq_testing.models import LLM_COMPRESSOR, SHIPPED
from blockptq_testing.program import Argument, eval_json
from blockptq_testing.tensorfile import INDEX_NAME, write_file
from blockptq_testing.text import encode_chunks

BITS = {"w8a8c8": {8}, "w4a8c8": {8, 4}}
SEQ_LEN, CHUNKS = 512, 4


@pytest.fixture(scope="module", params=BITS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DeployedFolder:
    output = tmp_path_factory.mktemp(request.param) / "out"
    finished = deploy(output, "--quant_type", request.param)
    assert finished.code == 0, finished.stderr
    return DeployedFolder(output)


def load_folder(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def library_config(folder: DeployedFolder) -> QuantizationConfig:
    """Validated by the library's pydantic classes, which forbid unknown keys."""
    return QuantizationConfig.model_validate(folder.config["quantization_config"])


def scheme_of(config: QuantizationConfig, module: str) -> QuantizationScheme | None:
    """The scheme that the library finds for a linear; None where it stays in floating point."""
    linear = torch.nn.Linear(1, 1)
    if is_match(module, linear, config.ignore):
        return None
    schemes = {target: scheme for scheme in config.config_groups.values() for target in scheme.targets}
    targets = match_targets(module, linear, schemes)
    return schemes[targets[0]] if targets else None


def decompressed(folder: DeployedFolder, name: str, scheme: QuantizationScheme) -> torch.Tensor:
    module = name.removesuffix(".weight")
    tensors = {part: torch.from_numpy(folder.checkpoint.read(f"{module}.{part}")) for part in ("weight", "weight_scale")}
    compressor = BaseCompressor.get_value_from_registry(folder.config["quantization_config"]["format"])
    weight: torch.Tensor = compressor.decompress(tensors, scheme)["weight"]
    return weight


def test_the_library_finds_the_scheme_of_every_linear(folder: DeployedFolder) -> None:
    config = library_config(folder)
    assert config.quant_method == "compressed-tensors"
    quantized = set(folder.quantized_names())
    widths = set()
    for name, entry in folder.description["tensors"].items():
        if len(folder.checkpoint.info(name).shape) != 2 or entry["role"] == "embedding":
            continue
        scheme = scheme_of(config, name.removesuffix(".weight"))
        assert (scheme is not None) == (name in quantized), name
        if scheme is not None:
            assert scheme.weights.num_bits == folder.weight(name).bits, name
            assert scheme.input_activations.num_bits == 8 and scheme.input_activations.dynamic
            widths.add(scheme.weights.num_bits)
    assert widths in BITS.values()


def test_its_decompression_of_every_weight_is_ours(folder: DeployedFolder) -> None:
    config = library_config(folder)
    for name in folder.quantized_names():
        scheme = scheme_of(config, name.removesuffix(".weight"))
        np.testing.assert_array_equal(decompressed(folder, name, scheme).numpy(), folder.weight(name).values())


def write_decompressed(folder: DeployedFolder, target: Path) -> None:
    """The model as the library decompresses it: a floating-point folder."""
    target.mkdir()
    config = library_config(folder)
    quantized = set(folder.quantized_names())
    tensors = {}
    for name in folder.description["tensors"]:
        if name in quantized:
            scheme = scheme_of(config, name.removesuffix(".weight"))
            tensors[name] = ("F32", decompressed(folder, name, scheme).numpy())
        else:
            tensors[name] = (folder.checkpoint.info(name).dtype, folder.checkpoint.read(name))
    write_file(target / "model.safetensors", tensors)
    plain = {key: value for key, value in folder.config.items() if key != "quantization_config"}
    (target / "config.json").write_text(json.dumps(plain | {"torch_dtype": "float32"}))
    for path in folder.folder.glob("tokenizer*"):
        shutil.copyfile(path, target / path.name)
    assert not (target / INDEX_NAME).exists()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(f"The number {i} comes before the number {i + 1}." for i in range(600)))
    return path


def test_the_decompressed_model_has_our_perplexity_in_transformers(
    folder: DeployedFolder, text: Path, tmp_path: Path
) -> None:
    write_decompressed(folder, tmp_path / "float")
    model = load_model(tmp_path / "float", "fp32")
    chunks = encode_chunks(SHIPPED, text.read_text(), SEQ_LEN, CHUNKS)
    expected = perplexity([float(token_nlls(model, chunk).mean()) for chunk in chunks])

    def ours(*args: Argument) -> float:
        result = eval_json(
            tmp_path / "result.json", *args, "--dtype", "fp32", "--data", text, "--data_format", "text",
            "--seq_len", SEQ_LEN, "--max_chunks", CHUNKS,
        )  # fmt: skip
        assert len(chunks) == result["chunks"] == CHUNKS
        ppl: float = result["ppl"]
        return ppl

    assert ours("--model", tmp_path / "float") == pytest.approx(expected, rel=2e-4)
    # The source with the same weights quantized on the fly, and activations as they are; linears that are not
    # quantized come from FP8 here, and from its BF16 in the folder.
    weights_only = ("--train_mode", "block", "--a_bits", 16, "--cls", "bf16")
    bits = min(folder.weight(name).bits for name in folder.quantized_names())
    assert ours("--model", SHIPPED, *weights_only, "--w_bits", bits) == pytest.approx(expected, rel=1e-3)


def test_we_decode_a_folder_of_llm_compressor_as_the_library_does(tmp_path: Path) -> None:
    folder_config = json.loads((LLM_COMPRESSOR / "config.json").read_text())
    config = QuantizationConfig.model_validate(folder_config["quantization_config"])
    compressor = BaseCompressor.get_value_from_registry(config.format)
    assert deploy(tmp_path / "float", "--quant_type", "bfloat16", source=LLM_COMPRESSOR).code == 0
    ours = load_folder(tmp_path / "float")
    theirs = load_file(LLM_COMPRESSOR / "model.safetensors")
    weights = {name.removesuffix("_scale") for name in theirs if name.endswith(".weight_scale")}
    assert len(weights) > 200
    for name in weights:
        module = name.removesuffix(".weight")
        parts = {part: theirs[f"{module}.{part}"] for part in ("weight", "weight_scale")}
        expected = compressor.decompress(parts, scheme_of(config, module))["weight"]
        torch.testing.assert_close(ours[name], expected.to(torch.bfloat16), rtol=0, atol=0)
