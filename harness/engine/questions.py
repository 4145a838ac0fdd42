"""lm-eval's own gsm8k task on the engine of a cell, with the questions of a local file."""

import json
import tempfile
from pathlib import Path
from typing import Any

from .manifest import Gsm8kSource

# lm-eval's own default: the same examples are shown as `lm_eval` on the command line would show.
_FEWSHOT_SEED = 1234


def task_config(source: Gsm8kSource, cache: str) -> dict[str, Any]:
    """Return lm-eval's gsm8k task with its data replaced by the file named in `source`.

    Prompt, target, stop strings, metric and filters are lm-eval's; only where the rows come
    from and how many examples are shown is ours.
    """
    import lm_eval.tasks
    import yaml

    path = Path(lm_eval.tasks.__file__).parent / "gsm8k" / "gsm8k.yaml"
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    files = {"test": str(source.questions)}
    if source.fewshot_file:
        files["train"] = str(source.fewshot_file)
    else:
        config.pop("training_split", None)
        config.pop("fewshot_split", None)
    config.update(
        dataset_path="json",
        dataset_name=None,
        dataset_kwargs={"data_files": files, "cache_dir": cache},
        num_fewshot=source.fewshot,
    )
    config.pop("tag", None)
    return config


def run_gsm8k(lm: Any, source: Gsm8kSource, out: Path) -> None:
    """Evaluate; write a line per question: hashes that pair it, the answer, each filter's score."""
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    # `simple_evaluate` would index the thousands of tasks that lm-eval ships and collect facts
    # about the host (10 s together); the evaluation itself is `evaluate`.
    # The cache of `datasets` is by file name and time, and the user's; ours starts empty.
    with tempfile.TemporaryDirectory(dir=out.parent) as cache:
        loaded = TaskManager(include_defaults=False).load([task_config(source, cache)])
        loaded["tasks"]["gsm8k"].set_fewshot_seed(seed=_FEWSHOT_SEED)
        results = evaluate(
            lm=lm, task_dict=loaded, limit=source.limit, log_samples=True, bootstrap_iters=0
        )
    if results is None:
        raise RuntimeError("lm-eval returned no results")
    questions: dict[int, dict[str, Any]] = {}
    for sample in results["samples"]["gsm8k"]:
        line = questions.setdefault(
            sample["doc_id"],
            {
                "doc_id": sample["doc_id"],
                "doc_hash": sample["doc_hash"],
                "prompt_hash": sample["prompt_hash"],
                "target_hash": sample["target_hash"],
                "question": sample["doc"]["question"],
                "target": sample["target"],
                "output": sample["resps"][0][0],
                "scores": {},
                "answers": {},
            },
        )
        line["scores"][sample["filter"]] = float(sample["exact_match"])
        line["answers"][sample["filter"]] = sample["filtered_resps"][0]
    with out.open("w", encoding="utf-8") as file:
        for _, line in sorted(questions.items()):
            file.write(json.dumps(line) + "\n")
