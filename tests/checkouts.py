"""Git checkouts of vLLM for tests: a tiny one, and one of the installed release's own source."""

import os
import shutil
import subprocess

from harness.assets import patches_dir
from harness.source.pin import read_record

OPS = """
ops.def("kept(Tensor x) -> Tensor");
ops.def(
    "changed(Tensor x, int n) "
    "-> Tensor", &changed);
ops.def("inferred", &inferred);
"""
FILES = {
    "vllm/__init__.py": "import vllm.a\n",
    "vllm/_custom_ops.py": "ops = 1\n",
    "vllm/a.py": "one\ntwo\nthree\n",
    "vllm/b.py": "b = 1\n",
    "vllm/left_out.md": "not in the wheel\n",
    "vllm/model_executor/models/m.py": "m = 1\n",
    "csrc/ops.cu": "// ops\n",
    "csrc/cpu/ops.cpp": OPS,
    "cmake/utils.cmake": "# utils\n",
    "docs/readme.md": "docs\n",
}
# A user's own configuration has no say in a test.
_ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}


class Checkout:
    """A git repository at `path`."""

    def __init__(self, path):
        self.path = path

    def git(self, *arguments):
        """Run git in the repository and return what it prints."""
        command = ["git", "-C", str(self.path), "-c", "user.name=T", "-c", "user.email=t@t.t"]
        done = subprocess.run(
            [*command, *arguments], check=True, capture_output=True, text=True, env=_ENVIRONMENT
        )
        return done.stdout.strip()

    def init(self):
        """Start an empty repository."""
        self.path.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")
        return self

    def write(self, name, text):
        """Write a file of the work tree."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def commit(self, files=(), message="change"):
        """Write files, commit all of the work tree and return the commit."""
        for name, text in dict(files).items():
            self.write(name, text)
        self.git("add", "-A", "-f")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def snapshot(self):
        """Return all that a write to the repository or its work tree would change."""
        return {
            path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
            for path in sorted(self.path.rglob("*"))
        }


def release_checkout(path, installed):
    """Make a checkout of the installed release: tagged, 0001 of the series committed, 0002 not.

    With 0001 an op is declared otherwise than in the release.
    """
    checkout = Checkout(path).init()
    root = installed.package_dir.parent
    for name in read_record(installed):
        if not name.endswith(".so"):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, path / name)
    checkout.commit({"csrc/cpu/ops.cpp": OPS}, "release")
    checkout.git("tag", f"v{installed.release}")
    first, second = sorted((patches_dir() / "gemma4-pp").glob("*.patch"))
    checkout.git("apply", str(first))
    checkout.commit({"csrc/cpu/ops.cpp": OPS.replace("int n", "int n, int m")}, "0001")
    checkout.git("apply", str(second))
    return checkout
