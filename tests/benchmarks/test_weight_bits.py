"""Claims about rounding an int8 graph's weights to 7 bits."""

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.harness.results import REPOSITORY, Results
from benchmarks.weight_bits import GRAPH, sections, with_fewer_steps
from ladabert_compress.artefact.reading import read_graph, read_manifest


def test_every_product_keeps_its_weights_within_half_a_step_of_63_a_side() -> None:
    folder = REPOSITORY / "models" / "sst2-latency-x4.7"
    graph = read_graph(folder, read_manifest(folder), GRAPH)
    before, after = onnx.load_from_string(graph), with_fewer_steps(onnx.load_from_string(graph))
    old, new = ({t.name: numpy_helper.to_array(t) for t in model.graph.initializer} for model in (before, after))
    products = [node for node in after.graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert products
    for node in products:
        weight, scales = node.input[1], node.input[3]
        assert np.abs(new[weight]).max() == 63
        apart = np.abs(new[weight] * new[scales] - old[weight] * old[scales])
        assert (apart <= new[scales] / 2 + 1e-6).all()
    assert {node.op_type for node in before.graph.node} == {node.op_type for node in after.graph.node}


def test_the_table_says_what_is_lost_and_how_sure_that_is() -> None:
    results = Results("weight-bits", {"command": "c", "commit": "c", "date": "d", "machine": "m"})
    results.add(
        "students",
        model="a",
        version="1",
        rows=1000,
        accuracy=[0.9, 0.89],
        standard_error=0.004,
        other_labels=12,
        stored_bytes=[100, 95],
    )
    assert "| `a` | 0.9000 | 0.8900 | 1.00 ± 0.40 | 12 of 1,000 | −5 % |" in sections(results)["weight-bits"]
