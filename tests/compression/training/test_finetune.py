import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from ladabert_compress.data.batches import Batch, EncodedTexts, encode
from ladabert_compress.data.labels import label_ids_of
from ladabert_compress.data.texts import LabelledTexts
from ladabert_compress.errors import CheckpointError, DataError, OptionError
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.recipe import TrainingConfig
from ladabert_compress.student.bert import head_activation
from ladabert_compress.teacher.folder import load_teacher
from ladabert_compress.training.finetune import FinetuneConfig, FinetuneLearner, finetune, growing_average
from ladabert_compress.training.loop import set_dropout
from tests.compression.conftest import WORDS, labelled_texts
from tests.compression.teacher.families import save_family

pytestmark = pytest.mark.slow


def config(base: Path, **changes: object) -> FinetuneConfig:
    values: dict[str, object] = {
        "base": str(base),
        "name": "mine",
        "source": "",
        "licence": "Apache-2.0",
        "epochs": 3,
        "average_decay": 0.99,
        "dropout": 0.1,
        "label_names": (),
        "training": TrainingConfig(batch_size=8, learning_rate=1e-4, max_length=32, precision="fp32"),
    }
    return FinetuneConfig(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("average_decay", [0.0, 0.9, 0.99])
def test_the_saved_teacher_is_the_one_whose_accuracy_is_reported(
    teacher_folder: Path, tmp_path: Path, average_decay: float
) -> None:
    dev = labelled_texts(199)
    reported = finetune(
        config(teacher_folder, average_decay=average_decay), labelled_texts(200), dev, tmp_path / "mine"
    )
    teacher = load_teacher(tmp_path / "mine")
    data = encode(dev, label_ids_of("dev", dev, teacher.labels), teacher.tokenizer, 32)
    predicted = predict_logits(teacher.model, data, torch.device("cpu")).argmax(dim=1)
    assert (predicted == torch.tensor(data.labels)).float().mean().item() == pytest.approx(reported)


def distance_to_the_last(decay: float, steps: int) -> float:
    """How far the average of weights that go from 0 to 1 in equal steps is from the last."""
    update, average = growing_average(decay), [torch.zeros(())]
    for step in range(1, steps + 1):
        update(average, [torch.tensor(step / steps)], torch.tensor(step))
    return 1 - average[0].item()


def test_the_average_of_a_short_run_is_near_its_end_and_that_of_a_long_one_has_the_decay_asked_for() -> None:
    assert distance_to_the_last(0.99, 30) < 0.2  # 0.86 where the decay is 0.99 from the start
    assert distance_to_the_last(0.99, 5000) == pytest.approx(99 / 5000, rel=0.02)
    assert distance_to_the_last(0.0, 3) == 0


def test_a_short_run_with_the_default_average_learns_as_much_as_its_last_weights(
    tiny_bert: BertForSequenceClassification, teacher_folder: Path, tmp_path: Path
) -> None:
    tiny_bert.save_pretrained(teacher_folder)  # which knows nothing yet
    rows, dev = labelled_texts(300), labelled_texts(200)
    training = TrainingConfig(batch_size=32, learning_rate=3e-3, max_length=32, precision="fp32")
    averaged, last = (
        finetune(
            config(teacher_folder, average_decay=decay, training=training, dropout=0.0),
            rows,
            dev,
            tmp_path / f"{decay}",
        )
        for decay in (0.99, 0.0)
    )
    assert last > 0.8
    assert averaged >= last - 0.03


def test_r_drop_weighs_how_far_two_passes_with_other_dropout_are_apart(
    tiny_bert: BertForSequenceClassification, encoded: EncodedTexts
) -> None:
    batch = encoded.batch(range(16))

    def terms(weight: float, dropout: float) -> dict[str, float]:
        set_dropout(tiny_bert, dropout)
        torch.manual_seed(0)
        learner = FinetuneLearner(tiny_bert.train(), 0.9, weight)
        return {name: loss.item() for name, loss in learner.losses(batch).items()}

    assert terms(1.0, 0.3)["r_drop"] > 0
    assert terms(4.0, 0.3)["r_drop"] == pytest.approx(4 * terms(1.0, 0.3)["r_drop"])
    assert terms(4.0, 0.0)["r_drop"] == pytest.approx(0, abs=1e-7)
    assert terms(4.0, 0.0)["loss"] == pytest.approx(terms(0.0, 0.0)["loss"])


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_teacher(folder).model.state_dict()


def test_the_weights_of_several_runs_are_averaged(teacher_folder: Path, tmp_path: Path) -> None:
    rows, dev = labelled_texts(80), labelled_texts(99)
    settings = config(teacher_folder, epochs=1)
    reported = finetune(replace(settings, runs=3), rows, dev, tmp_path / "mean")
    mean, alone = weights_of(tmp_path / "mean"), []
    for seed in range(3):  # the head of a base that has one already is the same for every seed
        training = replace(settings.training, seed=seed)
        finetune(replace(settings, training=training), rows, dev, tmp_path / f"{seed}")
        alone.append(weights_of(tmp_path / f"{seed}"))
    assert any(not torch.equal(alone[0][name], alone[1][name]) for name in mean)
    for name, value in mean.items():
        if value.is_floating_point():
            assert (value - torch.stack([run[name] for run in alone]).mean(dim=0)).abs().max() < 1e-6
    teacher = load_teacher(tmp_path / "mean")
    data = teacher.encode("dev", dev, 32)
    predicted = predict_logits(teacher.model, data, torch.device("cpu")).argmax(dim=1)
    assert (predicted == torch.tensor(data.labels)).float().mean().item() == pytest.approx(reported)
    report = json.loads((tmp_path / "mean" / "finetune.json").read_text(encoding="utf-8"))
    assert [entry["run"] for entry in report["evaluations"]] == [1, 2, 3]
    assert not (tmp_path / "mean.run").exists()


class KilledError(Exception):
    """Stands for the end of the process."""


def test_all_runs_begin_with_one_new_head(
    teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_family(tmp_path / "base", "distilbert")  # a base without a head of ours
    heads: list[torch.Tensor] = []

    class Watching(FinetuneLearner):
        def __init__(self, module: BertForSequenceClassification, *others: Any) -> None:
            super().__init__(module, *others)
            heads.append(module.classifier.weight.detach().clone())

    monkeypatch.setattr("ladabert_compress.training.finetune.FinetuneLearner", Watching)
    finetune(config(tmp_path / "base", epochs=1, runs=2), labelled_texts(40), labelled_texts(20), tmp_path / "mine")
    assert torch.equal(*heads)


@pytest.mark.parametrize("steps_before_death", [4, 10, 15, 19])  # ten steps a run; the last is the second's last
def test_runs_that_were_killed_go_on_to_the_same_average(
    steps_before_death: int, teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, rows, dev = config(teacher_folder, epochs=1, runs=2), labelled_texts(80), labelled_texts(40)
    finetune(settings, rows, dev, tmp_path / "whole")
    left, losses = steps_before_death, FinetuneLearner.losses

    def die(learner: FinetuneLearner, batch: Batch) -> dict[str, torch.Tensor]:
        nonlocal left
        left -= 1
        if left < 0:
            raise KilledError
        return losses(learner, batch)

    with monkeypatch.context() as patched:
        patched.setattr(FinetuneLearner, "losses", die)
        with pytest.raises(KilledError):
            finetune(settings, rows, dev, tmp_path / "killed", checkpoint_every_s=0)
    with pytest.raises(CheckpointError, match="continue with --resume"):
        finetune(settings, rows, dev, tmp_path / "killed")
    finetune(settings, rows, dev, tmp_path / "killed", resume=True)
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_rows_of_one_label_are_refused(teacher_folder: Path, tmp_path: Path) -> None:
    rows = LabelledTexts(("good", "great"), None, ("1", "1"))
    with pytest.raises(DataError, match="every row has the label '1'"):
        finetune(config(teacher_folder), rows, rows, tmp_path / "mine")


def test_the_labels_get_the_names_that_were_given(teacher_folder: Path, tmp_path: Path) -> None:
    names = config(teacher_folder, label_names=("down", "up"), epochs=1)
    finetune(names, labelled_texts(32), labelled_texts(16), tmp_path / "mine")
    assert load_teacher(tmp_path / "mine").labels == ("down", "up")
    with pytest.raises(OptionError, match="3 names for 2 labels"):
        finetune(
            config(teacher_folder, label_names=("a", "b", "c")), labelled_texts(32), labelled_texts(16), tmp_path / "x"
        )


def test_a_multi_label_teacher_learns_each_label_by_itself(teacher_folder: Path, tmp_path: Path) -> None:
    texts = labelled_texts(120)
    kinds = [WORDS.index(text.split()[0]) // 5 for text in texts.texts]  # good, bad, or a noun or an article
    rows = replace(texts, labels=tuple(("liked, praised", "disliked", "")[kind] for kind in kinds))
    training = TrainingConfig(batch_size=8, learning_rate=3e-3, max_length=32, precision="fp32")
    settings = config(teacher_folder, problem_type="multi_label", training=training, average_decay=0.5, epochs=6)
    reported = finetune(settings, rows, rows, tmp_path / "mine")
    assert reported > 0.7  # a third by chance
    teacher = load_teacher(tmp_path / "mine")
    assert (teacher.labels, teacher.problem_type) == (("disliked", "liked", "praised"), "multi_label")
    data = teacher.encode("rows", rows, 32)
    yes = predict_logits(teacher.model, data, torch.device("cpu")) > 0
    assert (yes == torch.tensor(data.labels).bool()).all(dim=1).float().mean().item() == pytest.approx(reported)
    with pytest.raises(DataError, match="row 1: label 'bored' is not one of disliked, liked, praised"):
        finetune(settings, rows, replace(rows, labels=("bored",) * 120), tmp_path / "other")


@pytest.mark.parametrize("family", ["distilbert", "roberta", "electra-small"])
def test_a_base_of_any_family_gets_berts_head_and_is_saved_as_a_bert(family: str, tmp_path: Path) -> None:
    save_family(tmp_path / "base", family)
    dev = labelled_texts(60)
    reported = finetune(config(tmp_path / "base", epochs=1), labelled_texts(40), dev, tmp_path / "mine")
    teacher = load_teacher(tmp_path / "mine")
    assert head_activation(teacher.model.config) == "tanh"
    data = teacher.encode("dev", dev, 32)
    logits = predict_logits(teacher.model, data, torch.device("cpu"))
    assert (logits.argmax(dim=1) == torch.tensor(data.labels)).float().mean().item() == pytest.approx(reported)
    if family == "electra-small":
        return  # transformers knows no projected embeddings in a BERT
    stock = AutoModelForSequenceClassification.from_pretrained(tmp_path / "mine")
    assert (predict_logits(stock, data, torch.device("cpu")) - logits).abs().max() < 1e-5
