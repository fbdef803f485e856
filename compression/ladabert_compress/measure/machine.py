"""Which machine figures come from."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
VNNI = {"avx512_vnni", "avx_vnni"}  # what x86 processors multiply int8 with


def processor_name(cpuinfo: Path = CPUINFO) -> str:
    """The processor's name, and that it lacks VNNI if it is an x86 without."""
    entries: dict[str, str] = {}
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            entries.setdefault(key.strip(), value.strip())
    name = entries.get("model name") or platform.processor() or platform.machine()
    is_x86 = "flags" in entries
    return f"{name} without VNNI" if is_x86 and VNNI.isdisjoint(entries["flags"].split()) else name


def machine_name() -> str:
    """The processor and the machine's number of cores."""
    return f"{processor_name()}, {os.cpu_count() or 'unknown number of'} cores"
