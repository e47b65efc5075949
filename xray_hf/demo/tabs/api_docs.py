"""The tab "API": how programs and assistants ask this page, with code that runs as it stands.

The docstring of a function is the only place that documents it.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from xray_hf.demo.cleanup import MINUTES
from xray_hf.demo.limits import MAX_BODY
from xray_hf.demo.rendering import render
from xray_hf.demo.settings import AUTH, MB_PER_REQUEST, MCP_PATH, Settings
from xray_hf.demo.tabs.tab import Served, add_part
from xray_hf.demo.uploads import MAX_FILES
from xray_hf.reading import MAX_PIXELS
from xray_hf.snippets import FILE, Snippet, text

NAME, TITLE = "api", "API"


@dataclass(frozen=True)
class Function:
    """A function that programs may call. parameters: [(name, type, description)]."""

    name: str
    summary: str
    parameters: list[tuple[str, str, str]]
    returns: str


def add(served: Served) -> None:
    """Add a place for the documentation, which needs the whole page: see `document`."""
    add_part(NAME)


def document(page: gr.Blocks, settings: Settings) -> str:
    """The documentation of all public functions of a page."""
    # The browser puts the address at which it sees the page in the place of this one.
    address = f"http://{settings.host}:{settings.port}{settings.root_path}"
    return render(
        "api_docs",
        address=address,
        code=snippets(address, settings.auth is not None),
        functions=list(functions(page)),
        settings=settings,
        auth=AUTH,
        limits={
            "files": MAX_FILES,
            "pixels": MAX_PIXELS,
            "body": MAX_BODY // 2**20,
            "uploads": settings.rate * MB_PER_REQUEST,
            "minutes": MINUTES,
        },
        assistant=assistant(address),
    )


def functions(page: gr.Blocks) -> Iterator[Function]:
    """The public functions, in order."""
    docstrings = {each.api_name: inspect.getdoc(each.fn) or "" for each in page.fns.values() if each.fn}
    for path, info in page.get_api_info()["named_endpoints"].items():
        summary, arguments, returns = sections(docstrings[path.removeprefix("/")])
        described = dict(re.findall(r"^(\w+): (.*(?:\n\s+.*)*)", arguments, re.MULTILINE))
        parameters = [
            (each["parameter_name"], _kind(each), " ".join(described.get(each["parameter_name"], "").split()))
            for each in info["parameters"]
        ]
        yield Function(path, summary, parameters, returns)


def sections(docstring: str) -> tuple[str, str, str]:
    """A docstring's beginning, its section "Args:" and its section "Returns:", each without indentation."""
    beginning, _, rest = docstring.partition("\nReturns:\n")
    summary, _, arguments = beginning.partition("\nArgs:\n")
    return summary.strip(), inspect.cleandoc(arguments), inspect.cleandoc(rest)


def _kind(parameter: dict[str, Any]) -> str:
    kind: str = parameter["python_type"]["type"].replace("filepath", "file")
    return f"{kind}, optional" if parameter["parameter_has_default"] else kind


def snippets(address: str, has_password: bool) -> list[Snippet]:
    """Code that asks this page."""
    page = address.rstrip("/")
    login = ', auth=("user", "password")' if has_password else ""
    cookies = " -b cookies.txt" if has_password else ""
    enter = (
        'curl -sf -c cookies.txt -d "username=user&password=password" "$page/login"\n' if has_password else ""
    )
    return [
        Snippet(
            "gradio_client",
            "python",
            "One X-ray of any format that the page reads, DICOM too: the decision of each model.",
            f"""\
from gradio_client import Client, handle_file

client = Client({text(address)}{login})
print(client.predict(handle_file("{FILE}"), api_name="/read"))
""",
        ),
        Snippet(
            "gradio_client, a folder",
            "python",
            f"Up to {MAX_FILES} files in one request, written to a CSV file.",
            f"""\
import csv
from pathlib import Path

from gradio_client import Client, handle_file

client = Client({text(address)}{login})
files = sorted(str(path) for path in Path("scans").iterdir())
rows = client.predict([handle_file(file) for file in files], api_name="/read_many")
with open("answers.csv", "w", newline="", encoding="utf-8") as file:
    table = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
    table.writeheader()
    table.writerows(rows)
""",
        ),
        Snippet(
            "curl",
            "shell",
            "Plain HTTP (REST), from any language: upload the file, call a function, fetch its answer.",
            f"""\
page={page}
{enter}file=$(curl -sf{cookies} -F "files=@{FILE}" "$page/gradio_api/upload" | cut -d '"' -f 2)
call=$(curl -sf{cookies} -H "Content-Type: application/json" "$page/gradio_api/call/read" \\
  -d '{{"data": [{{"path": "'"$file"'", "meta": {{"_type": "gradio.FileData"}}}}]}}' | cut -d '"' -f 4)
curl -sfN{cookies} "$page/gradio_api/call/read/$call"
""",
        ),
    ]


def assistant(address: str) -> list[Snippet]:
    """How an assistant is connected, and a program that does the same."""
    url = f"{address.rstrip('/')}{MCP_PATH}"
    configuration = {"mcpServers": {"xray_hf": {"type": "http", "url": url}}}
    return [
        Snippet(
            "configuration of a client",
            "JSON",
            "For clients that speak MCP over HTTP; they show the tools and what each takes.",
            json.dumps(configuration, indent=2) + "\n",
        ),
        Snippet(
            "the package mcp",
            "python",
            "A program that calls a tool.",
            f"""\
import asyncio
import base64
from pathlib import Path

from mcp import Client


async def main():
    image = base64.b64encode(Path("{FILE}").read_bytes()).decode()
    async with Client({text(url)}) as client:
        print([tool.name for tool in (await client.list_tools()).tools])
        answer = await client.call_tool("classify_chest_xray", {{"image": image}})
        print(answer.structured_content)


asyncio.run(main())
""",
        ),
    ]
