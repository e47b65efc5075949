"""The demo: classify chest X-rays in the browser with one or more models side by side.

python app.py
python app.py --bundle runs/paper/xray-resnet18/bundle --bundle runs/paper/xray-cnn/bundle --port 7861
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

from xray_hf.errors import BundleError, ConfigError, OptionParser, exit_on_error

BUNDLES = "pretrained"  # the folder with the bundles to serve where none is named


def main() -> None:
    """Run the page until it is stopped."""
    options = build_parser().parse_args()
    folders = options.bundle or find_bundles(Path())
    require_free_port(options.host, options.port)
    # As Ctrl-C: a container is stopped by SIGTERM, which would leave the folder with the uploads behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="xray_hf-demo-") as folder:
        serve(folders, options.host, options.port, Path(folder))


def build_parser() -> argparse.ArgumentParser:
    """The options; the environment's names are those that Gradio and Spaces use."""
    parser = OptionParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        action="append",
        metavar="DIR",
        help=f"a folder that train.py wrote; repeat it for more (default: all in {BUNDLES})",
    )
    host = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    port = os.environ.get("GRADIO_SERVER_PORT", "7860")
    parser.add_argument("--host", default=host, help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=port, help="default %(default)s")
    return parser


def find_bundles(root: Path) -> list[Path]:
    """The bundles in `pretrained` below `root`; raises BundleError if there is none."""
    if found := sorted(path.parent for path in (root / BUNDLES).glob("*/config.json")):
        return found
    raise BundleError(
        f"no model found in {(root / BUNDLES).resolve()}; start in the folder of this repository, "
        "or name a model with --bundle DIR."
    )


def require_free_port(host: str, port: int) -> None:
    """Raise ConfigError unless host and port can be listened on; asked before the models are loaded."""
    if not 0 < port < 65536:
        raise ConfigError(f"port {port} is not between 1 and 65535; choose another --port.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            # As servers do; else a port counts as taken for a minute after its last program ended.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}. Another program may use it; "
            "choose another --port or --host."
        ) from error


def serve(folders: list[Path], host: str, port: int, temporary: Path) -> None:
    """Load the models and serve the page; what is uploaded lies in `temporary`. Raises BundleError."""
    # In a folder of our own, instead of one that every Gradio program of the computer shares.
    os.environ["GRADIO_TEMP_DIR"] = str(temporary / "uploads")
    # Imported here, so that --help and a wrong option answer at once.
    from xray_hf.demo.events import load_engines
    from xray_hf.demo.examples import write_examples
    from xray_hf.demo.layout import build, launch_options

    engines = load_engines(folders)
    page = build(engines, write_examples(temporary / "examples"))
    print(f"{', '.join(engines)} at http://{host}:{port} (Ctrl-C stops)", file=sys.stderr)
    page.launch(server_name=host, server_port=port, quiet=True, **launch_options())


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
