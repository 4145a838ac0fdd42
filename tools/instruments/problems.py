"""The bundled word problems: GSM8K's format and task, text from our own templates.

A problem is a question and a worked answer that ends in `#### <number>`, so lm-eval's gsm8k task
scores it unchanged. Questions run past the instruments' sliding window, answers stay short: the
set is to be answered by a tiny trained model on a CPU in seconds.
"""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass

NAMES = (
    "Anna", "Ben", "Carla", "David", "Elena", "Frank", "Grace", "Henry",
    "Irene", "Jonas", "Karin", "Lukas", "Maria", "Nora", "Oskar", "Paula",
)  # fmt: skip
ITEMS = (
    "apples", "books", "boxes", "candles", "cards", "coins", "cups", "eggs",
    "lamps", "melons", "pens", "plates", "ropes", "shells", "stamps", "tiles",
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One word problem: `question`, and `answer` ending in `#### <number>`."""

    question: str
    answer: str


@dataclass(frozen=True)
class Template:
    """Texts with the slots name, item, a, b, c (and n, the result, in `working`)."""

    question: str
    working: str
    result: Callable[[int, int, int], int]


TEMPLATES = (
    Template(
        "{name} has {a} {item} at home. In the morning {name} buys {b} more {item}, and in the "
        "evening {name} gives {c} {item} to a friend. How many {item} does {name} have now?",
        "{a} + {b} - {c} = {n}",
        lambda a, b, c: a + b - c,
    ),
    Template(
        "{name} packs {b} bags with {c} {item} in each bag. There are also {a} {item} on the "
        "table at home. How many {item} does {name} have in the bags and on the table?",
        "{b} * {c} + {a} = {n}",
        lambda a, b, c: b * c + a,
    ),
    Template(
        "A shop has {a} {item} in the morning. {name} buys {b} {item} and a friend buys {c} "
        "{item} from the shop. How many {item} does the shop have in the evening?",
        "{a} - {b} - {c} = {n}",
        lambda a, b, c: a - b - c,
    ),
    Template(
        "On Monday {name} finds {a} {item}. On Friday {name} finds {b} more {item} than on "
        "Monday, but then {c} {item} are lost. How many {item} from Monday and Friday are there?",
        "{a} + {a} + {b} - {c} = {n}",
        lambda a, b, c: a + a + b - c,
    ),
    Template(
        "{name} sells {a} {item} for {b} dollars each at the shop. Then {name} pays {c} dollars "
        "for a bag. How many dollars does {name} have now?",
        "{a} * {b} - {c} = {n}",
        lambda a, b, c: a * b - c,
    ),
    Template(
        "There are {a} {item} in a box. {name} has {b} boxes at home and gives one box and {c} "
        "{item} more to a friend. How many {item} does {name} have at home now?",
        "{a} * {b} - {a} - {c} = {n}",
        lambda a, b, c: a * b - a - c,
    ),
    Template(
        "Each day {name} makes {b} {item} in the morning and {c} {item} in the evening. "
        "There were {a} {item} on the table before. How many {item} are there after two days?",
        "{a} + 2 * {b} + 2 * {c} = {n}",
        lambda a, b, c: a + 2 * b + 2 * c,
    ),
    Template(
        "{name} and a friend have {a} {item} each. {name} buys {b} more {item} at the shop and "
        "the friend gives {c} {item} to {name}. How many {item} does {name} have in the evening?",
        "{a} + {b} + {c} = {n}",
        lambda a, b, c: a + b + c,
    ),
)


def make_problems(count: int, seed: int) -> tuple[Problem, ...]:
    """Make `count` distinct problems, the same for the same `seed`; templates take turns.

    Numbers: `a` in 21..59, `b` and `c` in 2..9, so that every result is a positive integer.
    """
    rng = random.Random(seed)  # noqa: S311 - text for a test, not a secret
    made: dict[str, Problem] = {}
    while len(made) < count:
        template = TEMPLATES[len(made) % len(TEMPLATES)]
        a, b, c = rng.randint(21, 59), rng.randint(2, 9), rng.randint(2, 9)
        slots: dict[str, str | int] = {"name": rng.choice(NAMES), "item": rng.choice(ITEMS)}
        slots |= {"a": a, "b": b, "c": c, "n": template.result(a, b, c)}
        question = template.question.format(**slots)
        working = template.working.format(**slots)
        made[question] = Problem(question, f"{working}\n#### {slots['n']}")
    return tuple(made.values())


def prompt_of(question: str) -> str:
    """Return the zero-shot prompt that lm-eval's gsm8k task makes of a question."""
    return f"Question: {question}\nAnswer:"


def target_of(answer: str) -> str:
    """Return the text that follows the prompt: lm-eval's target delimiter is one space."""
    return f" {answer}"


def to_jsonl(problems: tuple[Problem, ...]) -> str:
    """Return the problems as the text of a JSONL file."""
    return "".join(f"{json.dumps(asdict(problem))}\n" for problem in problems)
