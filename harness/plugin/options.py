"""The `--pp` options as pytest takes them: plain text, declared in `harness/plan/options.py`."""

from typing import TYPE_CHECKING

import pytest

from ..plan.options import Options, declarations

if TYPE_CHECKING:
    from dataclasses import Field


def add_options(parser: pytest.Parser) -> None:
    """Register every declared option."""
    group = parser.getgroup("pp-harness", "pipeline-parallel regression harness")
    for entry, option in declarations():
        if option.switch:
            group.addoption(option.flag, action="store_true", help=option.help)
            continue
        group.addoption(
            option.flag,
            action="append" if option.repeat else "store",
            metavar=option.metavar or "|".join(option.choices),
            help=option.help + _default(entry),
        )


def options_of(config: pytest.Config) -> Options:
    """Read the options of a run.

    Raises:
        BadInputError: naming the flag, the text and the reason.
    """
    from ..plan.options import read_options

    flags = [option.flag for _, option in declarations()]
    return read_options({flag: config.getoption(flag) for flag in flags})


def _default(entry: "Field[object]") -> str:
    value = entry.default
    return f" (default: {value})" if isinstance(value, str | int | float) else ""
