"""Claims about servers that are watched and ended, on small programs instead of ours."""

import asyncio
import sys
from collections.abc import Sequence

import psutil
import pytest

from benchmarks.harness.client import ask, get
from benchmarks.harness.servers import StartFailedError, peak_kib, started

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("server")]

# Serves a folder with a child that does nothing but end with its standard input.
SERVER = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print("child", child.pid, file=sys.stderr, flush=True)
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""
PAGE = get("/README.md")


def program(port: int) -> Sequence[str]:
    return [sys.executable, "-c", SERVER, str(port)]


def test_a_server_is_watched_with_its_children_and_all_of_them_are_ended() -> None:
    async def check() -> list[psutil.Process]:
        async with started("small", program, PAGE) as server:
            assert server.ready_s > 0
            assert "child" in server.log
            family = server.family
            assert family[0].pid == server.process.pid
            assert len(family) == 2
            assert server.workers == [server.process]
            assert server.threads() >= 2
            assert server.descriptors() > family[1].num_fds() > 0
            assert server.rss_bytes() > family[1].memory_info().rss
            assert server.peak_mib() >= server.rss_bytes() / 2**20 * 0.9
            assert server.cpu_s() > 0
            return family

    family = asyncio.run(check())
    assert len(family) == 2
    psutil.wait_procs(family, timeout=0.1)
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family)


def test_a_paused_server_answers_when_it_is_resumed() -> None:
    async def check() -> None:
        async with started("small", program, PAGE) as server:
            server.pause()
            async with asyncio.timeout(10):  # a signal takes a moment to arrive
                while {one.status() for one in server.family} != {psutil.STATUS_STOPPED}:
                    await asyncio.sleep(0)
            waiting = asyncio.ensure_future(ask(server.port, PAGE))
            server.resume()
            assert (await waiting).status == 200

    asyncio.run(check())


def test_a_server_that_does_not_start_says_why() -> None:
    async def check() -> None:
        async with started("broken", lambda _: [sys.executable, "-c", "raise SystemExit('no models')"], PAGE):
            pass

    with pytest.raises(StartFailedError, match="broken did not start:\nno models"):
        asyncio.run(check())


def test_a_server_that_talks_answers_lines() -> None:
    code = SERVER.replace("http.server.test", "input(); print('{\"texts\": 3}', flush=True); http.server.test")
    code = code.replace("input(); print", "import threading; threading.Thread(target=lambda: (input(), print")
    code = code.replace("flush=True); http", "flush=True)), daemon=True).start(); http")

    async def check() -> None:
        command = [sys.executable, "-c", code]
        async with started("talking", lambda port: [*command, str(port)], PAGE, talks=True) as server:
            assert server.ask_counters() == {"texts": 3}

    asyncio.run(check())


def test_a_kernel_thread_has_no_peak() -> None:
    assert peak_kib("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n") == 2048
    assert peak_kib("Name:\tkthread\n") == 0
