"""How much memory a `compress` run of base size takes at its peak, without the export.

python -m benchmarks memory [--teachers BERT-base,XLM-R-base] [--write]

Weights and rows are random: what is measured is the peak resident size of a process that reads a teacher and takes two
steps of best-x10, in batches of 64 rows, in fp32 on the CPU. A busy machine does not matter.
"""

import argparse
import multiprocessing
import random
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean

from transformers import BertConfig

from benchmarks.bert_base_sizes import SPECIAL, write_teacher
from benchmarks.harness.pages import table
from benchmarks.harness.results import Results, origin
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.recipe import TrainingConfig, load_recipe
from ladabert_compress.training.run import compress

# XLM-R-base has the shape of BERT-base but for its tokens, and is a BERT once it is loaded.
VOCABULARIES = {"BERT-base": 30_522, "XLM-R-base": 250_002}
MEAN_WORDS = {"of any length": 35, "full": 500}
OVERRIDES = {"schedule.iterations": 2, "schedule.min_steps": 0, "training.precision": "fp32"}
ROWS, LONGEST = 320, 128


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--teachers", default=",".join(VOCABULARIES), help="comma-separated (default: %(default)s)")
    parser.add_argument("--rows", default=",".join(MEAN_WORDS), help="comma-separated (default: %(default)s)")


def measure(options: argparse.Namespace) -> Results:
    """Run each teacher on rows of either kind, each in a process of its own."""
    results = Results("memory", origin("torch", "transformers"), {"batch_size": 64, "recipe": "best-x10"})
    context = multiprocessing.get_context("spawn")
    for teacher in options.teachers.split(","):
        for kind in options.rows.split(","):
            words = MEAN_WORDS[kind]
            with ProcessPoolExecutor(1, mp_context=context) as alone:
                parameters, gigabytes = alone.submit(peak, VOCABULARIES[teacher], words).result()
            tokens = fmean(min(LONGEST, length + 2) for length in _lengths(words))
            about = {"teacher": teacher, "parameters": parameters, "rows": kind, "mean_tokens": tokens}
            results.add("runs", **about, tokens_at_once=TrainingConfig().tokens_at_once, gb=gigabytes)
    return results


def peak(vocabulary: int, mean_words: int) -> tuple[int, float]:
    """Return the parameters of a random teacher, and the gigabytes that this process took to compress it."""
    config = BertConfig(architectures=["BertForSequenceClassification"], vocab_size=vocabulary)
    source, words = random.Random(0), range(vocabulary - len(SPECIAL))
    texts = tuple(" ".join(f"w{word}" for word in source.choices(words, k=length)) for length in _lengths(mean_words))
    rows = LabelledTexts(texts, None, tuple(str(row % 2) for row in range(ROWS)))
    recipe = load_recipe("best-x10", OVERRIDES).with_total_epochs(0.1)
    with tempfile.TemporaryDirectory() as folder:
        parameters = write_teacher(Path(folder, "teacher"), config)
        dev = rows.select(range(16))
        compress(Path(folder, "teacher"), recipe, rows, dev, Path(folder, "run"))
    return parameters, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _lengths(mean_words: int) -> list[int]:
    """Return the words of each row: an exponential distribution, cut where a row is full."""
    source = random.Random(0)
    least = LONGEST if mean_words > LONGEST else 1
    return [min(LONGEST, max(least, round(source.expovariate(1 / mean_words)))) for _ in range(ROWS)]


def sections(results: Results) -> dict[str, str]:
    """Return the peaks."""
    rows = [
        (
            row["teacher"],
            f"{row['parameters'] / 1e6:.0f} million",
            row["rows"],
            f"{row['mean_tokens']:.0f}",
            f"{row['tokens_at_once']:,}",
            f"{row['gb']:.1f} GB",
        )
        for row in results.rows("runs")
    ]
    return {"memory": table(["teacher", "parameters", "rows", "mean tokens", "tokens at once", "peak"], rows)}
