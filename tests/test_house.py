"""README and docs are true, imports run one way, and the package is cheap to import."""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from xray_hf import cli, options
from xray_hf.training.config import GROUPS, parse

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def tree() -> list[str]:
    """The paths that the tree of docs/architecture.md names, from top to bottom."""
    block = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").split("```")[1]
    paths, folders = [], [""]
    for line in block.strip().splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders[depth + 1 :] = [folders[depth] + name]
        paths.append(folders[depth] + name)
    return paths


def modules() -> list[str]:
    """Every module of the package, in the tree's order, as dotted names."""
    paths = [path for path in tree() if path.startswith("xray_hf/") and path.endswith(".py")]
    return [path.removesuffix(".py").replace("/", ".") for path in paths]


def imports(path: Path) -> set[str]:
    """The names that a file imports from this package, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            base = f"xray_hf.models.{node.module}" if node.level else node.module
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("xray_hf.")}


def commands(pattern: str) -> list[list[str]]:
    """The command lines of README and docs that match, split into words, without comments."""
    lines = [match.group(0) for match in re.finditer(rf"^{pattern}.*$", TEXT, re.MULTILINE)]
    return [shlex.split(line, comments=True) for line in lines]


def test_the_tree_matches_the_disk() -> None:
    on_disk = {
        str(path.relative_to(ROOT)) for path in (ROOT / "xray_hf").rglob("*.py") if path.name != "__init__.py"
    }
    assert {path for path in tree() if path.startswith("xray_hf/") and path.endswith(".py")} == on_disk
    assert [path for path in tree() if not (ROOT / path).exists()] == []


def test_a_file_imports_only_from_files_above_it() -> None:
    order = modules()
    wrong = []
    for place, name in enumerate(order):
        below = set(order[place:])
        wrong += [f"{name} -> {used}" for used in imports(ROOT / (name.replace(".", "/") + ".py")) & below]
    assert wrong == []


def test_every_xray_hf_command_of_the_docs_is_understood() -> None:
    found = commands(r"(?:\.venv/bin/)?xray-hf ")
    assert len(found) >= 15
    for words in found:
        command, *rest = words[1:]
        cli.commands.commands[command].make_context(command, list(options.as_today(rest)))


def test_every_training_command_of_the_docs_is_understood() -> None:
    found = commands(r"(?:\.venv/bin/)?python train\.py")
    assert len(found) >= 6
    for words in found:
        assert parse(words[2:]).data.specs


def test_every_make_word_of_the_docs_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, re.MULTILINE)) <= targets
    ci = (ROOT / ".ci" / "run").read_text()
    assert set(re.findall(r"\bmake ([a-z-]+)", ci)) == {"check", "docs", "web", "test", "test-exhaustive"}


@pytest.mark.slow
def test_no_progress_bar_fills_a_redirected_log() -> None:
    paths = [ROOT / "train.py", *(ROOT / "xray_hf").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    nodes = [(path, node) for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    calls = [
        (path.name, node.lineno, {word.arg for word in node.keywords})
        for path, node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tqdm"
    ]
    assert calls
    # disable=None hides the bar where stderr is not a terminal.
    assert [place for *place, words in calls if "disable" not in words] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


def test_every_training_option_has_a_help_text() -> None:
    specs = [spec for group in GROUPS.values() for spec in group.__dataclass_fields__.values()]
    assert all(len(spec.metadata["help"]) > 5 for spec in specs)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import xray_hf", {"torch", "numpy", "transformers", "datasets", "gradio"}),
        ("import xray_hf.cli", {"torch", "numpy", "transformers", "datasets"}),
        ("import xray_hf.data.dataset", {"torch", "transformers", "gradio"}),
        (
            "import xray_hf.inference",
            {"torch", "transformers", "datasets", "onnxruntime", "pydicom", "gradio", "ray", "pyspark"},
        ),
    ],
)
def test_imports_are_cheap(statement: str, absent: set[str]) -> None:
    code = f"import sys; {statement}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not absent & set(run.stdout.split())
