"""A random two-layer BERT, a tokenizer over ten words, and rows that the words decide."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from ladabert_compress.data.batches import EncodedTexts, encode
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.recipe import Recipe, load_recipe
from ladabert_compress.teacher.folder import TeacherCard, save_teacher
from ladabert_compress.training.run import CompressionResult, compress

WORDS = ("good", "great", "fine", "nice", "warm", "bad", "awful", "poor", "dull", "cold", "film", "plot", "the", "a")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
REPOSITORY = Path(__file__).parents[2]

TINY_RECIPE = """
[budget]
ratio = 4.0
p_embedding = 0.2
p_embedding_svd = 0.5
p_svd = 0.4
[schedule]
iterations = 3
factorise_iterations = 2
epochs_per_iteration = 0.5
final_epochs = 1.0
[training]
batch_size = 8
learning_rate = 1e-3
max_length = 32
precision = "fp32"
"""


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """These models are too small for two: threads that wait for each other are slow where cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *WORDS))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def tiny_config() -> BertConfig:
    return BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        architectures=["BertForSequenceClassification"],
        id2label={0: "negative", 1: "positive"},
        label2id={"negative": 0, "positive": 1},
    )


def random_bert() -> BertForSequenceClassification:
    """Random weights, larger than BERT's own so that logits differ visibly, and no parameter zero."""
    torch.manual_seed(0)
    model: BertForSequenceClassification = BertForSequenceClassification._from_config(
        tiny_config(), attn_implementation="eager"
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5) if parameter.ndim == 2 else parameter.add_(0.1 * torch.randn_like(parameter))
        model.bert.embeddings.word_embeddings.weight[0] = 0.1  # BERT's own padding row is zero
    model.eval()
    return model


@pytest.fixture
def tiny_bert() -> BertForSequenceClassification:
    return random_bert()


@pytest.fixture(scope="session")
def taught_bert(tokenizer: PreTrainedTokenizerFast) -> BertForSequenceClassification:
    """The tiny model after a few steps, in which it learns the labels; a random one is refused as a teacher."""
    model, texts = random_bert(), labelled_texts(100)
    encoded = tokenizer(list(texts.texts), padding=True, return_tensors="pt", return_token_type_ids=True)
    labels = torch.tensor([int(label == "positive") for label in texts.labels])
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(20):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(**encoded).logits, labels).backward()
        optimiser.step()
    return model


@pytest.fixture
def teacher_folder(
    tmp_path: Path, taught_bert: BertForSequenceClassification, tokenizer: PreTrainedTokenizerFast
) -> Path:
    folder = tmp_path / "teacher"
    save_teacher(folder, taught_bert, tokenizer, TeacherCard("tiny", "random", "Apache-2.0"), {})
    return folder


def labelled_texts(rows: int) -> LabelledTexts:
    """Texts of one to eight words whose first word decides the label."""
    generator = torch.Generator().manual_seed(rows)
    texts, labels = [], []
    for _ in range(rows):
        length = int(torch.randint(1, 9, (), generator=generator))
        words = [WORDS[int(index)] for index in torch.randint(0, len(WORDS), (length,), generator=generator)]
        texts.append(" ".join(words))
        labels.append("positive" if WORDS.index(words[0]) < 5 else "negative")
    return LabelledTexts(tuple(texts), None, tuple(labels))


def models_folder(parent: Path) -> Path:
    """An empty models/."""
    folder = parent / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_RECIPE, encoding="utf-8")
    return load_recipe(path)


@pytest.fixture
def encoded(tokenizer: PreTrainedTokenizerFast) -> EncodedTexts:
    data = labelled_texts(40)
    return encode(data, [int(label == "positive") for label in data.labels], tokenizer, 32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with rows, a recipe and an empty models/."""
    for name, rows in (("train.tsv", 48), ("dev.tsv", 24)):
        data = labelled_texts(rows)
        lines = [f"{text}\t{label}" for text, label in zip(data.texts, data.labels, strict=True)]
        (tmp_path / name).write_text("\n".join(("sentence\tlabel", *lines)) + "\n", encoding="utf-8")
    (tmp_path / "tiny.toml").write_text(TINY_RECIPE, encoding="utf-8")
    models_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def result(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> CompressionResult:
    return compress(teacher_folder, tiny_recipe, labelled_texts(64), labelled_texts(40), tmp_path / "run")
