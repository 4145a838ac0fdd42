"""The Hugging Face hub: files of a checkpoint, without waiting for a hub that does not answer."""

import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from ..errors import BadInputError, first_line

_HUB = "https://huggingface.co"
_SECONDS = 20


def is_silent() -> bool:
    """Whether the hub takes a connection, or the attempt of one, and does not answer in time.

    Its own client would wait without a limit. A hub that answers, with an error too, or that
    refuses the connection is not silent: the client reports the error, or takes what it has kept.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or _HUB
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if offline or not endpoint.startswith(("http://", "https://")):
        return False
    request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 - http, see above
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310 - as above
            return False
    except (OSError, ValueError) as error:
        # urllib wraps what happens before the answer.
        return isinstance(getattr(error, "reason", error), TimeoutError)


def download(hub_id: str, patterns: Sequence[str]) -> Path:
    """Download the files of a checkpoint that match, or find them in the cache; return the folder.

    Raises:
        BadInputError: the hub does not give them, or its client is not installed.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise BadInputError(
            f"{hub_id} is a hub id, and huggingface_hub is not installed; install it, or give "
            "a local folder"
        ) from error
    # A silent hub's earlier downloads can be used all the same. The hub, its client and the
    # network fail in many ways; for the user they are one.
    options = {"local_files_only": True} if is_silent() else {}
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns), **options))
    except Exception as error:
        raise BadInputError(
            f"{hub_id} is no local folder and the hub does not give it ({first_line(error)}); "
            "check the name, log in if it is gated, or give a local folder"
        ) from error
