#!/bin/sh
# Install this bundle into a new folder, without a network:   sh install.sh FOLDER
#
# PYTHON names another Python than python3, PYTHONPATH the bundles that this one was built upon. What
# is missing or damaged is named, and nothing is installed before all is right.
set -eu
target=$(realpath -m "${1:?usage: sh install.sh FOLDER}")
cd "$(dirname "$0")"
"${PYTHON:-python3}" - <<'PYTHON'
import importlib.metadata
import sys

if "%d.%d" % sys.version_info[:2] != "@PYTHON@":
    sys.exit("install.sh: this bundle is for Python @PYTHON@; name one in PYTHON")
missing = []
for need in "@NEEDS@".split():
    name, _, planned = need.partition("==")
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        missing.append(name)
        continue
    if planned and version.partition("+")[0] != planned:
        print(f"install.sh: note: {name} is {version} here, planned with {planned}")
if missing:
    sys.exit(f"install.sh: not on this host, though --have named it: {', '.join(missing)}")
PYTHON
echo | @UNPACK@ --version >/dev/null # names the program if it is missing
sha256sum --check --quiet SHA256SUMS
mkdir -p "$(dirname "$target")" && mkdir "$target"
cut -c67- SHA256SUMS | xargs cat | @UNPACK@ | tar -x --no-same-owner -C "$target"
echo "install.sh: use it with: export PYTHONPATH=$target${PYTHONPATH:+:$PYTHONPATH}"
