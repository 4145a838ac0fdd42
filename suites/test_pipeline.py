"""Every point of the sweep, four checks each: pytest suites/ --pp 4."""


def test_engine(pp_point, pp_judge):
    """The engine runs at PP=N with the layer split asked for, and else is the engine of PP=1."""
    pp_judge("engine", pp_point)


def test_contract(pp_point, pp_judge):
    """Neighbouring stages agree on every key: declared, sent, received, copied, read."""
    pp_judge("contract", pp_point)


def test_logits(pp_point, pp_judge):
    """Full-vocabulary logits at PP=N are those of PP=1, bit by bit."""
    pp_judge("logits", pp_point)


def test_accuracy(pp_point, pp_judge):
    """GSM8K answers at PP=N are those of PP=1, question by question."""
    pp_judge("accuracy", pp_point)
