"""How fast `blockptq deploy` moves bytes, as a share of `cp` and sync on the same disk.

    python bench/deploy_speed.py --source FP8_FOLDER --scratch FOLDER

Speed is bytes read plus bytes written per second, from a cold page cache where the user may drop it
(root), until the data are on disk. The peak resident set stands beside it. A folder of real tensor
sizes: python tests/make_checkpoint.py DIR --preset deepseek --dtype fp8 --blocks 2 --dense_blocks 0
--experts 64
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from blockptq_testing.program import Argument, run_blockptq  # noqa: E402


def drop_page_cache() -> bool:
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def timed(action: Callable[[], None]) -> float:
    drop_page_cache()
    start = time.monotonic()
    action()
    return time.monotonic() - start


def copy_and_sync(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file():
            subprocess.run(["cp", path, target], check=True)
    os.sync()


def deploy(source: Path, target: Path, *options: Argument) -> int:
    """Peak resident set in bytes."""
    finished = run_blockptq("deploy", "--input_weight_path", source, "--output_weight_path", target, *options)
    if finished.code != 0:
        sys.exit(finished.stderr)
    return finished.max_rss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True, help="a folder on the same disk")
    parser.add_argument("--types", nargs="+", default=["w8a8c8", "w4a8c8"])
    options = parser.parse_args()
    if not drop_page_cache():
        print("warm page cache: only root can drop it")
    output = options.scratch / "deploy_speed"
    size = folder_size(options.source)
    seconds = timed(lambda: copy_and_sync(options.source, output))
    shutil.rmtree(output)
    baseline = 2 * size / seconds
    print(f"{'cp + sync':34} {seconds:7.1f} s {baseline / 1e9:6.2f} GB/s   1.00 x")
    for layout in ("compressed-tensors", "ascend"):
        for quant_type in options.types:
            for more in ((), ("--no_verify",)):
                rss: list[int] = []
                arguments = ("--quant_type", quant_type, "--format", layout, *more)
                seconds = timed(lambda: rss.append(deploy(options.source, output, *arguments)))  # noqa: B023
                speed = (size + folder_size(output)) / seconds
                shutil.rmtree(output)
                name = " ".join((layout, quant_type, *more))
                print(
                    f"{name:34} {seconds:7.1f} s {speed / 1e9:6.2f} GB/s {speed / baseline:6.2f} x"
                    f"   peak RSS {rss[0] / 2**30:.2f} GiB"
                )


if __name__ == "__main__":
    main()
