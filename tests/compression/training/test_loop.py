import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from ladabert_compress.data.batches import Batch, EncodedTexts, encode, training_batches
from ladabert_compress.errors import CheckpointError, DivergenceError
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.recipe import FactorisationRecipe, PruningRecipe, Recipe, StructureRecipe, TrainingConfig
from ladabert_compress.training.device import generators, restore_generators
from ladabert_compress.training.distillation import LadaBertLearner
from ladabert_compress.training.finetune import FinetuneLearner
from ladabert_compress.training.loop import add_gradients, learning_rate_at, train
from ladabert_compress.training.run import compress
from tests.compression.conftest import labelled_texts

pytestmark = pytest.mark.slow


class KilledError(Exception):
    """Stands for the end of the process."""


class MortalLearner(LadaBertLearner):
    """Dies in the middle of a step."""

    dies_at = 10**9

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        self.dies_at -= 1
        if self.dies_at < 0:
            raise KilledError
        return super().losses(batch)


def with_every_lever(recipe: Recipe) -> Recipe:
    return replace(
        recipe,
        factorisation=FactorisationRecipe(error="outputs"),
        pruning=PruningRecipe(score="fisher", embedding_frequency_power=0.75),
    )


def run(
    learner: LadaBertLearner, encoded: EncodedTexts, recipe: Recipe, checkpoint: Path, **others: Any
) -> dict[str, Tensor]:
    train(
        learner,
        encoded,
        encoded,
        recipe.training,
        total_steps=learner.timetable.total_steps,
        evaluate_every=3,
        device=torch.device("cpu"),
        checkpoint=checkpoint,
        checkpoint_every_s=2,
        clock=itertools.count().__next__,  # a second for each step
        run_id="one",
        **others,
    )
    return learner.module.state_dict()


