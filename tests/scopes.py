"""Which tests one worker of pytest-xdist runs, for they share engines or fixtures."""

from pathlib import PurePosixPath

# Folders whose tests share captures and imports of vLLM, and their files that share none of them.
SHARED, ALONE = ("real", "faults"), ("test_second_pin.py", "test_selftest.py")


def scope_of(nodeid):
    """Return the scope of a test: its folder where engines are shared, else its file."""
    path = PurePosixPath(nodeid.partition("::")[0])
    shared = path.parent.name in SHARED and path.name not in ALONE
    return str(path.parent if shared else path)
