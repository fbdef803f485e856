"""Takes a random BERT-base through the whole pipeline at Table 2's four ratios and compares the sizes with the paper's.

python -m benchmarks bert-base-sizes [--ratios 2.5,5] [--write]

The weights and the rows mean nothing: what is measured is that the pipeline runs at this size, what the students
hold, and the peak of memory. Exit code 1 where a size is more than 3 % off or memory goes over 10 GB.
"""

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from benchmarks.harness.pages import MISSING, table
from benchmarks.harness.results import Results, Row, origin
from ladabert_compress.artefact.export import export_artefact
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.recipe import BudgetRecipe, ExportRecipe, Recipe, ScheduleRecipe, TrainingConfig
from ladabert_compress.student.budget import solve_shares
from ladabert_compress.student.matrices import count_parameters
from ladabert_compress.teacher.folder import TeacherCard, save_teacher
from ladabert_compress.training.run import compress

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SIZE_TOLERANCE = 0.03
MEMORY_LIMIT_GB = 10.0


class PaperRow(NamedTuple):
    """Table 2: reductions overall, of the embeddings, by factorisation and by pruning; and Table 3's millions."""

    ratio: float
    embedding: float
    factorisation: float
    pruning: float
    millions: int


TABLE_2 = (
    PaperRow(2.5, 1.43, 2.0, 1.56, 44),
    PaperRow(5.0, 2.05, 2.0, 3.41, 22),  # with its own pruning ×3.41 it would have 24 M
    PaperRow(7.5, 5.0, 2.0, 4.33, 15),
    PaperRow(10.0, 5.0, 2.5, 5.45, 11),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--ratios", help="comma-separated, of Table 2's (default: all four)")


def measure(options: argparse.Namespace) -> Results:
    """Make a student of each ratio."""
    wanted = {row.ratio for row in TABLE_2} if options.ratios is None else {*map(float, options.ratios.split(","))}
    results = Results("bert-base-sizes", origin("torch", "onnx"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = BertConfig(architectures=["BertForSequenceClassification"])
        results.settings["teacher_parameters"] = write_teacher(folder / "teacher", config)
        (folder / "models").mkdir()
        for row in TABLE_2:
            if row.ratio in wanted:
                results.add("students", **_measure_student(folder, config, row))
    results.settings["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)
    return results


def _measure_student(folder: Path, config: BertConfig, row: PaperRow) -> dict[str, Any]:
    """Make one student of the random teacher, from the teacher's folder to the artefact."""
    start = time.monotonic()
    embedding, svd = 1 / row.embedding, 1 / row.factorisation
    budget = BudgetRecipe(ratio=row.ratio, p_embedding=embedding, p_embedding_svd=embedding, p_svd=svd)
    recipe = Recipe(
        budget=budget,
        schedule=ScheduleRecipe(iterations=2, factorise_iterations=1, epochs_per_iteration=0.5, final_epochs=0.5),
        training=TrainingConfig(batch_size=8, max_length=32, precision="fp32"),
        export=ExportRecipe(int8_accuracy_loss=1.0),  # what random weights answer is no reason to refuse int8
    )
    name = f"bert-base-{row.ratio:g}"
    train, dev = _generated_texts(config, 32, seed=0), _generated_texts(config, 16, seed=1)
    result = compress(folder / "teacher", recipe, train, dev, folder / name)
    manifest = export_artefact(result, folder / "models" / name, data_set="generated")
    (folder / name / "checkpoint.pt").unlink()
    return {
        "ratio": row.ratio,
        "paper_millions": row.millions,
        "nonzero_parameters": manifest["compression"]["nonzero_parameters"],
        "parameters": manifest["compression"]["parameters"],
        "paper_p_weight": 1 / row.pruning,
        "p_weight": solve_shares(count_parameters(result.teacher.model), budget)["encoder"].mask_share,
        "bytes": {name: entry["bytes"] for name, entry in manifest["files"].items() if name.endswith(".onnx")},
        "minutes": (time.monotonic() - start) / 60,
    }


def write_teacher(folder: Path, config: BertConfig) -> int:
    """Write a random BERT with two labels, and a tokenizer over as many made-up words; return its parameters."""
    words = (f"w{index}" for index in range(config.vocab_size - len(SPECIAL)))
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *words))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    save_teacher(folder, model, tokenizer, TeacherCard("random-bert-base", "random weights", "none"), {})
    return count_parameters(model).total


def _generated_texts(config: BertConfig, rows: int, seed: int) -> LabelledTexts:
    """Return texts of random words with random labels."""
    source = random.Random(seed)
    words = range(config.vocab_size - len(SPECIAL))
    texts = tuple(" ".join(f"w{word}" for word in source.choices(words, k=source.randint(5, 25))) for _ in range(rows))
    return LabelledTexts(texts, None, tuple(str(source.randrange(2)) for _ in range(rows)))


def sections(results: Results) -> dict[str, str]:
    """Return the sizes beside the paper's."""
    return {"bert-base-sizes": table(HEAD, map(_sizes, results.rows("students")))}


HEAD = (
    *("ratio", "paper", "non-zero", "held, zeros included"),
    *("P_weight, paper", "P_weight, solved", "graph: fp32, int8"),
)


def _sizes(row: Row) -> list[str]:
    megabytes = {name: f"{count / 1e6:.0f} MB" for name, count in row["bytes"].items()}
    held = [f"{row['nonzero_parameters'] / 1e6:.2f} M", f"{row['parameters'] / 1e6:.1f} M"]
    shares = [f"{row['paper_p_weight']:.3f}", f"{row['p_weight']:.3f}"]
    graphs = f"{megabytes['model.onnx']}, {megabytes.get('model.int8.onnx', MISSING)}"
    return [f"×{row['ratio']:g}", f"{row['paper_millions']} M", *held, *shares, graphs]


def failures(results: Results) -> list[str]:
    """Return the sizes that are off and the memory that is over its limit."""
    lines = [
        f"×{row['ratio']:g}: {row['nonzero_parameters']:,} non-zero parameters, the paper has {row['paper_millions']} M"
        for row in results.rows("students")
        if abs(row["nonzero_parameters"] / 1e6 / row["paper_millions"] - 1) > SIZE_TOLERANCE
    ]
    peak_gb = results.settings["peak_memory_gb"]
    return [*lines, f"{peak_gb} GB of memory"] if peak_gb > MEMORY_LIMIT_GB else lines
