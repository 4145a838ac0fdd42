"""The `--pp` options as pytest takes them: plain text, declared in `harness/plan/options.py`."""

import pytest

from ..plan.options import Options, declarations, help_of, read_options

# Tests that ask for it are run once for each point.
POINT_FIXTURE = "pp_point"


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
            metavar=option.shape,
            help=help_of(entry),
        )


def options_of(config: pytest.Config) -> Options:
    """Read the options of a run.

    Raises:
        BadInputError: naming the flag, the text and the reason.
    """
    flags = [option.flag for _, option in declarations()]
    return read_options({flag: config.getoption(flag) for flag in flags})
