"""Print the lower bounds of pyproject.toml as pins, for `make lower-bounds` to install."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def pins(requirements: Iterable[str]) -> list[str]:
    """Turn `name>=1.2,<3` into `name==1.2`; extras and what has no lower bound are left out."""
    bounds = (re.match(r"([\w-]+)(?:\[[\w,]+\])?>=([\w.]+)", requirement) for requirement in requirements)
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


def main() -> None:
    """Write the pins of the project and of all its extras, one a line."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    print("\n".join(pins([*project["dependencies"], *(line for extra in extras for line in extra)])))  # noqa: T201


if __name__ == "__main__":
    main()
