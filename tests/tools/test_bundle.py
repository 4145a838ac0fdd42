"""A bundle holds what the host lacks, in parts that prove themselves."""

import csv
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


def make_wheel(folder, name, version, *needs):
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{info}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
        f"{info}/METADATA": about + "".join(f"Requires-Dist: {need}\n" for need in needs),
        **dict.fromkeys((f"{name}/{file}" for file in ("_fa2.so", "_fa3.so", "inc/a.h")), ""),
        f"{info}/RECORD": "",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in files)
    stem = info.removesuffix(".dist-info")
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        for file, text in files.items():
            wheel.writestr(file, text)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Run the command where hollow wheels are all there is: those of constraints/cuda.txt."""
    wheels, cache = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("cache")
    needs = {"vllm": ("numpy", "cuda-tile", "flashinfer-python"), "flashinfer-python": ("nltk",)}
    for pin in map(Requirement, (ROOT / "constraints" / "cuda.txt").read_text().splitlines()):
        if pin.marker is None or pin.marker.evaluate():
            make_wheel(wheels, pin.name, str(pin.specifier)[2:], *needs.get(pin.name, ()))
    make_wheel(wheels, "vllm", "0.26.0")
    offline = {"UV_OFFLINE": "1", "UV_FIND_LINKS": str(wheels), "UV_CACHE_DIR": str(cache)}
    # The project's wheel is built by the hatchling of the tests.
    own = {"UV_NO_BUILD_ISOLATION": "1", "VIRTUAL_ENV": sys.prefix}

    def run(out, *options):
        command = [sys.executable, "-m", "tools.bundle", "--python", PYTHON, "--out", out]
        env = {**os.environ, **offline, **own}
        return subprocess.run(
            [*command, *options], cwd=ROOT, env=env, capture_output=True, text=True
        )

    return run


@pytest.fixture(scope="module")
def bundle(build, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundle")
    (out / "have.txt").write_text(
        "# image\nnumpy @ file:///x\n-e /x\nTorch==2.11.0+cu130\nclick==1\n"
    )
    leave = ["--without", "flashinfer-python", "--slim", "_fa2*", "vllm/inc"]
    done = build(out, "--pin", "0.20.2", "--have", out / "have.txt", *leave, "--split", "2M")
    assert done.returncode == 0, done.stderr
    return out


def install(bundle, target, **env):
    env = {"PATH": os.environ["PATH"], "PYTHON": sys.executable, **env}
    command = ["sh", bundle / "install.sh", target]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_bundle_holds_what_the_host_lacks(bundle):
    """Not the same version, nor any of a bare name, nor what only a package left out needs."""
    lines = (bundle / "packages.txt").read_text().splitlines()
    assert {"vllm==0.20.2", "transformers==5.8.0"} <= set(lines)
    names = {Requirement(line).name for line in lines}
    assert {"click", "cuda-tile", "pp-harness"} <= names
    assert not {"torch", "numpy", "flashinfer-python", "nltk"} & names


@pytest.mark.vllm  # installs beside torch, as on a host that has it
def test_parts_are_checked_and_joined_to_what_the_metadata_says(bundle, tmp_path):
    """All parts that are missing or damaged are named, and nothing is installed; RECORD is true."""
    parts = sorted(bundle.glob("bundle.part*"))
    whole = {part: part.read_bytes() for part in parts[:2]}
    parts[0].unlink()
    parts[1].write_bytes(whole[parts[1]][:-1])
    refused = install(bundle, tmp_path / "target")
    for part, content in whole.items():
        assert part.name in refused.stdout + refused.stderr
        part.write_bytes(content)
    assert refused.returncode == 1
    assert not (tmp_path / "target").exists()
    done = install(bundle, tmp_path / "target")
    assert done.returncode == 0, done.stderr
    assert "note: click is" in done.stdout
    for record in (tmp_path / "target").glob("*.dist-info/RECORD"):
        for name, *_ in csv.reader(record.read_text().splitlines()):
            assert (tmp_path / "target" / name).is_file()
    kept = {path.name for path in (tmp_path / "target" / "vllm").iterdir()}
    assert kept == {"_fa3.so"}


@pytest.mark.vllm  # installs beside torch, as on a host that has it
def test_a_second_bundle_counts_on_the_first(bundle, build, tmp_path):
    """It holds what differs, and installs only where PYTHONPATH names the first."""
    first, second = tmp_path / "first", tmp_path / "second"
    upon = ["--have", bundle / "have.txt", bundle / "packages.txt", "--compress", "gzip"]
    done = build(tmp_path, "--pin", "0.26.0", *upon)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "packages.txt").read_text() == "vllm==0.26.0\n"
    assert install(bundle, first).returncode == 0
    assert "not on this host, though --have named it: cuda-tile" in install(tmp_path, second).stderr
    assert not second.exists()
    done = install(tmp_path, second, PYTHONPATH=str(first))
    assert done.stdout.endswith(f"export PYTHONPATH={second}:{first}\n"), done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--have", "LICENSE"], "Apache License"),
        (["--pin", "0.1"], "no pin for vLLM 0.1"),
        (["--slim", "_fa4*"], "--slim _fa4*: matches no installed file"),
        (["--split", "5 parts"], "5 parts"),
        (["--constraints", "constraints/pins/0.26.0-cuda.txt"], "No solution"),
    ],
)
def test_bad_input_is_named(build, tmp_path, options, words):
    """One error, status 2, and no parts."""
    done = build(tmp_path, *options)
    assert (done.returncode, done.stderr.count("bundle: ")) == (2, 1), done.stderr
    assert words in done.stderr
    assert not list(tmp_path.glob("bundle.part*"))
