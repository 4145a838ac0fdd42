"""Every rule of the lint: code, severity, what it means, how each runner shows it, the fix.

`pp-harness lint --explain CODE` and docs/lint.md are made from these records.

The V1 runner copies over the *sent* keys into the declared buffer; the V2 runner loops over the
*declared* keys. That is why one fault is loud on one runner and silent on the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.lint.report import Severity

_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO
LOUD, SILENT = "loud", "silent"


@dataclass(frozen=True)
class Rule:
    """One thing that the lint looks for."""

    code: str
    name: str
    severity: Severity
    v1: str
    v2: str
    explanation: str
    fix: str


_RULES = (
    Rule(
        "PP101",
        "read-never-sent",
        _E,
        "silent when the key is declared (stale or zero content), else KeyError",
        "loud: KeyError",
        "A later rank reads a key that no earlier rank puts into the IntermediateTensors that it "
        "returns. What the rank computes with is then the buffer's old content, or it stops.",
        "Send the key on every rank but the last, or stop reading it.",
    ),
    Rule(
        "PP102",
        "sent-not-declared",
        _E,
        "loud: KeyError while copying into the receive buffer",
        "silent: the key is dropped; KeyError where it is read",
        "forward returns a key that make_empty_intermediate_tensors does not declare. The receive "
        "buffer has no slot for it.",
        "Declare the key in make_empty_intermediate_tensors, with the shape that is sent.",
    ),
    Rule(
        "PP103",
        "declared-never-sent",
        _E,
        "silent: the slot keeps zeros or the last step's content",
        "loud: KeyError while copying into the receive buffer",
        "make_empty_intermediate_tensors declares a key that no rank sends.",
        "Remove the key from the declaration, or send it.",
    ),
    Rule(
        "PP104",
        "sent-never-read",
        _W,
        SILENT,
        SILENT,
        "A key is sent (and declared) but no later rank reads it: either state that was meant to "
        "arrive is lost, or every boundary carries bytes for nothing.",
        "Read the key on later ranks, or do not send and declare it.",
    ),
    Rule(
        "PP105",
        "read-behind-first-rank-guard",
        _E,
        SILENT,
        SILENT,
        "The read of a received key stands behind a test of a parameter that only the first rank "
        "is given (it is computed from the inputs, and is None later on). The read never happens "
        "on the ranks that receive, so they run without the tensor and without an error.",
        "Guard the read by what the model has (its config), not by what this rank was passed.",
    ),
    Rule(
        "PP106",
        "read-not-used",
        _W,
        SILENT,
        SILENT,
        "A received tensor is taken out and then overwritten or never used.",
        "Use the received value on later ranks, or do not send the key.",
    ),
    Rule(
        "PP107",
        "middle-rank-does-not-pass-on",
        _E,
        "silent when the key is declared, else KeyError; only with three ranks or more",
        "loud: KeyError; only with three ranks or more",
        "The first rank sends a key that the last rank reads, but a middle rank does not send it "
        "again. With two ranks all is well, with three the last one lacks it.",
        "Send the key on every rank but the last.",
    ),
    Rule(
        "PP108",
        "sent-on-some-paths",
        _W,
        "silent: the slot keeps old content when the key is not sent",
        "loud: KeyError when the key is not sent",
        "A key that is declared and read on every path is sent only on some: by a condition that "
        "neither the declaration nor the read has.",
        "Put the same condition on declaration, send and read, or always send the key.",
    ),
    Rule(
        "PP201",
        "none-packed",
        _E,
        "loud: TypeError while slicing None",
        "loud: TypeError while slicing None",
        "None goes into IntermediateTensors. Neither runner can slice, send or copy it.",
        "Put the key in only when there is a tensor, and declare it under the same condition.",
    ),
    Rule(
        "PP202",
        "no-such-method",
        _E,
        "loud: AttributeError",
        "loud: AttributeError",
        "IntermediateTensors is not a dict: it answers to [], items(), len() and .tensors, and "
        "has no get, pop, keys, values, update or copy.",
        "Use `intermediate_tensors[key]`, or the dict `intermediate_tensors.tensors`.",
    ),
    Rule(
        "PP203",
        "shape-differs",
        _W,
        "loud: the copy into the receive buffer fails, unless the shapes broadcast (then silent)",
        "loud: the copy into the receive buffer fails, unless the shapes broadcast (then silent)",
        "The tensor that is sent has another number of dimensions than the one that is declared.",
        "Declare the shape that is sent.",
    ),
    Rule(
        "PP204",
        "dtype-differs",
        _W,
        "silent: copy_ converts, and precision is lost",
        "silent: copy_ converts, and precision is lost",
        "The tensor that is sent was cast to a dtype that differs from the declared one. The copy "
        "into the receive buffer converts it.",
        "Declare the dtype that is sent.",
    ),
    Rule(
        "PP205",
        "persistent-buffer-sent",
        _W,
        "silent: the next step can overwrite the buffer before the send is over",
        "silent: the next step can overwrite the buffer before the send is over",
        "A buffer that lives on the module and is written in place is put into "
        "IntermediateTensors. Sends are asynchronous; the write for the next batch can come first.",
        "Send a clone, or a tensor that was made in this step.",
    ),
    Rule(
        "PP301",
        "declaration-missing",
        _E,
        "loud: AssertionError or AttributeError on the first later rank",
        "loud: AttributeError on the first later rank",
        "The class claims SupportsPP but nothing gives it make_empty_intermediate_tensors: the "
        "protocol's own stub answers and returns None. vLLM accepts the model for PP and fails "
        "when a later rank makes its buffers.",
        "Set self.make_empty_intermediate_tensors from the inner model or the factory, or drop "
        "the claim.",
    ),
    Rule(
        "PP303",
        "intermediate-tensors-dropped",
        _E,
        "loud or silent: the inner model takes the first-rank path, or asserts",
        "loud or silent: the inner model takes the first-rank path, or asserts",
        "A wrapper receives intermediate_tensors and calls an inner model that wants them "
        "without passing them on.",
        "Pass intermediate_tensors to the inner model.",
    ),
    Rule(
        "PP304",
        "output-touched-before-the-last-rank",
        _E,
        "loud: TypeError; silent where slicing alone is done",
        "loud: TypeError; silent where slicing alone is done",
        "The wrapper computes with what the inner model returned, also on ranks where that is "
        "IntermediateTensors and not a tensor.",
        "Return IntermediateTensors unchanged before the last rank.",
    ),
    Rule(
        "PP305",
        "never-sends",
        _E,
        "loud: the runner asserts that it got IntermediateTensors",
        "loud: the runner asserts that it got IntermediateTensors",
        "The class claims SupportsPP, but no path of its forward returns IntermediateTensors "
        "before the last rank.",
        "Return IntermediateTensors when this is not the last rank, or drop the claim.",
    ),
    Rule(
        "PP307",
        "never-reads",
        _E,
        "silent or loud: the later rank starts from its own inputs",
        "silent or loud: the later rank starts from its own inputs",
        "The class sends IntermediateTensors but no later rank reads anything from what it gets.",
        "On ranks other than the first, start from the received tensors.",
    ),
    Rule(
        "PP401",
        "loop-over-all-layers",
        _E,
        "silent: a PPMissingLayer passes its first argument through; loud when the loop unpacks it",
        "silent: a PPMissingLayer passes its first argument through; loud when the loop unpacks it",
        "forward runs over all of self.layers. After make_layers, the layers of other ranks are "
        "PPMissingLayer.",
        "Loop over islice(self.layers, self.start_layer, self.end_layer).",
    ),
    Rule(
        "PP402",
        "layers-not-partitioned",
        _E,
        "silent: every rank runs every layer",
        "silent: every rank runs every layer",
        "The class sends IntermediateTensors, but its layers are a plain list: each rank builds "
        "and runs all of them.",
        "Build the layers with make_layers and loop over this rank's part.",
    ),
    Rule(
        "PP403",
        "layer-assumed-present",
        _W,
        "loud: AttributeError on a PPMissingLayer",
        "loud: AttributeError on a PPMissingLayer",
        "Code asks a decoder layer for its parts without asking whether this rank has it "
        "(a fixed index into self.layers, or a loop over all of them).",
        "Skip PPMissingLayer, or keep to start_layer..end_layer.",
    ),
    Rule(
        "PP404",
        "local-layer-index",
        _W,
        SILENT,
        SILENT,
        "enumerate over this rank's slice of the layers counts from 0 on every rank; the index is "
        "then used as if it were the layer's number in the whole model.",
        "Use enumerate(..., start=self.start_layer), or add self.start_layer.",
    ),
    Rule(
        "PP405",
        "missing-module-used",
        _E,
        "loud: AttributeError on a PPMissingLayer",
        "loud: AttributeError on a PPMissingLayer",
        "On some rank a module is a PPMissingLayer, and code that runs on that rank asks it for "
        "an attribute such as weight.",
        "Run this only on the rank that holds the module, or build the module there too.",
    ),
    Rule(
        "PP407",
        "cut-without-handover",
        _E,
        "silent: the layers of other ranks are skipped",
        "silent: the layers of other ranks are skipped",
        "A module builds its layers with make_layers, which leaves only this rank's part of them, "
        "and its forward runs over the list without taking from, or sending to, other ranks. "
        "An encoder that every rank needs whole is then run in part.",
        "Build such layers with a plain ModuleList, or hand over between ranks.",
    ),
    Rule(
        "PP501",
        "load-weights-unguarded",
        _E,
        "loud: KeyError while loading, on every rank",
        "loud: KeyError while loading, on every rank",
        "load_weights looks a checkpoint name up in params_dict without asking whether the "
        "parameter belongs to another rank.",
        "Skip the name when is_pp_missing_parameter(name, self), or when it is not in params_dict.",
    ),
    Rule(
        "PP502",
        "tied-head-without-embedding",
        _E,
        "loud: AttributeError on the last rank",
        "loud: AttributeError on the last rank",
        "lm_head is tied to the embedding on the last rank, where the embedding is a "
        "PPMissingLayer because only the first rank builds it.",
        "Build the embedding also where `config.tie_word_embeddings and is_last_rank`.",
    ),
    Rule(
        "PP601",
        "loop-state-not-sent",
        _E,
        SILENT,
        SILENT,
        "A variable goes into each layer and comes out of it, starts fresh on every rank, and is "
        "not part of what is sent: what the layers of one rank leave in it is lost for the next.",
        "Send the variable under a key of its own, declare it, and start from it on later ranks.",
    ),
    Rule(
        "PP602",
        "state-shared-across-layers",
        _I,
        "loud at load time, when the partition puts source and user on different ranks",
        "loud at load time, when the partition puts source and user on different ranks",
        "Layers use the KV cache of an earlier layer. When that layer is on another rank, the "
        "model cannot run with this partition.",
        "Keep source and users on one rank (VLLM_PP_LAYER_PARTITION), or refuse the partition.",
    ),
    Rule(
        "PP603",
        "aux-states-dropped",
        _I,
        "silent or loud, with speculative decoding only",
        "silent or loud, with speculative decoding only",
        "Auxiliary hidden states are collected on every rank, but those of ranks before the last "
        "are not sent: a drafter gets fewer than it asked for.",
        "Carry the collected states in IntermediateTensors and join them on the last rank.",
    ),
    Rule(
        "PP604",
        "inputs-used-on-later-ranks",
        _W,
        "works: the V1 runner gives input_ids to every rank",
        "loud: the V2 runner gives None to every rank but the first",
        "Layers are given input_ids on ranks that do not embed them.",
        "Send what the layers need as a key of its own.",
    ),
    Rule(
        "PP605",
        "received-state-transformed-again",
        _E,
        SILENT,
        SILENT,
        "What belongs to the embedding (a scale, a norm) is also applied to the received hidden "
        "states: once more on each rank.",
        "Apply it under is_first_rank only.",
    ),
    Rule(
        "PP606",
        "first-rank-argument-used",
        _E,
        "loud: AttributeError on None",
        "loud: AttributeError on None",
        "On a later rank, code asks an argument for an attribute that only the first rank is "
        "given (inputs_embeds and what else is computed from the inputs): there it is None.",
        "Use it under is_first_rank, or take the size from a received tensor.",
    ),
    Rule(
        "PP607",
        "layer-input-not-sent",
        _W,
        "silent: layers on later ranks go without it",
        "silent: layers on later ranks go without it",
        "The loop over layers uses an argument that only the first rank is given, and no key "
        "carries it on: a layer that needs it and sits on a later rank goes without. Nothing in "
        "the file asserts that such layers are all on the first rank.",
        "Send it under a key of its own, or assert that start_layer of later ranks is behind the "
        "layers that use it.",
    ),
    Rule(
        "PP608",
        "embedding-run-on-later-rank",
        _W,
        "loud where the embedding is a PPMissingLayer; silent where its result is not used",
        "loud: input_ids is None",
        "forward embeds the inputs also on ranks that receive: commonly `if inputs_embeds is None` "
        "without asking first whether intermediate_tensors came in.",
        "Ask `if intermediate_tensors is not None` (or is_first_rank) before.",
    ),
    Rule(
        "PP609",
        "set-on-first-rank-only",
        _E,
        "loud: UnboundLocalError",
        "loud: UnboundLocalError",
        "A variable is set on the path of the first rank alone, and used on later ranks.",
        "Set it on every path, or receive it in IntermediateTensors.",
    ),
    Rule(
        "PP610",
        "last-rank-work-before-the-boundary",
        _E,
        SILENT,
        SILENT,
        "What belongs behind the last layer of the whole model (the final norm, a head, a pooling) "
        "is applied behind the last layer of every rank, and its result is sent on.",
        "Apply it under is_last_rank only.",
    ),
    Rule(
        "PP611",
        "state-in-a-shared-object",
        _E,
        SILENT,
        SILENT,
        "Layers share a buffer, a dict or another object of one process; one layer leaves state "
        "in it that later layers read. Layers of the next rank have an object of their own, which "
        "nobody filled.",
        "Send what later layers read under a key of its own and put it back there, or assert that "
        "the layers are all on one rank.",
    ),
    Rule(
        "PP901",
        "unreadable",
        _E,
        "-",
        "-",
        "The file cannot be read or parsed, so nothing in it was checked. Exit status 2.",
        "Give the lint Python source in UTF-8.",
    ),
    Rule(
        "PP902",
        "not-followed",
        _I,
        "-",
        "-",
        "The class claims PP, but a part of its contract is decided where the lint cannot look: "
        "an inner model picked at run time, a base class that is not in the tree, computed keys. "
        "Rules that need that part did not run.",
        "Run the recorded contract (pp-harness check --run) for what the source does not tell.",
    ),
    Rule(
        "PP903",
        "unused-waiver",
        _W,
        "-",
        "-",
        "A waiver comment matches no finding: the fault is gone, or the code or line is wrong.",
        "Remove the comment.",
    ),
    Rule(
        "PP904",
        "waiver-without-reason",
        _W,
        "-",
        "-",
        "A waiver comment gives no reason, or names no known code; it is not applied.",
        "Write `# pp-lint: ignore[CODE] the reason`.",
    ),
)

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
