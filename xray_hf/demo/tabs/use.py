"""The tab "Use it yourself": code for each model and for the page, and the model cards."""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr

from xray_hf import manifest
from xray_hf.demo.rendering import render
from xray_hf.demo.tabs.tab import Served
from xray_hf.snippets import FILE, Snippet, of_model, text

NAME, TITLE = "use", "Use it yourself"
# Only the browser knows at which address the page is seen.
_SAY_ADDRESS = """
for (const each of element.querySelectorAll(".address"))
  each.textContent = (location.origin + location.pathname).replace(/\\/$/, "");
"""
_FRONT_MATTER = re.compile(r"\A---\s*\n.*?\n---\s*(\n|\Z)", re.DOTALL)


def add(served: Served) -> None:
    """Add the code and the model cards."""
    settings = served.settings
    address = f"http://{settings.host}:{settings.port}{settings.root_path}"
    manifests = {name: model.engine.manifest for name, model in served.models.items()}
    code = {name: of_model(description) for name, description in manifests.items()}
    gr.HTML(
        render("use", models=code, page=of_page(address), address=address),
        js_on_load=_SAY_ADDRESS,
    )
    for number, (name, description) in enumerate(manifests.items()):
        if card := card_of(description.folder, number):
            with gr.Accordion(f"The model card of {name}", open=False):
                gr.Markdown(card, sanitize_html=True)
        else:
            gr.HTML(render("no_card", model=name))


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
