"""Takes a random BERT-base through the whole pipeline at Table 2's four ratios and compares the sizes with the paper's.

python -m benchmarks.compression.bert_base_sizes [--json F] [--ratios 2.5,5]

The weights and the rows mean nothing: what is measured is that the pipeline runs at this size, what the students
hold, and the peak of memory. Exit code 1 where a size is more than 3 % off or memory goes over 10 GB.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from compression.budget import solve_shares
from compression.compress import compress
from compression.data import LabelledTexts
from compression.export import export_artefact
from compression.matrices import count_parameters
from compression.recipe import BudgetRecipe, ExportRecipe, Recipe, ScheduleRecipe
from compression.teacher import TeacherCard, save_teacher
from compression.training import TrainingConfig

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SIZE_TOLERANCE = 0.03
MEMORY_LIMIT_GB = 10.0


@dataclass(frozen=True)
class PaperRow:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--ratios", help="comma-separated, of Table 2's (default: all four)")
    options = parser.parse_args()
    ratios = None if options.ratios is None else {float(ratio) for ratio in options.ratios.split(",")}

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = BertConfig(architectures=["BertForSequenceClassification"])
        write_teacher(folder / "teacher", config)
        (folder / "models").mkdir()
        rows = [measure(folder, config, row) for row in TABLE_2 if ratios is None or row.ratio in ratios]
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    figures = {
        "teacher_parameters": teacher_parameters(config),
        "peak_memory_gb": round(peak_gb, 2),
        "rows": rows,
    }
    print(f"\npeak memory {peak_gb:.2f} GB, teacher {figures['teacher_parameters']:,} parameters")
    print("| ratio | paper, M | non-zero, M | P_weight, paper | P_weight | fp32 bytes | int8 bytes | minutes |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| ×{row['ratio']:g} | {row['paper_millions']} | {row['nonzero_parameters'] / 1e6:.2f} | "
            f"{row['paper_p_weight']:.3f} | {row['p_weight']:.3f} | {row['bytes']['model.onnx']:,} | "
            f"{row['bytes'].get('model.int8.onnx', 0):,} | {row['minutes']:.1f} |"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    off = [
        row["ratio"]
        for row in rows
        if abs(row["nonzero_parameters"] / 1e6 / row["paper_millions"] - 1) > SIZE_TOLERANCE
    ]
    if off or peak_gb > MEMORY_LIMIT_GB:
        sys.exit(f"over the limits: sizes at {off}, memory {peak_gb:.2f} GB")


def measure(folder: Path, config: BertConfig, row: PaperRow) -> dict[str, Any]:
    """One student of the random teacher, from the teacher's folder to the artefact."""
    start = time.monotonic()
    budget = BudgetRecipe(
        ratio=row.ratio,
        p_embedding=1 / row.embedding,
        p_embedding_svd=1 / row.embedding,
        p_svd=1 / row.factorisation,
    )
    recipe = Recipe(
        budget=budget,
        schedule=ScheduleRecipe(iterations=2, factorise_iterations=1, epochs_per_iteration=0.5, final_epochs=0.5),
        training=TrainingConfig(batch_size=8, max_length=32, precision="fp32"),
        export=ExportRecipe(int8_accuracy_loss=1.0),  # what random weights answer is no reason to refuse int8
    )
    name = f"bert-base-{row.ratio:g}"
    train, dev = generated_texts(config, 32, seed=0), generated_texts(config, 16, seed=1)
    result = compress(folder / "teacher", recipe, train, dev, folder / name)
    manifest = export_artefact(result, folder / "models" / name, data_set="generated")
    counts = count_parameters(result.teacher.model)
    (folder / name / "checkpoint.pt").unlink()
    return {
        "ratio": row.ratio,
        "paper_millions": row.millions,
        "nonzero_parameters": manifest["compression"]["nonzero_parameters"],
        "parameters": manifest["compression"]["parameters"],
        "paper_p_weight": 1 / row.pruning,
        "p_weight": solve_shares(counts, budget)["encoder"].weight,
        "bytes": {name: entry["bytes"] for name, entry in manifest["files"].items() if name.endswith(".onnx")},
        "minutes": (time.monotonic() - start) / 60,
    }


def teacher_parameters(config: BertConfig) -> int:
    """Parameters of a BERT of this shape."""
    with torch.device("meta"):
        return count_parameters(BertForSequenceClassification(config)).total


def write_teacher(folder: Path, config: BertConfig) -> None:
    """A random BERT with two labels, and a tokenizer over as many made-up words as it has embeddings."""
    words = (f"w{index}" for index in range(config.vocab_size - len(SPECIAL)))
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *words))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    save_teacher(folder, model, tokenizer, TeacherCard("random-bert-base", "random weights", "none"), {})


def generated_texts(config: BertConfig, rows: int, seed: int) -> LabelledTexts:
    """Texts of random words with random labels."""
    source = random.Random(seed)
    texts = tuple(
        " ".join(f"w{source.randrange(config.vocab_size - len(SPECIAL))}" for _ in range(source.randint(5, 25)))
        for _ in range(rows)
    )
    return LabelledTexts(texts, None, tuple(str(source.randrange(2)) for _ in range(rows)))


if __name__ == "__main__":
    main()
