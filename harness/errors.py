"""The errors that the harness raises on purpose. Everything else is a bug in the harness."""


class HarnessError(Exception):
    """Base of every deliberate error; the message names the thing and the cure."""


class BadInputError(HarnessError):
    """The user handed over something unusable. The CLI ends with status 2, pytest with status 4."""
