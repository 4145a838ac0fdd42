"""A report and a history in which every text from outside wants to be more than text."""

from harness.report.history import History, history_lines
from harness.report.schema import CellRecord, FindingRecord, Report, VerdictRecord

SCRIPT = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
QUOTES = '"\' onmouseover=window.pwned=1 x="`'
ENDS = "</pre></script></style></textarea>--><svg/onload=window.pwned=1>"
TERMINAL = "\x1b[2J\x1b]0;pwned\x07\x9b31m\r\b"
BIDI = "\u202eevil\u2066\u200f\u061c\u2069\ufeff\u2028\u00ad"
MARKDOWN = (
    "\n# pwned\n```\n![x](https://evil.example/x.png) [y](javascript:pwned) @pwned | *a* "
    "https://e.example <b>\n"
)
TEMPLATE = "{{ 7 * 7 }}{% for x in y %}"
ALL = SCRIPT + QUOTES + ENDS + TERMINAL + BIDI + MARKDOWN + TEMPLATE
# Characters that must reach no terminal, page or summary as they are.
ACTING = frozenset("\x1b\x07\x08\x9b\r\u202e\u2066\u2069\u200f\u061c\ufeff\u2028\u00ad")


def hostile_report(text=ALL):
    """Return a failing report of one point with `text` in every field that takes any text."""
    where = {"variant": text, "model": text, "pp": 2, "pin": "0.20.2"}
    figures = {
        "logits": {
            "max_abs": 1.0,
            text: text,
            "difference": {
                "layers": [0, 1],
                "stages": [0, 1],
                "columns": [[text, 0, 1], [text, 1, 2]],
                "changed": [[0.0, 0.0], [1.0, 0.5]],
                "norm": [[0.0, 0.0], [0.25, None]],
            },
        },
        "contract": {
            "stages": [{"stage": stage, "layers": [stage, stage]} for stage in (0, 1)],
            "boundaries": [
                {
                    "boundary": "0->1",
                    "steps": 2,
                    "keys": [
                        {
                            "key": text,
                            "declared": True,
                            "sent": 2,
                            "copied": 2,
                            "read": 0,
                            "none": False,
                            "shape": [4],
                            "dtype": text,
                            "bytes_per_token": 16,
                            "unused": 1.0,
                        }
                    ],
                }
            ],
        },
        "accuracy": {"lost": 1, "questions": 2, "filter": text},
        "engine": {},
    }
    flip = {"question": text, "target": text, "baseline": "a " + text, "candidate": "b " + text}
    evidence = {
        "engine": {"traceback": text, text: text},
        "contract": {"examples": [{text: text}], "sent": 2},
        "logits": {"entered": {text: text}},
        "accuracy": {"examples": [flip]},
    }
    return Report(
        environment={
            "pin": "0.20.2",
            "series": text,
            "device": text,
            "host": text,
            text: [text],
            "trees": {text: text},
            "arguments": ["suites/", "--pp", "2", "--pp-model", text],
        },
        cells=[
            CellRecord(
                id=f"v{number}{text}",
                **{**where, "pp": number},
                status="ok",
                seconds={"engine": 1.0, text: 2.0, "total": 3.0},
                began=1000.0 + number,
                phases={"engine": (0.0, 1.0), text: (1.0, 3.0)},
                devices=[0],
                partition=None,
                fresh=True,
                key="k",
            )
            for number in (1, 2)
        ],
        verdicts=[
            VerdictRecord(
                **where,
                check=check,
                verdict="fail",
                expected=check == "contract",
                summary=text,
                reason=text + "reason",
                figures=figures[check],
            )
            for check in figures
        ],
        findings=[
            FindingRecord(
                code="CON001",
                severity="error",
                **where,
                check=check,
                stage=1,
                boundary="0->1",
                key=text,
                place=text,
                message=text,
                evidence=evidence[check],
                fix=text,
            )
            for check in figures
        ],
        not_applicable=[text],
    )


def hostile_history(text=ALL, nights=3):
    """Return a history of nights of the hostile report, each with a worse accuracy."""
    lines = []
    for number in range(nights):
        report = hostile_report(text)
        for one in report.verdicts:
            if one.check == "accuracy":
                one.figures |= {"candidate": 0.9 - number / 10, "baseline": 0.9}
                one.verdict, one.reason = "pass", ""
            if one.check == "logits":
                one.figures["relative_rms"] = number * 1e-3
        lines += history_lines(report, number * 86400.0)
    return History(tuple(lines), None, ())
