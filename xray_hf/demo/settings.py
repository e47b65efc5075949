"""Options of the demo; each takes its default from the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from click import Choice, IntRange

from xray_hf import cores, options
from xray_hf.errors import BundleError, ConfigError, first_line
from xray_hf.extras import installation
from xray_hf.folders import is_hidden
from xray_hf.inference import backends
from xray_hf.options import Repeated, option

SHIPPED = Path("pretrained")  # the folder of the bundles to serve if none is named
README = Path("README.md")
MCP_PATH = "/mcp"
UPLOAD_PATH = "/gradio_api/upload"
MB_PER_REQUEST = 10  # of uploads, for each request that a visitor may send
AUTH = "XRAY_HF_AUTH"  # user:password; not an option, since all users of a machine can read those


@dataclass(frozen=True)
class Settings:
    """The demo's options; variables are named as Gradio and Spaces name them, where they do."""

    bundles: tuple[str, ...] = option(
        (),
        "a bundle's folder or Hub id, owner/name; repeatable (default: those that a Space's "
        f"README.md names, else all in {SHIPPED}/)",
        Repeated(),
        flag="--bundle",
        metavar="SOURCE",
        envvar="XRAY_HF_BUNDLES",
    )
    examples: str | None = option(
        None,
        "X-rays to offer instead of synthetic ones: a folder, whose examples.csv may hold captions and "
        "licences, or hf://datasets/owner/name",
        envvar="XRAY_HF_EXAMPLES",
    )
    backend: str = option(
        backends.DEFAULT, "inference backend", Choice(list(backends.BACKENDS)), envvar="XRAY_HF_BACKEND"
    )
    host: str = option("127.0.0.1", "address to listen on", envvar="GRADIO_SERVER_NAME")
    port: int = option(7860, "port to listen on", IntRange(1, 65535), envvar="GRADIO_SERVER_PORT")
    root_path: str = option("", "path under which a proxy serves the page", envvar="GRADIO_ROOT_PATH")
    concurrency: int = option(
        cores.usable(), "forward passes at a time", IntRange(1), envvar="XRAY_HF_CONCURRENCY"
    )
    queue: int = option(
        2000, "requests that may wait; further ones are turned away", IntRange(1), envvar="XRAY_HF_QUEUE"
    )
    max_file_mb: int = option(64, "largest file in MB", IntRange(1), envvar="XRAY_HF_MAX_FILE_MB")
    rate: int = option(
        300,
        "calls per minute and visitor, 0: no limit. Uploads have a limit of their own: "
        f"{MB_PER_REQUEST} times as many MB per minute; a file below 1 MB counts as 1 MB",
        IntRange(0),
        envvar="XRAY_HF_RATE",
    )
    has_mcp: bool = option(
        False,
        f"also serve MCP at {MCP_PATH}; needs the package mcp",
        flag="--mcp",
        envvar="XRAY_HF_MCP",
    )
    auth: tuple[str, str] | None = None


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Read options and environment; raises ConfigError, BundleError if no bundle is named or found."""
    command = options.Command(
        "xray-hf demo",
        {"Options": list(options.of(Settings).values())},
        callback=Settings,
        context_settings=options.LOOK,
        help="The demo: classify chest X-rays in the browser with one or more models side by side.",
        epilog=f"With {AUTH}=user:password in the environment, visitors have to log in.",
    )
    found: Settings = options.run(command, arguments)
    bundles = tuple(filter(None, found.bundles))
    auth = _auth(os.environ.get(AUTH, ""))
    if found.has_mcp and find_spec("mcp") is None:
        raise ConfigError(f"--mcp needs the package mcp; run `{installation('mcp')}`.")
    if found.has_mcp and auth:
        raise ConfigError(f"--mcp asks for no password; leave it or {AUTH} out.")
    return replace(found, bundles=bundles or tuple(_of_space() or _shipped()), auth=auth)


def _of_space() -> list[str]:
    """The models that README.md names, if it is a Space's."""
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
    folders = [path.parent for path in SHIPPED.glob("*/config.json")]
    if found := sorted(
        str(folder) for folder in folders if not is_hidden(folder.name)
    ):  # hidden folders are half-written bundles
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
