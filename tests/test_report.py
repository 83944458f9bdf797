"""`report`: one page that a browser shows without errors, whose numbers are those of the run folder."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from blockptq_testing.models import SHIPPED
from blockptq_testing.program import run_blockptq

CHROMIUM = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))), None)
VOID = {"meta", "wbr"}


class Page(HTMLParser):
    """The parts of a page that tests ask for; every element must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.values: list[tuple[str, str, str]] = []  # pointer, exact value, what is shown
        self.embedded = ""
        self.sections: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.links += [f"{key}={value}" for key, value in attrs if key in {"src", "href", "srcset", "action"}]
        if tag == "section":
            self.sections.append(attributes["id"] or "")
        if tag not in VOID:
            self.open.append((tag, attributes))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tag, attributes = self.open[-1] if self.open else ("", {})
        if tag == "data":
            self.values.append((attributes["data-path"] or "", attributes["value"] or "", data))
        elif tag == "script" and attributes.get("id") == "data":
            self.embedded += data
        elif tag not in {"script", "style"}:
            self.text += data


def at_pointer(data: Any, pointer: str) -> Any:
    for key in pointer.split("/")[1:]:
        data = data[int(key)] if isinstance(data, list) else data[key]
    return data


def shown_number(text: str) -> float:
    """The number that a text stands for; nan where it is no plain number."""
    match = re.fullmatch(r"(-?[\d,.]+(?:e[+-]\d+)?)( %)?", text)
    if match is None:
        return math.nan
    return float(match[1].replace(",", "")) / (100 if match[2] else 1)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of the shipped model: two dense blocks and one of experts."""
    folder = tmp_path_factory.mktemp("report") / "run"
    finished = run_blockptq(
        "train", "--model", SHIPPED, "--output_dir", folder, "--w_bits", 4, "--nsamples", 2, "--seq_len", 256,
        "--end", 3,
    )  # fmt: skip
    assert finished.code == 0, finished.stderr
    return folder


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def write_run(folder: Path, entries: list[dict[str, Any]], result: dict[str, Any] | None = None) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"command": "quantize"}))
    (folder / "journal.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def report(folder: Path, output: Path) -> tuple[Page, dict[str, Any]]:
    finished = run_blockptq("report", folder, "--output", output, "--json", output.with_suffix(".json"))
    assert (finished.code, finished.stderr) == (0, "")
    page = Page(output.read_text(encoding="utf-8"))
    data: dict[str, Any] = json.loads(page.embedded)
    assert data == json.loads(output.with_suffix(".json").read_text())
    return page, data


def check_values(page: Page, data: dict[str, Any]) -> None:
    """Every marked number is the one of the data, exactly in its attribute and rounded in its text."""
    assert page.values
    for pointer, exact, shown in page.values:
        expected = at_pointer(data, pointer)
        assert json.loads(exact) == expected, pointer
        number = shown_number(shown)
        if expected is not None and not math.isnan(number):
            assert number == pytest.approx(expected, rel=6e-3, abs=6e-4), (pointer, shown)


def test_page_of_a_run(run_folder: Path, tmp_path: Path) -> None:
    page, data = report(run_folder, tmp_path / "page.html")
    check_values(page, data)
    assert (tmp_path / "page.html").stat().st_size < 300_000
    assert page.links == []
    assert not re.search(r"url\(|@import|https?://", (tmp_path / "page.html").read_text())
    assert {"verdict", "blocks", "experts", "units", "weights", "sizes", "times", "recipe", "environment"} == set(
        page.sections
    )
    assert data["finished"] is True
    assert "has not ended" not in page.text
    assert data["sizes"]["checkpoint_bytes"] > 0 and data["times"]["total"] > 0


def test_data_are_those_of_the_journal(run_folder: Path, tmp_path: Path) -> None:
    _, data = report(run_folder, tmp_path / "page.html")
    entries = journal(run_folder)
    units = {(e["block"], e["unit"]): e for e in entries if e["unit"] not in {"block", "held_out"}}
    columns = data["units"]
    assert len(columns["unit"]) == len(units) == data["totals"]["units"]
    for i, (block, unit) in enumerate(zip(columns["block"], columns["unit"], strict=True)):
        entry = units[block, unit]
        assert columns["tokens"][i] == entry["tokens"]
        assert columns["expert"][i] == (int(unit.split()[1]) if unit.startswith("expert ") else None)
        for key in ("loss_before", "loss_after", "seconds"):
            assert columns[key][i] == pytest.approx(entry[key], rel=1e-5)
    errors = {e["block"]: e["relative_error"] for e in entries if e["unit"] == "block"}
    assert {row["block"]: row["relative_error"] for row in data["blocks"]} == errors

    weights = {w["name"]: w for e in entries for w in e.get("weights", [])}
    assert len(weights) == data["totals"]["weights"] > 0
    worst = [w["relative_error"] for w in data["worst_weights"]]
    assert worst == sorted((w["relative_error"] for w in weights.values()), reverse=True)[: len(worst)]
    for shown in data["worst_weights"]:
        assert shown.items() >= weights[shown["name"]].items()
    assert data["run"] == json.loads((run_folder / "run.json").read_text())


def test_histograms_count_every_weight(run_folder: Path) -> None:
    for entry in journal(run_folder):
        for weight in entry.get("weights", []):
            sizes = {sum(weight["weight_histogram"]), sum(weight["code_histogram"])}
            assert len(sizes) == 1, weight["name"]
            assert len(weight["code_histogram"]) == (16 if weight["bits"] <= 4 else 32)
            assert 0 < weight["relative_error"] < 0.1


def test_result_adds_sizes_and_held_out_text(tmp_path: Path) -> None:
    result = {
        "model": "models/<tiny> & co", "seconds": 12.5, "checkpoint_bytes": 2000, "output_bytes": 500,
        "bytes_read": 2000, "peak_rss_bytes": 10**9, "version": "1.0",
        "environment": {"cpu": "<script>alert(1)</script>", "threads": 2},
    }  # fmt: skip
    entries = [
        {"block": 0, "unit": "mlp", "tokens": 9, "loss_before": 0.5, "loss_after": 0.25, "seconds": 1},
        {"block": 0, "unit": "block", "relative_error": 0.1, "held_out_relative_error": 0.2, "seconds": 2},
        {"block": -1, "unit": "held_out", "float_ppl": 8, "ppl": 10, "kl": 0.0123456, "top1_agreement": 0.9},
    ]
    page, data = report(write_run(tmp_path / "run", entries, result), tmp_path / "page.html")
    check_values(page, data)
    assert data["finished"] is True
    assert data["title"] == "<tiny> & co"
    assert data["sizes"]["output_share"] == 0.25
    assert "<script>alert(1)</script>" in page.text
    assert ("/held_out/kl", "0.0123456", "0.01235") in page.values
    assert data["verdict"]["level"] == "good"


@pytest.mark.parametrize("entries", [[], [{"block": 4, "unit": "block", "relative_error": None, "seconds": 1}]])
def test_unfinished_runs_say_so(tmp_path: Path, entries: list[dict[str, Any]]) -> None:
    page, data = report(write_run(tmp_path / "run", entries), tmp_path / "page.html")
    assert data["finished"] is False
    assert data["verdict"]["level"] == ("error" if entries else "empty")
    assert "has not ended" in page.text


@pytest.mark.parametrize("line", ["{", "[]", '{"block": 1}', '{"block": "a", "unit": "mlp"}'])
def test_broken_journals_are_refused(tmp_path: Path, line: str) -> None:
    folder = write_run(tmp_path / "run", [])
    (folder / "journal.jsonl").write_text(line + "\n")
    finished = run_blockptq("report", folder, "--output", tmp_path / "page.html")
    assert finished.code == 2
    assert "journal.jsonl" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1
    assert not (tmp_path / "page.html").exists()


def test_runs_without_units_have_no_page(tmp_path: Path) -> None:
    run = tmp_path / "run"
    evaluated = run_blockptq("eval", "--model", SHIPPED, "--seq_len", 64, "--max_chunks", 1, "--output_dir", run)
    assert evaluated.code == 0
    finished = run_blockptq("report", run, "--output", tmp_path / "page.html")
    assert (finished.code, len(finished.stderr.splitlines())) == (2, 1)
    assert "a run of eval" in finished.stderr
    assert "run of eval, finished" in run_blockptq("inspect", run).stdout


def test_folders_that_are_no_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none", SHIPPED):
        finished = run_blockptq("report", folder, "--output", tmp_path / "page.html")
        assert finished.code == 2
        assert str(folder) in finished.stderr


# --- in a browser ----------------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (chromium-headless-shell)")


def browse(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The document after its scripts ran, and what they wrote on the console."""
    assert CHROMIUM is not None
    finished = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={profile}", "--enable-logging=stderr", "--virtual-time-budget=2000",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return finished.stdout, [line for line in finished.stderr.splitlines() if "CONSOLE" in line]


