"""Claims about exports that cannot be served: each is refused in one line that names the file, and nothing is left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ladabert_serve.cli import main
from ladabert_serve.errors import ArtefactError
from ladabert_serve.models.adoption import adopt
from tests.service.exports import write_tiny_export

Break = Callable[[Path], Any]


def config(**changes: Any) -> Break:
    """Return what overwrites keys of config.json."""
    return _json("config.json", changes)


def tokenizer_config(**changes: Any) -> Break:
    """Return what overwrites keys of tokenizer_config.json."""
    return _json("tokenizer_config.json", changes)


def _json(name: str, changes: dict[str, Any]) -> Break:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def missing(name: str) -> Break:
    """Return what removes a file."""
    return lambda folder: (folder / name).unlink()


def content(name: str, data: bytes) -> Break:
    """Return what writes a file."""
    return lambda folder: (folder / name).write_bytes(data)


def graph(change: Callable[[Any], Any]) -> Break:
    """Return what changes the graph of model.onnx in place."""

    def write(folder: Path) -> None:
        model = onnx.load(folder / "model.onnx")
        change(model.graph)
        (folder / "model.onnx").write_bytes(model.SerializeToString())

    return write


def both(first: Break, second: Break) -> Break:
    """Return what does one, then the other."""

    def change(folder: Path) -> None:
        first(folder)
        second(folder)

    return change


def truncated(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:-100])


def fixed_axis(of: str, axis: int, size: int) -> Break:
    def change(graph: Any) -> None:
        (port,) = (port for port in (*graph.input, *graph.output) if port.name == of)
        port.type.tensor_type.shape.dim[axis].dim_value = size

    return graph(change)


def int32_ids(graph: Any) -> None:
    graph.input[0].type.tensor_type.elem_type = TensorProto.INT32


def other_output(graph: Any) -> None:
    graph.node[-1].output[0] = graph.output[0].name = "last_hidden_state"


def other_input(graph: Any) -> None:
    graph.input.append(helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["batch", "sequence"]))


def without_mask(graph: Any) -> None:
    """Make the attention mask a constant, so that it is no input."""
    graph.input.pop()
    graph.initializer.append(numpy_helper.from_array(np.ones((1, 1), dtype=np.int64), "attention_mask"))


def half_output(graph: Any) -> None:
    graph.node[-1].output[0] = "wide"
    graph.node.append(helper.make_node("Cast", ["wide"], ["logits"], to=TensorProto.FLOAT16))
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def by_token(graph: Any) -> None:
    """Give an output for each token, as a tagger does."""
    graph.node[-1].output[0] = "pooled"
    graph.node.append(helper.make_node("Identity", ["embedded"], ["logits"]))
    axes = graph.output[0].type.tensor_type.shape.dim
    axes.insert(1, onnx.TensorShapeProto.Dimension(dim_param="sequence"))


def changed_by_the_batch(graph: Any) -> None:
    """Subtract the mean over the batch, as a scale for the whole batch would."""
    graph.node[-1].output[0] = "own"
    graph.initializer.append(numpy_helper.from_array(np.array([0], dtype=np.int64), "zero"))
    graph.node.append(helper.make_node("ReduceMean", ["own"], ["mean"], axes=[0], keepdims=1))
    graph.node.append(helper.make_node("Sub", ["own", "mean"], ["logits"]))


def not_finite(graph: Any) -> None:
    graph.node[-1].output[0] = "own"
    graph.initializer.append(numpy_helper.from_array(np.array(np.nan, dtype=np.float32), "nan"))
    graph.node.append(helper.make_node("Add", ["own", "nan"], ["logits"]))


def few_rows(graph: Any) -> None:
    """Leave the table fewer rows than there are tokens."""
    (table,) = [tensor for tensor in graph.initializer if tensor.name == "table"]
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table)[:6], "table"))


def own_operator(graph: Any) -> None:
    graph.node[-1].op_type = "Division"


def external_data(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    onnx.save_model(
        model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0
    )


REFUSALS: list[tuple[str, Break, str]] = [
    ("no configuration", missing("config.json"), r"config\.json: cannot be read"),
    ("no tokenizer", missing("tokenizer.json"), r"tokenizer\.json: is missing; write it .*save_pretrained"),
    ("no graph", missing("model.onnx"), r"holds no model\.onnx or model_quantized\.onnx.*optimum-cli"),
    ("a configuration that is no JSON", content("config.json", b"{"), r"config\.json: not readable JSON"),
    ("a configuration that is a list", content("config.json", b"[]"), r"config\.json: not a JSON object"),
    ("a configuration of over a megabyte", content("config.json", b" " * (1 << 21)), "over 1048576 bytes"),
    ("a tokenizer that is no JSON", content("tokenizer.json", b"\xff"), r"tokenizer\.json: not readable JSON"),
    ("a tokenizer of another kind", content("tokenizer.json", b"{}"), r"tokenizer\.json: tokenizers cannot load it"),
    ("a truncated graph", truncated, r"model\.onnx: not an ONNX model"),
    ("an empty graph", content("model.onnx", b""), r"model\.onnx: not an ONNX model"),
    (
        "an unknown architecture",
        config(model_type="gpt2"),
        r"config\.json: model_type 'gpt2' .* known are albert, bert,",
    ),
    ("no architecture", config(model_type=None), "model_type None"),
    ("an architecture that is a list", config(model_type=["bert"]), "model_type"),
    ("a model that fills gaps", config(architectures=["BertForMaskedLM"]), "BertForMaskedLM.* is no classifier"),
    ("a regression of two numbers", config(problem_type="regression"), "is a regression of 2 numbers"),
    ("a problem that nobody knows", config(problem_type="ranking"), "problem_type 'ranking' is not known"),
    ("labels with a gap", config(id2label={"0": "a", "2": "b"}), "id2label does not name every output"),
    ("labels that are a list", config(id2label=["a", "b"]), "id2label does not name every output"),
    ("two labels of one name", config(id2label={"0": "a", "1": "a"}), "two outputs one name"),
    ("a label without a character", config(id2label={"0": "a", "1": ""}), r"config\.json: \$\.labels\[1\]"),
    ("a third label", config(id2label={"0": "a", "1": "b", "2": "c"}), "has 2 outputs, .* names 3 labels"),
    ("no length", config(max_position_embeddings=None), "max_position_embeddings"),
    ("a length that is a word", config(max_position_embeddings="long"), "'long', not a whole number"),
    ("a negative length", tokenizer_config(model_max_length=-1), r"tokenizer_config\.json: model_max_length is -1"),
    ("a length of two", tokenizer_config(model_max_length=2), r"leave no room"),
    (
        "more positions than are served",
        both(config(max_position_embeddings=10**9), missing("tokenizer_config.json")),
        "max_length",
    ),
    (
        "ids that the model has not",
        config(vocab_size=9),
        r"tokenizer\.json: has token ids up to \d+, the model knows 9",
    ),
    ("a padding token that the model has not", config(pad_token_id=10**6), "token ids up to 1000000"),
    (
        "capitals that transformers keeps",
        tokenizer_config(do_lower_case=False),
        "has lowercase true, .* do_lower_case false",
    ),
    ("tensors in another file", external_data, "keeps a tensor in another file.*as one file"),
    ("a fixed batch", fixed_axis("input_ids", 0, 1), r"input_ids has the fixed shape \[1, sequence\].*dynamic axes"),
    ("a fixed length", fixed_axis("attention_mask", 1, 128), r"fixed shape \[batch, 128\]"),
    ("a fixed batch of answers", fixed_axis("logits", 0, 1), r"logits have the shape \[1, 2\]"),
    (
        "an output for each token",
        graph(by_token),
        r"logits have the shape \[batch, sequence, 2\], not \[batch, labels\]",
    ),
    ("an output of another name", graph(other_output), "its outputs are last_hidden_state, not logits"),
    ("an input that the service has not", graph(other_input), "position_ids"),
    ("no mask", graph(without_mask), "its inputs are input_ids; needed are input_ids and attention_mask"),
    ("ids of 32 bits", graph(int32_ids), "int32"),
    ("answers of 16 bits", graph(half_output), r"logits are a tensor\(float16\); export it in fp32"),
    ("answers that are no numbers", graph(not_finite), "finite"),
    ("answers that the batch changes", graph(changed_by_the_batch), "change by .* with what shares its batch"),
    ("fewer rows than tokens", graph(few_rows), r"model\.onnx: ONNX Runtime"),
    ("an operator that nobody has", graph(own_operator), r"model\.onnx: ONNX Runtime cannot load"),
]


@pytest.mark.parametrize(("attack", "words"), [refusal[1:] for refusal in REFUSALS], ids=[each[0] for each in REFUSALS])
def test_it_is_refused_in_one_line_and_nothing_is_left(
    tmp_path: Path, attack: Break, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    export = write_tiny_export(tmp_path / "export")
    (tmp_path / "models").mkdir()
    attack(export)
    assert main(["adopt", str(export), "--out", str(tmp_path / "models" / "mine")]) == 1
    told = capsys.readouterr()
    assert not told.out
    (line,) = told.err.splitlines()
    with pytest.raises(ArtefactError, match=words):
        raise ArtefactError(line)
    assert str(tmp_path / "export") in line
    assert not any((tmp_path / "models").iterdir())


def test_what_stands_in_the_way_is_left_as_it_was(tmp_path: Path) -> None:
    export = write_tiny_export(tmp_path / "export")
    (tmp_path / "mine").mkdir()
    with pytest.raises(ArtefactError, match=r"--out: .*mine is there already; remove it or name another"):
        adopt(export, tmp_path / "mine")
    assert not any((tmp_path / "mine").iterdir())
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ArtefactError, match="is there already"):
        adopt(export, tmp_path / "link")


def test_a_name_that_no_model_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="cannot be a model's name"):
        adopt(write_tiny_export(tmp_path / "export"), tmp_path / "my model")


def test_a_length_that_the_model_has_no_positions_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"--max-length 1000: the model has positions for 512 tokens"):
        adopt(write_tiny_export(tmp_path / "export"), tmp_path / "mine", max_length=1000)


def test_a_precision_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"holds no model_quantized\.onnx"):
        adopt(write_tiny_export(tmp_path / "export"), tmp_path / "mine", precision="int8")


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactError, match=r"--out: .*cannot be written"):
        adopt(write_tiny_export(tmp_path / "export"), tmp_path / "file" / "mine")


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = write_tiny_export(tmp_path / "export")

    def full(path: Path, data: str, **options: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)  # the manifest, which is written last
    with pytest.raises(ArtefactError, match="No space left on device; nothing is left of it"):
        adopt(export, tmp_path / "models" / "mine")
    assert not any((tmp_path / "models").iterdir())


def test_a_folder_that_is_not_there_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adopt", str(tmp_path / "nope"), "--out", str(tmp_path / "mine")]) == 2
    assert capsys.readouterr().err == f"ladabert-serve: {tmp_path / 'nope'}: no such folder\n"
