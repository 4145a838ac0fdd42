"""The checks of `series lint` beyond those of reading: headers, pins, and each prefix."""

from .pin import InstalledVllm, Pin, read_record
from .series import Patch, Series
from .tree import changed_files, check_installed


def header_problems(patch: Patch) -> list[str]:
    """List what the patch's header lacks, a line for each; none if it is complete."""
    required = (
        ("Subject", patch.subject, "what the patch does, in a line"),
        ("Upstream", patch.upstream, "the address of the change or the issue, or 'not submitted' "
         "and why"),
        ("Pins", patch.pins, "the vLLM releases that it is for"),
        ("Remove-when", patch.remove_when, "the condition under which it can go"),
    )  # fmt: skip
    problems = [
        f"{patch.path}: no {header} header ({meaning})"
        for header, value, meaning in required
        if not value
    ]
    if not patch.why:
        problems.append(f"{patch.path}: no explanation after the header (why the patch exists)")
    return problems


def check_applies(series: Series, pin: Pin, installed: InstalledVllm) -> list[str]:
    """Check each prefix of the series against the release; return the files that no digest pins.

    Raises `BadInputError`, naming patch, file and hunk, for the first that does not apply exactly,
    for a patch that is for other releases, and for an installed file that is not the release's.
    """
    record = read_record(installed)
    check_installed(installed, record)
    touched: set[str] = set()
    for variant in series.variants():
        touched |= set(changed_files(installed, record, variant))
    return sorted(name for name in touched if name in record and name not in pin.files)
