"""Claims about what is read from /proc."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.serving.processes import cpu_ticks, peak_kib, peak_mib, tree


def test_a_command_with_brackets_and_spaces_does_not_shift_the_fields() -> None:
    stat = "12 (a ) (b) S 1 2 3 4 5 6 7 8 9 10 700 30 0 0 20 0 1 0 100 200 300"
    assert cpu_ticks(stat) == 730


def test_a_kernel_thread_has_no_peak() -> None:
    assert peak_kib("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n") == 2048
    assert peak_kib("Name:\tkthread\n") == 0


def test_a_tree_holds_children_of_children() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        family = tree(process.pid)
        assert family[0] == process.pid
        assert len(family) == 2
        assert family[1] in tree(os.getpid())
        assert peak_mib(process.pid) > peak_mib(family[1]) > 1
        process.communicate(b"\n")
