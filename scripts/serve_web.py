"""Serve the static page on this computer, with the headers that its Space has.

python scripts/serve_web.py build/web --port 7860
"""

from __future__ import annotations

import argparse
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: no line for each of a hundred files."""


def serve(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of the folder on loopback; serve_forever starts it."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="what scripts/build_web.py wrote")
    parser.add_argument("--port", type=int, default=7860)
    arguments = parser.parse_args()
    with serve(arguments.folder, arguments.port) as server:
        print(f"http://127.0.0.1:{server.server_port}")
        server.serve_forever()


if __name__ == "__main__":
    main()
