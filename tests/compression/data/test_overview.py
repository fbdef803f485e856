from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from ladabert_compress.cli.main import main
from ladabert_compress.data.overview import describe_sources
from ladabert_compress.data.reading import read_labelled_texts
from ladabert_compress.data.texts import LabelledTexts, Texts


def described(tokenizer: PreTrainedTokenizerFast, train: Texts, dev: Texts | None = None, **options: str) -> str:
    return describe_sources({"--train": train, "--dev": dev}, tokenizer, 8, 40, **options)


def test_rows_columns_labels_and_lengths_are_described(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "id,Text,Label\n1,good film,pos\n2,bad plot the,neg \n3,warm,pos\n", encoding="utf-8"
    )
    lines = described(tokenizer, read_labelled_texts(str(tmp_path / "a.csv"))).splitlines()
    assert lines == [
        "--train: 3 rows; columns Text, Label; not read: id",
        "  tokens: median 4, longest 5; none is cut at 8",
        "  labels: pos 2, neg 1",
        "  warning: labels are read without the spaces around them, such as 'neg '",
    ]


def test_rows_that_are_cut_are_counted_with_the_cure(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = Texts(("good", "good " * 7, "bad", "the " * 20), None)
    assert "warning: 50.0% of the rows are cut at 8 tokens; raise --max-length, up to 40" in described(tokenizer, rows)
    at_most = describe_sources({"--train": rows}, tokenizer, 8, 8)
    assert "warning: 50.0% of the rows are cut at 8 tokens, and the model reads no more" in at_most


def test_rows_of_dev_that_stand_in_train_are_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    train = LabelledTexts(("good", "bad"), ("film", "plot"), ("1", "0"))
    dev = LabelledTexts(("good", "bad"), ("film", "film"), ("1", "0"))
    assert "warning: 1 of these rows stand in --train too" in described(tokenizer, train, dev)


def test_labels_that_say_nothing_or_are_scores_are_warned_of(tokenizer: PreTrainedTokenizerFast) -> None:
    same = LabelledTexts(("good", "bad"), None, ("1", "1"))
    assert "warning: every row has the label '1'" in described(tokenizer, same)
    stars = LabelledTexts(("good",) * 63, None, tuple(f"{row / 10}" for row in range(63)))
    text = described(tokenizer, stars)
    assert "warning: the labels are 63 different numbers; if they are scores" in text
    assert "and 53 more" in text
    names = LabelledTexts(("good",) * 63, None, tuple(f"topic {row}" for row in range(63)))
    assert "warning" not in described(tokenizer, names)


def test_each_label_of_a_multi_label_row_is_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = LabelledTexts(("good", "bad", "the"), None, ("a,b", "b", ""))
    assert "labels: b 2, a 1, (none) 1" in described(tokenizer, rows, problem_type="multi_label")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["compress", "finetune"])
def test_what_was_found_is_printed_before_anything_is_trained(
    folder: Path, teacher_folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    rows = ["--train", "train.tsv", "--dev", "dev.tsv"]
    if command == "compress":
        main(["compress", "--teacher", str(teacher_folder), "--recipe", "tiny.toml", "--out", "models/x", *rows])
    else:
        main(["finetune", "--base", str(teacher_folder), "--out", "mine", "--max-length", "32", *rows])
    printed = capsys.readouterr().out
    assert printed.index("--train: 48 rows; columns sentence, label") < printed.index("step ")
