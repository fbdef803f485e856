"""The command ``finetune``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ladabert_compress.cli.options import (
    OneLineParser,
    add_data_options,
    add_run_options,
    add_source_options,
    names,
    next_step,
    not_negative,
    positive,
    read_rows,
    share,
)
from ladabert_compress.errors import OptionError


def add_finetune(commands: argparse._SubParsersAction[OneLineParser]) -> None:
    """The command ``finetune``."""
    parser = commands.add_parser(
        "finetune",
        help="fine-tune an encoder into a teacher",
        description="Fine-tunes a pretrained encoder on labelled texts and writes a Hugging Face folder (safetensors) "
        "with the average of the weights after the last step; --dev is reported and decides nothing.",
    )
    parser.add_argument("--base", required=True, metavar="ID_OR_DIR", help="hub id or folder of a pretrained encoder")
    add_source_options(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write the teacher to")
    parser.add_argument("--name", help="the teacher's name in manifests (default: the name of --out)")
    parser.add_argument("--source", help="what the base is, repeated in manifests (default: what --base records)")
    parser.add_argument(
        "--licence", default="unknown", help="the base's licence, repeated in manifests (default %(default)s)"
    )
    parser.add_argument("--label-names", type=names, default=(), metavar="A,B,…", help="names of the labels, in order")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--multi-label", action="store_true", help="a row has any number of labels, separated by commas; empty: none"
    )
    kind.add_argument(
        "--regression", action="store_true", help="labels are numbers, which the teacher is to predict, as of STS-B"
    )
    parser.add_argument("--epochs", type=positive, default=3, help="passes over --train (default %(default)s)")
    parser.add_argument(
        "--average-decay",
        type=share,
        default=0.99,
        help="the teacher is an exponential average of the weights, over fewer steps at the start, so that short runs "
        "are not held back; 0 keeps the last ones (default %(default)s)",
    )
    parser.add_argument(
        "--r-drop",
        type=not_negative,
        default=0.0,
        metavar="FLOAT",
        help="weight of R-Drop, which passes each row twice with other dropout and brings the two answers together; 4 "
        "made our best teachers, in twice the time (default %(default)g)",
    )
    parser.add_argument(
        "--runs",
        type=positive,
        default=1,
        metavar="N",
        help="train so many times from one new head, with the seeds from --seed on, and average the weights; takes N "
        "times as long, in the memory of one run (default %(default)s)",
    )
    parser.add_argument("--dropout", type=share, default=0.1, help="in every layer (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows a step (default %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="peak (default %(default)s)")
    parser.add_argument("--max-length", type=int, default=128, help="tokens a row (default %(default)s)")
    add_data_options(parser, train="rows to train on", dev="rows to report on")
    run = add_run_options(parser)
    run.add_argument("--seed", type=int, default=0, help="fixes every random choice (default %(default)s)")
    run.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="auto: bf16 where the device has it (default %(default)s)",
    )
    parser.set_defaults(run_command=_run_finetune)


def _run_finetune(options: argparse.Namespace) -> None:
    from ladabert_compress.recipe import TrainingConfig

    if options.out.exists():
        raise OptionError(f"--out: {options.out} exists already; name another folder or delete it")
    training = TrainingConfig(
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        max_length=options.max_length,
        precision=options.precision,
        seed=options.seed,
    )
    train_texts, dev_texts = read_rows(options, "train"), read_rows(options, "dev")

    # PyTorch takes seconds to load: only now that options and rows are right.
    from ladabert_compress.training.finetune import FinetuneConfig, finetune

    config = FinetuneConfig(
        base=options.base,
        name=options.name or options.out.name,
        source=options.source or "",
        licence=options.licence,
        epochs=options.epochs,
        average_decay=options.average_decay,
        dropout=options.dropout,
        label_names=options.label_names,
        training=training,
        revision=options.revision,
        allow_pickle=options.allow_pickle,
        problem_type=_problem_type(options),
        r_drop=options.r_drop,
        runs=options.runs,
    )
    found = finetune(
        config,
        train_texts,
        dev_texts,
        options.out,
        device_name=options.device,
        checkpoint_every_s=options.checkpoint_every_s,
        resume=options.resume,
    )
    rows = ("--train", options.train, "--dev", options.dev)
    metric = "Pearson correlation" if options.regression else "accuracy"
    print(f"{options.out}: dev {metric} {found:.4f}")  # noqa: T201
    print(  # noqa: T201
        next_step(
            "ladabert-compress", "compress", "--teacher", options.out, *rows, "--out", f"models/{options.out.name}"
        )
    )


def _problem_type(options: argparse.Namespace) -> str:
    if options.regression:
        return "regression"
    return "multi_label" if options.multi_label else "single_label"
