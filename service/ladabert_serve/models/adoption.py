"""Makes an artefact of a classifier's ONNX export, as `optimum-cli export onnx` writes it; needs no PyTorch."""

import datetime
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tokenizers import Tokenizer

from ladabert_serve.backends.backend import FloatArray
from ladabert_serve.backends.onnx_runtime import GraphSignature, read_signature
from ladabert_serve.errors import ArtefactError
from ladabert_serve.models.artefact import (
    GRAPH_FILES,
    MANIFEST_FILE,
    TOKENIZER_FILE,
    Artefact,
    read_artefact,
    read_regular_file,
)
from ladabert_serve.models.inference import Inference
from ladabert_serve.models.loading import load_inference
from ladabert_serve.models.onnx_file import check_graph
from ladabert_serve.models.scores import apply_function, default_function
from ladabert_serve.models.tokenizer import TextInput, Tokens

# Encoders that were tried, and by how many positions each counts beyond its padding token's id.
MODEL_TYPES: Mapping[str, int] = {
    "bert": 0,
    "distilbert": 0,
    "electra": 0,
    "roberta": 1,
    "camembert": 1,
    "xlm-roberta": 1,
}
ARCHITECTURE = "ForSequenceClassification"
EXPORTED: Mapping[str, str] = {"fp32": "model.onnx", "int8": "model_quantized.onnx"}
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "logits"
ABSENT_LABELS = ("LABEL_0", "LABEL_1")  # transformers leaves them out of config.json
MAX_TOKENS = 8192  # of the manifest's schema
MAX_GRAPH_BYTES = (1 << 31) - 1  # a protobuf message holds no more
MAX_JSON_BYTES = 1 << 25
LONGEST_LIMIT = 1 << 20  # transformers writes 10³⁰ where a tokenizer has no limit
# fp32 sums in another order in another batch. A graph that scales its activations by a whole batch changes far more.
LARGEST_SCORE_CHANGE = 1e-3
SELF_TEST_TOKENS = 12
DECIMALS = 6
TRIALS = (
    "It works.",
    "A gripping film from the first minute to the last, and the best that its director has made.",
    "No.",
    "The hotel was clean and close to the station, but breakfast was cold, the staff were rude, and at night we heard "
    "every train; for this price we had expected more, and we shall not come back.",
    "Zürich, 東京 and São Paulo: 3 cities, 1,234 offers!",
)

Task = Literal["single", "pair"]


class Wish(NamedTuple):
    """What the export does not say, or says otherwise."""

    task: Task = "single"
    labels: Sequence[str] | None = None  # in logit order
    max_length: int | None = None  # tokens, special ones included


AS_IT_SAYS = Wish()


def adopt(source: Path, out: Path, wish: Wish = AS_IT_SAYS) -> Artefact:
    """Write the artefact `out` of the export in `source` and return it; raises ArtefactError, and then writes nothing.

    Every graph is loaded and run as a server does, at its full length and with other texts beside, and its answers
    become the manifest's self-test.
    """
    if not source.is_dir():
        raise ArtefactError(f"{source}: no such folder")
    if out.exists() or out.is_symlink():
        raise ArtefactError(f"{out}: exists already; remove it, or choose another name")
    files = {GRAPH_FILES[precision]: _read_graph(path) for precision, path in _find_graphs(source).items()}
    signature = _common_signature(files)
    config = _read_json(source / "config.json")
    files[TOKENIZER_FILE], length_of_tokenizer = _read_tokenizer(source, config)
    fields = _fields(source, config, signature, length_of_tokenizer, wish)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
            partial = Path(temporary) / out.name
            partial.mkdir()
            for name, content in files.items():
                (partial / name).write_bytes(content)
            manifest = _manifest(out.name, fields, files)
            _write(partial, manifest)
            _try(read_artefact(partial), manifest)
            _write(partial, manifest)
            read_artefact(partial)
            partial.rename(out)
    except OSError as error:
        raise ArtefactError(f"{out}: cannot be written: {error.strerror}") from error
    return read_artefact(out)


def _find_graphs(source: Path) -> dict[str, Path]:
    places = {precision: [source / name, source / "onnx" / name] for precision, name in EXPORTED.items()}
    found = {precision: path for precision, paths in places.items() if (path := next(filter(Path.exists, paths), None))}
    if not found:
        names = " and no ".join(EXPORTED.values())
        raise ArtefactError(f"{source}: holds no {names}, here or in onnx/; export it with optimum-cli export onnx")
    return found


