"""From a finished run, or a teacher, to an artefact: its graphs compute what PyTorch does, or nothing is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from tqdm import tqdm

from ladabert_compress.artefact.distributions import distributions
from ladabert_compress.artefact.int8_trial import Int8Trial, try_int8
from ladabert_compress.artefact.manifest import GRAPH_FILES
from ladabert_compress.artefact.temperature import fit_calibration
from ladabert_compress.artefact.verification import check_batch_invariance, check_half, check_parity, self_test
from ladabert_compress.artefact.vocabulary import trim
from ladabert_compress.artefact.writing import write_artefact
from ladabert_compress.data.batches import Labels, sample_batches
from ladabert_compress.data.random_batches import Shape
from ladabert_compress.errors import OptionError
from ladabert_compress.graph.builder import LOGITS
from ladabert_compress.graph.candidates import GraphChoice, Target, candidate_graphs, choose_graph
from ladabert_compress.graph.encoder import build_bert_graph, graph_inputs
from ladabert_compress.graph.half_precision import half_precision
from ladabert_compress.graph.int8_guard import Guarded, guard_int8
from ladabert_compress.graph.int8_scales import measure_activation_ranges
from ladabert_compress.graph.plan import GraphPlan
from ladabert_compress.graph.session import OnnxSession, onnx_logits
from ladabert_compress.measure.inference import predict_logits
from ladabert_compress.measure.machine import machine_name
from ladabert_compress.measure.predictions import Logits
from ladabert_compress.measure.scores import Scores, int8_metric, main_metric, score
from ladabert_compress.measure.timing import LATENCY_SHAPES, measure_latency, measure_target, timed_shape
from ladabert_compress.student.matrices import count_parameters
from ladabert_compress.teacher.identity import weights_digest
from ladabert_compress.training.run import CompressionResult
from ladabert_compress.training.uncompressed import Uncompressed

RANGE_BATCHES = 16  # of training rows, for the ranges of int8 activations


@dataclass(frozen=True)
class VerifiedGraph:
    """A graph that computes what the student computes, how it was chosen, and what was found of int8."""

    model: onnx.ModelProto
    plan: GraphPlan
    choice: GraphChoice
    guarded: Guarded | None = None
    trial: Int8Trial | None = None

    def to_dict(self) -> dict[str, Any]:
        """What the manifest says of it."""
        described = {**self.plan.to_dict(), "candidates": self.choice.to_dict()}
        if self.guarded is not None:
            described["weight_bits"] = self.plan.weight_bits
            described["fp32_products"] = sorted(self.guarded.fp32_products)
            described["logit_error"] = round(self.guarded.error_after, 5)
            described["logit_error_all_int8"] = round(self.guarded.error_before, 5)
        if self.trial is not None:
            described["trial"] = self.trial.to_dict()
        return described


def export_artefact(
    result: CompressionResult | Uncompressed,
    out: Path,
    *,
    data_set: str,
    split: str = "dev",
    precisions: tuple[str, ...] = ("int8", "fp32"),
    target: Target = "cpu",
    target_latency_ms: float | None = None,
    words: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Writes the student, or the teacher itself, to ``out`` in the precisions asked for.

    int8 is written only where it is accurate enough. For ``cpu``, each graph is the fastest of several on this machine,
    at the shape of ``target_latency_ms`` where there is one. For ``cuda``, it is the one that a rule names, in fp32 and
    fp16. With ``words``, the student of a run loses the tokens that neither they nor its training rows read.

    Returns:
        The manifest.

    Raises:
        OptionError: int8 alone is asked for on CUDA, which has no kernels for it, or tokens cannot be taken out.
        ExportError: an fp32 graph differs from PyTorch, int8 depends on the batch, or fp16 differs from fp32; nothing
            is written.
    """
    if target == "cuda":
        if "fp32" not in precisions:
            raise OptionError("--target cuda: int8 graphs are for CPUs; use --precisions fp32")
        precisions = ("fp32", "fp16")
    whole = result  # what the teacher reads
    if words is not None:
        assert isinstance(result, CompressionResult), "a teacher keeps its tokens"
        result = trim(result, words)
    max_length, dev = result.max_length, result.dev_data
    shapes = LATENCY_SHAPES if target_latency_ms is None else (timed_shape(max_length),)
    verified = _verified_graphs(result, precisions, target, shapes)
    sessions = {name: OnnxSession(graph.model.SerializeToString()) for name, graph in verified.items()}
    logits = {name: onnx_logits(session, dev) for name, session in sessions.items()}
    teacher_logits, student_logits = (
        predict_logits(model, rows, torch.device("cpu")).numpy()
        for model, rows in ((whole.teacher.model, whole.dev_data), (result.student.model, dev))
    )
    scores = {name: score(values, dev.labels, teacher_logits) for name, values in logits.items()}
    if "int8" in precisions:
        on_held_out = predict_logits(whole.teacher.model, whole.held_out.data, torch.device("cpu")).numpy()
        trial = _trial_of_int8(result, sessions, on_held_out)
        verified["int8"] = replace(verified["int8"], trial=trial)
        if refusal := trial.refusal(result.guards):
            tqdm.write(refusal)
            if "fp32" not in precisions:  # so far it was only what int8 is measured against
                verified = _verified_graphs(result, ("fp32",), target, shapes)
                sessions = {"fp32": OnnxSession(verified["fp32"].model.SerializeToString())}
                logits = {"fp32": onnx_logits(sessions["fp32"], dev)}
                scores = {"fp32": score(logits["fp32"], dev.labels, teacher_logits)}
            precisions = ("fp32",)
    default = precisions[0]
    held_out = result.held_out
    held_out_logits = onnx_logits(sessions[default], held_out.data) if held_out.labelled else None
    calibration = fit_calibration(held_out_logits, held_out.data.labels, logits[default], dev.labels)
    written = {GRAPH_FILES[name]: sessions[name] for name in precisions}
    on_cpu = {GRAPH_FILES[name]: sessions[name] for name in precisions if name != "fp16"}
    latency = {"machine": machine_name(), "threads": 1, "table": measure_latency(on_cpu, max_length)}
    if target_latency_ms is not None:
        latency["target"] = measure_target(target_latency_ms, GRAPH_FILES[default], sessions[default], max_length)
    invariance = {
        file: {"batch_invariance": asdict(check_batch_invariance(session, file, dev, max_length))}
        for file, session in on_cpu.items()
    }
    size = result.student.size()
    known, tokens = (model.config.vocab_size for model in (result.student.model, result.teacher.model))
    vocabulary = {} if known == tokens else {"vocabulary": {"tokens": known, "of": tokens}}
    fields = {
        "task": result.task,
        "problem_type": result.teacher.problem_type,
        "labels": list(result.teacher.labels),
        "max_length": max_length,
        "inputs": list(graph_inputs(result.task)),
        "output": LOGITS,
        "teacher": {
            **result.teacher.card.to_dict(),
            "parameters": count_parameters(result.teacher.model).total,
            "sha256": weights_digest(result.teacher.model),
        },
        "compression": {
            **result.method,
            "reached_ratio": round(result.student.ratio(), 4),
            "parameters": size.parameters,
            "nonzero_parameters": size.nonzero_parameters,
            **vocabulary,
        },
        "evaluation": {
            "data_set": data_set,
            "split": split,
            "labels": result.dev_labels,
            "rows": len(dev),
            **_main_figure("teacher", teacher_logits, dev.labels),
            **_main_figure("student", student_logits, dev.labels),
            "distributions": distributions(logits[default], dev.lengths, dev.labels, calibration.temperature),
            "files": {
                GRAPH_FILES[name]: {
                    **_figures(scores[name]),
                    **invariance.get(GRAPH_FILES[name], {}),
                }
                for name in precisions
            },
        },
        "latency": latency,
        "export": {"target": target, "files": {GRAPH_FILES[name]: verified[name].to_dict() for name in precisions}},
        "calibration": calibration.to_dict(),
        "self_test": self_test(written, result.student.model.config.vocab_size, max_length),
    }
    tokenizer = result.teacher.tokenizer.backend_tokenizer
    return write_artefact(out, {name: verified[name].model for name in precisions}, tokenizer, fields)


