"""The vLLM under test: the pins in `patches/pins.toml`, and the installed release.

Nothing here imports vLLM or torch: an installation is read from its metadata.
"""

import base64
import csv
import importlib.metadata
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, StringConstraints

from ..assets import patches_dir
from ..errors import BadInputError
from ..files import read_toml, sha256_of

PINS_FILE = "pins.toml"

_Version = Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)+([a-z0-9.]*)$")]
_FolderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_PythonVersion = Annotated[str, StringConstraints(pattern=r"^3\.\d+$")]
_Device = Annotated[str, StringConstraints(pattern=r"^(cpu|cuda)$")]
_PathBelowVllm = Annotated[str, StringConstraints(pattern=r"^vllm/[^\\]+$")]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_ExactVersion = Annotated[str, StringConstraints(pattern=r"^[a-z-]+==\d+(\.\d+)+$")]
# The distribution that has a release's Python files, which are the same for all devices.
RELEASE = "vllm"
# Parts the version of a release from that of the one whose compiled files it has.
LENT = "+compiled."


@dataclass(frozen=True)
class Pin:
    """A vLLM release: the packages to install for it, and the files that identify it.

    `distributions` maps a device (`cpu`, `cuda`) to the name of the distribution; `requirements`
    are what an engine needs beside it; `overrides` maps a device to the requirements that uv needs
    as overrides to install it; `series` names the folder of the series for it; `files` maps each
    file that a series of ours touches to its sha256; `python` is the oldest that the release
    supports. For a device that the release was not built for, `compiled` names the release whose
    compiled files serve (compose.py).
    """

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    version: _Version
    series: _FolderName
    distributions: Annotated[Mapping[_Device, str], Field(min_length=1)]
    requirements: tuple[str, ...] = ()
    overrides: Mapping[_Device, tuple[str, ...]] = field(default_factory=dict)
    compiled: Mapping[_Device, _ExactVersion] = field(default_factory=dict)
    files: Mapping[_PathBelowVllm, _Sha256] = field(default_factory=dict)
    python: _PythonVersion = "3.10"

    def requirements_for(self, device: str) -> tuple[str, ...]:
        """Return the requirements of an environment of this pin, vLLM first."""
        release = f"{self.distributions[device]}=={self.version}"
        return (self.compiled.get(device, release), *self.requirements)

    def build(self, device: str) -> str:
        """Name the distribution for a device, and the release that lends its compiled files."""
        lender = self.compiled.get(device)
        if lender is None:
            return self.distributions[device]
        return f"{RELEASE}, compiled files of {lender.replace('==', ' ')}"

    def install_command(self, device: str | None = None) -> str:
        """Return the command that makes an environment for this pin: on `device`, else its first.

        The first device is what `pin install` takes by default.
        """
        command = f"pp-harness pin install {self.version}"
        if device in (None, next(iter(self.distributions))):
            return command
        return f"{command} --device {device}"


@dataclass(frozen=True)
class Pins:
    """All pins, and the default for users who name none."""

    default: Pin
    all: tuple[Pin, ...]

    def get(self, version: str | None) -> Pin:
        """Return the pin of `version`, the default without one.

        Raises `BadInputError`, naming the known ones.
        """
        if not version:
            return self.default
        for pin in self.all:
            if pin.version == version:
                return pin
        known = ", ".join(pin.version for pin in self.all)
        raise BadInputError(f"no pin for vLLM {version}; known: {known}")


@dataclass(frozen=True)
class InstalledVllm:
    """An installed vLLM: its version and distribution, and the folders of both.

    `python` is the interpreter of the environment that holds it; None: the controller's own. A
    local label of the version says `compiled.0.32.0` where another release lends compiled files.
    """

    version: str
    distribution: str
    package_dir: Path
    dist_info_dir: Path
    python: Path | None = None

    @property
    def release(self) -> str:
        """The version without its local label: `0.20.2` for `0.20.2+cpu`."""
        return self.version.partition("+")[0]

    @property
    def lender(self) -> str | None:
        """The release whose compiled files it has, if they are not its own."""
        return self.version.partition(LENT)[2] or None

    @property
    def is_cpu(self) -> bool:
        """Whether this is a build for CPU: its own distribution, or a local label that says so."""
        return "cpu" in self.distribution or "cpu" in self.version.partition("+")[2]

    @property
    def restore_command(self) -> str:
        """A command that puts the release's own files back.

        uv's cache is cleaned first: its files are hard-linked to the installed ones, so an edit in
        place has changed them too.
        """
        if self.lender:
            return (
                f"uv cache clean {RELEASE} {self.distribution} && "
                f"pp-harness pin install {self.release} --again"
            )
        python = f"--python {self.python} " if self.python else ""
        return (
            f"uv cache clean {self.distribution} && uv pip install {python}--reinstall --no-deps "
            f"'{self.distribution}=={self.release}'"
        )

    def package_version(self, name: str) -> str | None:
        """Return the version of a package in the environment that holds this vLLM, if it has it."""
        path = sys.path if self.python is None else [str(self.dist_info_dir.parent)]
        installed = importlib.metadata.distributions(name=name, path=path)
        return next((distribution.version for distribution in installed), None)


@dataclass(frozen=True)
class RecordedFile:
    """A row of the distribution's RECORD: the sha256 (hex) and the size of one file."""

    sha256: str
    size: int


