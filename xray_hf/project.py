"""Files of the project's top level: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = PACKAGE / "_project"


def project_file(name: str) -> Path:
    """The path of a file or folder of the top level, such as "model_cards"."""
    return (_IN_WHEEL if _IN_WHEEL.is_dir() else PACKAGE.parent) / name


def package_files(*suffixes: str) -> dict[str, Path]:
    """The package's files with these suffixes, by their paths in a checkout: {"xray_hf/cli.py": ...}."""
    return {
        f"{PACKAGE.name}/{path.relative_to(PACKAGE).as_posix()}": path
        for path in PACKAGE.rglob("*")
        if path.suffix in suffixes and _IN_WHEEL not in path.parents
    }
