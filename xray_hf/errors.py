"""Every error that bad input can cause, so that a program ends with one clear sentence.

XrayHFError                 what came, what was expected, what to do next; exit code 1
├── ConfigError             an option or its value; exit code 2, as usual for programs
├── DataError               a data set on disk: no folder, no CSV, no column, bad rows
│   └── ImageError          one image that cannot be used
├── ModelError              a model name, or weights that cannot be obtained
├── BundleError             a bundle folder that is incomplete or whose files do not match
├── ExportError             a network that cannot be exported, or whose graph answers differently
├── CheckpointError         a checkpoint of another model or configuration
├── DivergedError           the loss is no longer a number
├── HubError                the Hub: not reachable, not allowed, changed by someone else
└── OutputError             a result could not be written; nothing half-written is left
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from xray_hf.extras import extra_of, installation


class XrayHFError(Exception):
    """Base of all expected errors; its text is meant for the person at the keyboard."""

    exit_code = 1


class ConfigError(XrayHFError):
    exit_code = 2


class DataError(XrayHFError): ...


class ImageError(DataError): ...


class ModelError(XrayHFError): ...


class BundleError(XrayHFError): ...


class ExportError(XrayHFError): ...


class CheckpointError(XrayHFError): ...


class DivergedError(XrayHFError): ...


class HubError(XrayHFError): ...


class OutputError(XrayHFError): ...


def hub_errors() -> tuple[type[Exception], ...]:
    """The exceptions of the Hub's client for a missing repository or network; imports the client.

    hf_xet raises RuntimeError when a download breaks off.
    """
    from httpx2 import HTTPError
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, ValueError, RuntimeError, HfHubHTTPError, HTTPError)


def first_line(error: BaseException) -> str:
    """The first line of a library's error, or its type if it has no message, for use in our own sentences."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def as_sentence(error: BaseException) -> str:
    """`first_line` with a full stop, for messages that continue with another sentence."""
    return f"{first_line(error).rstrip(' .:')}."


def exit_on_error(main: Callable[[], int | None]) -> int:
    """Run `main`; turn an expected error, or Ctrl-C, into one line on stderr and its exit code."""
    try:
        code = main() or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at exit
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("error: interrupted.", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if not error.name or not extra_of(error.name):
            raise
        print(
            f"error: this command needs {error.name}, which is not installed; "
            f"run `{installation(error.name)}`.",
            file=sys.stderr,
        )
        return 1
    except XrayHFError as error:
        # Libraries' messages, which some texts quote, can have several lines.
        text = " ".join(line.strip() for line in str(error).splitlines())
        print(f"error: {text}", file=sys.stderr)
        return error.exit_code
