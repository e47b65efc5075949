"""Settings -> models -> a page that is served until it is stopped."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

from xray_hf.demo.settings import Settings
from xray_hf.errors import ConfigError


def launch(chosen: Settings) -> None:
    """Load the models and serve the page until it is stopped.

    Raises ConfigError if the port cannot be listened on, BundleError for a model that cannot be loaded.
    """
    require_free_port(chosen.host, chosen.port)  # before the models are loaded
    # Being stopped is not a failure; and this exception removes the folder of uploads.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="xray_hf-demo-") as folder:
        # Our own folder, not the one that all Gradio programs on the computer share.
        os.environ["GRADIO_TEMP_DIR"] = f"{folder}/uploads"
        os.environ["MPLCONFIGDIR"] = f"{folder}/matplotlib"  # Gradio loads matplotlib with its first answer
        # Imported only now: Gradio takes seconds, and a port that is taken is an error before.
        from xray_hf.demo import examples, models, server

        served = models.load(chosen.bundles, chosen.backend)
        app = server.create_app(served, examples.find(chosen.examples, Path(folder, "examples")), chosen)
        print(f"{', '.join(served)} at http://{chosen.host}:{chosen.port} (Ctrl-C stops)", file=sys.stderr)
        server.serve(app, chosen)


def require_free_port(host: str, port: int) -> None:
    """Raise ConfigError unless host and port can be listened on."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            # As servers do; otherwise a port counts as taken for a minute after its last program ended.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}. Choose another --port or --host."
        ) from error
