"""Which faults are seeded, where each must be found, and which changes are harmless."""

from dataclasses import dataclass

# The last stage, after its last layer: where a final norm or a soft cap is lost.
AFTER_LAYERS = -1


@dataclass(frozen=True)
class Seed:
    """One change of the self-test: a fault, or harmless.

    `stage` and `layer` say where the first difference must be found (AFTER_LAYERS: behind the last
    layer; None: no layer's output differs in a probe, so that there is none to name). `quick` ones
    are in the subset of the CI. A `fine` one is less than a rounding of bfloat16, in which it
    changes no bit.
    """

    name: str
    kind: str
    what: str
    model: str = "ple"
    pp: int = 2
    profile: str = "parity"
    stage: int | None = 1
    layer: int | None = 5
    harmless: bool = False
    quick: bool = False
    fine: bool = False

    @property
    def is_localisable(self) -> bool:
        """Whether there is a layer to name."""
        return not self.harmless and self.layer is not None


def _faults() -> tuple[Seed, ...]:
    return (
        Seed("key-not-read", "dropped", "later stages never read per_layer_inputs", quick=True),
        Seed("key-not-sent", "dropped", "per_layer_inputs is not sent, its buffer is stale"),
        Seed("ple-layers-swapped", "swapped", "PLE of layers 5 and 6 are exchanged"),
        Seed("hidden-stale", "stale", "hidden_states are those of the step before", quick=True),
        Seed("ple-stale-in-decode", "stale", "decode reads per_layer_inputs of the step before"),
        Seed("row-duplicated", "duplicated", "row 0 is sent in the place of row 1"),
        Seed("ple-duplicated", "duplicated", "every layer gets the PLE of layer 5", layer=6),
        Seed("ple-transposed", "transposed", "PLE arrives layers and width exchanged", quick=True),
        Seed(
            "hidden-rows-reversed",
            "transposed",
            "rows of hidden_states reversed",
            model="dense",
            layer=4,
        ),
        Seed(
            "downcast-on-read",
            "down-cast",
            "hidden_states rounded to bfloat16 once read",
            fine=True,
        ),
        Seed(
            "downcast-on-wire", "down-cast", "hidden_states sent as bfloat16", quick=True, fine=True
        ),
        Seed(
            "upcast-on-wire",
            "up-cast",
            "hidden_states sent as float64: the same numbers in twice the bytes",
            quick=True,
            stage=None,
            layer=None,
        ),
        Seed(
            "not-relayed",
            "not relayed",
            "stage 1 of 4 does not pass PLE on",
            pp=4,
            stage=2,
            layer=4,
        ),
        Seed(
            "relayed-as-zeros",
            "not relayed",
            "stage 1 of 4 passes zeros on for PLE",
            pp=4,
            stage=2,
            layer=4,
        ),
        Seed("layer-skipped", "layer slice", "the first layer of stage 1 is left out"),
        Seed("layer-twice", "layer slice", "the first layer of stage 1 runs twice"),
        Seed(
            "layers-swapped",
            "layer slice",
            "layers 4 and 5 run in the wrong order",
            model="dense",
            layer=4,
        ),
        Seed(
            "ple-slice-off-by-one", "PLE slice", "layer i gets the PLE of layer i - 1", quick=True
        ),
        Seed("ple-slice-local", "PLE slice", "PLE is indexed from the stage's first layer"),
        Seed("final-norm-missing", "norm, softcap", "no final norm", layer=AFTER_LAYERS),
        Seed(
            "final-norm-unset",
            "norm, softcap",
            "the final norm has weights of one",
            layer=AFTER_LAYERS,
        ),
        Seed(
            "softcap-missing",
            "norm, softcap",
            "no soft cap on the logits",
            quick=True,
            layer=AFTER_LAYERS,
        ),
        Seed("layer-scalar-unset", "norm, softcap", "the scalar of layer 5 is one"),
        Seed(
            "embed-scale-twice",
            "embedding scale",
            "stage 0 scales embeddings twice",
            stage=0,
            layer=0,
        ),
        Seed("embed-scale-on-receive", "embedding scale", "stage 1 scales hidden_states again"),
        Seed("residual-twice", "residual", "layer 5 adds its residual twice"),
        Seed("residual-lost", "residual", "layer 5 loses its residual"),
        Seed(
            "positions-shifted",
            "RoPE",
            "positions of stage 1 are three too high: the same answers, other bits",
        ),
        Seed("positions-restart", "RoPE", "positions of stage 1 are 0 in decode", quick=True),
        Seed("window-lost", "sliding, full", "sliding layers of stage 1 see everything"),
        Seed(
            "window-on-full", "sliding, full", "full layer 6 sees the sliding window only", layer=6
        ),
        Seed(
            "windows-swapped",
            "sliding, full",
            "stage 1 takes sliding for full and full for sliding: types by its own layer index",
            layer=6,
        ),
        Seed("kv-of-another-layer", "KV cache", "in decode layer 5 uses the cache of layer 7"),
        Seed("kv-wrong-source", "KV cache", "layer 8 shares the cache of layer 5, not 7", layer=8),
        Seed("mutated-before-send", "mutated", "hidden_states change between return and send"),
        Seed(
            "mutated-in-flight",
            "mutated",
            "hidden_states change between send and receive",
            quick=True,
        ),
        Seed("requests-swapped", "micro-batches", "two requests of a batch get each other's rows"),
        Seed("batch-of-step-before", "micro-batches", "a batch reads the rows of the one before"),
        Seed("long-context-only", "long context", "no PLE from position 64 on", quick=True),
        Seed("past-position-300", "long context", "hidden_states scaled from position 300 on"),
        Seed(
            "pp4-only",
            "PP=4 only",
            "stage 3 of 4 reads hidden_states one element off",
            pp=4,
            stage=3,
            layer=6,
        ),
        Seed(
            "decode-only",
            "decode only",
            "hidden_states scaled by 1.001 in decode",
            quick=True,
            fine=True,
        ),
        Seed("first-row-of-batch", "decode only", "the first of several decode rows is scaled"),
        Seed("three-in-decode", "decode only", "a decode batch of exactly three is scaled"),
        Seed(
            "large-batch-only",
            "large batch",
            "decode batches of more than eight, which no probe has, read zeros",
            stage=None,
            layer=None,
        ),
        Seed(
            "one-expert",
            "one expert",
            "expert 3 of layer 5 gives nothing",
            model="moe",
            layer=5,
            quick=True,
        ),
        Seed(
            "experts-one-off",
            "one expert",
            "experts of layer 4 have each other's output",
            model="moe",
            layer=4,
        ),
        Seed(
            "expert-scales-one-off",
            "one expert",
            "scales of layer 4's experts are one off",
            model="moe",
            layer=4,
        ),
        Seed(
            "value-norm-lost",
            "norm, softcap",
            "layer 7 does not normalise its values",
            model="moe",
            layer=7,
        ),
        Seed("one-ulp", "one ULP", "one element arrives one ULP off"),
        Seed(
            "one-ulp-in-noise",
            "one ULP",
            "the same among batches whose logits are noisy anyway",
            profile="stress",
            layer=None,
        ),
        Seed(
            "decode-only-in-noise",
            "decode only",
            "hidden_states scaled by 1.001 in decode, among noisy batches",
            profile="stress",
            fine=True,
        ),
        Seed(
            "requests-swapped-in-noise",
            "micro-batches",
            "two requests of a noisy batch get each other's rows",
            profile="stress",
        ),
        Seed(
            "key-not-read-in-noise",
            "dropped",
            "later stages never read per_layer_inputs, among noisy batches",
            profile="stress",
        ),
        Seed("numeric-only", "numeric", "layer 5 is off by one part in ten million", fine=True),
        Seed(
            "attention-scale",
            "numeric",
            "attention of layer 4 is scaled by 0.999",
            model="dense",
            layer=4,
        ),
    )


