"""The command ``search``."""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

from ladabert_compress.cli.options import (
    OneLineParser,
    add_data_options,
    add_teacher_options,
    next_step,
    positive,
    read_rows,
    teacher_source,
    whole,
)
from ladabert_compress.errors import OptionError
from ladabert_compress.recipe import load_recipe


def add_search(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command ``search``."""
    parser = commands.add_parser(
        "search",
        help="search how to split the budget, write a recipe",
        description="Searches P_embd, P_svd and P_weight under equation 7: each trial is a short distillation, scored "
        "on rows held out of --train. Writes the best split as a recipe; all else is as in --recipe.",
    )
    add_teacher_options(parser, required=True, purpose="the fine-tuned classifier")
    parser.add_argument("--out", required=True, type=Path, metavar="R.toml", help="recipe to write")
    parser.add_argument(
        "--recipe",
        default="ladabert-4",
        metavar="NAME|R.toml",
        help="everything that is not searched (default %(default)s)",
    )
    parser.add_argument("--ratio", type=float, help="budget.ratio in place of the recipe's")
    parser.add_argument("--trials", type=positive, default=12, help="splits to score (default %(default)s)")
    parser.add_argument(
        "--sampler",
        choices=("random", "tpe"),
        default="random",
        help="random, as in the paper, or tree-structured Parzen estimators (default %(default)s)",
    )
    parser.add_argument("--steps", type=positive, default=300, help="of one trial (default %(default)s)")
    parser.add_argument(
        "--held-out-rows",
        type=positive,
        default=2000,
        metavar="N",
        help="rows of --train, at most a tenth, to score on (default %(default)s)",
    )
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="folder of the journal (default runs/search-NAME of --out)"
    )
    add_data_options(parser, train="rows to train and score on")
    run = parser.add_argument_group("run")
    run.add_argument("--processes", type=positive, help="of one thread each (default: the cores at hand)")
    run.add_argument("--seed", type=whole, default=0, help="fixes the random splits (default %(default)s)")
    run.add_argument("--resume", action="store_true", help="continue an interrupted search")
    parser.set_defaults(run_command=_run_search)


def _run_search(options: argparse.Namespace) -> None:
    if options.out.exists() or not options.out.parent.is_dir():
        reason = "exists already; name another file or delete it" if options.out.exists() else "its folder is not there"
        raise OptionError(f"--out: {options.out}: {reason}")
    recipe = load_recipe(options.recipe, {} if options.ratio is None else {"budget.ratio": options.ratio})
    texts = read_rows(options, "train")

    # PyTorch takes seconds to load: only now that options and rows are right.
    from ladabert_compress.search.split import SearchConfig, search, write_recipe

    config = SearchConfig(
        recipe=recipe,
        trials=options.trials,
        sampler=options.sampler,
        steps=options.steps,
        held_out_rows=options.held_out_rows,
        processes=options.processes or len(os.sched_getaffinity(0)),
        seed=options.seed,
    )
    run_folder = options.run or Path("runs") / f"search-{options.out.stem}"
    found = search(teacher_source(options), config, texts, run_folder, resume=options.resume)
    write_recipe(found, config, options.teacher.resolve().name, options.out)
    median = statistics.median(accuracy for accuracy, _ in found.scored)  # shows what the choice is worth
    print(f"{options.out}: accuracy {found.scored[0][0]:.4f}, median {median:.4f}")  # noqa: T201
    rows = ("--train", options.train, "--out", f"models/{options.out.stem}")
    print(  # noqa: T201
        next_step("ladabert-compress", "compress", "--teacher", options.teacher, "--recipe", options.out, *rows)
    )
