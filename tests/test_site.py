"""The documentation's site: every page is in its navigation, and shows what GitHub shows of the same file."""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import markdown
import pytest
import site_hooks
from markdown_it import MarkdownIt
from properdocs.config import load_config
from properdocs.config.defaults import ProperDocsConfig
from properdocs.exceptions import BuildError
from properdocs.structure.files import File, Files, get_files
from properdocs.structure.pages import Page
from site_docstrings import as_markdown

from xray_hf import cli

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in site_hooks.PAGES)]
COMPARED = {
    "h1",
    "h2",
    "h3",
    "h4",
    "li",
    "table",
    "tr",
    "td",
    "th",
    "pre",
    "code",
    "blockquote",
    "img",
    "strong",
    "em",
}


@pytest.fixture(scope="module")
def config() -> ProperDocsConfig:
    return load_config(str(ROOT / "mkdocs.yml"), plugins=[])


@pytest.fixture(scope="module")
def files(config: ProperDocsConfig) -> Files:
    return config.plugins.on_files(get_files(config), config=config)


class Structure(HTMLParser):
    """Counts the elements of a page, and keeps its words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.update({tag} & COMPARED)

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def words(self) -> list[str]:
        return self.text.replace("¶", "").split()


def named(navigation: object) -> list[str]:
    """The pages that a navigation names, from top to bottom."""
    if isinstance(navigation, str):
        return [navigation]
    entries = navigation.values() if isinstance(navigation, dict) else navigation
    assert isinstance(entries, list) or isinstance(navigation, dict)
    return [page for entry in entries for page in named(entry)]  # type: ignore[attr-defined]


def site_file(uri: str, config: ProperDocsConfig) -> File:
    return File(uri, config.docs_dir, config.site_dir, config.use_directory_urls)


def rewritten(text: str, uri: str, files: Files, config: ProperDocsConfig) -> str:
    """A page's text with the links of the site."""
    page = Page(None, site_file(uri, config), config)
    return site_hooks.on_page_markdown(text, page, config, files)


def test_the_navigation_names_every_page_once(config: ProperDocsConfig) -> None:
    pages = [path.name for path in (ROOT / "docs").glob("*.md")] + list(site_hooks.PAGES.values())
    assert sorted(named(config.nav)) == sorted(pages)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_site_shows_what_github_shows(path: Path, config: ProperDocsConfig) -> None:
    # For instance, only GitHub takes a table in a list that is indented by two spaces for part of the list.
    text = path.read_text(encoding="utf-8")
    extensions, settings = config.markdown_extensions, config.mdx_configs
    html = markdown.markdown(text, extensions=extensions, extension_configs=settings)
    site, github = Structure(html), Structure(MarkdownIt("gfm-like", {"linkify": False}).render(text))
    assert site.elements == github.elements
    assert site.words == github.words


@pytest.mark.parametrize(
    ("link", "there"),
    [
        ("results.md#speed", "results.md#speed"),
        ("demo/read_desktop.png", "demo/read_desktop.png"),
        ("../README.md", "index.md"),
        ("../CHANGELOG.md", "changelog.md"),
        ("../scripts/ablate.py", "repository/scripts/ablate.py.md"),
        ("../pretrained", "repository/pretrained.md"),
        ("../pretrained/xray-cnn/figures/ood_roc.png", "repository/pretrained/xray-cnn/figures/ood_roc.png"),
        ("../xray_hf/errors.py", "reference/xray_hf/errors.md"),
        ("../xray_hf/data", "reference/xray_hf/data/index.md"),
        ("https://example.org/a.md", "https://example.org/a.md"),
        ("#here", "#here"),
    ],
)
def test_links_out_of_docs_lead_to_the_site(link: str, there: str, config: ProperDocsConfig) -> None:
    reference = ["reference/xray_hf/errors.md", "reference/xray_hf/data/index.md"]
    files = Files([site_file(uri, config) for uri in reference])
    assert rewritten(f"[a]({link})", "page.md", files, config) == f"[a]({there})"


def test_links_of_the_readme_lead_to_the_site(config: ProperDocsConfig, files: Files) -> None:
    text = "[a](docs/results.md#speed), ![b](docs/demo/read_desktop.png), [c](LICENSE)"
    moved = "[a](results.md#speed), ![b](demo/read_desktop.png), [c](repository/LICENSE.md)"
    assert rewritten(text, "index.md", files, config) == moved


def test_what_pages_link_to_is_part_of_the_site(files: Files) -> None:
    folder = files.get_file_from_path("repository/pretrained.md")
    code = files.get_file_from_path("repository/scripts/ablate.py.md")
    assert folder is not None
    assert "- `xray-cnn/model.onnx`\n" in folder.content_string
    assert code is not None
    assert (ROOT / "scripts" / "ablate.py").read_text(encoding="utf-8") in code.content_string


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/a.js"></script>',
        "<link href=http://fonts.example/a rel=stylesheet>",
        '<p><img alt="a" src="https://badge.example/a.svg">',
    ],
)
def test_nothing_is_fetched_from_another_host(html: str, config: ProperDocsConfig) -> None:
    page = Page(None, site_file("page.md", config), config)
    with pytest.raises(BuildError, match=r"page\.md is fetched in part from another host"):
        site_hooks.on_post_page(f"<html>{html}", page, config)
    link = '<a href="https://example.org">elsewhere</a>'
    assert site_hooks.on_post_page(link, page, config) == link


def test_a_docstring_becomes_a_list_of_what_it_explains() -> None:
    text = "Read a file.\n\npath: of the file. threads, side: numbers; any.\nFast.\nRaises A. note: no name."
    assert as_markdown(text, ["path", "threads", "side"]) == (
        "Read a file.\n\n- `path`: of the file.\n\n- `threads, side`: numbers; any.\n\nFast.\n\n"
        "Raises A. note: no name."
    )


def test_the_quickstart_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    _, code, answer, line, counts, *_ = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    monkeypatch.chdir(tmp_path)
    cli.main(["examples", "--out", "examples"])
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "quickstart", "exec"), {})
    assert printed.getvalue() == answer
    words = line.split()
    cli.main(words[1:])
    out, err = capsys.readouterr()
    assert counts in out + err
