"""Command-line options, declared as fields of frozen dataclasses; click parses, checks and explains them.

Click was measured against argparse, tyro, jsonargparse, typer, cyclopts and HfArgumentParser: docs/log.md.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, field, fields
from functools import wraps
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from xray_hf.errors import ConfigError

T = TypeVar("T")
LOOK = {"max_content_width": 110, "show_default": True}
# {an option's name in the previous version: its name now}; emptied in the next version.
RENAMED = {"--foreign-dir": "--ood-dir", "--heatmaps": "--cams"}
# {a shorthand: (the option that it stands for, the prefix of its value)}
SHORT = {"--data-dir": ("--source", "coronahack=")}


class Number(click.FloatRange):
    """A finite number in a range."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert and check the value; click itself accepts NaN in every range."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


class Names(click.ParamType):
    """Comma-separated names -> a tuple."""

    name = "A,B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split the text."""
        return value if isinstance(value, tuple) else tuple(name.strip() for name in value.split(","))


class Repeated(click.types.StringParamType):
    """The value of a repeatable option; an environment variable separates several by commas."""

    envvar_list_splitter = ","


class Command(click.Command):
    """A command whose --help has a heading for each group of options."""

    def __init__(self, name: str, groups: Mapping[str, Sequence[click.Option]], **more: Any) -> None:
        super().__init__(name, params=[each for group in groups.values() for each in group], **more)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one group after the other."""
        for title, group in self.groups.items():
            with formatter.section(title):
                formatter.write_dl([row for each in group if (row := each.get_help_record(ctx))])


def option(default: Any, help: str, type: Any = None, **more: Any) -> Any:
    """A field that is an option; `more` goes to click.Option. A default of () makes it repeatable."""
    more.setdefault("multiple", default == () and not isinstance(type, Names))
    return field(default=default, metadata={"help": help, "type": type, **more})


def of(group: type, shown: Callable[[Field[Any]], str | None] = lambda _: None) -> dict[str, click.Option]:
    """The options that a dataclass declares. shown: gives the text of a default in --help; None keeps it."""
    return {spec.name: _as_option(spec, shown(spec)) for spec in fields(group) if "help" in spec.metadata}


def _as_option(spec: Field[Any], shown: str | None) -> click.Option:
    about: dict[str, Any] = {"show_envvar": "envvar" in spec.metadata, **spec.metadata}
    flag = about.pop("flag", f"--{spec.name.replace('_', '-')}")
    names = f"{flag}/--no-{flag[2:]}" if isinstance(spec.default, bool) else flag
    words = shown or spec.default not in ((), "", None)
    return click.Option([names, spec.name], default=spec.default, show_default=words, **about)


def packed(group: type, name: str, without: str = "") -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Decorate a command: it takes a dataclass's options, except `without`, as its argument `name`."""
    taken = {key: each for key, each in of(group).items() if key != without}

    def decorate(run: Callable[..., T]) -> Callable[..., T]:
        @wraps(run)
        def with_group(**given: Any) -> T:
            return run(**{name: group(**{key: given.pop(key) for key in taken})}, **given)

        # click collects what decorators leave here, the last one first.
        with_group.__dict__.setdefault("__click_params__", []).extend(reversed(taken.values()))
        return with_group

    return decorate


def run(
    command: click.Command, arguments: Sequence[str] | None, values: Mapping[str, Any] | None = None
) -> Any:
    """Run a command and return its result.

    values: for options that `arguments` leave out. Raises ConfigError, also for a wrong value.
    """
    words = list(as_today(sys.argv[1:] if arguments is None else arguments))
    repeat = {each.name for each in command.params if getattr(each, "multiple", False)}
    texts = {name: _as_text(value, name in repeat) for name, value in (values or {}).items()}
    try:
        with command.make_context(command.name, words, default_map=texts) as context:
            return command.invoke(context)
    except click.exceptions.Exit as done:  # --help, --version
        sys.exit(done.exit_code)
    except click.UsageError as error:
        text = error.format_message()
        stop = "" if text.endswith((".", "?", ")")) else "."
        program = error.ctx.command_path if error.ctx else command.name
        more = "" if isinstance(error, click.BadParameter) else f" `{program} --help` lists all options."
        raise ConfigError(f"{text}{stop}{more}") from error


def typed(**params: Any) -> dict[str, Any]:
    """Return only the values given on the command line; for use as a command's callback."""
    source = click.get_current_context().get_parameter_source
    return {name: value for name, value in params.items() if source(name) is ParameterSource.COMMANDLINE}


def notice(old: str, new: str) -> None:
    """Say on stderr that an option was renamed."""
    print(f"{old} is now {new}; the next version drops the old spelling.", file=sys.stderr)


def as_today(words: Sequence[str]) -> Iterator[str]:
    """The arguments, with old names and shorthands replaced by the current options."""
    rest = iter(words)
    for word in rest:
        flag, equals, value = word.partition("=")
        if flag in RENAMED:
            notice(flag, RENAMED[flag])
            flag = RENAMED[flag]
        if flag in SHORT:
            flag, prefix = SHORT[flag]
            equals, value = "=", prefix + (value if equals else next(rest, ""))
        yield flag + equals + value


def _as_text(value: Any, repeats: bool) -> Any:
    """A value of YAML or Python as it would be typed, so that all are checked the same way."""
    if not isinstance(value, list | tuple):
        return [str(value)] if repeats else str(value)
    return [str(each) for each in value] if repeats else ",".join(map(str, value))
