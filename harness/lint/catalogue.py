"""Every rule of the lint: code, severity, what it means, how each runner shows it, the fix.

`pp-harness lint --explain CODE` prints these records; docs/lint.md lists them.

The V1 runner copies over the *sent* keys into the declared buffer; the V2 runner loops over the
*declared* keys. That is why one fault is loud on one runner and silent on the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.lint.report import Severity

_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO
SILENT = "silent"


@dataclass(frozen=True)
class Rule:
    """One thing that the lint looks for."""

    code: str
    name: str
    severity: Severity
    explanation: str
    fix: str
    v1: str = "-"
    """The V1 model runner shows it so."""
    other: str = ""
    """The V2 model runner shows it so, where that differs."""

    @property
    def v2(self) -> str:
        """The V2 model runner shows it so."""
        return self.other or self.v1


# One line for what a rule is, then its words.
# fmt: off
_RULES = (
    Rule(
        "PP101", "read-never-sent", _E,
        "A later rank reads a key that no earlier rank puts into the IntermediateTensors that it "
        "returns. What the rank computes with is then the buffer's old content, or it stops.",
        "Send the key on every rank but the last, or stop reading it.",
        "silent when the key is declared (stale or zero content), else KeyError",
        "loud: KeyError",
    ),
    Rule(
        "PP102", "sent-not-declared", _E,
        "forward returns a key that make_empty_intermediate_tensors does not declare. The "
        "receive buffer has no slot for it.",
        "Declare the key in make_empty_intermediate_tensors, with the shape that is sent.",
        "loud: KeyError while copying into the receive buffer",
        "silent: the key is dropped; KeyError where it is read",
    ),
    Rule(
        "PP103", "declared-never-sent", _E,
        "make_empty_intermediate_tensors declares a key that no rank sends.",
        "Remove the key from the declaration, or send it.",
        "silent: the slot keeps zeros or the last step's content",
        "loud: KeyError while copying into the receive buffer",
    ),
    Rule(
        "PP104", "sent-never-read", _W,
        "A key is sent (and declared) but no later rank reads it: either state that was meant to "
        "arrive is lost, or every boundary carries bytes for nothing.",
        "Read the key on later ranks, or do not send and declare it.",
        SILENT,
    ),
    Rule(
        "PP105", "read-behind-first-rank-guard", _E,
        "The read of a received key stands behind a test of a parameter that only the first rank "
        "is given (it is computed from the inputs, and is None later on). The read never happens "
        "on the ranks that receive, so they run without the tensor and without an error.",
        "Guard the read by what the model has (its config), not by what this rank was passed.",
        SILENT,
    ),
    Rule(
        "PP106", "read-not-used", _W,
        "A received tensor is taken out and then overwritten or never used.",
        "Use the received value on later ranks, or do not send the key.",
        SILENT,
    ),
    Rule(
        "PP107", "middle-rank-does-not-pass-on", _E,
        "The first rank sends a key that the last rank reads, but a middle rank does not send it "
        "again. With two ranks all is well, with three the last one lacks it.",
        "Send the key on every rank but the last.",
        "silent when the key is declared, else KeyError; only with three ranks or more",
        "loud: KeyError; only with three ranks or more",
    ),
    Rule(
        "PP108", "sent-on-some-paths", _W,
        "A key that is declared and read on every path is sent only on some: by a condition that "
        "neither the declaration nor the read has.",
        "Put the same condition on declaration, send and read, or always send the key.",
        "silent: the slot keeps old content when the key is not sent",
        "loud: KeyError when the key is not sent",
    ),
    Rule(
        "PP201", "none-packed", _E,
        "None goes into IntermediateTensors. Neither runner can slice, send or copy it.",
        "Put the key in only when there is a tensor, and declare it under the same condition.",
        "loud: TypeError while slicing None",
    ),
    Rule(
        "PP202", "no-such-method", _E,
        "IntermediateTensors is not a dict: it answers to [], items(), len() and .tensors, and "
        "has no get, pop, keys, values, update or copy.",
        "Use `intermediate_tensors[key]`, or the dict `intermediate_tensors.tensors`.",
        "loud: AttributeError",
    ),
    Rule(
        "PP204", "dtype-differs", _W,
        "The tensor that is sent was cast to a dtype that differs from the declared one. The "
        "copy into the receive buffer converts it.",
        "Declare the dtype that is sent.",
        "silent: copy_ converts, and precision is lost",
    ),
    Rule(
        "PP205", "persistent-buffer-sent", _W,
        "A buffer that lives on the module and is written in place is put into "
        "IntermediateTensors. Sends are asynchronous; the write for the next batch can come "
        "first.",
        "Send a clone, or a tensor that was made in this step.",
        "silent: the next step can overwrite the buffer before the send is over",
    ),
    Rule(
        "PP301", "declaration-missing", _E,
        "The class claims SupportsPP but nothing gives it make_empty_intermediate_tensors: the "
        "protocol's own stub answers and returns None. vLLM accepts the model for PP and fails "
        "when a later rank makes its buffers.",
        "Set self.make_empty_intermediate_tensors from the inner model or the factory, or drop "
        "the claim.",
        "loud: AssertionError or AttributeError on the first later rank",
        "loud: AttributeError on the first later rank",
    ),
    Rule(
        "PP303", "intermediate-tensors-dropped", _E,
        "A wrapper receives intermediate_tensors and calls an inner model that wants them "
        "without passing them on.",
        "Pass intermediate_tensors to the inner model.",
        "loud or silent: the inner model takes the first-rank path, or asserts",
    ),
    Rule(
        "PP304", "output-touched-before-the-last-rank", _E,
        "The wrapper computes with what the inner model returned, also on ranks where that is "
        "IntermediateTensors and not a tensor.",
        "Return IntermediateTensors unchanged before the last rank.",
        "loud: TypeError; silent where slicing alone is done",
    ),
    Rule(
        "PP305", "never-sends", _E,
        "The class claims SupportsPP, but no path of its forward returns IntermediateTensors "
        "before the last rank.",
        "Return IntermediateTensors when this is not the last rank, or drop the claim.",
        "loud: the runner asserts that it got IntermediateTensors",
    ),
    Rule(
        "PP307", "never-reads", _E,
        "The class sends IntermediateTensors but no later rank reads anything from what it gets.",
        "On ranks other than the first, start from the received tensors.",
        "silent or loud: the later rank starts from its own inputs",
    ),
    Rule(
        "PP401", "loop-over-all-layers", _E,
        "forward runs over all of self.layers. After make_layers, the layers of other ranks are "
        "PPMissingLayer.",
        "Loop over islice(self.layers, self.start_layer, self.end_layer).",
        "silent: a PPMissingLayer passes its first argument through; loud when the loop unpacks "
        "it",
    ),
    Rule(
        "PP402", "layers-not-partitioned", _E,
        "The class sends IntermediateTensors, but its layers are a plain list: each rank builds "
        "and runs all of them.",
        "Build the layers with make_layers and loop over this rank's part.",
        "silent: every rank runs every layer",
    ),
    Rule(
        "PP403", "layer-assumed-present", _W,
        "Code asks a decoder layer for its parts without asking whether this rank has it (a "
        "fixed index into self.layers, or a loop over all of them).",
        "Skip PPMissingLayer, or keep to start_layer..end_layer.",
        "loud: AttributeError on a PPMissingLayer",
    ),
    Rule(
        "PP404", "local-layer-index", _W,
        "enumerate over this rank's slice of the layers counts from 0 on every rank; the index "
        "is then used as if it were the layer's number in the whole model.",
        "Use enumerate(..., start=self.start_layer), or add self.start_layer.",
        SILENT,
    ),
    Rule(
        "PP405", "missing-module-used", _E,
        "On some rank a module is a PPMissingLayer, and code that runs on that rank asks it for "
        "an attribute such as weight.",
        "Run this only on the rank that holds the module, or build the module there too.",
        "loud: AttributeError on a PPMissingLayer",
    ),
    Rule(
        "PP407", "split-without-handover", _E,
        "A module builds its layers with make_layers, which leaves only this rank's part of "
        "them, and its forward runs over the list without taking from, or sending to, other "
        "ranks. An encoder that every rank needs whole is then run in part.",
        "Build such layers with a plain ModuleList, or hand over between ranks.",
        "silent: the layers of other ranks are skipped",
    ),
    Rule(
        "PP501", "load-weights-unguarded", _E,
        "load_weights looks a checkpoint name up in params_dict without asking whether the "
        "parameter belongs to another rank.",
        "Skip the name when is_pp_missing_parameter(name, self), or when it is not in "
        "params_dict.",
        "loud: KeyError while loading, on every rank",
    ),
    Rule(
        "PP502", "tied-head-without-embedding", _E,
        "lm_head is tied to the embedding on the last rank, where the embedding is a "
        "PPMissingLayer because only the first rank builds it.",
        "Build the embedding also where `config.tie_word_embeddings and is_last_rank`.",
        "loud: AttributeError on the last rank",
    ),
    Rule(
        "PP601", "loop-state-not-sent", _E,
        "A variable goes into each layer and comes out of it, starts fresh on every rank, and is "
        "not part of what is sent: what the layers of one rank leave in it is lost for the next.",
        "Send the variable under a key of its own, declare it, and start from it on later ranks.",
        SILENT,
    ),
    Rule(
        "PP602", "state-shared-across-layers", _I,
        "Layers use the KV cache of an earlier layer. When that layer is on another rank, the "
        "model cannot run with this partition.",
        "Keep source and users on one rank (VLLM_PP_LAYER_PARTITION), or refuse the partition.",
        "loud at load time, when the partition puts source and user on different ranks",
    ),
    Rule(
        "PP603", "aux-states-dropped", _I,
        "Auxiliary hidden states are collected on every rank, but those of ranks before the last "
        "are not sent: a drafter gets fewer than it asked for.",
        "Carry the collected states in IntermediateTensors and join them on the last rank.",
        "silent or loud, with speculative decoding only",
    ),
    Rule(
        "PP604", "inputs-used-on-later-ranks", _W,
        "Layers are given input_ids on ranks that do not embed them.",
        "Send what the layers need as a key of its own.",
        "works: the V1 runner gives input_ids to every rank",
        "loud: the V2 runner gives None to every rank but the first",
    ),
    Rule(
        "PP605", "received-state-transformed-again", _E,
        "What belongs to the embedding (a scale, a norm) is also applied to the received hidden "
        "states: once more on each rank.",
        "Apply it under is_first_rank only.",
        SILENT,
    ),
    Rule(
        "PP606", "first-rank-argument-used", _E,
        "On a later rank, code asks an argument for an attribute that only the first rank is "
        "given (inputs_embeds and what else is computed from the inputs): there it is None.",
        "Use it under is_first_rank, or take the size from a received tensor.",
        "loud: AttributeError on None",
    ),
    Rule(
        "PP607", "layer-input-not-sent", _W,
        "The loop over layers uses an argument that only the first rank is given, and no key "
        "carries it on: a layer that needs it and sits on a later rank goes without. Nothing in "
        "the file asserts that such layers are all on the first rank.",
        "Send it under a key of its own, or assert that start_layer of later ranks is behind the "
        "layers that use it.",
        "silent: layers on later ranks go without it",
    ),
    Rule(
        "PP608", "embedding-run-on-later-rank", _W,
        "forward embeds the inputs also on ranks that receive: commonly `if inputs_embeds is "
        "None` without asking first whether intermediate_tensors came in.",
        "Ask `if intermediate_tensors is not None` (or is_first_rank) before.",
        "loud where the embedding is a PPMissingLayer; silent where its result is not used",
        "loud: input_ids is None",
    ),
    Rule(
        "PP609", "set-on-first-rank-only", _E,
        "A variable is set on the path of the first rank alone, and used on later ranks.",
        "Set it on every path, or receive it in IntermediateTensors.",
        "loud: UnboundLocalError",
    ),
    Rule(
        "PP610", "last-rank-work-before-the-boundary", _E,
        "What belongs behind the last layer of the whole model (the final norm, a head, a "
        "pooling) is applied behind the last layer of every rank, and its result is sent on.",
        "Apply it under is_last_rank only.",
        SILENT,
    ),
    Rule(
        "PP611", "state-in-a-shared-object", _E,
        "Layers share a buffer, a dict or another object of one process; one layer leaves state "
        "in it that later layers read. Layers of the next rank have an object of their own, "
        "which nobody filled.",
        "Send what later layers read under a key of its own and put it back there, or assert "
        "that the layers are all on one rank.",
        SILENT,
    ),
    Rule(
        "PP901", "unreadable", _E,
        "The file cannot be read or parsed, so nothing in it was checked. Exit status 2.",
        "Give the lint Python source in UTF-8.",
    ),
    Rule(
        "PP902", "not-followed", _I,
        "The class claims PP, but a part of its contract is decided where the lint cannot look: "
        "an inner model picked at run time, a base class that is not in the tree, computed keys. "
        "Rules that need that part did not run.",
        "Run the recorded contract (pp-harness check --run) for what the source does not tell.",
    ),
    Rule(
        "PP903", "unused-waiver", _W,
        "A waiver comment matches no finding: the fault is gone, or the code or line is wrong.",
        "Remove the comment.",
    ),
    Rule(
        "PP904", "waiver-without-reason", _W,
        "A waiver comment gives no reason, or names no known code; it is not applied.",
        "Write `# pp-lint: ignore[CODE] the reason`.",
    ),
)
# fmt: on

RULES: dict[str, Rule] = {rule.code: rule for rule in _RULES}


def explain(code: str) -> str:
    """The page about one rule.

    Raises:
        KeyError: There is no such rule.
    """
    rule = RULES[code.upper()]
    counts = "no" if rule.severity is _I else "yes"
    return (
        f"{rule.code} {rule.name} ({rule.severity}; counts toward exit status 1: {counts})\n\n"
        f"{rule.explanation}\n\n"
        f"V1 runner: {rule.v1}\nV2 runner: {rule.v2}\n\nFix: {rule.fix}\n"
    )
