"""Print the packages that pyproject.toml admits, for `make test-oldest` and `make test-newest`.

python scripts/versions.py oldest    # name==the lower bound of each
python scripts/versions.py newest    # name and its upper bound, if it has one

torch and torchvision are left out, since their versions must match and they weigh gigabytes; pyarrow, since
dill takes packages outside of site-packages for the program's own code.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
LEFT_OUT = {"xray_hf", "torch", "torchvision", "pyarrow", "ray", "pyspark"}


def main() -> None:
    """Print them on one line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("which", choices=("oldest", "newest"))
    of = oldest if parser.parse_args().which == "oldest" else newest
    print(*sorted({of(each) for each in admitted()}))


def admitted() -> Iterator[Requirement]:
    """The dependencies of the package and of all extras."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    for texts in (project["dependencies"], *project["optional-dependencies"].values()):
        yield from (each for each in map(Requirement, texts) if each.name not in LEFT_OUT)


def oldest(package: Requirement) -> str:
    """ "name==bound"."""
    (bound,) = (each.version for each in package.specifier if each.operator == ">=")
    return f"{package.name}=={bound}"


def newest(package: Requirement) -> str:
    """The name, with "<bound" if there is one."""
    return package.name + "".join(str(each) for each in package.specifier if each.operator == "<")


if __name__ == "__main__":
    main()
