"""Configs of which the planner says that it does not know, and those that it plans."""

import pytest
from families import TINY, family

from harness.models.config import read_config
from harness.models.instruments import instrument_names, instrument_path
from harness.models.unplanned import encoder_of, unknown_split

DECODER = {"num_hidden_layers": 8, "num_attention_heads": 4}
UNKNOWN = {
    "cross-layer attention": (
        {**DECODER, "use_cla": True, "cla_share_factor": 2},
        "use_cla=True, cla_share_factor=2",
    ),
    "nested": ({"text_config": {**DECODER, "use_cla": True, "cla_share_factor": 2}}, "use_cla"),
    "yoco": ({**DECODER, "yoco_global_kv_layer": 4}, "yoco_global_kv_layer=4"),
    "another name": ({**DECODER, "num_shared_kv_layers": 3}, "num_shared_kv_layers=3"),
    "one more": ({**DECODER, "kv_sharing_interval": 2}, "kv_sharing_interval=2"),
    "encoder-decoder": ({"num_layers": 8, "is_encoder_decoder": True}, "encoder beside"),
    "bert": ({**DECODER, "type_vocab_size": 2}, "type_vocab_size"),
    "masked": ({**DECODER, "architectures": ["XForMaskedLM"]}, "XForMaskedLM"),
    "mamba": ({"num_hidden_layers": 8, "state_size": 16}, "without KV caches"),
}
KNOWN = {
    "plain": DECODER,
    "layers alone": {"n_layer": 7},
    "switched off": {**DECODER, "use_cla": False, "cla_share_factor": 2},
    "a factor of one": {**DECODER, "use_cla": True, "cla_share_factor": 1},
    "a factor without the switch": {**DECODER, "cla_share_factor": 2},
    "drafts' empty keys": {**DECODER, "yoco_global_kv_layer": None},
    "the known key": {**DECODER, "num_kv_shared_layers": 2},
    "a BERT that decodes": {**DECODER, "type_vocab_size": 2, "is_decoder": True},
    "attention beside a state": {**DECODER, "state_size": 16},
    "shared experts": {**DECODER, "shared_expert_intermediate_size": 64},
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_not_known_is_said(case):
    """The reason names the key by which a model is none that can be planned."""
    config, words = UNKNOWN[case]
    assert words in unknown_split(config)


@pytest.mark.parametrize("case", KNOWN)
def test_what_can_be_planned_is(case):
    """Keys that share nothing, or that the planner knows, stand in no one's way."""
    assert unknown_split(KNOWN[case]) is None


def test_everything_shipped_can_be_planned():
    """No instrument and no tiny configuration, most of them hybrids, is taken for an encoder."""
    configs = [read_config(instrument_path(name)) for name in instrument_names()]
    configs += [family(name) for name in TINY]
    assert [unknown_split(config) for config in configs] == [None] * len(configs)
    assert [encoder_of(config) for config in configs] == [None] * len(configs)