def _figures(scores: Scores) -> dict[str, float]:
    """What a graph is worth; its calibration stands elsewhere."""
    names = ("accuracy", "agreement", "divergence", "macro_f1", "matthews", "pearson", "spearman")
    return {name: value for name in names if (value := getattr(scores, name)) is not None}


def _main_figure(whose: str, logits: Logits, labels: Labels) -> dict[str, float]:
    metric = main_metric(labels)
    return {f"{whose}_{metric}": getattr(score(logits, labels), metric)}


def _verified_graphs(
    result: CompressionResult | Uncompressed, precisions: tuple[str, ...], target: Target, shapes: Sequence[Shape]
) -> dict[str, VerifiedGraph]:
    """The fp32 graph, which is the measure of the others, and the others that are asked for."""
    model, max_length, seed = result.student.model.eval(), result.max_length, result.seed
    candidates = candidate_graphs(model, result.task, None, target, max_length)
    for graph in candidates.values():
        check_parity(model, graph, max_length)
    if "fp32" not in precisions:  # only what int8 is measured against
        candidates = dict(list(candidates.items())[:1])
    choice = choose_graph(candidates, max_length, shapes=shapes)
    graphs = {"fp32": VerifiedGraph(candidates[choice.plan], choice.plan, choice)}
    if "fp16" in precisions:
        fp16 = half_precision(graphs["fp32"].model)
        check_half(graphs["fp32"].model, fp16, max_length, result.teacher.problem_type)
        graphs["fp16"] = VerifiedGraph(fp16, choice.plan, choice)
    if "int8" in precisions:
        batches = tqdm(sample_batches(result.train_data, RANGE_BATCHES, seed), desc="int8 ranges", unit="batch")
        ranges = measure_activation_ranges(model, batches)
        candidates = candidate_graphs(model, result.task, ranges, target, max_length, result.guards.int8_weight_bits)
        choice = choose_graph(candidates, max_length, shapes=shapes)
        tolerance = result.guards.int8_logit_error
        guarded = guard_int8(model, result.task, ranges, choice.plan, result.held_out.data, tolerance)
        plan = replace(choice.plan, fp32_products=guarded.fp32_products)
        graph = build_bert_graph(model, result.task, ranges, plan, max_length)
        graphs["int8"] = VerifiedGraph(graph, plan, choice, guarded)
    return graphs


def _trial_of_int8(
    result: CompressionResult | Uncompressed, sessions: Mapping[str, OnnxSession], teacher: Logits
) -> Int8Trial:
    held_out = result.held_out
    fp32, int8 = (onnx_logits(sessions[name], held_out.data) for name in ("fp32", "int8"))
    metric = int8_metric(result.guards.int8_metric, held_out.data.labels)
    return try_int8(metric, fp32, int8, teacher, held_out.data.labels, labelled=held_out.labelled)
