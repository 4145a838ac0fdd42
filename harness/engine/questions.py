"""lm-eval's own gsm8k task on the engine of a cell, with the questions of a local file."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from .asked import sampling
from .hooks.site import attribute
from .manifest import EFFECTIVE, Effective, Gsm8kSource, Request, read_record
from .names import ANSWERS, REQUEST_MARK, SECOND_ANSWERS
from .settings import ModelRunner, Profile

# lm-eval's own default: the same examples are shown as `lm_eval` on the command line would show.
_FEWSHOT_SEED = 1234
# Log-probabilities asked for at each token: the two likeliest tell how near the choice was.
_LIKELIEST = 2


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


def ask_questions(llm: Any, lm: Any, request: Request, folder: Path) -> None:
    """Ask the questions of a cell and write `gsm8k.jsonl`.

    In stress PP=1 is asked twice, the second time in other batches (`gsm8k.again.jsonl`): answers
    that differ there, rounding alone has changed.
    """
    run_gsm8k(llm, lm, request, folder / ANSWERS)
    if request.pp == 1 and request.profile is Profile.STRESS:
        run_gsm8k(llm, lm, request, folder / SECOND_ANSWERS, in_other_batches=True)


def evaluate_gsm8k(lm: Any, source: Gsm8kSource, folder: Path) -> list[dict[str, Any]]:
    """Evaluate, and return lm-eval's samples: one for each question and filter."""
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    # `simple_evaluate` would index the thousands of tasks that lm-eval ships and collect facts
    # about the host (10 s together); the evaluation itself is `evaluate`.
    # The cache of `datasets` is by file name and time, and the user's; ours starts empty.
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        loaded = TaskManager(include_defaults=False).load([task_config(source, cache)])
        loaded["tasks"]["gsm8k"].set_fewshot_seed(seed=_FEWSHOT_SEED)
        results = evaluate(
            lm=lm, task_dict=loaded, limit=source.limit, log_samples=True, bootstrap_iters=0
        )
    if results is None:
        raise RuntimeError("lm-eval returned no results")
    samples: list[dict[str, Any]] = results["samples"]["gsm8k"]
    return samples


def run_gsm8k(
    llm: Any,
    lm: Any,
    request: Request,
    out: Path,
    *,
    change: str = "",
    in_other_batches: bool = False,
) -> None:
    """Evaluate; write a line per question: hashes that pair it, the answer, each filter's score.

    `tokens` are the ids of the answer, `margins` by how many nats the first choice for each was
    likelier than the second. Questions run under `change` if it names one.
    """
    assert request.gsm8k is not None
    llm.reset_prefix_cache()
    asked = _Asked()
    lm.set_cache_hook(asked)
    with (
        _same_steps(llm, request),
        _generating(
            llm,
            asked,
            sampling(request.question_sampling),
            change=change,
            in_reverse=in_other_batches,
        ),
    ):
        samples = evaluate_gsm8k(lm, request.gsm8k, out.parent)
    outputs = asked.by_prompt()
    questions: dict[int, dict[str, Any]] = {}
    for sample in samples:
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
                **_tokens(outputs[sample["arguments"][0][0]]),
                "scores": {},
                "answers": {},
            },
        )
        line["scores"][sample["filter"]] = float(sample["exact_match"])
        line["answers"][sample["filter"]] = sample["filtered_resps"][0]
    with out.open("w", encoding="utf-8") as file:
        for _, line in sorted(questions.items()):
            file.write(json.dumps(line) + "\n")


class _Asked:
    """What lm-eval's backend generated: the engine's outputs, and the prompts in the same order.

    It stands in for lm-eval's `CacheHook`, which hears of each prompt as its answer is there.
    """

    def __init__(self) -> None:
        self.outputs: list[Any] = []
        self._prompts: list[str] = []

    def add_partial(self, _attribute: str, request: Any, _answer: str) -> None:
        """Note the prompt of the next answer."""
        self._prompts.append(request[0])

    def by_prompt(self) -> dict[str, Any]:
        """Return the engine's output for each prompt."""
        return dict(zip(self._prompts, self.outputs, strict=True))


def _tokens(output: Any) -> dict[str, Any]:
    completion = output.outputs[0]
    margins = []
    for likeliest in completion.logprobs:
        first, second = sorted((entry.logprob for entry in likeliest.values()), reverse=True)[:2]
        margins.append(round(first - second, 4))
    return {"tokens": list(completion.token_ids), "margins": margins}


def _generating(
    llm: Any, asked: _Asked, parameters: dict[str, Any], *, change: str, in_reverse: bool
) -> AbstractContextManager[None]:
    """Keep what `llm` generates for lm-eval, by more sampling parameters than lm-eval gives.

    Requests are marked with a change, or their order is turned.
    """
    generate, turn = llm.generate, -1 if in_reverse else 1

    def kept(prompts: Any, sampling_params: Any, **options: Any) -> Any:
        for params in sampling_params:
            for name, value in {"logprobs": _LIKELIEST, **parameters}.items():
                setattr(params, name, value)
            if change:
                params.extra_args = {REQUEST_MARK: {"change": change}}
        outputs = generate(prompts[::turn], sampling_params=sampling_params[::turn], **options)[
            ::turn
        ]
        asked.outputs.extend(outputs)
        return outputs

    return attribute(llm, "generate", kept)


def _same_steps(llm: Any, request: Request) -> AbstractContextManager[None]:
    """Let questions in parity run the same batches at every PP: one with requests in flight.

    vLLM keeps as many batches in flight as there are stages, so that a request joins another batch
    than at PP=1, and rows of another batch are not bit-identical.
    Asynchronous scheduling is left as it is: stepped otherwise it would not be what is served.
    """
    if request.profile is not Profile.PARITY:
        return nullcontext()
    core = llm.llm_engine.engine_core.engine_core
    effective = read_record(Effective, request.folder / EFFECTIVE)
    if effective is not None and effective.async_scheduling:
        return nullcontext()
    v2 = effective is not None and effective.runner == ModelRunner.V2
    return _empty_batches_between(core) if v2 else _steps_of_one_stage(core)


@contextmanager
def _steps_of_one_stage(core: Any) -> Iterator[None]:
    """Let an engine of several stages step as one of a single stage does.

    For V1, where even an empty batch puts the requests of the next into another order.
    """
    with attribute(core, "batch_queue", None), attribute(core, "step_fn", core.step):
        yield


def _empty_batches_between(core: Any) -> AbstractContextManager[None]:
    """Schedule nothing while a batch with requests is in flight: the queue fills with empty ones.

    For V2, whose stages take the tokens that were sampled as many steps ago as there are stages
    (`update_pp_decode_requests`): it cannot do with fewer steps, and an empty batch leaves its
    order of requests alone.
    """
    scheduler, schedule = core.scheduler, core.scheduler.schedule

    def alone(*arguments: Any) -> Any:
        tokens = scheduler.max_num_scheduled_tokens
        if any(output.total_num_scheduled_tokens for _, output, *_ in core.batch_queue or ()):
            scheduler.max_num_scheduled_tokens = 0
        try:
            return schedule(*arguments)
        finally:
            scheduler.max_num_scheduled_tokens = tokens

    return attribute(scheduler, "schedule", alone)
