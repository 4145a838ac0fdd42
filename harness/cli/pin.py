"""`pp-harness pin`: the environments of vLLM releases."""

from pathlib import Path

import click

from ..errors import BadInputError
from ..report.text import aligned
from ..source.environments import constraints_of, environment_of, find_vllm, install_pin, lock_pin
from ..source.pin import Pin, installed_releases, load_pins
from ..source.surface import check_surface

_VERSION = click.argument("version")
_DEVICE = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="What vLLM is built for; the pin's first device if left out.",
)


@click.group()
def pin() -> None:
    """Environments of vLLM releases.

    A pin is a release that the harness knows. Releases need different versions of many packages,
    so each has an environment of its own; `--pp-pin VERSION` measures it.
    """


@pin.command()
@_VERSION
@_DEVICE
@click.option("--again", is_flag=True, help="Replace an existing environment.")
def install(version: str, device: str | None, again: bool) -> None:
    """Make the environment of a release with uv, from the versions that the pin fixes.

    It lies in the folder that PP_HARNESS_PINS names, or in your data folder.
    """
    chosen = load_pins().get(version)
    environment = environment_of(chosen, device or next(iter(chosen.distributions)))
    made = install_pin(chosen, environment, again=again)
    click.echo(f"{made.distribution} {made.version} in {environment.path}")


@pin.command(name="list")
def list_() -> None:
    """List the releases: for each device its distribution, where it is installed, its series."""
    pins = load_pins()
    rows = [("version", "device", "distribution", "series", "installed")]
    for each in pins.all:
        version = f"{each.version} (default)" if each is pins.default else each.version
        rows += [
            (version, device, each.build(device), each.series, _place(each, device))
            for device in each.distributions
        ]
    click.echo("\n".join(aligned(rows)))


@pin.command()
@_VERSION
@_DEVICE
@click.option("--upgrade", is_flag=True, help="Take the newest versions, not the present ones.")
def lock(version: str, device: str | None, upgrade: bool) -> None:
    """Compile the exact versions of a release's environment; part of adding a pin."""
    chosen = load_pins().get(version)
    for each in (device,) if device else tuple(chosen.distributions):
        click.echo(lock_pin(chosen, each, upgrade=upgrade))


@pin.command()
@click.argument("release", metavar="VERSION|DIR")
@_DEVICE
@click.pass_context
def check(context: click.Context, release: str, device: str | None) -> None:
    """Check that the hooks fit a vLLM: that it has every name that they rely on.

    VERSION is an installed pin. DIR holds the package vllm: a checkout, an unpacked wheel or source
    archive, a site-packages folder. Only source is read; nothing is imported.
    """
    folder = _package_folder(release, device)
    findings = check_surface(folder)
    missing = [finding for finding in findings if finding.problem]
    for finding in missing:
        used = f"for {finding.need}; harness/engine/{finding.used_by}"
        click.echo(f"{finding.name}: {finding.problem} ({used})")
    present = len(findings) - len(missing)
    click.echo(f"{present} of {len(findings)} names that the hooks rely on are in {folder}")
    if missing:
        context.exit(1)


def _package_folder(release: str, device: str | None) -> Path:
    """Find the folder that holds the package of a release."""
    folder = Path(release)
    if not folder.is_dir():
        if "/" in release:
            raise BadInputError(f"{release}: no folder is there; name one that holds vllm/")
        return find_vllm(load_pins().get(release), device or "auto").package_dir.parent
    if not (folder / "vllm" / "__init__.py").is_file():
        raise BadInputError(f"{release}: holds no vllm/__init__.py; name the folder above vllm/")
    return folder


def _place(chosen: Pin, device: str) -> str:
    """Name the place where a release is installed for a device, or the reason why it is not."""
    name = chosen.distributions[device]
    for vllm in installed_releases(chosen):
        if (vllm.distribution, vllm.release) == (name, chosen.version):
            return f"{vllm.package_dir.parent} (this environment)"
    environment = environment_of(chosen, device)
    if environment.path.is_dir():
        return str(environment.path)
    return "no" if constraints_of(chosen, device).is_file() else "no (and no constraints)"