@dataclass(frozen=True)
class _PinsDocument:
    """The content of `pins.toml`."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")

    default: str
    pin: Annotated[tuple[Pin, ...], Field(min_length=1)]


def load_pins(folder: Path | None = None) -> Pins:
    """Read `pins.toml` in `folder`, that of our patches if None.

    Raises `BadInputError`, naming the file and the entry.
    """
    path = (folder or patches_dir()) / PINS_FILE
    document = read_toml(path, _PinsDocument)
    versions = [pin.version for pin in document.pin]
    if document.default not in versions:
        raise BadInputError(f"{path}: default {document.default!r} is not among the pins")
    if len(set(versions)) != len(versions):
        raise BadInputError(f"{path}: a version has two pins")
    return Pins(default=document.pin[versions.index(document.default)], all=document.pin)


def locate_vllm(
    pin: Pin, search_path: Sequence[Path] | None = None, python: Path | None = None
) -> InstalledVllm:
    """Find the installed vLLM that `pin` names, in this environment or on `search_path`.

    `python` is the interpreter of the environment that `search_path` is of.

    Raises `BadInputError` if none is installed, if it has another version, or if a file that the
    pin knows differs from the release; the message names what is installed and what to run.
    """
    releases = installed_releases(pin, search_path)
    if not releases:
        names = " or ".join(sorted(set(pin.distributions.values())))
        raise BadInputError(
            f"vLLM {pin.version} is required, but no {names} is installed; "
            f"run: {pin.install_command()}"
        )
    if len(releases) > 1:
        listed = " and ".join(
            f"{each.distribution} {each.version} in {each.package_dir.parent}" for each in releases
        )
        raise BadInputError(f"{listed} are both installed; keep one alone in this environment")
    installed = replace(releases[0], python=python)
    if installed.release != pin.version:
        raise BadInputError(
            f"vLLM {pin.version} is required, found {installed.distribution} {installed.version} "
            f"in {installed.package_dir.parent}; run: {pin.install_command()}"
        )
    lenders = {lender.partition("==")[2] for lender in pin.compiled.values()}
    if installed.lender is not None and installed.lender not in lenders:
        raise BadInputError(
            f"vLLM {pin.version} in {installed.package_dir.parent} has the compiled files of "
            f"{installed.lender}, which the pin does not name; run: {installed.restore_command}"
        )
    if not (installed.package_dir / "__init__.py").is_file():
        raise BadInputError(
            f"{installed.distribution} {installed.version} has no package at "
            f"{installed.package_dir} (an editable install?); run: {installed.restore_command}"
        )
    _check_files(pin, installed)
    return installed


def age(version: str) -> tuple[list[int], bool]:
    """Order releases: v1.2.3rc1 comes before v1.2.3, and that before v1.2.3.post1."""
    release, candidate, _ = version.partition("rc")
    return [int(number) for number in re.findall(r"\d+", release)], not candidate


def renamed_metadata(info: Path, name: str, version: str) -> str:
    """Read the METADATA of a distribution under another name and version."""
    metadata = (info / "METADATA").read_text(encoding="utf-8")
    for key, value in (("Name", name), ("Version", version)):
        metadata = re.sub(rf"(?m)^{key}:.*$", f"{key}: {value}", metadata, count=1)
    return metadata


def read_record(installed: InstalledVllm) -> dict[str, RecordedFile]:
    """Read the files of the package from the distribution's RECORD, `.pyc` left out.

    Raises `BadInputError` if RECORD is missing or cannot be read.
    """
    path = installed.dist_info_dir / "RECORD"
    files: dict[str, RecordedFile] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for name, digest, size in csv.reader(stream):
                # Installers add rows of their own (scripts, .pyc) that differ from place to place.
                if not name.startswith("vllm/") or name.endswith(".pyc") or ".." in name.split("/"):
                    continue
                algorithm, _, value = digest.partition("=")
                if algorithm != "sha256":
                    raise ValueError(f"{name} has no sha256")
                raw = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
                files[name] = RecordedFile(raw.hex(), int(size))
    except (OSError, ValueError, csv.Error) as error:
        raise BadInputError(
            f"{path}: cannot be read ({error}); reinstall {installed.distribution}"
        ) from error
    if not files:
        raise BadInputError(f"{path}: lists no file of vLLM; reinstall {installed.distribution}")
    return files


def installed_releases(pin: Pin, search_path: Sequence[Path] | None = None) -> list[InstalledVllm]:
    """List the installed distributions of the pin, of any version and unchecked.

    Raises `BadInputError` for metadata without a version.
    """
    path = sys.path if search_path is None else [str(entry) for entry in search_path]
    releases: list[InstalledVllm] = []
    for name in sorted(set(pin.distributions.values())):
        # The first of a name is the one that Python would import.
        for distribution in importlib.metadata.distributions(name=name, path=path):
            root = Path(str(distribution.locate_file("")))
            if "Version" not in distribution.metadata:
                raise BadInputError(f"{root}: the metadata of {name} has no version; reinstall it")
            dist_info = root / f"{name.replace('-', '_')}-{distribution.version}.dist-info"
            releases.append(InstalledVllm(distribution.version, name, root / "vllm", dist_info))
            break
    return releases


def _check_files(pin: Pin, installed: InstalledVllm) -> None:
    for name, expected in pin.files.items():
        path = installed.package_dir.parent / name
        if not path.is_file():
            raise BadInputError(f"{path}: missing; run: {installed.restore_command}")
        if (actual := sha256_of(path)) != expected:
            raise BadInputError(
                f"{path}: differs from vLLM {pin.version} (sha256 {actual[:12]}..., the pin has "
                f"{expected[:12]}...); run: {installed.restore_command}"
            )
