"""Serve the static page on this computer, with the headers that its Space has.

python scripts/serve_web.py build/web --port 7861
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

from xray_hf.errors import ConfigError, exit_on_error
from xray_hf.hub.static_space import HEADERS


class Handler(SimpleHTTPRequestHandler):
    """Files of a folder."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".webmanifest": "application/manifest+json",
    }

    def end_headers(self) -> None:
        for name, value in (HEADERS | {"cache-control": "no-cache"}).items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: no line for each of a hundred files."""


@contextmanager
def serving(folder: Path, port: int = 0) -> Iterator[str]:
    """Serve a folder on loopback, at the address that comes back.

    port: 0 for any that is free. Raises ConfigError for one that is taken.
    """
    try:
        listening = ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))
    except OSError as error:
        raise ConfigError(f"port {port} cannot be used: {error.strerror}; pass another --port.") from error
    with listening as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what scripts/build_web.py wrote")
    parser.add_argument("--port", type=int, default=7861)
    arguments = parser.parse_args()
    if not (arguments.folder / "index.html").is_file():
        raise ConfigError(f"{arguments.folder} is not a page that `make web` wrote; run that first.")
    with serving(arguments.folder, arguments.port) as address, suppress(KeyboardInterrupt):
        print(address, flush=True)
        Event().wait()


if __name__ == "__main__":
    sys.exit(exit_on_error(main))
