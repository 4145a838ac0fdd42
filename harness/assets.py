"""Where things lie: the harness's own data, beside the package or inside it, and what it keeps."""

import os
from pathlib import Path

import platformdirs

# Names another folder for the environments of pins.
ENVIRONMENTS_VARIABLE = "PP_HARNESS_PINS"

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


def constraints_dir() -> Path:
    """Return the folder that holds the exact versions of each pin's environment."""
    return _data_dir("constraints")


def default_environments() -> Path:
    """Return the folder that keeps the environments of pins where the user names no other."""
    named = os.environ.get(ENVIRONMENTS_VARIABLE)
    return Path(named) if named else platformdirs.user_data_path("pp-harness") / "pins"


def default_store() -> Path:
    """Return the folder that keeps captures and variant trees where the user names no other."""
    return platformdirs.user_cache_path("pp-harness")
