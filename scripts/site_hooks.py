"""Hooks of the documentation site (mkdocs.yml): what its pages link to outside docs/.

GitHub shows docs/, too, so these are plain relative links. On the site they lead to

    README.md, CHANGELOG.md and their like    a page of the navigation
    a module of the package                   its page in the API reference
    a picture                                 a copy
    any other text                            a page that shows it
    a folder                                  a page that lists its files
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from properdocs.config.defaults import ProperDocsConfig
from properdocs.exceptions import BuildError
from properdocs.structure.files import File, Files
from properdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
PATHS = {uri: path for path, uri in PAGES.items()}
PICTURES = {".jpg", ".png", ".svg"}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|/)([^)\s#]+)")  # of Markdown, relative, without its #anchor
FETCHED = re.compile(r"""<(?:script|img|iframe)\b[^>]*\bsrc=["']?https?:|<link\b[^>]*\bhref=["']?https?:""")
SOURCE_CODE = '<details class="mkdocstrings-source"'


def on_files(files: Files, config: ProperDocsConfig) -> Files:
    """Add the pages of PAGES, and what the pages link to outside docs/."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text(encoding="utf-8")))
    for page in files.documentation_pages():
        for link in LINK.findall(page.content_string):
            path = path_of(link, page.src_uri)
            uri = uri_of(path, files)
            if uri not in files.src_uris and (ROOT / path).exists():
                files.append(shown(ROOT / path, uri, config))
    return files


def on_page_markdown(markdown: str, page: Page, config: ProperDocsConfig, files: Files) -> str:
    """Turn links within the repository into links within the site; rank code below guides in the search."""
    here = page.file.src_uri
    if page.parent is None:
        page.meta["hide"] = ["navigation"]  # it would list only this page
    if here.startswith(("reference/", "repository/")):
        page.meta["search"] = {"boost": 0.5}
        return markdown
    folder = posixpath.dirname(here) or "."
    return LINK.sub(lambda link: posixpath.relpath(uri_of(path_of(link[1], here), files), folder), markdown)


def on_page_content(html: str, page: Page, config: ProperDocsConfig, files: Files) -> str:
    """Keep source code out of the search."""
    return html.replace(SOURCE_CODE, f"{SOURCE_CODE} data-search-exclude")


def on_post_page(output: str, page: Page, config: ProperDocsConfig) -> str:
    """Stop at a page that a browser would complete from another host."""
    if found := FETCHED.search(output):
        raise BuildError(f"{page.file.src_uri} is fetched in part from another host: {found[0]}…")
    return output


def path_of(link: str, uri: str) -> str:
    """A link on a page of the site -> the path in the repository."""
    folder = posixpath.dirname(PATHS.get(uri, f"docs/{uri}"))
    return posixpath.normpath(posixpath.join(folder, link))


def uri_of(path: str, files: Files) -> str:
    """A path in the repository -> the page or file of the site that stands for it."""
    module = path.removesuffix(".py")
    for uri in (f"reference/{module}.md", f"reference/{module}/index.md"):
        if uri in files.src_uris:
            return uri
    if path in PAGES or path.startswith("docs/"):
        return PAGES.get(path, path.removeprefix("docs/"))
    return f"repository/{path}" if Path(path).suffix in PICTURES else f"repository/{path}.md"


def shown(path: Path, uri: str, config: ProperDocsConfig) -> File:
    """A picture, a text or a folder of the repository, for the site."""
    name = path.relative_to(ROOT)
    if path.suffix in PICTURES:
        return File.generated(config, uri, abs_src_path=str(path))
    if path.is_dir():
        inside = sorted(each.relative_to(path) for each in path.rglob("*") if each.is_file())
        lines = [f"- `{each}`\n" for each in inside if not re.search(r"__pycache__|(^|/)\.", str(each))]
        return File.generated(config, uri, content=f"# {name}/\n\n{''.join(lines)}")
    text = path.read_text(encoding="utf-8")
    return File.generated(config, uri, content=f"# {name}\n\n~~~~~~ {path.suffix[1:]}\n{text}\n~~~~~~\n")
