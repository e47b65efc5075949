"""How the demo runs: options of the command line, each with a default from the environment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from xray_hf import cores
from xray_hf.errors import BundleError, ConfigError, OptionParser, first_line
from xray_hf.inference import backends

SHIPPED = Path("pretrained")  # the folder of the bundles to serve where none is named
README = Path("README.md")
MCP_PATH = "/mcp"
MCP = "XRAY_HF_MCP"
AUTH = "XRAY_HF_AUTH"  # user:password; not an option, since everybody on a machine can read those


@dataclass(frozen=True)
class Settings:
    """See `build_parser` for what each means. rate: requests a minute and visitor, 0 for no limit."""

    bundles: tuple[str, ...]
    examples: str | None
    backend: str
    host: str
    port: int
    root_path: str
    concurrency: int
    queue: int
    max_file_mb: int
    rate: int
    auth: tuple[str, str] | None
    has_mcp: bool


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Read options and environment; raises ConfigError, BundleError if no bundle is named or found."""
    options = build_parser().parse_args(arguments)
    for name, lowest in (("concurrency", 1), ("queue", 1), ("max_file_mb", 1), ("rate", 0)):
        if getattr(options, name) < lowest:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} is {getattr(options, name)}; expected {lowest} or more.")
    if not 0 < options.port < 65536:
        raise ConfigError(f"--port {options.port} is not between 1 and 65535; choose another --port.")
    auth = _auth(os.environ.get(AUTH, ""))
    has_mcp = options.mcp or _flag(MCP)
    switch = "--mcp" if options.mcp else MCP
    if has_mcp and find_spec("mcp") is None:
        raise ConfigError(f"{switch} needs the package mcp; run `pip install mcp`.")
    if has_mcp and auth:
        raise ConfigError(f"{switch} asks for no password; leave it or {AUTH} out.")
    return Settings(
        bundles=tuple(options.bundle or _named() or _of_space() or _shipped()),
        examples=options.examples,
        backend=options.backend,
        host=options.host,
        port=options.port,
        root_path=options.root_path,
        concurrency=options.concurrency,
        queue=options.queue,
        max_file_mb=options.max_file_mb,
        rate=options.rate,
        auth=auth,
        has_mcp=has_mcp,
    )


def build_parser() -> argparse.ArgumentParser:
    """The options; where Gradio and Spaces have a name for a variable, it is that."""
    parser = OptionParser(
        prog="app.py",
        description="The demo: classify chest X-rays in the browser with one or more models side by side.",
        epilog=f"{AUTH}=user:password in the environment asks visitors for them.",
        allow_abbrev=False,
    )

    def add(name: str, variable: str, default: object, text: str, **more: object) -> None:
        value = os.environ.get(variable, default)
        shown = "none" if default in (None, "") else default
        parser.add_argument(name, default=value, help=f"{text} (${variable}, default {shown})", **more)  # type: ignore[arg-type]

    text = "a bundle's folder or Hub id, owner/name; repeat it for more ($XRAY_HF_BUNDLES, with commas; "
    text += f"default those that a Space's README.md names, else all in {SHIPPED}/)"
    parser.add_argument("--bundle", action="append", metavar="SOURCE", help=text)
    text = "X-rays to offer instead of synthetic ones: a folder, or hf://datasets/owner/name"
    add("--examples", "XRAY_HF_EXAMPLES", None, text)
    add("--backend", "XRAY_HF_BACKEND", backends.DEFAULT, "what computes", choices=list(backends.BACKENDS))
    add("--host", "GRADIO_SERVER_NAME", "127.0.0.1", "address to listen on")
    add("--port", "GRADIO_SERVER_PORT", 7860, "port to listen on", type=int)
    add("--root-path", "GRADIO_ROOT_PATH", "", "path at which a proxy shows the page")
    add("--concurrency", "XRAY_HF_CONCURRENCY", cores.usable(), "forward passes at a time", type=int)
    add("--queue", "XRAY_HF_QUEUE", 2000, "requests that may wait; who comes later is sent away", type=int)
    add("--max-file-mb", "XRAY_HF_MAX_FILE_MB", 64, "largest file in MB", type=int)
    # 300, because gradio_client uploads each of 200 files on its own.
    add("--rate", "XRAY_HF_RATE", 300, "requests a minute that one visitor may make, 0 for any", type=int)
    text = f"be an MCP server at {MCP_PATH}, too (needs the package mcp; ${MCP}=1)"
    parser.add_argument("--mcp", action="store_true", help=text)
    return parser


def _flag(variable: str) -> bool:
    value = os.environ.get(variable, "")
    if value not in ("", "0", "1"):
        raise ConfigError(f"{variable} is {value!r}; expected 1, 0 or nothing.")
    return value == "1"


def _named() -> list[str]:
    return [name for name in os.environ.get("XRAY_HF_BUNDLES", "").split(",") if name]


def _of_space() -> list[str]:
    """The models that README.md names, if it is that of a Space."""
    if not (README.is_file() and README.read_text(encoding="utf-8").startswith("---")):
        return []
    from huggingface_hub.repocard import metadata_load
    from yaml import YAMLError

    try:
        models = (metadata_load(README) or {}).get("models", [])
    except (YAMLError, ValueError, AttributeError) as error:
        raise ConfigError(f"{README} has metadata that cannot be read: {first_line(error)}") from error
    if not isinstance(models, list) or not all(isinstance(name, str) for name in models):
        raise ConfigError(f"{README} has models {models!r}; expected a list of Hub ids, owner/name.")
    return models


def _shipped() -> list[str]:
    if found := sorted(str(path.parent) for path in SHIPPED.glob("*/config.json")):
        return found
    raise BundleError(
        f"no model found in {SHIPPED.resolve()}; start in the folder of this repository, or name a model "
        "with --bundle."
    )


def _auth(text: str) -> tuple[str, str] | None:
    user, _, password = text.partition(":")
    if text and not (user and password):
        raise ConfigError(f"{AUTH} is not of the form user:password.")
    return (user, password) if text else None
