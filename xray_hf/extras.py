"""Packages that only some commands need, and the extra of this package that installs each."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement

# Modules whose distribution has another name.
_DISTRIBUTIONS = {"markdown_it": "markdown-it-py", "sklearn": "scikit-learn", "yaml": "pyyaml"}


def installation(module: str) -> str | None:
    """The command that installs a module, "pip install 'xray_hf[train]'"; None for one of no extra."""
    package = module.partition(".")[0]
    name = _DISTRIBUTIONS.get(package, package)
    try:
        found = [Requirement(text) for text in requires("xray_hf") or ()]
    except PackageNotFoundError:  # run from its source, without installation
        return None
    for extra in ("hub", "demo", "mcp", "openvino", "track", "train"):
        for each in found:
            if each.name == name and each.marker and each.marker.evaluate({"extra": extra}):
                return f"pip install 'xray_hf[{extra}]'"
    return None
