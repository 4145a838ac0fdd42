"""Environments of pins: releases need different versions of many packages, so each has its own.

An environment is a folder `<version>-<device>` with a virtual environment. uv makes it from the
pin's constraints, aside, and it is renamed when it is whole. The controller's own environment needs
no vLLM: engines run with the interpreter of the environment that holds it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from ..assets import constraints_dir, default_environments
from ..errors import BadInputError
from ..files import building, whole_folder
from .compose import compose
from .pin import RELEASE, InstalledVllm, Pin, installed_releases, locate_vllm

# What a user's or tox's settings for other installations would put into ours.
_FOREIGN = ("UV_CONSTRAINT", "UV_OVERRIDE", "UV_BUILD_CONSTRAINT", "UV_EXCLUDE", "VIRTUAL_ENV")
_LOCK_SECONDS = 1800


@dataclass(frozen=True)
class PinEnvironment:
    """The environment of a release for a device, at `path`; it need not exist."""

    device: str
    path: Path

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.path / "bin" / "python"

    @property
    def packages(self) -> list[Path]:
        """The folder that packages are installed into."""
        return sorted(self.path.glob("lib/python3.*/site-packages"))

    def locate(self, pin: Pin) -> InstalledVllm:
        """Return the vLLM in it; raises `BadInputError` if it is not that of `pin`."""
        return locate_vllm(pin, self.packages, self.python)


def environment_of(pin: Pin, device: str) -> PinEnvironment:
    """Name the place of a pin's environment, in the user's folder of them.

    Raises `BadInputError` if there is no distribution of the pin for the device.
    """
    if device not in pin.distributions:
        raise BadInputError(
            f"vLLM {pin.version} has no distribution for {device}; there is one for "
            f"{' and '.join(pin.distributions)}"
        )
    return PinEnvironment(device, default_environments().absolute() / f"{pin.version}-{device}")


def constraints_of(pin: Pin, device: str) -> Path:
    """Name the file with the exact versions of a pin's environment; it need not exist."""
    return constraints_dir() / "pins" / f"{pin.version}-{device}.txt"


def find_vllm(pin: Pin, device: str = "auto") -> InstalledVllm:
    """Find the vLLM of `pin`: in the controller's own environment, else in the pin's.

    `device` is auto, cpu or cuda.

    Raises:
        BadInputError: if it is in neither, or for both devices and none is named, or not what
            was released; the message has the command that fixes it.
    """
    here = installed_releases(pin)
    built_for = {"cpu" if vllm.is_cpu else "cuda" for vllm in here if vllm.release == pin.version}
    if built_for and (device == "auto" or device in built_for):
        return locate_vllm(pin)
    wanted = tuple(pin.distributions) if device == "auto" else (device,)
    environments = [environment_of(pin, name) for name in wanted]
    made = [environment for environment in environments if environment.path.is_dir()]
    if len(made) > 1:
        devices = " and ".join(environment.device for environment in made)
        raise BadInputError(
            f"vLLM {pin.version} is installed for {devices}; say which with --pp-device"
        )
    if not made:
        for_device = "" if device == "auto" else f" for {device}"
        listed = " and ".join(f"{vllm.distribution} {vllm.version}" for vllm in here)
        raise BadInputError(
            f"vLLM {pin.version}{for_device} is not installed: this environment has "
            f"{listed or 'no vLLM'}, and there is none in {environments[0].path}; "
            f"run: {pin.install_command(None if device == 'auto' else device)}"
        )
    (environment,) = made
    if not environment.python.exists():
        raise BadInputError(
            f"{environment.python}: the Python that this environment was made with is gone; run: "
            f"{pin.install_command(environment.device)} --again"
        )
    return environment.locate(pin)


def install_pin(pin: Pin, environment: PinEnvironment, *, again: bool = False) -> InstalledVllm:
    """Make the environment of a pin and return the vLLM in it; an existing one is left alone.

    `again` replaces an existing environment. It appears whole or not at all.

    Raises:
        BadInputError: if uv or the constraints are missing, uv fails, or it installed
            something else than the pin names.
    """
    constraints = constraints_of(pin, environment.device)
    if not constraints.is_file():
        raise BadInputError(
            f"{constraints}: not there; compile it with: pp-harness pin lock {pin.version} "
            f"--device {environment.device}"
        )
    path = environment.path
    with building(path, _LOCK_SECONDS):
        if again or not path.is_dir():
            with whole_folder(path) as new:
                _build(pin, replace(environment, path=new), constraints)
    return environment.locate(pin)


