"""Every rule speaks on the fault that it is for, and only then."""
# ruff: noqa: E501  lines of model source read better unbroken

from __future__ import annotations

from pathlib import Path

import pytest
from lint_models import SOUND, case_files, changed, codes, expected_codes, lint_source

from harness.lint import RULES, Severity

SEND = '{"hidden_states": hidden_states, "residual": residual}'
READ = '            residual = intermediate_tensors["residual"]\n'
FACTORY = '["hidden_states", "residual"], config.hidden_size'
DECLARED = """\
        self.make_empty_intermediate_tensors = make_empty_intermediate_tensors_factory(
            ["hidden_states", "residual"], config.hidden_size
        )
"""
LOOP = "for layer in islice(self.layers, self.start_layer, self.end_layer):"
CALL = "hidden_states, residual = layer(positions, hidden_states, residual)"
BEFORE = "        # before the layers\n"
AFTER = "        # after the layers\n"
WRAPPED = """\
        self.make_empty_intermediate_tensors = (
            self.model.make_empty_intermediate_tensors
        )
"""
GUARD = """\
            if is_pp_missing_parameter(name, self):
                continue
"""
EMBED = """\
        if get_pp_group().is_first_rank or (
            config.tie_word_embeddings and get_pp_group().is_last_rank
        ):
"""
PLE = (FACTORY, '["hidden_states", "residual", "ple"], config.hidden_size')
SEND_PLE = (SEND, '{"hidden_states": hidden_states, "residual": residual, "ple": extra}')
MAKE_PLE = (
    "            residual = None\n",
    "            residual = None\n            extra = self.ple(input_ids)\n",
)
# Made on the first rank, declared, read and added in each layer; each case sends it in its way.
PLE_IN_USE = (
    PLE,
    MAKE_PLE,
    (READ, READ + '            extra = intermediate_tensors["ple"]\n'),
    (CALL, CALL + "\n            hidden_states = hidden_states + extra"),
)

