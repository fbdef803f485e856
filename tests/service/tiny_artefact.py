"""A small but real artefact: a WordPiece tokenizer and a graph whose logits depend on the text, not its padding."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

REPOSITORY = Path(__file__).resolve().parents[2]
MAX_LENGTH = 16
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["good", "bad", "film", "a", "the", "not", "very", "warm"]


def build_tokenizer() -> Tokenizer:
    """Return a lower-case WordPiece tokenizer that knows a few words and every letter."""
    pieces = [*SPECIAL, *WORDS, *[letter for letter in LETTERS if letter not in WORDS]]
    pieces += [f"##{letter}" for letter in LETTERS]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def build_graph(labels: int, vocabulary: int, seed: int, types: bool = False, poison: int | None = None) -> bytes:
    """Return a graph: the masked mean of one embedding per token, of which there are `labels` columns.

    A token with id `poison` makes its own row NaN. With `types` a token's type is added to its embedding.
    """
    table = np.random.default_rng(seed).normal(0, 3, (vocabulary, labels)).astype(np.float32)
    table[0] = 1000.0  # padding that leaked into a score would show
    if poison is not None:
        table[poison] = np.nan
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["mask_column"]),
        helper.make_node("Mul", ["typed" if types else "embedded", "mask_column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "one"], ["summed"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "one"], ["counted"], keepdims=1),
        helper.make_node("Div", ["summed", "counted"], ["logits"]),
    ]
    inputs = ["input_ids", "attention_mask"]
    if types:
        inputs.append("token_type_ids")
        nodes[1:1] = [
            helper.make_node("Cast", ["token_type_ids"], ["types"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["types", "last"], ["types_column"]),
            helper.make_node("Add", ["embedded", "types_column"], ["typed"]),
        ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in inputs],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", labels])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([-1], dtype=np.int64), "last"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "one"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_artefact(
    models: Path,
    name: str = "tiny",
    task: str = "single",
    problem_type: str = "single_label",
    labels: Sequence[str] = ("NEGATIVE", "POSITIVE"),
    temperature: float = 1.0,
    seed: int = 0,
    precisions: Sequence[str] = ("fp32",),
    poison: str | None = None,
    aliases: Sequence[str] | None = None,
) -> Path:
    """Write a valid artefact and return its folder; the word `poison` makes a text's logits NaN."""
    folder = models / name
    folder.mkdir(parents=True)
    tokenizer = build_tokenizer()
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    poison_id = None if poison is None else tokenizer.token_to_id(poison)
    pair = task == "pair"
    graph = build_graph(len(labels), tokenizer.get_vocab_size(), seed, types=pair, poison=poison_id)
    graphs = {"fp32": "model.onnx", "int8": "model.int8.onnx", "fp16": "model.fp16.onnx"}
    for precision in precisions:
        (folder / graphs[precision]).write_bytes(graph)
    manifest: dict[str, Any] = {
        "schema_version": 1,
        "name": name,
        **({} if aliases is None else {"aliases": list(aliases)}),
        "version": "0123456789ab",
        "created_at": "2026-01-01T00:00:00Z",
        "task": task,
        "problem_type": problem_type,
        "labels": list(labels),
        "max_length": MAX_LENGTH,
        "inputs": ["input_ids", "attention_mask"] + (["token_type_ids"] if pair else []),
        "output": "logits",
        "default_file": graphs[precisions[0]],
        "files": {
            "tokenizer.json": {},
            **{graphs[precision]: {"precision": precision} for precision in precisions},
        },
        "teacher": {"name": "none", "parameters": 1000, "source": "none", "licence": "Apache-2.0"},
        "compression": {
            "method": "LadaBERT",
            "recipe": {},
            "requested_ratio": 2.5,
            "reached_ratio": 2.5,
            "parameters": 400,
            "nonzero_parameters": 400,
            "stored_bytes": len(graph),
        },
        "evaluation": {"data_set": "none", "split": "dev", "rows": 1, "teacher_accuracy": 1.0, "files": {}},
        "latency": {"machine": "none", "threads": 1, "table": []},
        "calibration": {"temperature": temperature},
        "produced_by": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    seal(folder)
    return folder


def write_cascade(
    models: Path,
    name: str,
    stages: Sequence[str],
    thresholds: Sequence[Sequence[float]],
    measure: str = "score",
    **changes: Any,
) -> Path:
    """Write a cascade of artefacts that lie in the same folder; the last one has the labels and no thresholds."""
    listed = []
    for stage, minima in zip(stages, [*thresholds, ()], strict=True):
        manifest = json.loads((models / stage / "manifest.json").read_text())
        file = manifest.get("default_file", "model.onnx")
        sha256 = manifest.get("files", {}).get(file, {"sha256": "0" * 64})["sha256"]
        listed.append({"name": stage, "version": manifest["version"], "file": file, "sha256": sha256})
        if minima:
            listed[-1]["thresholds"] = list(minima)
    some = {"value": 0.5, "low": 0.4, "high": 0.6}
    evaluation = {
        "data_set": "none",
        "rows_chosen_on": 1,
        "rows": 1,
        "agreement": some,
        "escalated": some,
        "stages": [0.5] * len(stages),
    }
    folder = models / name
    folder.mkdir()
    cascade = {
        "schema_version": 1,
        "name": name,
        "version": "ba9876543210",
        "created_at": "2026-01-01T00:00:00Z",
        **{key: manifest[key] for key in ("task", "labels", "max_length")},
        "problem_type": "single_label",
        "cascade": {"measure": measure, "target": {"measure": "agreement", "value": 0.99}, "stages": listed},
        "evaluation": evaluation,
        "produced_by": {},
    }
    (folder / "manifest.json").write_text(json.dumps({**cascade, **changes}))
    return folder


def seal(folder: Path) -> None:
    """Write the true size and sha256 of every listed file into the manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for file, listed in manifest["files"].items():
        data = (folder / file).read_bytes()
        listed["bytes"] = len(data)
        listed["sha256"] = hashlib.sha256(data).hexdigest()
    path.write_text(json.dumps(manifest))


def change_manifest(folder: Path, **changes: Any) -> None:
    """Overwrite top-level fields of an artefact's manifest."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
