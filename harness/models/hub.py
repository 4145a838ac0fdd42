"""Whether the Hugging Face hub says anything at all: its own client waits without a limit."""

import os
import urllib.error
import urllib.request

_HUB = "https://huggingface.co"
_SECONDS = 20


def is_silent() -> bool:
    """Whether the hub takes a connection, or the attempt of one, and does not answer in time.

    A hub that answers, with an error too, or that refuses the connection is not silent: its client
    says what is wrong, or takes what it has kept.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or _HUB
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    if offline or not endpoint.startswith(("http://", "https://")):
        return False
    request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 - http, see above
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310 - as above
            return False
    except TimeoutError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, TimeoutError)
    except (OSError, ValueError):
        return False