def _read_graph(path: Path) -> bytes:
    graph = read_regular_file(path.resolve(), MAX_GRAPH_BYTES)  # of the hub's cache it is a link
    try:
        check_graph(graph)
        _check_signature(read_signature(graph))
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from error
    return graph


def _check_signature(signature: GraphSignature) -> None:
    unknown = sorted(set(signature.inputs).difference(INPUTS))
    missing = sorted({"input_ids", "attention_mask"}.difference(signature.inputs))
    if unknown or missing:
        raise ArtefactError(
            f"its inputs are {', '.join(sorted(signature.inputs))}; served are graphs with input_ids, attention_mask "
            "and perhaps token_type_ids"
        )
    for name, tensor in signature.inputs.items():
        if tensor.type != "tensor(int64)" or len(tensor.shape) != 2:
            raise ArtefactError(f"its input {name} is {tensor.type} of shape {tensor.shape}, not int64 of two axes")
        if any(isinstance(size, int) for size in tensor.shape):
            raise ArtefactError(
                f"its input {name} has the fixed shape {tensor.shape}; export it with dynamic axes for batch and "
                "sequence"
            )
    output = signature.outputs.get(OUTPUT)
    if output is None or len(output.shape) != 2:
        raise ArtefactError(
            f"its outputs are {', '.join(signature.outputs)}; a classifier's graph has logits of shape (batch, "
            "labels): export it with --task text-classification"
        )


def _common_signature(files: Mapping[str, bytes]) -> GraphSignature:
    signatures = [read_signature(graph) for graph in files.values()]
    if len({frozenset(signature.inputs) for signature in signatures}) > 1:
        raise ArtefactError(f"{' and '.join(files)} have different inputs; adopt them one by one")
    return signatures[0]


