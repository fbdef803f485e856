"""Writes the recipe of a student with fewer layers and nothing else taken out, for `ladabert-compress compress`.

python -m benchmarks layers --teacher DIR --layers 0.5 --out layers-half.toml
ladabert-compress compress --recipe layers-half.toml --teacher DIR --train F --dev F --out models/layers-half

Its layers begin with the teacher's, evenly spread, and each learns from the one that it was, with the losses, the
schedule and the checks of every other student. Only its ratio follows from the teacher's shape.
"""

import argparse
from pathlib import Path

from transformers import BertForSequenceClassification

from ladabert_compress.errors import OptionError
from ladabert_compress.files import write_text
from ladabert_compress.recipe import BudgetRecipe, Recipe, ScheduleRecipe, StructureRecipe, TrainingConfig, to_toml
from ladabert_compress.student.matrices import count_parameters
from ladabert_compress.student.structure import narrow
from ladabert_compress.teacher.folder import load_teacher

JUST_UNDER_ALL = 1e-9  # of the parameters, so that equation 7 can be met; masks of so little keep every entry
SCHEDULE = ScheduleRecipe(
    iterations=1, factorise_iterations=1, epochs_per_iteration=0.1, final_epochs=2.0, min_steps=600
)
TRAINING = TrainingConfig(batch_size=64, learning_rate=1e-4, warmup_share=0.02, decay_share=0.6)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--teacher", type=Path, required=True, metavar="DIR")
    parser.add_argument("--layers", type=float, default=0.5, metavar="SHARE", help="that stays (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="R.toml", help="recipe to write")


def prepare(options: argparse.Namespace) -> None:
    """Write the recipe.

    Raises:
        CompressionError: the teacher cannot be used, the share is no share, or the file cannot be written.
    """
    if not 0 < options.layers < 1:
        raise OptionError(f"--layers: {options.layers:g} is no share of the layers; it has to be over 0 and under 1")
    recipe = layers_alone(load_teacher(options.teacher).model, options.layers)
    try:
        write_text(options.out, to_toml(recipe))
    except OSError as error:
        raise OptionError(f"--out: {options.out}: {error.strerror}") from error
    print(f"{options.out}: ×{recipe.budget.ratio:.4g}")


def layers_alone(teacher: BertForSequenceClassification, share: float) -> Recipe:
    """Return the recipe of a student with that share of the layers, whole."""
    structure = StructureRecipe(layers=share)
    kept, whole = (count_parameters(model).total for model in (narrow(teacher, structure).model, teacher))
    budget = BudgetRecipe(ratio=whole / kept * (1 + JUST_UNDER_ALL), p_embedding=1.0)
    return Recipe(budget, SCHEDULE, TRAINING, structure)
