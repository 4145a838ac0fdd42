"""Which packages go into a bundle: resolved by uv from the constraints, less what is there."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from harness.errors import BadInputError
from harness.source.pin import Pin

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Every glibc of the last years; vLLM's own wheels ask for 2.28 to 2.35.
PLATFORM = "x86_64-manylinux_2_35"


# What a bundle's folder says of its content: Python, packages, what was slimmed, the project.
STAMP = "site.json"


@dataclass(frozen=True)
class Plan:
    """Versions by package name: what the bundle holds, and what the target is to have already."""

    bundled: Mapping[str, str]
    left_out: Mapping[str, str]


def read_have(path: Path) -> dict[str, str | None]:
    """Return what the target has, from `pip freeze`'s format: version by name.

    A line without a version (`name`, or `name @ url`) says that the package is there and takes it
    as it is; `install.sh` will say on the target what it found.

    Raises:
        BadInputError: the file cannot be read, or a line is no requirement.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"--have {path}: cannot be read: {error}") from error
    have: dict[str, str | None] = {}
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text or text.startswith("-"):
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            raise BadInputError(
                f"{path}:{number}: {text!r} is no line of `pip freeze` (name==version)"
            ) from None
        pinned = [one.version for one in requirement.specifier if one.operator == "=="]
        have[canonicalize_name(requirement.name)] = pinned[0] if pinned else None
    return have


def read_bundle(folder: Path) -> dict[str, str]:
    """Return what the bundle in `folder` brings: version by name.

    Raises:
        BadInputError: no bundle was built there.
    """
    try:
        _, packages, *_ = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        return {str(name): str(version) for name, version in packages.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise BadInputError(
            f"--upon {folder}: holds no bundle ({error}); build it there first"
        ) from error


def requirements(project: Path, pin: Pin) -> list[str]:
    """Return what to install: the project's CUDA extra with the vLLM of `pin`, and pytest-xdist.

    Raises:
        BadInputError: the pin has no CUDA distribution.
    """
    if "cuda" not in pin.distributions:
        raise BadInputError(f"--pin {pin.version}: patches/pins.toml names no CUDA distribution")
    table = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = table["optional-dependencies"]
    vllm = pin.distributions["cuda"]
    others = [one for one in extras["cuda"] if Requirement(one).name != vllm]
    return [*table["dependencies"], *extras["xdist"], *others, f"{vllm}=={pin.version}"]


def resolve(
    wanted: Sequence[str],
    constraints: Path,
    overrides: Sequence[str],
    have: Mapping[str, str | None],
    without: Iterable[str],
    python: str,
) -> Plan:
    """Resolve `wanted` for a CPython on x86-64 Linux.

    Everything has its version in `constraints`, except that a version that the target has stays
    where the requirements allow it: replacing torch for a patch release would cost gigabytes.

    Raises:
        BadInputError: uv finds no solution, or is not there.
    """
    pinned = {
        canonicalize_name(one.name): str(one)
        for one in map(Requirement, constraints.read_text(encoding="utf-8").splitlines())
        if one.marker is None or one.marker.evaluate(_marker(python))
    }
    # 2.11.0+cu130 is the release 2.11.0; the local label says how it was built.
    kept = {name: version.partition("+")[0] for name, version in have.items() if version}
    while True:
        solution = _compile(
            wanted,
            [line for name, line in pinned.items() if name not in kept],
            overrides,
            without,
            kept,
            python,
        )
        # What cannot stay as it is there takes the version that was tested.
        refused = [name for name in kept if name in solution and solution[name] != kept[name]]
        if not refused:
            break
        for name in refused:
            del kept[name]
    unversioned = {name for name, version in have.items() if version is None}
    left_out = {n: v for n, v in solution.items() if n in unversioned or n in kept}
    bundled = {n: v for n, v in solution.items() if n not in left_out}
    return Plan(bundled, left_out)


def _marker(python: str) -> dict[str, str]:
    return {
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }


def _compile(
    wanted: Sequence[str],
    constraints: Sequence[str],
    overrides: Sequence[str],
    without: Iterable[str],
    preferred: Mapping[str, str],
    python: str,
) -> dict[str, str]:
    """Return uv's solution; of several versions that are allowed, the preferred one."""
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "in": wanted,
            "constraints": constraints,
            "overrides": overrides,
            "excludes": list(without),
            # uv reads an output that is there already as preferences.
            "out": [f"{name}=={version}" for name, version in preferred.items()],
        }
        paths = {name: Path(folder) / f"{name}.txt" for name in files}
        for name, lines in files.items():
            paths[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
        run_uv(
            [
                *("pip", "compile", "--quiet", str(paths["in"]), "-o", str(paths["out"])),
                *("--constraints", str(paths["constraints"])),
                *("--overrides", str(paths["overrides"]), "--excludes", str(paths["excludes"])),
                *("--python-version", python, "--python-platform", PLATFORM),
                *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
            ],
            "no set of packages fits",
        )
        found = [Requirement(line) for line in paths["out"].read_text().splitlines() if line]
    return {canonicalize_name(one.name): next(iter(one.specifier)).version for one in found}


def run_uv(arguments: Sequence[str], problem: str) -> None:
    """Run uv; raise `BadInputError` that begins with `problem` if it is missing or fails."""
    try:
        subprocess.run(["uv", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise BadInputError("uv is needed to build a bundle; install uv 0.10 or newer") from None
    except subprocess.CalledProcessError as error:
        raise BadInputError(f"{problem}: {error.stderr.strip()}") from error
