"""Claims about a server under attack: each attack in its short form holds what it promises.

Waits are bounded generously here, because a busy machine is no fault of the server; `make attack` is strict.
"""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.attacks.harness.attack import all_attacks
from tests.attacks.harness.judge import judge
from tests.attacks.harness.models import tiny_models
from tests.attacks.harness.server import Server, started

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("server")]
PATIENCE = 8.0
ATTACKS = all_attacks()
Serve = Callable[[tuple[str, ...]], Server]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Return servers by their options: one serves all attacks as long as it lives."""
    models = tiny_models(tmp_path_factory.mktemp("attacked") / "models")
    servers: dict[tuple[str, ...], Server] = {}
    with contextlib.ExitStack() as stack:

        def server_with(options: tuple[str, ...]) -> Server:
            if options not in servers or not servers[options].alive:
                servers[options] = stack.enter_context(started(models, *options))
            return servers[options]

        yield server_with


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_the_server_holds(name: str, serve: Serve) -> None:
    attack = ATTACKS[name]
    verdict = judge(attack, serve(attack.options), attack.short, PATIENCE)
    assert not verdict.complaints, "\n".join(verdict.complaints)