def lock_pin(pin: Pin, device: str, *, upgrade: bool = False) -> Path:
    """Compile the exact versions of a pin's environment and return the file that holds them.

    The file is for the release's oldest Python and later, and names versions only, no index and
    no address. What it holds already is kept, unless `upgrade`.

    Raises `BadInputError` if uv is missing or finds no versions that fit together.
    """
    target = constraints_of(pin, device)
    target.parent.mkdir(parents=True, exist_ok=True)
    options = [
        *("--universal", "--python-version", pin.python, "--quiet", "--no-header", "--no-annotate"),
        *("--no-emit-index-url", "--no-emit-find-links", *(["--upgrade"] if upgrade else [])),
    ]
    with tempfile.TemporaryDirectory() as folder:
        listed, overrides = _requirements(pin, device, Path(folder))
        run_uv("pip", "compile", listed, "--overrides", overrides, *options, "-o", target)
    return target


def _build(pin: Pin, environment: PinEnvironment, constraints: Path) -> None:
    # Relocatable: it is renamed when whole.
    run_uv("venv", "--quiet", "--relocatable", "--python", sys.executable, environment.path)
    with tempfile.TemporaryDirectory() as folder:
        listed, overrides = _requirements(pin, environment.device, Path(folder))
        where = ("--quiet", "--python", environment.python, "--constraints", constraints)
        run_uv("pip", "install", *where, "--overrides", overrides, "--requirements", listed)
    if environment.device in pin.compiled:
        _put_on_lender(pin, environment)
    try:
        environment.locate(pin)
    except BadInputError as error:
        # uv's cache is linked to what it installed before: an edit in place has changed that too.
        difference = str(error).partition("; run:")[0]
        raise BadInputError(
            f"uv installed something else than vLLM {pin.version} ({difference}); run: "
            f"uv cache clean {pin.distributions[environment.device]}, and try again"
        ) from error


def _put_on_lender(pin: Pin, environment: PinEnvironment) -> None:
    """Put the release's own Python files on the compiled files that were just installed."""
    aside = environment.path / "release"
    where = ("--quiet", "--python", environment.python, "--no-deps", "--target", aside)
    run_uv("pip", "install", *where, f"{RELEASE}=={pin.version}")
    (lender,) = installed_releases(pin, environment.packages)
    (release,) = installed_releases(pin, [aside])
    compose(lender, release)
    shutil.rmtree(aside)


def _requirements(pin: Pin, device: str, folder: Path) -> tuple[Path, Path]:
    """Write the requirements and the overrides of a pin as files for uv."""
    listed, overrides = folder / "requirements.txt", folder / "overrides.txt"
    listed.write_text("\n".join(pin.requirements_for(device)) + "\n", encoding="utf-8")
    overrides.write_text("\n".join(pin.overrides.get(device, ())) + "\n", encoding="utf-8")
    return listed, overrides


def run_uv(*arguments: str | Path, text: str = "") -> str:
    """Run uv, with the user's index settings and none for other installations.

    `text` is its input, and its output is returned.

    Raises:
        BadInputError: if it is missing or fails; the message has its reason.
    """
    program = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if program is None:
        raise BadInputError(
            "uv is not installed, and it makes the environments of pins; run: "
            "python -m pip install uv"
        )
    env = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    done = subprocess.run(
        [program, *arguments], check=False, env=env, capture_output=True, text=True, input=text
    )
    if done.returncode:
        command = " ".join(str(word) for word in arguments[:2] if not str(word).startswith("-"))
        raise BadInputError(
            f"uv {command} ended with status {done.returncode}: {_reason(done.stderr)}; "
            "nothing was left behind"
        )
    return done.stdout


def _reason(output: str) -> str:
    """Put uv's error in one line; it indents causes and draws trees."""
    words = (line.strip(" │├╰─▶×╭╮") for line in output.splitlines())  # noqa: RUF001
    return " ".join(word for word in words if word)[-600:] or "no reason given"
