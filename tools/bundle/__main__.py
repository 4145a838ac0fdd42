"""`python -m tools.bundle`: uv chooses and installs the packages; tar, zstd and split pack them."""

import argparse
import csv
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from harness.errors import BadInputError
from harness.source.pin import load_pins

PROJECT = Path(__file__).resolve().parents[2]
INSTALLER = Path(__file__).with_name("install.sh")
UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
# Any glibc of the last years; vLLM's own wheels ask for 2.28 to 2.35.
PLATFORM = "x86_64-manylinux_2_35"
PACK = """
set -euo pipefail
rm -f "$2"/bundle.part*
tar --sort=name --owner=0 --group=0 --exclude=./.lock -C "$1" -c . | $3 |
  split --bytes="$4" --numeric-suffixes=1 - "$2/bundle.part"
cd "$2" && sha256sum bundle.part* >SHA256SUMS && wc --bytes bundle.part*
"""


def main() -> None:
    """Build an offline install of the harness and a release of vLLM, as docs/gpu.md says."""
    parser = argparse.ArgumentParser(prog="python -m tools.bundle", description=main.__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the parts, SHA256SUMS and install.sh")
    add("--pin", metavar="VERSION", help="vLLM release (default: the default pin)")
    add("--python", default="3.12", help="Python of the host (default: %(default)s)")
    add("--constraints", type=Path, help="pinned versions (default: those of the pin)")
    add("--have", type=Path, nargs="+", default=[], help="what the host has, as pip freeze")
    add("--without", nargs="+", default=[], help="packages to leave out, with what only they need")
    add("--slim", nargs="+", default=[], help="globs of files and folders to leave out")
    add("--split", default="1G", help="largest size of a part (default: %(default)s)")
    add("--compress", default="zstd -q -T0 -12 --long=27", help="(default: %(default)s)")
    args = parser.parse_args()
    try:
        build(args)
    except (BadInputError, InvalidRequirement, OSError) as error:
        parser.exit(2, f"bundle: {error}\n")
    except subprocess.CalledProcessError as error:
        parser.exit(2, f"bundle: {Path(error.cmd[0]).name}: {error.stderr}")


def build(args: argparse.Namespace) -> None:
    """Choose, install, slim and pack; what is in the bundle stays listed in packages.txt."""
    pins = load_pins()
    pin = pins.get(args.pin)
    locked = "cuda.txt" if pin is pins.default else f"pins/{pin.version}-cuda.txt"
    constraints = args.constraints or PROJECT / "constraints" / locked
    have = {name: version for file in args.have for name, version in read_have(file).items()}
    same = [f"{name}=={version}" for name, version in have.items() if version]
    needs = [*same, *(name for name, version in have.items() if not version)]
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        site, chosen = Path(folder) / "site", args.out / "packages.txt"
        lists = {
            "wanted": [f"pp-harness[xdist] @ {PROJECT.as_uri()}", *pin.requirements_for("cuda")],
            "overrides": pin.overrides.get("cuda", ()),
            "excludes": [*args.without, *(name for name, version in have.items() if not version)],
            # uv prefers the versions of its last output, where constraints leave it a choice.
            "output-file": same,
        }
        files = {name: Path(folder) / f"{name}.txt" for name in lists}
        for name, lines in lists.items():
            files[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
        wanted = files.pop("wanted")
        options = [f"--{name}={file}" for name, file in files.items()]
        host = [f"--python-version={args.python}", f"--python-platform={PLATFORM}", "--quiet"]
        options += [f"--constraints={constraints}", "--no-annotate", "--no-header"]
        run(UV, "pip", "compile", wanted, *options, *host)
        solution = files["output-file"].read_text(encoding="utf-8").splitlines()
        lines = [f"{line}\n" for line in solution if line not in same]
        chosen.write_text("".join(lines), encoding="utf-8")
        # uv links files from its cache otherwise, and tar fails when another uv changes the links.
        install = ("--no-deps", "--link-mode=copy", f"--target={site}", f"--requirements={chosen}")
        run(UV, "pip", "install", *install, *host)
        slim(site, args.slim)
        run("bash", "-c", PACK, "pack", site, args.out, args.compress, args.split)
    script = INSTALLER.read_text(encoding="utf-8").replace("@PYTHON@", args.python)
    script = script.replace("@UNPACK@", args.compress.split()[0] + " -dc")
    (args.out / "install.sh").write_text(script.replace("@NEEDS@", " ".join(needs)), "utf-8")


def read_have(file: Path) -> dict[str, str | None]:
    """Packages with their versions; None where a line names none (`name`, `name @ url`).

    A local label says how a release was built and is dropped: 2.11.0+cu130 is 2.11.0.
    """
    lines = (line.partition("#")[0].strip() for line in file.read_text("utf-8").splitlines())
    packages = [Requirement(line) for line in lines if line and not line.startswith("-")]
    return {
        canonicalize_name(package.name): str(package.specifier).partition("+")[0][2:] or None
        for package in packages
    }


def slim(site: Path, globs: list[str]) -> None:
    """Remove what the globs match at any depth, and the lines of RECORD of what is gone."""
    for glob in globs:
        matches = list(site.rglob(glob))
        if not matches:
            raise BadInputError(f"--slim {glob}: matches no installed file or folder")
        for path in matches:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for record in site.glob("*.dist-info/RECORD"):
        with record.open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.reader(stream) if (site / row[0]).exists()]
        with record.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)


def run(*command: str | Path) -> None:
    """Run a program; `CalledProcessError` has what it says."""
    subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)


if __name__ == "__main__":
    main()