def _harmless() -> tuple[Seed, ...]:
    def seed(
        name: str, what: str, *, quick: bool = False, pp: int = 2, profile: str = "parity"
    ) -> Seed:
        return Seed(name, "harmless", what, pp=pp, profile=profile, harmless=True, quick=quick)

    return (
        seed("nothing", "the hooks are entered and change nothing", quick=True),
        seed("keys-reordered", "keys are sent in another order", quick=True),
        seed("cloned-before-send", "tensors are copied before they are sent"),
        seed("cloned-on-arrival", "tensors are copied as they arrive"),
        seed("cloned-on-read", "the model is given copies"),
        seed("through-double", "hidden_states go through float64 and back", quick=True),
        seed("reshaped-on-read", "tensors are flattened and shaped back"),
        seed("weights-rewritten", "a weight is written with its own values"),
        seed("extra-attribute", "the model has one attribute more"),
        seed("extra-hook", "layers carry a hook that only looks"),
        seed("positions-copied", "layers get copies of the positions"),
        seed("nothing-in-noise", "the hooks are entered under stress", profile="stress"),
        seed("cloned-on-read-in-noise", "the model is given copies, stress", profile="stress"),
        seed("relay-rebuilt", "a middle stage packs its output anew", pp=4),
    )


FAULTS = _faults()
HARMLESS = _harmless()
SEEDS = FAULTS + HARMLESS
