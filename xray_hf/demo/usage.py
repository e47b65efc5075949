"""The tab "Use it yourself": code for each model and for the page, and the model cards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from xray_hf import manifest
from xray_hf.demo.formatting import render
from xray_hf.manifest import Manifest
from xray_hf.snippets import FILE, Snippet, of_model, text

_FRONT_MATTER = re.compile(r"\A---\s*\n.*?\n---\s*(\n|\Z)", re.DOTALL)


def as_html(models: Mapping[str, Manifest], address: str) -> str:
    """The code for these models. address: where the page is, until the browser knows better."""
    found = {name: of_model(description) for name, description in models.items()}
    return render("use", models=found, page=of_page(address), address=address)


def of_page(address: str) -> list[Snippet]:
    """Code that asks this page, which answers with all its models."""
    return [
        Snippet(
            "gradio_client",
            "python",
            "Any file that the page reads, DICOM too. The answer has the decision of each model.",
            f"""\
from gradio_client import Client, handle_file

client = Client({text(address)})
print(client.predict(handle_file("{FILE}"), api_name="/read"))
""",
        ),
        Snippet(
            "curl",
            "shell",
            "Upload the file, ask for an answer, fetch it.",
            f"""\
page={address.rstrip("/")}
file=$(curl -sf -F "files=@{FILE}" "$page/gradio_api/upload" | cut -d '"' -f 2)
call=$(curl -sf -H "Content-Type: application/json" "$page/gradio_api/call/read" \\
  -d '{{"data": [{{"path": "'"$file"'", "meta": {{"_type": "gradio.FileData"}}}}]}}' | cut -d '"' -f 4)
curl -sfN "$page/gradio_api/call/read/$call"
""",
        ),
    ]


def card_of(folder: Path, number: int) -> str:
    """A bundle's model card as Markdown, without its front matter; "" if there is no readable one.

    number: the model's place on the page, below which the card's figures are served.
    """
    try:
        card = (folder / manifest.CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return _FRONT_MATTER.sub("", card).replace(f"]({manifest.FIGURES}/", f"]({manifest.FIGURES}/{number}/")
