"""Rows a second of `ladabert-serve score` over what the same graph can do in memory, and its memory, in one run.

python -m benchmarks scoring [--rows 50000] [--rounds 3] [--write]

The limit is the graph alone on the same texts: tokenised, sorted and divided into batches beforehand. Each round
measures both, in turn; a ratio is taken within a round.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from benchmarks.harness.pages import table
from benchmarks.harness.results import REPOSITORY, Results, origin
from benchmarks.harness.statistics import turns
from benchmarks.harness.texts import made_up_sentences
from ladabert_serve.cores import available_cores
from ladabert_serve.models.artefact import read_artefact
from ladabert_serve.models.opening import open_artefact
from ladabert_serve.models.tokenizer import TextInput
from ladabert_serve.scoring.score import ROWS_PER_PART
from ladabert_serve.scoring.scorer import divide
from ladabert_serve.settings import Settings

MODEL = "sst2-latency-x4.7"
FEW = 2 * ROWS_PER_PART  # rows of the run whose memory the whole run's is compared with
LOOK_S = 0.05


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--models", type=Path, default=Path("models"), help="the artefacts")
    parser.add_argument("--rows", type=int, default=100000, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")


def measure(options: argparse.Namespace) -> Results:
    """Measure both in each round, and the memory of a short run."""
    results = Results("scoring", origin(), {"rows": options.rows, "model": MODEL, "cores": available_cores()})
    texts = made_up_sentences(options.rows)
    limit = _Limit(options.models, texts)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, count in (("few", FEW), ("all", options.rows)):
            lines = (json.dumps({"text": text}) + "\n" for text in texts[:count])
            (folder / f"{name}.jsonl").write_text("".join(lines))
        results.add("memory", rows=FEW, peak_mib=_score(options.models, folder, "few")[1])
        for number, name in turns(options.rounds, ["limit", "score"]):
            if name == "limit":
                results.add("points", what=name, round=number, seconds=limit.run(), peak_mib=0.0)
            else:
                seconds, peak_mib = _score(options.models, folder, "all")
                results.add("points", what=name, round=number, seconds=seconds, peak_mib=peak_mib)
    return results


class _Limit:
    """The graph on texts that are ready to run."""

    def __init__(self, models: Path, texts: list[str]) -> None:
        self._opened = open_artefact(
            read_artefact((models / MODEL).absolute()), Settings(models=models, provider="cpu")
        )
        tokens = dict(enumerate(self._opened.inference.tokenizer.tokenize(TextInput(text)) for text in texts))
        self._batches = [[tokens[place] for place in batch] for batch in divide(tokens, self._opened)]

    def run(self) -> float:
        """Return the seconds for all of them, on every core."""
        with ThreadPoolExecutor(available_cores()) as pool:
            began = time.perf_counter()
            for _ in pool.map(self._opened.inference.run, self._batches):
                pass
            return time.perf_counter() - began


def _score(models: Path, folder: Path, name: str) -> tuple[float, float]:
    """Return the seconds of the whole command, its start included, and its peak memory in MiB."""
    out = folder / "out.jsonl"
    arguments = ["--models", str(models.absolute()), "--provider", "cpu", "score", "--model", MODEL]
    files = ["--input", str(folder / f"{name}.jsonl"), "--output", str(out)]
    began = time.perf_counter()
    command = [sys.executable, "-m", "ladabert_serve", *arguments, *files]
    peak = 0
    with psutil.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, process.memory_info().rss)
            time.sleep(LOOK_S)
    seconds = time.perf_counter() - began
    if process.returncode != 0:
        raise SystemExit(f"score ended with {process.returncode}")
    out.unlink()
    return seconds, peak / 2**20


def sections(results: Results) -> dict[str, str]:
    """Return the ratio within the rounds, and the memory."""
    rows = results.settings["rows"]
    limit, score = (results.values("points", "seconds", what=name) for name in ("limit", "score"))
    ratios = [alone / whole for alone, whole in zip(limit, score, strict=True)]
    few_mib, all_mib = results.median("memory", "peak_mib"), results.median("points", "peak_mib", what="score")
    ratio = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
    lines = [
        ["the graph alone, on texts in memory", f"{rows / statistics.median(limit):,.0f} rows/s"],
        ["`score`, from its start to the file", f"{rows / statistics.median(score):,.0f} rows/s"],
        ["ratio (lowest to highest round)", ratio],
        [f"most memory, {FEW:,} rows and {rows:,} rows", f"{few_mib:.0f} MiB, {all_mib:.0f} MiB"],
    ]
    told = f"{rows:,} sentences like SST-2's, model `{MODEL}`, {results.settings['cores']} cores. Measured by "
    return {"scoring": f"{told}{results.told()}, on {results.origin['machine']}.\n\n" + table(["", "measured"], lines)}
