"""Where the data that belongs to the harness lies: beside the package in a checkout, inside it in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _data_dir(name: str) -> Path:
    """Return the folder `name` of the repository, or the copy that the wheel ships."""
    beside = _PACKAGE.parent / name
    # A site-packages directory may hold somebody else's `patches/`: ours has pyproject.toml beside it.
    if beside.is_dir() and (_PACKAGE.parent / "pyproject.toml").is_file():
        return beside
    return _PACKAGE / "_data" / name


def patches_dir() -> Path:
    """Return the folder that holds the patch series."""
    return _data_dir("patches")


def suites_dir() -> Path:
    """Return the folder that holds the pytest suites that users run."""
    return _data_dir("suites")
