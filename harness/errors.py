"""The errors that the harness raises on purpose. Everything else is a bug in the harness."""


class HarnessError(Exception):
    """Base of every deliberate error; the message names the thing and the fix."""


class BadInputError(HarnessError):
    """The user handed over something unusable. The CLI ends with status 2, pytest with status 4."""


def first_line(error: BaseException) -> str:
    """Give the first line of an error's text, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
