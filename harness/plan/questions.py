"""The questions of a sweep: bundled problems, a file in GSM8K's format, or the hub's."""

import json
from functools import lru_cache
from pathlib import Path

from ..engine.manifest import Gsm8kSource
from ..errors import BadInputError, first_line
from ..files import sha256_of
from ..models.hub import is_silent
from ..models.instruments import problems_path
from .options import Options

_LOCAL = "use --pp-gsm8k bundled, or a local FILE.jsonl"


def choose_questions(options: Options, model: str, folder: Path, *, few: bool) -> Gsm8kSource:
    """Choose the questions of a model's cells and how many examples come before each.

    `few` says that examples are shown where the user does not say; `folder` keeps what the hub
    gave.

    Raises:
        BadInputError: if the file cannot be read or holds no questions, if examples are asked for
            and there are none, or if the hub does not give them.
    """
    name, fewshot = options.gsm8k, options.gsm8k_fewshot
    if fewshot is None:
        fewshot = 5 if few and name != "bundled" else 0
    if name == "hub":
        path, train = _from_hub(folder)
    elif name == "bundled":
        path, train = problems_path(), None
        if fewshot:
            raise BadInputError(
                f"--pp-gsm8k bundled has no examples for {fewshot} shots ({model}): "
                "use --pp-gsm8k-fewshot 0, or --pp-gsm8k hub or FILE.jsonl"
            )
    else:
        path = Path(name).absolute()
        check_questions(path)
        train = path.with_name("train.jsonl")
        if fewshot and not train.is_file():
            raise BadInputError(
                f"{train}: not there; {fewshot} shots need it beside {path.name} "
                "(or use --pp-gsm8k-fewshot 0)"
            )
        if fewshot:
            check_questions(train)
    examples = train if fewshot else None
    return Gsm8kSource(
        name=name if name in ("bundled", "hub") else "file",
        questions=path,
        digest=sha256_of(path) + (sha256_of(examples) if examples else ""),
        limit=options.gsm8k_limit,
        fewshot=fewshot,
        fewshot_file=examples,
    )


@lru_cache(maxsize=8)
def count_questions(path: Path) -> int:
    """Return the number of questions in a file of them."""
    with path.open("rb") as lines:
        return sum(1 for _ in lines)


def check_questions(path: Path) -> None:
    """Raise `BadInputError` unless every line of a file is a question in GSM8K's format."""
    try:
        # Not splitlines(): JSON may hold U+2028 and other separators unescaped.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"--pp-gsm8k {path}: cannot be read: {error}") from error
    if lines == [""]:
        raise BadInputError(f"--pp-gsm8k {path}: holds no questions")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            texts = isinstance(row["question"], str) and isinstance(row["answer"], str)
            fits = texts and "####" in row["answer"]
        except (ValueError, KeyError, TypeError, RecursionError):
            fits = False
        if not fits:
            raise BadInputError(
                f"{path}:{number}: no GSM8K line; each is a JSON object with `question` and an "
                "`answer` that ends in `#### NUMBER`"
            )


def _from_hub(folder: Path) -> tuple[Path, Path]:
    """Fetch openai/gsm8k once and keep it as JSONL files; return its questions and examples.

    Raises:
        BadInputError: if the hub cannot be reached and nothing was kept before.
    """
    test, train = folder / "test.jsonl", folder / "train.jsonl"
    if not (test.is_file() and train.is_file()):
        try:
            import datasets
        except ImportError as error:
            raise BadInputError(
                "--pp-gsm8k hub: the package datasets is not installed in this environment; "
                f"install it, or {_LOCAL}"
            ) from error
        if is_silent():
            raise BadInputError(f"--pp-gsm8k hub: the hub does not answer; {_LOCAL}")
        try:
            for path in (test, train):
                rows = datasets.load_dataset("openai/gsm8k", "main", split=path.stem)
                folder.mkdir(parents=True, exist_ok=True)
                partial = path.with_suffix(".partial")
                rows.to_json(str(partial))
                partial.replace(path)
        except Exception as error:
            raise BadInputError(
                f"--pp-gsm8k hub: openai/gsm8k cannot be fetched ({first_line(error)}); {_LOCAL}"
            ) from error
    return test, train