def _read_json(path: Path) -> dict[str, Any]:
    """Return a file's JSON object; unlike a manifest's, its numbers may be of any size."""
    try:
        value = json.loads(read_regular_file(path.resolve(), MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path}: not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise ArtefactError(f"{path}: not a JSON object")
    return value


def _read_tokenizer(source: Path, config: Mapping[str, Any]) -> tuple[bytes, int]:
    """Return the tokenizer's file, with its padding token recorded, and the most tokens that it says a text has."""
    path = source / TOKENIZER_FILE
    if not path.exists():
        raise ArtefactError(
            f"{path}: is missing; write it with transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
        )
    data = read_regular_file(path.resolve(), MAX_JSON_BYTES)
    try:
        tokenizer = Tokenizer.from_str(data.decode("utf-8"))
    except Exception as error:  # the library raises bare Exception
        raise ArtefactError(f"{path}: {error}") from error
    beside = source / "tokenizer_config.json"
    told = _read_json(beside) if beside.exists() else {}
    pad_id = config.get("pad_token_id", 0)
    pad_token = tokenizer.id_to_token(pad_id) if isinstance(pad_id, int) and pad_id >= 0 else None
    if pad_token is None:
        raise ArtefactError(f"{source / 'config.json'}: pad_token_id is {pad_id!r}, which no token of {path.name} has")
    tokenizer.no_truncation()
    tokenizer.enable_padding(pad_id=pad_id, pad_token=pad_token)
    limit = told.get("model_max_length")
    if not isinstance(limit, int | float) or not 0 < limit <= LONGEST_LIMIT:
        limit = LONGEST_LIMIT
    return tokenizer.to_str().encode(), int(limit)


def _fields(
    source: Path, config: Mapping[str, Any], signature: GraphSignature, length_of_tokenizer: int, wish: Wish
) -> dict[str, Any]:
    """Return what the manifest says of the model; raises ArtefactError for what cannot be served."""
    path = source / "config.json"
    model_type = str(config.get("model_type"))
    if model_type not in MODEL_TYPES:
        raise ArtefactError(f"{path}: model_type {model_type!r} is not one of {', '.join(MODEL_TYPES)}")
    architectures = config.get("architectures") or []
    if not any(str(name).endswith(ARCHITECTURE) for name in architectures):
        raise ArtefactError(f"{path}: architectures {architectures} hold no …{ARCHITECTURE}")
    problem = config.get("problem_type")
    labels = _labels(path, config, wish)
    width = signature.outputs[OUTPUT].shape[1]
    if isinstance(width, int) and width != len(labels):
        raise ArtefactError(f"{path}: id2label names {len(labels)} labels, the graph has {width} logits")
    if problem == "regression" or len(labels) == 1:
        raise ArtefactError(f"{path}: is a regression or has one logit; classifiers have two labels or more")
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        raise ArtefactError(f"{path}: max_position_embeddings is {positions!r}, not a number of positions")
    if MODEL_TYPES[model_type]:
        positions -= MODEL_TYPES[model_type] + int(config.get("pad_token_id", 0))
    longest = min(positions, length_of_tokenizer, MAX_TOKENS)
    if wish.max_length is not None and wish.max_length > longest:
        raise ArtefactError(f"--max-length {wish.max_length}: the model reads at most {longest} tokens")
    return {
        "task": wish.task,
        "problem_type": "multi_label" if problem == "multi_label_classification" else "single_label",
        "labels": labels,
        "max_length": wish.max_length or longest,
        "inputs": [name for name in INPUTS if name in signature.inputs],
        "output": OUTPUT,
        "adopted": {"model_type": model_type, "score_change": {}},
    }


def _labels(path: Path, config: Mapping[str, Any], wish: Wish) -> list[str]:
    names = config.get("id2label", dict(enumerate(ABSENT_LABELS)))
    try:
        labels = [str(name) for _, name in sorted((int(index), name) for index, name in names.items())]
    except (AttributeError, ValueError) as error:
        raise ArtefactError(f"{path}: id2label does not map 0, 1, … to labels") from error
    if wish.labels is None:
        return labels
    if len(wish.labels) != len(labels):
        raise ArtefactError(f"--labels: {len(wish.labels)} names, the model has {len(labels)} labels")
    return list(wish.labels)


def _manifest(name: str, fields: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
    precisions = {file: precision for precision, file in GRAPH_FILES.items()}
    listed = {
        file: {
            **({"precision": precisions[file]} if file in precisions else {}),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        for file, content in files.items()
    }
    sums = "".join(str(listed[file]["sha256"]) for file in sorted(listed))
    return {
        "schema_version": 1,
        "name": name,
        "version": hashlib.sha256(sums.encode()).hexdigest()[:12],
        "created_at": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **fields,
        "default_file": next(file for file in GRAPH_FILES.values() if file in files),
        "files": listed,
        "calibration": {"temperature": 1.0},
        "produced_by": {package: metadata.version(package) for package in ("ladabert", "onnxruntime", "tokenizers")},
    }


def _write(folder: Path, manifest: Mapping[str, Any]) -> None:
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _try(artefact: Artefact, manifest: dict[str, Any]) -> None:
    """Run every graph, and add to the manifest what it answered; raises ArtefactError."""
    logits: dict[str, Any] = {}
    input_ids = np.zeros((0, 0), dtype=np.int64)
    for file in artefact.graph_files():
        try:
            inference = load_inference(artefact, file, "cpu")
        except ArtefactError as error:
            where = str(artefact.folder.parent)  # temporary
            raise ArtefactError(
                f"{str(error).replace(f'{where}/', '')}; if it reads fewer tokens than its configuration says, give "
                "--max-length"
            ) from error
        change = _score_change(artefact, inference)
        if artefact.precision_of(file) == "fp32" and change > LARGEST_SCORE_CHANGE:
            raise ArtefactError(
                f"{artefact.folder.name}/{file}: a text's scores change by {change:.2g} with the texts beside it; its "
                "export does not heed attention_mask"
            )
        manifest["adopted"]["score_change"][file] = change
        texts = [inference.tokenizer.tokenize(_trial(artefact, text)).ids[:SELF_TEST_TOKENS] for text in TRIALS]
        length = min(len(ids) for ids in texts)
        input_ids = np.array([ids[:length] for ids in texts], dtype=np.int64)
        answers: FloatArray = inference.backend.run(input_ids, np.ones_like(input_ids), np.zeros_like(input_ids))
        logits[file] = answers.astype(float).round(DECIMALS).tolist()
    manifest["self_test"] = {"input_ids": input_ids.tolist(), "logits": logits}


def _trial(artefact: Artefact, text: str) -> TextInput:
    return TextInput(text, "Something else." if artefact.task == "pair" else None)


def _score_change(artefact: Artefact, inference: Inference) -> float:
    """Return by how much a text's scores differ when it is run alone and beside others; raises ArtefactError."""
    function = default_function(artefact.problem_type)
    texts = [inference.tokenizer.tokenize(_trial(artefact, text)) for text in TRIALS]

    def scores(batch: Sequence[Tokens]) -> list[list[float]]:
        answered = []
        for row in inference.run(batch):
            if isinstance(row, Exception):
                raise ArtefactError(f"{artefact.folder.name}: its logits are not finite")
            answered.append(apply_function(row, function, temperature=1.0))
        return answered

    alone = [scores([text])[0] for text in texts]
    return float(np.abs(np.array(alone) - np.array(scores(texts))).max())