CASES: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("PP101", "the send lacks a key", [(SEND, '{"hidden_states": hidden_states}')]),
    ("PP101", "the names differ", [(READ, READ.replace('"residual"]', '"residuals"]'))]),
    ("PP102", "the factory lacks a key", [(FACTORY, '["hidden_states"], config.hidden_size')]),
    (
        "PP102",
        "keys of a loop",
        [
            (
                "            return IntermediateTensors(\n                "
                + SEND
                + "\n            )\n",
                "            sent = " + SEND + "\n            for i in range(3):\n"
                '                sent[f"deep_{i}"] = extra\n'
                "            return IntermediateTensors(sent)\n",
            )
        ],
    ),
    (
        "PP103",
        "declared for nothing",
        [(FACTORY, '["hidden_states", "residual", "side"], config.hidden_size')],
    ),
    ("PP104", "nobody reads", [PLE, SEND_PLE, MAKE_PLE]),
    (
        "PP105",
        "read behind a first-rank parameter",
        [
            PLE,
            SEND_PLE,
            MAKE_PLE,
            (
                READ,
                READ + "            if extra is not None:\n"
                '                extra = intermediate_tensors["ple"]\n',
            ),
        ],
    ),
    ("PP106", "overwritten before use", [(BEFORE, "        residual = None\n")]),
    (
        "PP107",
        "only the first rank sends it",
        [
            PLE,
            MAKE_PLE,
            (READ, READ + '            extra = intermediate_tensors["ple"]\n'),
            (
                "            return IntermediateTensors(\n                "
                + SEND
                + "\n            )\n",
                "            if get_pp_group().is_first_rank:\n"
                '                return IntermediateTensors({"hidden_states": hidden_states,'
                ' "residual": residual, "ple": extra})\n'
                "            return IntermediateTensors(" + SEND + ")\n",
            ),
            (CALL, CALL + "\n            hidden_states = hidden_states + extra"),
        ],
    ),
    (
        "PP108",
        "sent under a condition that the read lacks",
        [
            *PLE_IN_USE,
            (
                "            return IntermediateTensors(\n                "
                + SEND
                + "\n            )\n",
                "            sent = " + SEND + "\n            if self.wide:\n"
                '                sent["ple"] = extra\n'
                "            return IntermediateTensors(sent)\n",
            ),
        ],
    ),
    (
        "PP108",
        "spread from a dict that has the key only sometimes",
        [
            *PLE_IN_USE,
            (
                "            return IntermediateTensors(\n                "
                + SEND
                + "\n            )\n",
                "            sent, more = " + SEND + ", {}\n            if self.wide:\n"
                '                more["ple"] = extra\n'
                "            sent.update(**more)\n"
                "            return IntermediateTensors(sent)\n",
            ),
        ],
    ),
    (
        "PP201",
        "layers that always give None back",
        [
            (
                "return self.mix(hidden_states), self.skip(residual)",
                "return self.mix(hidden_states), None",
            )
        ],
    ),
    (
        "PP201",
        "a literal None",
        [(SEND, '{"hidden_states": hidden_states, "residual": None}')],
    ),
    ("PP202", "get", [(READ, '            residual = intermediate_tensors.get("residual")\n')]),
    (
        "PP202",
        "a tensor's method on what the inner model sends",
        [
            (
                "        return hidden_states\n\n    def load",
                "        return hidden_states\n\n    def load",
            ),
            (
                "            input_ids, positions, intermediate_tensors, inputs_embeds\n        )\n",
                "            input_ids, positions, intermediate_tensors, inputs_embeds\n        ).to(self.dtype)\n",
            ),
        ],
    ),
    (
        "PP204",
        "another dtype",
        [(AFTER, "        residual = torch.zeros((3, 8), dtype=torch.float32)\n")],
    ),
    (
        "PP205",
        "a buffer of the module",
        [
            (DECLARED, DECLARED + "        self.kept = torch.zeros((64, 8))\n"),
            (SEND, '{"hidden_states": hidden_states, "residual": self.kept[:4]}'),
        ],
    ),
    ("PP301", "the wrapper forgets", [(WRAPPED, "")]),
    (
        "PP303",
        "not passed on",
        [
            (
                "            input_ids, positions, intermediate_tensors, inputs_embeds\n        )",
                "            input_ids, positions, None, inputs_embeds\n        )",
            )
        ],
    ),
    (
        "PP304",
        "scaled on every rank",
        [
            (
                "        )\n        return hidden_states\n",
                "        )\n        return hidden_states * self.scale\n",
            )
        ],
    ),
    (
        "PP305",
        "nothing is sent",
        [
            (
                "        if not get_pp_group().is_last_rank:\n            return IntermediateTensors(\n"
                "                " + SEND + "\n            )\n",
                "",
            )
        ],
    ),
    (
        "PP307",
        "nothing is read",
        [
            (
                '            hidden_states = intermediate_tensors["hidden_states"]\n' + READ,
                "            hidden_states = self.embed_tokens(input_ids)\n            residual = hidden_states\n",
            )
        ],
    ),
    ("PP401", "all layers", [(LOOP, "for layer in self.layers:")]),
    ("PP401", "all layers, counted", [(LOOP, "for i, layer in enumerate(self.layers):")]),
    (
        "PP401",
        "all numbers",
        [(LOOP, "for i in range(len(self.layers)):\n            layer = self.layers[i]")],
    ),
    (
        "PP101",
        "read by a helper",
        [
            (
                '            hidden_states = intermediate_tensors["hidden_states"]\n' + READ,
                "            hidden_states, residual = self.unpack(intermediate_tensors)\n",
            ),
            (
                "    def load_weights",
                '    def unpack(self, it):\n        return it["hidden_states"], it["resid"]\n\n'
                "    def load_weights",
            ),
        ],
    ),
    (
        "PP402",
        "a plain list",
        [
            (
                "        self.start_layer, self.end_layer, self.layers = make_layers(\n"
                "            config.num_hidden_layers,\n"
                "            lambda prefix: ToyLayer(config, prefix=prefix),\n"
                '            prefix=f"{prefix}.layers",\n        )\n',
                "        self.layers = nn.ModuleList(\n"
                "            [ToyLayer(config) for _ in range(config.num_hidden_layers)]\n        )\n",
            ),
            (LOOP, "for layer in self.layers:"),
        ],
    ),
    (
        "PP403",
        "a part of the first layer",
        [
            (
                "    def load_weights",
                "    def window(self):\n        return self.layers[0].attn.window\n\n    def load_weights",
            )
        ],
    ),
    (
        "PP403",
        "a loop that asks each layer",
        [
            (
                WRAPPED,
                WRAPPED
                + "        for layer in self.model.layers:\n            self.last = layer.mlp\n",
            )
        ],
    ),
    (
        "PP404",
        "a local count used as a layer number",
        [
            (
                LOOP,
                "for i, layer in enumerate(islice(self.layers, self.start_layer, self.end_layer)):",
            ),
            (CALL, "hidden_states, residual = layer(self.tables[i], hidden_states, residual)"),
        ],
    ),
    (
        "PP405",
        "a weight that the rank lacks",
        [(WRAPPED, WRAPPED + "        self.width = self.model.norm.weight.shape[0]\n")],
    ),
    (
        "PP403",
        "a class that is asserted",
        [
            (
                WRAPPED,
                WRAPPED + "        for layer in self.model.layers:\n"
                "            assert isinstance(layer, ToyLayer)\n",
            )
        ],
    ),
    (
        "PP407",
        "an encoder that is split",
        [
            (
                "class ToyForCausalLM",
                "class ToyEncoder(nn.Module):\n"
                '    def __init__(self, config, prefix=""):\n'
                "        super().__init__()\n"
                "        self.start_layer, self.end_layer, self.layers = make_layers(\n"
                "            config.n, lambda prefix: ToyLayer(config), prefix=prefix)\n\n"
                "    def forward(self, x):\n"
                "        for layer in self.layers:\n"
                "            x = layer(x)\n"
                "        return x\n\n\nclass ToyForCausalLM",
            ),
            (WRAPPED, WRAPPED + "        self.encoder = ToyEncoder(config)\n"),
        ],
    ),
    ("PP501", "no guard", [(GUARD, "")]),
    (
        "PP501",
        "a guard for some names only",
        [
            (
                GUARD,
                '            if name.endswith(".bias") and name not in params_dict:\n                continue\n',
            )
        ],
    ),
    (
        "PP501",
        "a helper without a guard",
        [
            (
                GUARD + "            param = params_dict[name]\n",
                "            def load(n):\n                return params_dict[n]\n"
                "            param = load(name)\n",
            )
        ],
    ),
    (
        "PP502",
        "an embedding of the first rank",
        [(EMBED, "        if get_pp_group().is_first_rank:\n")],
    ),
    (
        "PP601",
        "state that starts fresh",
        [
            (BEFORE, "        memory = None\n"),
            (
                CALL,
                "hidden_states, residual, memory = layer(positions, hidden_states, residual, memory)",
            ),
        ],
    ),
    (
        "PP601",
        "skip connections",
        [
            (BEFORE, "        skips = []\n"),
            (
                CALL,
                CALL
                + "\n            skips.append(hidden_states)\n            hidden_states = hidden_states + skips.pop()",
            ),
        ],
    ),
    (
        "PP604",
        "token ids for layers",
        [(CALL, "hidden_states, residual = layer(input_ids, hidden_states, residual)")],
    ),
    (
        "PP605",
        "scaled again on each rank",
        [(BEFORE, "        hidden_states = hidden_states * self.config.scale\n")],
    ),
    (
        "PP606",
        "a size asked of None",
        [(BEFORE, "        count = inputs_embeds.shape[0]\n")],
    ),
    (
        "PP609",
        "a variable of the first rank",
        [
            (
                "            residual = None\n",
                "            residual = None\n            tau = self.tau(positions)\n",
            ),
            (CALL, "hidden_states, residual = layer(positions, hidden_states, residual, tau)"),
        ],
    ),
    (
        "PP608",
        "a wrapper that embeds whenever it has no embeddings",
        [
            (
                "        hidden_states = self.model(\n",
                "        if inputs_embeds is None:\n"
                "            inputs_embeds = self.model.embed_input_ids(input_ids)\n"
                "        hidden_states = self.model(\n",
            )
        ],
    ),
    (
        "PP204",
        "a cast before sending",
        [(AFTER, "        residual = residual.to(torch.float32)\n")],
    ),
    (
        "PP607",
        "an argument that layers use",
        [(CALL, CALL + "\n            hidden_states = hidden_states + extra")],
    ),
]


