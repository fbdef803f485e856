"""Claims about adopting another tool's export: it answers as transformers does, or is refused in one line."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from starlette.testclient import TestClient
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

from ladabert_serve.app import create_app
from ladabert_serve.cli import main
from ladabert_serve.settings import Settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # PyTorch's older exporter, which optimum uses, has many
]
TEXTS = [
    "a gripping film, from the first minute to the last",
    "no",
    "The room was clean; breakfast was cold, and the trains kept us awake. 1,234 reasons not to come back!",
    "Zürich, 東京 and São Paulo",
    " leading and  double   spaces ",
    "word " * 60,  # longer than the model reads
]
SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
LABELS: dict[str, Any] = {"id2label": {0: "dull", 1: "fair", 2: "good"}, "label2id": {"dull": 0, "fair": 1, "good": 2}}
LENGTH = 48


def train(model: Any, trainer: Any, pre_tokenizer: Any, cls: str, sep: str, pair: str) -> Tokenizer:
    """Return a tokenizer of a few hundred pieces with a family's special tokens."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokens = [(token, tokenizer.token_to_id(token)) for token in (cls, sep)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{cls} $A {sep}", pair=pair, special_tokens=tokens)
    return tokenizer


def word_pieces() -> Tokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = train(
        models.WordPiece(unk_token="[UNK]"),
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=special),
        pre_tokenizers.BertPreTokenizer(),
        "[CLS]",
        "[SEP]",
        "[CLS] $A [SEP] $B:1 [SEP]:1",
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    return tokenizer


def bytes_in_pairs() -> Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return train(models.BPE(), trainer, pre_tokenizer, "<s>", "</s>", "<s> $A </s> </s> $B </s>")


def unigrams() -> Tokenizer:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>")
    pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    return train(models.Unigram(), trainer, pre_tokenizer, "<s>", "</s>", "<s> $A </s> </s> $B </s>")


ROBERTA = {**SIZES, "max_position_embeddings": LENGTH + 2, "type_vocab_size": 1}
FAMILIES: dict[str, tuple[Callable[[], Tokenizer], dict[str, Any]]] = {
    "bert": (word_pieces, {**SIZES, "max_position_embeddings": LENGTH}),
    "distilbert": (
        word_pieces,
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": LENGTH},
    ),
    "electra": (word_pieces, {**SIZES, "embedding_size": 16, "max_position_embeddings": LENGTH}),
    "roberta": (bytes_in_pairs, ROBERTA),
    "xlm-roberta": (unigrams, ROBERTA),
}


class Export:
    """A folder as `optimum-cli export onnx` writes it, and the model that it was made of."""

    def __init__(self, folder: Path, family: str, **options: Any) -> None:
        self.folder = folder
        make_tokenizer, sizes = FAMILIES[family]
        tokenizer = make_tokenizer()
        pad = "<pad>" if tokenizer.token_to_id("[PAD]") is None else "[PAD]"
        sizes = {**sizes, "vocab_size": tokenizer.get_vocab_size(), "pad_token_id": tokenizer.token_to_id(pad)}
        self.config: Any = AutoConfig.for_model(family, **sizes, **LABELS, **options)
        torch.manual_seed(0)
        self.model = AutoModelForSequenceClassification.from_config(self.config, attn_implementation="eager").eval()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.normal_(0, 0.3)
        self.inputs = ["input_ids", "attention_mask"]
        self.inputs += ["token_type_ids"] if family in ("bert", "electra") else []
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token=pad, model_max_length=LENGTH, model_input_names=self.inputs
        )
        folder.mkdir()
        self.config.architectures = [type(self.model).__name__]
        self.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        axes = {name: {0: "batch_size", 1: "sequence_length"} for name in self.inputs}
        ids = torch.randint(5, 50, (2, 9))
        values = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
        torch.onnx.export(
            self.model,
            (),
            str(folder / "model.onnx"),
            kwargs={name: values[name] for name in self.inputs},
            input_names=self.inputs,
            output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "batch_size"}},
            opset_version=17,
            dynamo=False,
        )

    def scores(self, texts: Sequence[Any]) -> list[dict[str, float]]:
        """Return what transformers answers, one by one."""
        answers = []
        for text in texts:
            encoded = self.tokenizer(*([text] if isinstance(text, str) else text), truncation=True, return_tensors="pt")
            with torch.no_grad():
                logits = self.model(**{name: encoded[name] for name in self.inputs}).logits[0].double()
            multi = self.config.problem_type == "multi_label_classification"
            scores = logits.sigmoid() if multi else logits.softmax(-1)
            answers.append(dict(zip(self.config.id2label.values(), scores.tolist(), strict=True)))
        return answers


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Export]:
    """Return each family's export, made once; do not change it."""
    folder = tmp_path_factory.mktemp("exports")
    made: dict[str, Export] = {}

    def export(family: str) -> Export:
        if family not in made:
            made[family] = Export(folder / family, family)
        return made[family]

    return export


