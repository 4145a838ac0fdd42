"""The pytest plugin: options, one item per check of a point, verdicts as test outcomes.

Inert without `--pp`: the run, and all that it needs, is imported then alone.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ..plan.options import declarations, help_of
from . import POINT_FIXTURE

if TYPE_CHECKING:
    from ..plan.points import Point
    from .run import Run

_NAME = "pp-harness"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the `--pp` options, each as it is declared: as plain text."""
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


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Register the hooks that other plugins may implement."""
    from . import newhooks

    pluginmanager.add_hookspecs(newhooks)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options and refuse what cannot be run, before anything is collected."""
    if config.getoption("--pp") is None:
        return
    from ..errors import BadInputError
    from .run import Run

    try:
        run = Run(config)
    except BadInputError as error:
        raise pytest.UsageError(str(error)) from error
    config.pluginmanager.register(run, _NAME)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n auto` with --pp: no workers and no limit, the devices decide; else xdist decides."""
    return None if config.getoption("--pp") is None else 0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item per point for each test that asks for `pp_point`; one skipped item without --pp."""
    if POINT_FIXTURE not in metafunc.fixturenames:
        return
    run = metafunc.config.pluginmanager.get_plugin(_NAME)
    if run is None:
        # Not an empty set: what that means is for the user's ini file to say.
        skip = pytest.mark.skip(reason="give --pp to run this suite")
        metafunc.parametrize(POINT_FIXTURE, [pytest.param(None, marks=skip, id="without-pp")])
    else:
        metafunc.parametrize(POINT_FIXTURE, run.points, ids=lambda point: point.id)


@pytest.fixture
def pp_judge(request: pytest.FixtureRequest) -> "Callable[[str, Point], None]":
    """Judge one check of a point: pass, or fail with the finding; known findings are xfail."""
    run: Run | None = request.config.pluginmanager.get_plugin(_NAME)
    if run is None:
        pytest.skip("give --pp to run this suite")

    def judge(check: str, point: "Point") -> None:
        from ..checks.expectations import JudgementKind
        from ..report.terminal import explain

        judgement, record = run.judge(check, point, request.node)
        match judgement.kind:
            case JudgementKind.OK:
                pass
            case JudgementKind.EXPECTED:
                pytest.xfail(judgement.reason)
            case JudgementKind.NOT_APPLICABLE:
                pytest.skip(judgement.reason)
            case _:  # also a kind that we do not know: nothing but the above is no failure
                pytest.fail(explain(record, judgement.reason), pytrace=False)

    return judge
