"""From a finished run to an artefact: graphs that compute what the student computes, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from tqdm import tqdm

from ladabert_compress.artefact.manifest import GRAPH_FILES
from ladabert_compress.artefact.temperature import Calibration, fit_temperature
from ladabert_compress.artefact.verification import check_batch_invariance, check_half, check_parity, self_test
from ladabert_compress.artefact.writing import write_artefact
from ladabert_compress.data.batches import Batch, EncodedTexts, training_batches
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
from ladabert_compress.measure.scores import Scores, score
from ladabert_compress.measure.timing import LATENCY_SHAPES, measure_latency, measure_target, timed_shape
from ladabert_compress.student.matrices import count_parameters
from ladabert_compress.training.run import CompressionResult

CALIBRATION_BATCHES = 16


@dataclass(frozen=True)
class VerifiedGraph:
    """A graph that computes what the student computes, how it was chosen, and for int8 what the guard found."""

    model: onnx.ModelProto
    plan: GraphPlan
    choice: GraphChoice
    guarded: Guarded | None = None

    def to_dict(self) -> dict[str, Any]:
        """What the manifest says of it."""
        described = {**self.plan.to_dict(), "candidates": self.choice.to_dict()}
        if self.guarded is not None:
            described["fp32_products"] = sorted(self.guarded.fp32_products)
            described["logit_error"] = round(self.guarded.error_after, 5)
            described["logit_error_all_int8"] = round(self.guarded.error_before, 5)
        return described


def export_artefact(
    result: CompressionResult,
    out: Path,
    *,
    data_set: str,
    precisions: tuple[str, ...] = ("int8", "fp32"),
    target: Target = "cpu",
    target_latency_ms: float | None = None,
) -> dict[str, Any]:
    """Writes the student to ``out`` in the precisions asked for, int8 only where it is accurate enough.

    Each graph is the fastest of several on this machine's CPU, at the shape of ``target_latency_ms`` where there is
    one; or for ``cuda`` the one that the rule names, in fp32 and fp16.

    Returns:
        The manifest.

    Raises:
        OptionError: int8 alone is asked for on CUDA, which has no kernels for it.
        ExportError: an fp32 graph differs from PyTorch, int8 depends on the batch, or fp16 differs from fp32; nothing
            is written.
    """
    if target == "cuda":
        if "fp32" not in precisions:
            raise OptionError("--target cuda: int8 graphs are for CPUs; use --precisions fp32")
        precisions = ("fp32", "fp16")
    shapes = LATENCY_SHAPES if target_latency_ms is None else (timed_shape(_max_length(result)),)
    verified = _verified_graphs(result, precisions, target, shapes)
    graphs = {name: graph.model for name, graph in verified.items()}
    sessions = {name: OnnxSession(graph.SerializeToString()) for name, graph in graphs.items()}
    teacher_logits, student_logits = (
        predict_logits(model, result.dev_data, torch.device("cpu")).numpy()
        for model in (result.teacher.model, result.student.model)
    )
    labels = result.dev_data.labels
    logits = {name: onnx_logits(session, result.dev_data) for name, session in sessions.items()}
    scores = {name: score(values, labels, teacher_logits) for name, values in logits.items()}
    if "int8" in precisions and not _int8_is_accurate(scores, result.recipe.export.int8_accuracy_loss):
        precisions = ("fp32",)
    default = precisions[0]
    temperature = 1.0
    if len(result.calibration_data):
        held_out_logits = onnx_logits(sessions[default], result.calibration_data)
        temperature = fit_temperature(held_out_logits, np.array(result.calibration_data.labels))
    calibrated = score(logits[default], labels, temperature=temperature)
    calibration = Calibration(
        temperature,
        len(result.calibration_data),
        calibrated.uncalibrated_error,
        calibrated.expected_calibration_error,
    )
    on_cpu = {GRAPH_FILES[name]: sessions[name] for name in precisions if name != "fp16"}
    latency: dict[str, Any] = {
        "machine": machine_name(),
        "threads": 1,
        "table": measure_latency(on_cpu, _max_length(result)),
    }
    if target_latency_ms is not None:
        file = GRAPH_FILES[default]
        latency["target"] = measure_target(target_latency_ms, file, sessions[default], _max_length(result))
    invariance = {
        name: check_batch_invariance(session, name, result.dev_data, _max_length(result))
        for name, session in on_cpu.items()
    }
    size = result.student.size()
    fields = {
        "task": result.task,
        "problem_type": result.teacher.problem_type,
        "labels": list(result.teacher.labels),
        "max_length": _max_length(result),
        "inputs": list(graph_inputs(result.task)),
        "output": LOGITS,
        "teacher": {**asdict(result.teacher.card), "parameters": count_parameters(result.teacher.model).total},
        "compression": {
            "method": "LadaBERT",
            "recipe": result.recipe.to_dict(),
            "requested_ratio": result.recipe.budget.ratio,
            "reached_ratio": round(result.student.ratio(), 4),
            "parameters": size.parameters,
            "nonzero_parameters": size.nonzero_parameters,
        },
        "evaluation": {
            "data_set": data_set,
            "split": "dev",
            "rows": len(result.dev_data),
            "teacher_accuracy": score(teacher_logits, labels).accuracy,
            "student_accuracy": score(student_logits, labels).accuracy,
            "files": {
                GRAPH_FILES[name]: {
                    "accuracy": scores[name].accuracy,
                    "agreement": scores[name].agreement,
                    **({"batch_invariance": asdict(invariance[GRAPH_FILES[name]])} if name != "fp16" else {}),
                }
                for name in precisions
            },
        },
        "latency": latency,
        "export": {"target": target, "files": {GRAPH_FILES[name]: verified[name].to_dict() for name in precisions}},
        "calibration": asdict(calibration),
        "self_test": self_test(
            {GRAPH_FILES[name]: sessions[name] for name in precisions},
            result.student.model.config.vocab_size,
            _max_length(result),
        ),
    }
    tokenizer = result.teacher.tokenizer.backend_tokenizer
    return write_artefact(out, {name: graphs[name] for name in precisions}, tokenizer, fields)


def _verified_graphs(
    result: CompressionResult, precisions: tuple[str, ...], target: Target, shapes: Sequence[Shape]
) -> dict[str, VerifiedGraph]:
    """The fp32 graph, which the others are measured against, and those of them that are asked for."""
    model = result.student.model
    model.eval()
    max_length = _max_length(result)
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
        ranges = measure_activation_ranges(model, _calibration_batches(result.train_data, result.recipe.training.seed))
        candidates = candidate_graphs(model, result.task, ranges, target, max_length)
        choice = choose_graph(candidates, max_length, shapes=shapes)
        held_out = result.calibration_data if len(result.calibration_data) else result.train_data
        tolerance = result.recipe.export.int8_logit_error
        guarded = guard_int8(model, result.task, ranges, choice.plan, held_out, tolerance)
        plan = replace(choice.plan, fp32_products=guarded.fp32_products)
        graph = build_bert_graph(model, result.task, ranges, plan, max_length)
        graphs["int8"] = VerifiedGraph(graph, plan, choice, guarded)
    return graphs


def _int8_is_accurate(scores: Mapping[str, Scores], limit: float) -> bool:
    lost = scores["fp32"].accuracy - scores["int8"].accuracy
    if lost > limit:
        tqdm.write(
            f"int8 refused: it loses {lost:.4f} of dev accuracy, the recipe's int8_accuracy_loss allows {limit:g}; "
            "fp32 is written instead"
        )
    return lost <= limit


def _max_length(result: CompressionResult) -> int:
    return result.recipe.training.max_length


def _calibration_batches(data: EncodedTexts, seed: int) -> list[Batch]:
    batches = training_batches(data, 32, seed=seed, epoch=0)[:CALIBRATION_BATCHES]
    return [data.batch(rows) for rows in tqdm(batches, desc="calibrate int8", unit="batch")]