@pytest.mark.parametrize(
    ("code", "edits"), [(c, e) for c, _, e in CASES], ids=[f"{c}-{n}" for c, n, _ in CASES]
)
def test_fault_is_found(tmp_path: Path, code: str, edits: list[tuple[str, str]]) -> None:
    """A model with one fault gets the finding of that fault, with a line, a fix and a symbol."""
    report = lint_source(tmp_path, changed(*edits))
    assert code in codes(report)
    finding = next(f for f in report.findings if f.code == code)
    assert 1 <= finding.line <= len(changed(*edits).splitlines())
    assert all((finding.fix, finding.message, finding.symbol))


def test_sound_model_is_silent(tmp_path: Path) -> None:
    """A correct model gets no finding at all."""
    report = lint_source(tmp_path, SOUND)
    assert report.findings == ()
    assert report.classes == 1


def test_every_rule_has_a_case() -> None:
    """No rule is without a fault that shows that it works."""
    elsewhere = {"PP901", "PP902", "PP903", "PP904"}
    in_files = {code for case in case_files() for code in expected_codes(case)}
    assert {code for code, _, _ in CASES} | in_files | elsewhere == set(RULES)


SOUND_VARIANTS: dict[str, list[tuple[str, str]]] = {
    "guarded-by-config": [
        PLE,
        (
            "            return IntermediateTensors(\n                "
            + SEND
            + "\n            )\n",
            "            sent = " + SEND + "\n            if extra is not None:\n"
            '                sent["ple"] = extra\n            return IntermediateTensors(sent)\n',
        ),
        MAKE_PLE,
        (
            READ,
            READ
            + '            if self.wide:\n                extra = intermediate_tensors["ple"]\n',
        ),
        (CALL, CALL + "\n            hidden_states = hidden_states + extra"),
    ],
    "keys-grown-under-a-condition": [
        (
            DECLARED,
            '        keys = ["hidden_states", "residual"]\n        if self.wide:\n'
            '            keys.append("ple")\n'
            "        self.make_empty_intermediate_tensors = (\n"
            "            make_empty_intermediate_tensors_factory(keys, config.hidden_size)\n        )\n",
        ),
        MAKE_PLE,
        (
            READ,
            READ + '            extra = intermediate_tensors["ple"] if self.wide else None\n',
        ),
        (CALL, CALL + "\n            hidden_states = self.join(hidden_states, extra)"),
        (
            "            return IntermediateTensors(\n                "
            + SEND
            + "\n            )\n",
            "            sent = " + SEND + "\n            if self.wide:\n"
            '                sent["ple"] = extra\n            return IntermediateTensors(sent)\n',
        ),
    ],
    "indices-instead-of-a-slice": [
        (
            LOOP,
            "for i in range(self.start_layer, self.end_layer):\n            layer = self.layers[i]",
        ),
    ],
    "global-count": [
        (
            LOOP,
            "for i, layer in enumerate(\n            islice(self.layers, self.start_layer, self.end_layer),"
            " start=self.start_layer\n        ):",
        ),
        (CALL, "hidden_states, residual = layer(self.tables[i], hidden_states, residual)"),
    ],
    "missing-layers-skipped": [
        (
            WRAPPED,
            WRAPPED + "        for layer in self.model.layers:\n"
            "            if isinstance(layer, PPMissingLayer):\n                continue\n"
            "            self.last = layer.mlp\n",
        )
    ],
    "guard-by-membership": [
        (GUARD, "            if name not in params_dict:\n                continue\n")
    ],
    "guarded-helper": [
        (
            GUARD + "            param = params_dict[name]\n",
            "            def load(n):\n                return params_dict[n]\n"
            "            if is_pp_missing_parameter(name, self):\n                continue\n"
            "            param = load(name)\n",
        )
    ],
    "state-folded-before-the-boundary": [
        (BEFORE, "        pending = None\n"),
        (
            CALL,
            "hidden_states, residual, pending = layer(positions, hidden_states, residual, pending)",
        ),
        (AFTER, "        hidden_states = self.fold(hidden_states, pending)\n"),
    ],
    "a-wrapper-that-embeds-on-the-first-rank": [
        (
            "        hidden_states = self.model(\n",
            "        if intermediate_tensors is not None:\n            inputs_embeds = None\n"
            "        elif inputs_embeds is None:\n"
            "            inputs_embeds = self.model.embed_input_ids(input_ids)\n"
            "        hidden_states = self.model(\n",
        )
    ],
    "a-size-asked-of-what-is-there": [
        (
            BEFORE,
            "        if inputs_embeds is not None and inputs_embeds.shape[0] > 1:\n"
            "            hidden_states = self.pad(hidden_states)\n",
        )
    ],
    "layers-that-use-an-argument-are-asserted-to-be-first": [
        (
            WRAPPED,
            WRAPPED
            + "        assert get_pp_group().is_first_rank or self.model.start_layer >= 3\n",
        ),
        (CALL, CALL + "\n            hidden_states = hidden_states + extra"),
    ],
    "inner-model-at-run-time": [
        (
            "self.model = ToyModel(vllm_config=vllm_config, prefix=prefix)",
            "self.model = init_vllm_registered_model(vllm_config=vllm_config, prefix=prefix)",
        ),
    ],
    "keys-that-an-update-spreads": [
        *PLE_IN_USE,
        (
            "            return IntermediateTensors(\n                "
            + SEND
            + "\n            )\n",
            "            sent = " + SEND + "\n            sent.update(**self.more(extra))\n"
            "            return IntermediateTensors(sent)\n",
        ),
    ],
    "pairs-made-a-dict": [
        (BEFORE, '        state = dict([("residual", residual)])\n        residual = None\n'),
        (CALL, CALL + "\n            hidden_states = self.join(hidden_states, state)"),
    ],
    "spread-arguments": [
        (
            "        hidden_states = self.model(\n"
            "            input_ids, positions, intermediate_tensors, inputs_embeds\n        )\n",
            '        given = {"input_ids": input_ids, "positions": positions,\n'
            '                 "intermediate_tensors": intermediate_tensors}\n'
            "        hidden_states = self.model(**given, inputs_embeds=inputs_embeds)\n",
        )
    ],
}


@pytest.mark.parametrize("name", SOUND_VARIANTS)
def test_sound_variant_is_silent(tmp_path: Path, name: str) -> None:
    """Other ways of writing the same correct thing get no error and no warning."""
    report = lint_source(tmp_path, changed(*SOUND_VARIANTS[name]))
    assert [f for f in report.findings if f.severity is not Severity.INFO] == []