# Points at the first and the last expert of the second map, and writes what the page says of them.
POINT = """<script>{
const map = document.getElementById("heat_error"), box = map.getBoundingClientRect();
const [left, top, width, height] = map.dataset.grid.split(" ").map(Number);
const scale = box.width / map.viewBox.baseVal.width;
const point = (column) => map.dispatchEvent(new PointerEvent("pointermove", {
  clientX: box.left + (left + (column + 0.5) * width) * scale, clientY: box.top + (top + 0.5 * height) * scale}));
point(0);
point(15);
}</script></body>"""


@needs_chromium
def test_a_browser_shows_it_without_errors(run_folder: Path, tmp_path: Path) -> None:
    _, data = report(run_folder, tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    (tmp_path / "pointed.html").write_text(html.replace("</body>", POINT))
    document, console = browse(tmp_path / "pointed.html", tmp_path / "profile")
    assert console == []
    units = data["units"]
    last = next(i for i, expert in enumerate(units["expert"]) if expert == 15)
    said = re.search(r"<output>(Block[^<]*)</output>", document)
    assert said is not None
    assert said[1].startswith(f"Block {units['block'][last]}, expert 15: {units['tokens'][last]:,} tokens, error ")
    assert float(said[1].split("error ")[1].split(" ")[0]) == pytest.approx(units["loss_before"][last], rel=1e-3)


@needs_chromium
def test_console_errors_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html><script>no_such_function()</script>")
    assert any("no_such_function" in line for line in browse(page, tmp_path / "profile")[1])