@pytest.fixture
def copied(exports: Callable[[str], Export], tmp_path: Path) -> Path:
    """Return a copy of BERT's export to break."""
    return Path(shutil.copytree(exports("bert").folder, tmp_path / "export"))


def ask(models: Path, inputs: Sequence[Any], **fields: Any) -> list[dict[str, float]]:
    """Return each input's scores by label, as the server answers."""
    with TestClient(create_app(Settings(models=models))) as client:
        response = client.post("/classify", json={"inputs": list(inputs), **fields})
    assert response.status_code == 200, response.text
    return [{each["label"]: each["score"] for each in one["scores"]} for one in response.json()["predictions"]]


def check_same(found: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert max(max(one.values()) - min(one.values()) for one in expected) > 0.1  # else anything would do


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adopted_export_answers_as_transformers_does(
    family: str, exports: Callable[[str], Export], tmp_path: Path
) -> None:
    export = exports(family)
    assert main(["adopt", str(export.folder), "--out", str(tmp_path / "models" / "mine")]) == 1  # no such folder
    (tmp_path / "models").mkdir()
    assert main(["adopt", str(export.folder), "--out", str(tmp_path / "models" / "mine")]) == 0
    check_same(ask(tmp_path / "models", TEXTS), export.scores(TEXTS))


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_are_read_with_the_familys_own_special_tokens(
    family: str, exports: Callable[[str], Export], tmp_path: Path
) -> None:
    export = exports(family)
    assert main(["adopt", str(export.folder), "--out", str(tmp_path / "mine"), "--task", "pair"]) == 0
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    found = ask(tmp_path, [{"text": text, "text_pair": second} for text, second in pairs])
    check_same(found, export.scores(pairs))


def test_labels_and_length_can_be_given_and_int8_is_served_beside_fp32(
    exports: Callable[[str], Export], copied: Path, tmp_path: Path
) -> None:
    folder = copied / "onnx"
    folder.mkdir()
    (copied / "model.onnx").rename(folder / "model.onnx")
    quantize_dynamic(
        copied / "onnx" / "model.onnx", copied / "onnx" / "model_quantized.onnx", weight_type=QuantType.QInt8
    )
    command = ["adopt", str(copied), "--out", str(tmp_path / "mine"), "--labels", "a", "b", "c", "--max-length", "32"]
    assert main(command) == 0
    manifest = json.loads((tmp_path / "mine" / "manifest.json").read_text())
    assert (manifest["labels"], manifest["max_length"]) == (["a", "b", "c"], 32)
    assert set(manifest["files"]) == {"model.onnx", "model.int8.onnx", "tokenizer.json"}
    assert set(manifest["self_test"]["logits"]) == {"model.onnx", "model.int8.onnx"}
    assert main(["check", str(tmp_path / "mine")]) == 0
    (scores,) = ask(tmp_path, [TEXTS[0]])
    assert sorted(scores.values()) == pytest.approx(sorted(exports("bert").scores(TEXTS[:1])[0].values()), abs=1e-5)


def test_a_model_of_several_labels_at_once_gives_each_a_score_of_its_own(tmp_path: Path) -> None:
    export = Export(tmp_path / "export", "roberta", problem_type="multi_label_classification")
    assert main(["adopt", str(export.folder), "--out", str(tmp_path / "mine")]) == 0
    check_same(ask(tmp_path, TEXTS), export.scores(TEXTS))


def test_a_link_into_the_hubs_cache_is_followed(copied: Path, tmp_path: Path) -> None:
    (copied / "model.onnx").rename(tmp_path / "blob")
    (copied / "model.onnx").symlink_to(tmp_path / "blob")
    assert main(["adopt", str(copied), "--out", str(tmp_path / "mine")]) == 0
    assert not (tmp_path / "mine" / "model.onnx").is_symlink()


def with_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def with_graph(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        graph = onnx.load(folder / "model.onnx")
        change(graph)
        onnx.save(graph, folder / "model.onnx")

    return rewrite


def fix_axes(graph: onnx.ModelProto) -> None:
    for given in graph.graph.input:
        given.type.tensor_type.shape.dim[1].dim_value = 9


def rename_output(graph: onnx.ModelProto) -> None:
    graph.graph.node.append(helper.make_node("Identity", ["logits"], ["last_hidden_state"]))
    graph.graph.output[0].name = "last_hidden_state"


def ignore_mask(graph: onnx.ModelProto) -> None:
    """Let the graph read ones in the place of the mask."""
    for node in graph.graph.node:
        for index, name in enumerate(node.input):
            if name == "attention_mask":
                node.input[index] = "ones"
    shape = helper.make_node("Shape", ["input_ids"], ["shape_of_ones"])
    value = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    graph.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape_of_ones"], ["ones"], value=value))
    graph.graph.node.insert(0, shape)


def keep_outside(folder: Path) -> None:
    graph = onnx.load(folder / "model.onnx")
    onnx.save(graph, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no graph": (lambda folder: (folder / "model.onnx").unlink(), "optimum-cli export onnx"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "no tokenizer.json": (lambda folder: (folder / "tokenizer.json").unlink(), "save_pretrained"),
    "broken tokenizer": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json"),
    "cut graph": (lambda folder: (folder / "model.onnx").write_bytes(b"\x08\x08"), "model.onnx"),
    "weights elsewhere": (keep_outside, "one file"),
    "another architecture": (with_config(model_type="gpt2"), "model_type 'gpt2' is not one of bert"),
    "no classifier": (with_config(architectures=["BertForMaskedLM"]), "ForSequenceClassification"),
    "regression": (with_config(problem_type="regression"), "regression"),
    "too few labels": (with_config(id2label={"0": "a", "1": "b"}), "labels"),
    "two labels of one name": (with_config(id2label={"0": "a", "1": "a", "2": "b"}), "labels"),
    "labels without numbers": (with_config(id2label={"x": "a"}), "id2label"),
    "a padding token that is none": (with_config(pad_token_id=100000), "pad_token_id"),
    "positions that are none": (with_config(max_position_embeddings=None), "max_position_embeddings"),
    "fixed axes": (with_graph(fix_axes), "dynamic axes"),
    "another output": (with_graph(rename_output), "logits"),
    "a mask that is ignored": (with_graph(ignore_mask), "attention_mask"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served_is_refused_in_one_line_and_nothing_is_left(
    case: str, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, word = REFUSED[case]
    change(copied)
    models_folder = tmp_path / "models"
    models_folder.mkdir()
    assert main(["adopt", str(copied), "--out", str(models_folder / "mine")]) == 1
    written = capsys.readouterr()
    assert word in written.err
    assert written.err.count("\n") == 1
    assert written.out == ""
    assert list(models_folder.iterdir()) == []


def test_more_tokens_than_the_model_reads_are_refused(copied: Path, tmp_path: Path) -> None:
    assert main(["adopt", str(copied), "--out", str(tmp_path / "mine"), "--max-length", str(LENGTH + 1)]) == 1


def test_positions_that_the_graph_does_not_have_are_found(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_config(max_position_embeddings=512)(copied)
    path = copied / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 10**30}))
    assert main(["adopt", str(copied), "--out", str(tmp_path / "mine")]) == 1
    assert "--max-length" in capsys.readouterr().err


def test_what_is_there_is_never_overwritten(copied: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert main(["adopt", str(copied), "--out", str(tmp_path / "mine")]) == 1
    assert list((tmp_path / "mine").iterdir()) == []


def test_padding_beside_a_text_changes_nothing(exports: Callable[[str], Export], tmp_path: Path) -> None:
    assert main(["adopt", str(exports("roberta").folder), "--out", str(tmp_path / "mine")]) == 0
    alone = [ask(tmp_path, [text])[0] for text in TEXTS]
    for one, other in zip(alone, ask(tmp_path, TEXTS), strict=True):
        assert np.allclose(list(one.values()), [other[label] for label in one], atol=1e-6)
