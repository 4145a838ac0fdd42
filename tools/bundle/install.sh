#!/bin/sh
# Install this bundle into a folder, without a network:
#
#   sh install.sh FOLDER        then: PYTHONPATH=FOLDER python3 -m pytest ...
#
# Every part is verified first; what is missing or damaged is named, and nothing is installed.
# Send those parts again and run it again. PYTHON names the interpreter (default: python3). A bundle
# that was built --upon another is installed with PYTHONPATH=FOLDER of the other.
set -eu
cd "$(dirname "$0")" && here=$PWD && cd "$OLDPWD"
python=${PYTHON:-python3}
[ $# -eq 1 ] || { sed -n '2,9p' "$here/install.sh" >&2; exit 2; }
case $1 in /*) target=$1 ;; *) target=$PWD/$1 ;; esac

found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || {
  echo "install.sh: $python does not run; name a Python @PYTHON@ in PYTHON" >&2
  exit 2
}
[ "$found" = "@PYTHON@" ] || {
  echo "install.sh: this bundle is for Python @PYTHON@, $python is $found; name another in PYTHON" >&2
  exit 2
}

[ -f "$here/SHA256SUMS" ] || { echo "install.sh: SHA256SUMS is missing beside it" >&2; exit 1; }
bad=0
parts=
while read -r sum name; do
  case $name in *.part*) parts="$parts $name" ;; esac
  if [ ! -f "$here/$name" ]; then
    echo "install.sh: $name is missing" >&2
    bad=1
  elif ! echo "$sum  $here/$name" | sha256sum --check --status; then
    echo "install.sh: $name is damaged ($(wc -c <"$here/$name") bytes); send it again" >&2
    bad=1
  fi
done <"$here/SHA256SUMS"
[ $bad = 0 ] || { echo "install.sh: nothing was installed" >&2; exit 1; }

if [ -f "$target/.bundle" ] && cmp -s "$target/.bundle" "$here/SHA256SUMS"; then
  echo "install.sh: $target holds this bundle already"
elif [ -e "$target" ]; then
  echo "install.sh: $target holds something else; remove it or name another folder" >&2
  exit 2
else
  rm -rf "$target.partial"
  mkdir -p "$target.partial"
  # shellcheck disable=SC2086 # names of parts hold no blanks
  (cd "$here" && cat $parts) | "$python" -c '
import sys, tarfile
room = int(sys.argv[2])
def within(entry, folder):
    global room
    room -= entry.size
    if room < 0:
        sys.exit("install.sh: the parts hold more than the bundle was made of (@BYTES@ bytes)")
    return tarfile.data_filter(entry, folder)
with tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz") as archive:
    archive.extractall(sys.argv[1], filter=within)
' "$target.partial" "@BYTES@" || {
    rm -rf "$target.partial"
    echo "install.sh: nothing was installed" >&2
    exit 1
  }
  cp "$here/SHA256SUMS" "$target.partial/.bundle"
  mv "$target.partial" "$target"
  echo "install.sh: installed into $target"
fi

# What was left out because it was said to be there.
there=$target${PYTHONPATH:+:$PYTHONPATH}
PYTHONPATH=$there "$python" - "$here/needs.txt" <<'PYTHON'
import importlib.metadata
import sys

missing = []
for line in open(sys.argv[1], encoding="utf-8"):
    name, _, planned = line.strip().partition("==")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        missing.append(f"{name}=={planned}")
        continue
    if found.partition("+")[0] != planned:
        print(f"install.sh: note: {name} is {found} here, planned with {planned}")
if missing:
    print(
        f"install.sh: not on this machine, though the bundle counts on it: {', '.join(missing)}; "
        "build the bundle with a true --have",
        file=sys.stderr,
    )
    sys.exit(1)
PYTHON
echo "install.sh: use it with: export PYTHONPATH=$there"