@pytest.mark.parametrize(("steps_before_death", "heads"), [(1, 1.0), (2, 0.5), (3, 1.0), (5, 0.5), (7, 1.0)])
def test_a_resumed_run_ends_with_the_same_student_as_one_that_was_not_killed(
    steps_before_death: int,
    heads: float,
    tiny_bert: BertForSequenceClassification,
    tiny_recipe: Recipe,
    encoded: EncodedTexts,
    tmp_path: Path,
) -> None:
    recipe = replace(tiny_recipe, structure=StructureRecipe(heads=heads))
    expected = run(LadaBertLearner(tiny_bert, recipe, 5, encoded), encoded, recipe, tmp_path / "whole.pt")
    mortal = MortalLearner(tiny_bert, recipe, 5, encoded)
    mortal.dies_at = steps_before_death
    with pytest.raises(KilledError):
        run(mortal, encoded, recipe, tmp_path / "killed.pt")
    torch.rand(7)  # whatever else the next process does with its random numbers
    resumed = run(LadaBertLearner(tiny_bert, recipe, 5, encoded), encoded, recipe, tmp_path / "killed.pt", resume=True)
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_a_resumed_run_knows_the_cpu_seconds_up_to_its_checkpoint(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    mortal = MortalLearner(tiny_bert, tiny_recipe, 5, encoded)
    mortal.dies_at = 3
    with pytest.raises(KilledError):
        run(mortal, encoded, tiny_recipe, checkpoint, cpu_clock=itertools.count(50, 7).__next__)
    spent: dict[str, float] = {}
    learner = LadaBertLearner(tiny_bert, tiny_recipe, 5, encoded)
    run(learner, encoded, tiny_recipe, checkpoint, resume=True, spent=spent)
    assert spent == {"earlier_cpu_seconds": 7}  # read at the start and for the only checkpoint
    run(LadaBertLearner(tiny_bert, tiny_recipe, 5, encoded), encoded, tiny_recipe, tmp_path / "new.pt", spent=spent)
    assert spent == {"earlier_cpu_seconds": 0}


def test_checkpoints_are_as_far_apart_in_time_as_asked_for(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts, tmp_path: Path
) -> None:
    steps = [0]

    class Seen(LadaBertLearner):
        def losses(self, batch: Batch) -> dict[str, Tensor]:
            if (tmp_path / "run.pt").is_file():
                steps.append(torch.load(tmp_path / "run.pt", weights_only=True)["step"])
            return super().losses(batch)

    run(Seen(tiny_bert, tiny_recipe, 5, encoded), encoded, tiny_recipe, tmp_path / "run.pt")
    assert steps == [0, 2, 2, 4, 4, 6, 6, 8][: len(steps)]
    assert len(steps) > 5


def test_a_loss_that_is_no_number_stops_the_run_with_the_step_and_keeps_the_last_checkpoint(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts, tmp_path: Path
) -> None:
    class Diverging(LadaBertLearner):
        step = 0

        def losses(self, batch: Batch) -> dict[str, Tensor]:
            self.step += 1
            losses = super().losses(batch)
            return losses | {"hidden": losses["hidden"] * (float("nan") if self.step == 4 else 1)}

    with pytest.raises(
        DivergenceError, match=r"train: step 4: training has diverged \(.*hidden nan.*lower learning rate"
    ):
        run(Diverging(tiny_bert, tiny_recipe, 5, encoded), encoded, tiny_recipe, tmp_path / "run.pt")
    assert torch.load(tmp_path / "run.pt", weights_only=True)["step"] == 2


def test_the_random_numbers_of_cpu_and_gpu_go_on_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.Generator().manual_seed(3)  # stands for the device's, where there is none
    monkeypatch.setattr("torch.cuda.get_rng_state", lambda _: gpu.get_state())
    monkeypatch.setattr("torch.cuda.set_rng_state", lambda state, _: gpu.set_state(state))
    saved = generators(torch.device("cuda"))
    expected = torch.rand(3), torch.rand(3, generator=gpu)
    torch.rand(5, generator=gpu)
    restore_generators(saved, torch.device("cuda"))
    assert all(map(torch.equal, expected, (torch.rand(3), torch.rand(3, generator=gpu))))
    restore_generators(saved, torch.device("cpu"))  # resumed where there is no GPU
    assert torch.equal(torch.rand(3), expected[0])


def test_a_checkpoint_of_other_settings_is_refused(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    texts = labelled_texts(24)
    compress(teacher_folder, tiny_recipe, texts, texts, tmp_path / "run")
    with pytest.raises(CheckpointError, match="other settings"):
        compress(teacher_folder, tiny_recipe, labelled_texts(25), texts, tmp_path / "run", resume=True)


def test_a_run_does_not_overwrite_an_earlier_one(teacher_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    texts = labelled_texts(24)
    compress(teacher_folder, tiny_recipe, texts, texts, tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(CheckpointError, match="continue with --resume"):
        compress(teacher_folder, tiny_recipe, texts, texts, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_that_is_not_one_is_refused(
    tiny_bert: BertForSequenceClassification, tiny_recipe: Recipe, encoded: EncodedTexts, tmp_path: Path
) -> None:
    (tmp_path / "broken.pt").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="delete it"):
        run(
            LadaBertLearner(tiny_bert, tiny_recipe, 5, encoded),
            encoded,
            tiny_recipe,
            tmp_path / "broken.pt",
            resume=True,
        )


def test_every_row_is_dealt_once_an_epoch_in_an_order_of_seed_and_epoch_alone(encoded: EncodedTexts) -> None:
    batches = training_batches(encoded, 8, seed=1, epoch=2)
    assert sorted(row for batch in batches for row in batch) == list(range(len(encoded)))
    assert batches == training_batches(encoded, 8, seed=1, epoch=2)
    assert batches != training_batches(encoded, 8, seed=1, epoch=3)


def test_the_learning_rate_rises_stays_and_falls() -> None:
    config = TrainingConfig(learning_rate=1.0, warmup_share=0.1, decay_share=0.5)
    rates = [learning_rate_at(step, 100, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:51] == [1.0] * 42
    assert rates[99] == pytest.approx(0.02)


def test_predictions_come_in_the_rows_order(
    tiny_bert: BertForSequenceClassification, tokenizer: PreTrainedTokenizerFast
) -> None:
    data = encode(labelled_texts(30), [0] * 30, tokenizer, 32)
    together = predict_logits(tiny_bert, data, torch.device("cpu"))
    for row in (0, 7, 29):
        batch = data.batch([row])
        alone = tiny_bert(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        assert torch.allclose(together[row], alone[0], atol=1e-4)


def test_a_batch_in_parts_gives_the_gradients_of_the_whole_and_the_loss(
    tiny_bert: BertForSequenceClassification, encoded: EncodedTexts
) -> None:
    def gradients(tokens_at_once: int) -> tuple[dict[str, float], list[Tensor]]:
        learner = FinetuneLearner(tiny_bert, 0.9)
        config = TrainingConfig(tokens_at_once=tokens_at_once, precision="fp32")
        losses = add_gradients(learner, encoded, range(13), config, torch.device("cpu"), weight=0.5)
        found = [parameter.grad for parameter in tiny_bert.parameters() if parameter.grad is not None]
        tiny_bert.zero_grad()
        return losses, found

    tiny_bert.eval()  # parts would draw other dropout
    losses, whole = gradients(10_000)
    for tokens_at_once in (1, 30, 50):
        found, parts = gradients(tokens_at_once)
        assert found == pytest.approx(losses)
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(parts, whole, strict=True))
