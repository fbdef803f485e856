"""Claims about counting cores: the cgroup's quota, not the host's count."""

from pathlib import Path

import pytest

from ladabert_serve.cores import available_cores


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


V2 = {"proc/self/cgroup": "0::/pod/box\n"}
V1 = {"proc/self/cgroup": "3:memory:/box\n2:cpu,cpuacct:/box\n"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({**V2, "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n"}, 8),
        ({**V2, "sys/fs/cgroup/pod/box/cpu.max": "200000 100000\n"}, 2),
        ({**V2, "sys/fs/cgroup/pod/box/cpu.max": "250000 100000\n"}, 2),
        ({**V2, "sys/fs/cgroup/pod/box/cpu.max": "50000 100000\n"}, 1),
        ({**V2, "sys/fs/cgroup/pod/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": "0::/../other\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({**V2, "sys/fs/cgroup/pod/box/cpu.max": "garbage\n"}, 8),
        ({**V2, "sys/fs/cgroup/pod/box/cpu.max": "9900000 100000\n"}, 8),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "50000\n",
            },
            3,
        ),
        (
            {**V1, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
            8,
        ),
    ],
)
def test_cores_are_what_the_cgroup_grants(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    assert available_cores(write(tmp_path, files), affinity=8) == cores
