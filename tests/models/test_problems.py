"""The bundled word problems and their templates."""

import json
import re

from harness.models.instruments import problems_path
from tools.instruments.problems import make_problems, prompt_of, target_of, to_jsonl
from tools.instruments.recipes import PROBLEM_COUNT, PROBLEM_SEED

ANSWER = re.compile(r"(?P<working>[\d +*-]+) = (?P<result>\d+)\n#### (?P<final>\d+)")


def test_the_shipped_file_is_what_the_templates_make():
    """Nobody edits the file by hand: it equals its recipe, byte for byte."""
    made = to_jsonl(make_problems(PROBLEM_COUNT, PROBLEM_SEED))
    assert problems_path().read_text(encoding="utf-8") == made


def test_there_are_enough_problems_and_each_is_its_own():
    """At least 128 lines with GSM8K's two keys, no question twice."""
    lines = [json.loads(line) for line in problems_path().read_text("utf-8").splitlines()]
    assert len(lines) >= 128
    assert all(line.keys() == {"question", "answer"} for line in lines)
    assert len({line["question"] for line in lines}) == len(lines)


def test_every_answer_is_right():
    """The working computes to the result, a positive integer, which is the final number."""
    for problem in make_problems(500, seed=3):
        parts = ANSWER.fullmatch(problem.answer)
        assert parts, problem.answer
        total = 0
        for sign, product in re.findall(r"(^|[+-]) ?([\d *]+)", parts["working"]):
            value = 1
            for factor in product.split("*"):
                value *= int(factor)
            total += -value if sign == "-" else value
        assert total == int(parts["result"]) == int(parts["final"]) > 0


def test_the_same_seed_gives_the_same_problems():
    """Problems depend on the seed alone."""
    assert make_problems(20, 5) == make_problems(20, 5) != make_problems(20, 6)


def test_the_prompt_is_the_gsm8k_tasks():
    """The model is trained on exactly what lm-eval's gsm8k task sends."""
    assert prompt_of("How many?") == "Question: How many?\nAnswer:"
    assert target_of("2\n#### 2") == " 2\n#### 2"
