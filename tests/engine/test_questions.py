"""Questions through lm-eval's own task: answers keep their tokens, whatever order they ran in."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("lm_eval", reason="it comes with the extras cpu and cuda")

from lm_eval.api.model import LM

from harness.engine.manifest import EFFECTIVE, Effective, Gsm8kSource, Request, write_record
from harness.engine.questions import ask_questions
from harness.engine.settings import Profile

PROBLEMS = [
    {"question": f"What is {number} and {number}?", "answer": f"#### {2 * number}"}
    for number in range(1, 5)
]


class Scheduler:
    """Schedules as many tokens as it may."""

    max_num_scheduled_tokens = 8

    def schedule(self):
        return self.max_num_scheduled_tokens


class Engine:
    """Answers each prompt with its number of letters, and notes how it was stepped.

    `scheduled` are the tokens of a batch with nothing in flight, with a batch of three requests,
    with an empty one, and with nothing again.
    """

    def __init__(self):
        self.orders, self.stepped, self.scheduled, self.resets = [], [], [], 0
        core = SimpleNamespace(
            batch_queue="queue", step="one", step_fn="many", scheduler=Scheduler()
        )
        self.core = core
        self.llm_engine = SimpleNamespace(engine_core=SimpleNamespace(engine_core=core))

    def reset_prefix_cache(self):
        self.resets += 1

    def generate(self, prompts, sampling_params):
        self.orders.append(prompts)
        self.stepped.append((self.core.batch_queue, self.core.step_fn))
        queue = self.core.batch_queue
        for tokens in ((), (3,), (0,), ()):
            self.core.batch_queue = [
                ("future", SimpleNamespace(total_num_scheduled_tokens=each), "future")
                for each in tokens
            ]
            self.scheduled.append(self.core.scheduler.schedule())
        self.core.batch_queue = queue
        assert all(params.logprobs == 2 for params in sampling_params)
        return [
            SimpleNamespace(
                outputs=[
                    SimpleNamespace(
                        text=f"#### {len(prompt)}",
                        token_ids=(len(prompt), 7),
                        logprobs=[
                            {
                                1: SimpleNamespace(logprob=-0.5),
                                2: SimpleNamespace(logprob=-0.25),
                            }
                        ]
                        * 2,
                    )
                ]
            )
            for prompt in prompts
        ]


class Backend(LM):
    """Hands prompts on sorted, as lm-eval's own backend for vLLM does, and tells its cache hook."""

    def __init__(self, engine):
        super().__init__()
        self.engine = engine

    def generate_until(self, requests):
        order = sorted(range(len(requests)), key=lambda at: requests[at].args[0], reverse=True)
        prompts = [requests[at].args[0] for at in order]
        params = [SimpleNamespace() for _ in prompts]
        texts = {}
        outputs = self.engine.generate(prompts, sampling_params=params)
        for at, prompt, output in zip(order, prompts, outputs, strict=True):
            texts[at] = output.outputs[0].text
            self.cache_hook.add_partial("generate_until", (prompt, {}), texts[at])
        return [texts[at] for at in range(len(requests))]

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


@pytest.fixture
def ask(tmp_path):
    """Return a function that asks the problems and gives the engine and the lines that it left."""
    questions = tmp_path / "test.jsonl"
    questions.write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS))
    source = Gsm8kSource(name="file", questions=questions, digest="", limit=3, fewshot=0)

    def run(**settings):
        request = Request(folder=tmp_path, model_path="", devices=(0,), gsm8k=source, **settings)
        engine = Engine()
        ask_questions(engine, Backend(engine), request, tmp_path)
        files = {path.name: path.read_text() for path in tmp_path.glob("gsm8k*.jsonl")}
        return engine, {
            name: [json.loads(line) for line in text.splitlines()] for name, text in files.items()
        }

    return run


@pytest.fixture
def effective(tmp_path):
    """Return a function that writes what is in effect in the engine, as main.py does."""

    def write(**changed):
        record = Effective(
            pp=2, tp=1, dtype="float32", enforce_eager=True, async_scheduling=False,
            chunked_prefill=True, prefix_caching=False, kv_blocks=None, block_size=16,
            max_num_batched_tokens=2048, max_num_seqs=32, attention="", architecture="",
            partition=None, ranks_per_device=1, worker_start="fork", **changed,
        )  # fmt: skip
        write_record(record, tmp_path / EFFECTIVE)

    return write


@pytest.mark.parametrize("pp", [1, 2])
def test_in_parity_every_pp_size_steps_as_one_stage(ask, pp):
    """One batch in flight while questions are asked, and as before afterwards."""
    engine, files = ask(pp=pp)
    assert engine.stepped == [(None, "one")]
    assert (engine.core.batch_queue, engine.core.step_fn) == ("queue", "many")
    (lines,) = files.values()
    assert [line["question"] for line in lines] == [each["question"] for each in PROBLEMS[:3]]
    for line in lines:
        asked = next(prompt for prompt in engine.orders[0] if line["question"] in prompt)
        assert line["tokens"] == [len(asked), 7]
        assert line["margins"] == [0.25, 0.25]
        assert line["output"] == f"#### {len(asked)}"


def test_v2_schedules_nothing_while_a_batch_is_in_flight(ask, effective):
    """Its stages take tokens of as many steps ago as there are stages: empty batches fill those."""
    effective(runner="v2")
    engine, _ = ask(pp=2)
    assert engine.stepped == [("queue", "many")]
    assert engine.scheduled == [8, 0, 8, 8]
    assert "schedule" not in vars(engine.core.scheduler)
    effective(runner="v1")
    engine, _ = ask(pp=2)
    assert engine.stepped == [(None, "one")]
    assert engine.scheduled == [8, 8, 8, 8]


def test_under_stress_pp_1_is_asked_twice_in_other_batches(ask):
    """The second time in reverse order, from an empty prefix cache; each answer keeps its own."""
    engine, files = ask(pp=1, profile=Profile.STRESS)
    assert engine.stepped == [("queue", "many")] * 2
    assert engine.orders[1] == engine.orders[0][::-1]
    assert engine.resets == 2
    assert files["gsm8k.again.jsonl"] == files["gsm8k.jsonl"]
    engine, _ = ask(pp=2, profile=Profile.STRESS)
    assert len(engine.orders) == 1
