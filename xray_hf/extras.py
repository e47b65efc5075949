"""Packages that only some commands need, and the extra of this package that installs each."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement

# Modules whose distribution has another name.
_DISTRIBUTIONS = {"markdown_it": "markdown-it-py", "sklearn": "scikit-learn", "yaml": "pyyaml"}


def extra_of(module: str) -> str | None:
    """The extra that installs a module; None if there is none, or if this package was not installed."""
    try:
        found = [Requirement(text) for text in requires("xray_hf") or ()]
    except PackageNotFoundError:  # it runs from its source, as in a Space
        return None
    for extra in ("hub", "demo", "mcp", "openvino", "track", "train"):
        for each in found:
            if each.name == _distribution(module) and each.marker and each.marker.evaluate({"extra": extra}):
                return extra
    return None


def installation(module: str) -> str:
    """The command that installs a module, such as "pip install 'xray_hf[train]'"."""
    extra = extra_of(module)
    return f"pip install 'xray_hf[{extra}]'" if extra else f"pip install {_distribution(module)}"


def _distribution(module: str) -> str:
    package = module.partition(".")[0]
    return _DISTRIBUTIONS.get(package, package)
