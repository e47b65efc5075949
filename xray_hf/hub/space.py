"""The demo as a Space: app.py, the package, its requirements, and a README that names the models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xray_hf import manifest
from xray_hf.errors import ConfigError
from xray_hf.hub import cards
from xray_hf.hub.publish import Plan, require_repo_id
from xray_hf.project import package_files, project_file

SDK = "gradio"
PYTHON = "3.11"
TITLE = "Chest X-ray classifier"
_SUFFIXES = (".py", ".css", ".js", ".json", ".html", ".npz", ".onnx", ".png", ".svg")
WHAT = "Chest X-rays, and what the answers are worth"  # at most 60 characters


def plan(models: Sequence[str], repo_id: str) -> Plan:
    """The files of the repository of a Space with these models.

    models: Hub ids, owner/name. Raises ConfigError for any other text.
    """
    for name in (repo_id, *models):
        require_repo_id(name)
        if Path(name).is_dir():
            raise ConfigError(f"{name} is a folder here; push it first, and name it as the Hub does.")
    requirements = project_file("requirements-demo.txt")
    files: dict[str, Path | bytes] = {
        **{name: project_file(name) for name in ("app.py", "LICENSE")},
        **package_files(*_SUFFIXES),
        "requirements.txt": requirements,
    }
    card = cards.fill(
        "space.md",
        Path(),
        title=TITLE,
        short_description=WHAT,
        sdk=SDK,
        sdk_version=_pinned("gradio", requirements),
        python_version=PYTHON,
        models=models,
    )
    return Plan("space", "space", repo_id, {**files, manifest.CARD: card.encode()}, sdk=SDK)


def _pinned(package: str, requirements: Path) -> str:
    lines = requirements.read_text(encoding="utf-8").splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))
