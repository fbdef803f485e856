"""Students against their teacher and the standard tools: one thread, everybody in turns, one run for each model.

python -m benchmarks latency --teacher DIR [--repeats N] [--write]

The students have random weights and the shapes of the recipes named below: a clock does not read answers. The second
model is a BERT-base with random weights.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.harness.pages import table
from benchmarks.harness.results import Results, Row, origin
from ladabert_compress.data.batches import Batch
from ladabert_compress.graph.candidates import candidate_graphs, choose_graph
from ladabert_compress.graph.int8_scales import Ranges, measure_activation_ranges
from ladabert_compress.graph.session import OnnxSession
from ladabert_compress.measure.timing import LATENCY_SHAPES
from ladabert_compress.recipe import StructureRecipe, load_recipe
from ladabert_compress.report.bench import VERSIONS, Subject, bench
from ladabert_compress.report.operator_profile import profile_operators
from ladabert_compress.report.standard_tools import TorchRunner, standard_graph
from ladabert_compress.student.budget import GroupShares, Shares, solve_shares
from ladabert_compress.student.matrices import count_parameters
from ladabert_compress.student.structure import narrow, set_activation
from ladabert_compress.student.student import Student
from ladabert_compress.teacher.folder import load_teacher

LATENCY_RECIPE, SIZE_RECIPE = "latency-x4.7", "ladabert-4"
ALL_LAYERS = {"structure.layers": 1.0}  # fewer would get larger ranks at one share of the encoder
ENCODER_SHARE, EMBEDDING_SHARE = 0.1, 0.13
TEACHER_TORCH, TEACHER_ORT = "teacher, PyTorch eager fp32", "teacher, ONNX Runtime fp32, usual fusions"
LATENCY, RANKS, SIZE = "latency-mode student", "ranks alone", "size-mode student"
LATENCY_TOOLS, RANKS_TOOLS = f"{LATENCY}, standard tools", f"{RANKS}, standard tools"
MAX_LENGTH = 128
# Student, what it is over, and the aim at each shape of the smaller model.
AIMS = (
    (LATENCY, TEACHER_TORCH, (12, 8, 8, 11)),
    (LATENCY, TEACHER_ORT, (5.5, 5.5, 6, 7)),
    (LATENCY, LATENCY_TOOLS, (1.3, 1.3, 1.4, 1.5)),
    (RANKS, RANKS_TOOLS, (1.3, 1.3, 1.4, 1.5)),
    (RANKS, TEACHER_ORT, ()),
    (SIZE, TEACHER_ORT, (3, 3, 3, 3)),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command is told."""
    parser.add_argument("--teacher", type=Path, required=True, metavar="DIR", help="a fine-tuned BERT")
    parser.add_argument("--repeats", type=int, default=15, help="rounds (a third of them for BERT-base)")


