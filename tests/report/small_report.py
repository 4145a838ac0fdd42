"""A report of one check of one point, for histories and comparisons of reports."""

from harness.report.schema import CellRecord, FindingRecord, Report, VerdictRecord


def small_report(
    verdict="pass",
    *,
    check="logits",
    expected=False,
    reason="",
    codes=(),
    key="key",
    bits="bits",
    profile="parity",
    pin="0.20.2",
    **figures,
):
    """Build it; `codes` are (code, severity)."""
    place = {"variant": "fixed", "model": "ple", "pp": 2, "profile": profile, "pin": pin}
    judged = place | {"check": check}
    cells = [
        CellRecord(
            **place | {"pp": pp},
            id=f"fixed-ple-pp{pp}",
            status="ok",
            seconds={"total": 9.0},
            partition=None,
            fresh=True,
            key=f"{key}-{pp}",
            outputs={"logits": bits},
        )
        for pp in (1, 2)
    ]
    record = VerdictRecord(
        **judged,
        verdict=verdict,
        expected=expected,
        summary="it differs",
        reason=reason,
        figures=figures,
    )
    findings = [
        FindingRecord(**judged, code=code, severity=severity, message="m", fix="c")
        for code, severity in codes
    ]
    environment = {"pin": pin, "series": "s", "device": "cpu", "gsm8k_limit": None}
    return Report(environment=environment, cells=cells, verdicts=[record], findings=findings)
