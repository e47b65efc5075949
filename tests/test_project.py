"""The files around the code are true: citation, issue forms, pins of the tools, checks before a commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_packaging import pins, requirements

import xray_hf

ROOT = Path(__file__).resolve().parent.parent
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*_*.yml"))


def read(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version_and_claims_no_release_that_was_not() -> None:
    citation = read("CITATION.cff")
    assert citation["version"] == xray_hf.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = dict(re.findall(r"^## \[(\d[^]]*)\] - (\S+)$", changelog, re.MULTILINE))
    assert citation.get("date-released") == released.get(xray_hf.__version__)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_an_issue_form_is_one_that_github_shows(path: Path) -> None:
    form = read(str(path))
    assert form.keys() <= {"name", "description", "labels", "body"}
    assert form["name"]
    assert form["description"]
    asked = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in asked} <= {"checkboxes", "dropdown", "input", "textarea"}
    assert all(field["attributes"]["label"] for field in asked)
    names = [field["id"] for field in asked]
    assert len(set(names)) == len(names) > 0


@pytest.mark.parametrize("path", ["requirements-docs.txt", "requirements-release.txt"])
def test_tools_have_the_pins_of_everything_else(path: str) -> None:
    assert [
        str(each) for each in requirements(path) if not re.fullmatch(r"==[\w.]+", str(each.specifier))
    ] == []
    ours, others = pins(path), pins("requirements-dev.txt")
    assert {name: ours[name] for name in ours.keys() & others} == {
        name: others[name] for name in ours.keys() & others
    }


def test_checks_before_a_commit_are_those_of_make_check() -> None:
    hooks = [hook for repo in read(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    tools = {word for hook in hooks for word in re.findall(r"\.venv/bin/(\w+)", hook.get("entry", ""))}
    assert tools == set(re.findall(r"\$\(BIN\)/(ruff|mypy)", (ROOT / "Makefile").read_text(encoding="utf-8")))