def measure(options: argparse.Namespace) -> Results:
    """Time everything that is made of the teacher and of a BERT-base."""
    torch.set_num_threads(1)
    results = Results("latency", origin(*VERSIONS))
    teacher = load_teacher(options.teacher)
    _measure_model(results, teacher.card.name, teacher.model, options.repeats)
    _measure_model(results, "BERT-base, random weights", random_bert_base(), max(3, options.repeats // 3))
    return results


def _measure_model(results: Results, name: str, teacher: BertForSequenceClassification, repeats: int) -> None:
    """Add everything that is made of one teacher, timed in one run, with the students' sizes and plans."""
    structure = load_recipe(LATENCY_RECIPE, ALL_LAYERS).structure
    budget = load_recipe(SIZE_RECIPE).budget
    students = {
        LATENCY: cut(teacher, structure, lambda shaped: encoder_at(ENCODER_SHARE, teacher, shaped)),
        RANKS: cut(teacher, StructureRecipe(), lambda shaped: encoder_at(ENCODER_SHARE, teacher, shaped)),
        SIZE: cut(teacher, StructureRecipe(), lambda shaped: solve_shares(count_parameters(shaped), budget)),
    }
    graphs = {
        TEACHER_ORT: standard_graph(teacher, "single", int8=False).SerializeToString(),
        LATENCY_TOOLS: standard_graph(students[LATENCY], "single", int8=True).SerializeToString(),
        RANKS_TOOLS: standard_graph(students[RANKS], "single", int8=True).SerializeToString(),
    }
    plans = {}
    for title, student in students.items():
        candidates = candidate_graphs(student, "single", random_ranges(student), "cpu")
        plan = choose_graph(candidates, MAX_LENGTH, repeats=5).plan
        graphs[title], plans[title] = candidates[plan].SerializeToString(), plan.to_dict()
    subjects = [Subject(TEACHER_TORCH, TorchRunner(teacher))]
    subjects += [Subject(title, OnnxSession(graph, fuse=title not in plans), graph) for title, graph in graphs.items()]
    config = teacher.config
    shape = {"layers": config.num_hidden_layers, "width": config.hidden_size}
    results.add("models", model=name, **shape, teacher_parameters=count_parameters(teacher).total, repeats=repeats)
    for row in bench(subjects, LATENCY_SHAPES, baseline=TEACHER_ORT, repeats=repeats)["table"]:
        results.add("times", model=name, **row)
    for title, student in students.items():
        held = sum(parameter.numel() for parameter in student.parameters())
        results.add("students", model=name, name=title, parameters=held, plan=plans[title])
    for title, graph in graphs.items():
        results.add("graphs", model=name, name=title, bytes=len(graph))
    for entry in profile_operators(graphs[LATENCY], LATENCY_SHAPES[-1]):
        results.add("profile", model=name, **asdict(entry))


def cut(
    teacher: BertForSequenceClassification,
    structure: StructureRecipe,
    shares: Callable[[BertForSequenceClassification], Shares],
) -> BertForSequenceClassification:
    """Return a student of random weights."""
    torch.manual_seed(0)
    shaped = narrow(teacher, structure).model
    set_activation(shaped, structure)
    student = Student(shaped, teacher_parameters=count_parameters(teacher).total)
    student.cut_at_random(shares(shaped), structure.rank_multiple)
    student.model.eval()
    return student.model


def encoder_at(share: float, teacher: BertForSequenceClassification, shaped: BertForSequenceClassification) -> Shares:
    """Return shares with which the encoder keeps this share of the teacher's, however many neurons are left."""
    rest = share * count_parameters(teacher).encoder / count_parameters(shaped).encoder
    return {"embedding": GroupShares(EMBEDDING_SHARE, EMBEDDING_SHARE), "encoder": GroupShares(rest, rest)}


def random_bert_base() -> BertForSequenceClassification:
    """Return a BERT of 12 layers, 768 wide; what it answers does not matter."""
    torch.manual_seed(0)
    config = BertConfig(attn_implementation="eager")  # type: ignore[call-arg]  # passed on to its base
    model = BertForSequenceClassification(config)
    model.eval()
    return model


def random_ranges(model: BertForSequenceClassification) -> Ranges:
    """Return ranges from random tokens: any scale takes as long."""
    ids = torch.randint(model.config.vocab_size, (8, 32), generator=torch.Generator().manual_seed(0))
    return measure_activation_ranges(model, [Batch(ids, torch.ones_like(ids), torch.zeros_like(ids), ids[:, 0])])


def sections(results: Results) -> dict[str, str]:
    """Return where the figures come from, and for each model what is over what, the medians and the profile."""
    parts = [f"{results.told()}.\n"]
    for model in results.rows("models"):
        parts += _model(results, model)
    return {"latency": "\n".join(parts)}


def _model(results: Results, model: Row) -> Iterator[str]:
    name = {"model": model["model"]}
    times = results.rows("times", **name)
    medians = {(row["name"], row["batch"], row["tokens"]): row["median_ms"] for row in times}
    shapes = list(dict.fromkeys((row["batch"], row["tokens"]) for row in times))
    head = [f"{batch}×{tokens}" for batch, tokens in shapes]
    millions = model["teacher_parameters"] / 1e6
    yield f"### {model['model']}: {model['layers']} layers, {model['width']} wide, {millions:.1f} M parameters\n"
    yield f"{results.origin['machine']}, one thread; {model['repeats']} rounds; {results.versions()}.\n"
    rows: list[list[str]] = []
    for student, other, aims in AIMS:
        ratios = [medians[(other, *shape)] / medians[(student, *shape)] for shape in shapes]
        told = [f" ({aim:g}{'' if ratio >= aim else ', short'})" for ratio, aim in zip(ratios, aims, strict=False)]
        cells = zip(ratios, told or len(ratios) * [""], strict=True)
        rows.append([student, other, *(f"**{ratio:.1f}**{verdict}" for ratio, verdict in cells)])
    yield table(["times as fast (aim)", "over", *head], rows)
    students = {row["name"]: row["parameters"] for row in results.rows("students", **name)}
    held = defaultdict(lambda: model["teacher_parameters"], students)
    sizes = {row["name"]: f"{row['bytes'] / 1e6:.1f}" for row in results.rows("graphs", **name)}
    sized = [
        [
            subject,
            f"{held[subject.split(', ')[0]] / 1e6:.1f} M",
            sizes.get(subject, ""),
            *(f"{medians[(subject, *shape)]:.2f}" for shape in shapes),
        ]
        for subject in dict.fromkeys(row["name"] for row in times)
    ]
    yield table(["median ms", "parameters", "file, MB", *head], sized)
    profile = [row for row in results.rows("profile", **name) if row["share"] >= 0.01]
    spent = ", ".join(f"{row['operator']} {row['share']:.0%}" for row in profile)
    yield f"Where the latency-mode student's time goes at {head[-1]}: {spent}.\n"
    (plan,) = results.values("students", "plan", **name, name=LATENCY)
    yield (
        f"Its graph, chosen by measuring: attention `{plan['attention']}`, in rank space up to rank "
        f"{plan['shared_rank_limit']}.\n"
    )
