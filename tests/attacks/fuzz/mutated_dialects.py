"""Bodies of other servers' clients, mutated, on the routes that they use: never a 500, a hang or a traceback.

Size: bodies.
"""

import json
from random import Random

from tests.attacks.fuzz.mutated_bodies import CALLERS
from tests.attacks.fuzz.mutation import mutate
from tests.attacks.harness.attack import Attack, Seen, together
from tests.attacks.harness.requests import post
from tests.attacks.harness.server import Server
from tests.attacks.harness.wire import Caller

TENSOR = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a good film", "not bad"]}
BINARY = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 8}}
OUTPUTS = [{"name": "scores"}, {"name": "label", "parameters": {"binary_data": True}}]


def run(server: Server, size: int, seen: Seen) -> None:
    """Send mutated bodies, CALLERS at once, each from its own seed."""
    infer = f"/v2/models/{server.models.pair}/infer"
    pairs = [TENSOR, {**TENSOR, "name": "text_pair"}]
    single = json.dumps({"inputs": [BINARY], "outputs": OUTPUTS}).encode()
    requests: list[tuple[str, bytes, dict[str, str]]] = [
        (path, json.dumps(body).encode(), {})
        for path, body in (
            ("/classify", {"input": ["a good film", "not bad"], "truncate_prompt_tokens": -1}),
            ("/classify", {"text": "a good film"}),
            ("/v1/classify", {"input": "a good film", "add_special_tokens": True}),
            ("/predict", {"inputs": [["a good film"], ["not bad"]], "raw_scores": True, "truncate": True}),
            ("/", {"inputs": "a good film", "parameters": {"top_k": 1, "function_to_apply": "softmax"}}),
            (f"/models/{server.models.pair}", {"inputs": [{"text": "a good film", "text_pair": "not bad"}]}),
            (f"/v1/models/{server.models.pair}:predict", {"instances": [{"text": "a", "text_pair": "not bad"}]}),
            (infer, {"inputs": pairs, "outputs": OUTPUTS, "id": "7"}),
        )
    ]
    requests.append((infer, single + b"\x04\x00\x00\x00warm", {"inference_header_content_length": str(len(single))}))

    def caller(seed: int) -> None:
        random = Random(seed)
        connection = Caller(server.port)
        for _ in range(size // CALLERS):
            path, body, headers = random.choice(requests)
            answer = seen.count(connection.ask(post(mutate(body, random), path, **headers)))
            if answer.end or answer.headers.get("connection") == "close":
                connection.socket.close()
                connection = Caller(server.port)
        connection.socket.close()

    together(caller, range(CALLERS))


ATTACK = Attack(
    run,
    short=400,
    full=10_000,
    answers=frozenset({"200", "400", "404", "413", "415", "422", "424", "429", "503", "504"}),
    answer_ms=1000,
)
