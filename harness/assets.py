"""Where things lie: the harness's own data, beside the package or inside it, and what it keeps."""

from pathlib import Path

import platformdirs

_PACKAGE = Path(__file__).resolve().parent


def _data_dir(name: str) -> Path:
    """Return the folder `name` of the repository, or the copy that the wheel ships."""
    beside = _PACKAGE.parent / name
    # In site-packages a `patches/` is somebody else's: ours has pyproject.toml beside it.
    if beside.is_dir() and (_PACKAGE.parent / "pyproject.toml").is_file():
        return beside
    return _PACKAGE / "_data" / name


def patches_dir() -> Path:
    """Return the folder that holds the patch series."""
    return _data_dir("patches")


def suites_dir() -> Path:
    """Return the folder that holds the pytest suites that users run."""
    return _data_dir("suites")


def default_store() -> Path:
    """Return the folder that keeps captures and variant trees where the user names no other."""
    return platformdirs.user_cache_path("pp-harness")
