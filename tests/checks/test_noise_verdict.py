"""Verdicts under noise, from whole captures: faults, noise, and what nobody can tell."""

import copy

import numpy as np
import pytest

from harness.checks.finding import Outcome
from harness.checks.judge import judge
from harness.checks.logits.logits import compare_logits
from harness.checks.registry import Comparison
from harness.engine.settings import Kernels, Mode, Profile, Weights

REQUESTS, ROWS, FLOORS, LAYERS = 24, 4, 3, 4
SPANS = tuple((f"r{number}", 0, ROWS) for number in range(REQUESTS))


class Pair:
    """PP=1 with three floor passes and PP=2, of four layers, all of whose rows have equal bits."""

    def __init__(self, build, profile=Profile.STRESS, dtype="bfloat16"):
        self.baseline, self.candidate = build(pp=1, spans=SPANS), build(pp=2, spans=SPANS)
        self.draw = np.random.default_rng(0)
        for index, step in enumerate(self.baseline.steps(0)):
            step["layers"] = copy.deepcopy(
                self.candidate.steps(0)[index]["layers"] | self.candidate.steps(1)[index]["layers"]
            )
        self.baseline.event(0, "layers")["indices"] = list(range(LAYERS))
        row = self.draw.normal(0, 4, 50).tolist()
        for side in self.sides:
            side.logits = {name: [x + name[1] for x in row] for name in side.logits}
            side.asked(profile=profile, dtype=dtype, weights=Weights.CHECKPOINT)
        again = self.baseline.logits
        self.baseline.floors = [copy.deepcopy(again) for _ in range(FLOORS)]
        steps = self.baseline.steps(0)
        self.passes = [copy.deepcopy(steps) for _ in range(FLOORS)]
        for number, floor in enumerate(self.passes, start=1):
            for step in floor:
                step["spans"] = [[f"floor{number}:{name}", *at] for name, *at in step["spans"]]
        self.baseline.ranks[0] += [step for floor in self.passes for step in floor]
        self.baseline.wrote_floor_steps = True

    @property
    def sides(self):
        return self.baseline, self.candidate

    def move(self, which, size, requests=range(REQUESTS), first_layer=0, rows=range(ROWS)):
        """Move rows of a pass (a floor's number, or None: PP=2) from a layer on, by `size`."""
        logits = self.candidate.logits if which is None else self.baseline.floors[which]
        for request in requests:
            for layer in range(first_layer, LAYERS):
                rank = 0 if which is not None or layer < 2 else 1
                steps = self.candidate.steps(rank) if which is None else self.passes[which]
                content = steps[request]["layers"][str(layer)]
                for row in rows:
                    content["digest"][row] = int(self.draw.integers(1 << 60))
                    content["sketch"][row] = [x * (1 + size) for x in content["sketch"][row]]
            for row in rows:
                name = (f"r{request}", row)
                values = np.array(logits[name])
                logits[name] = (values + size * values.std() * self.draw.normal(0, 1, 50)).tolist()

    def noise(self, size=1e-3, share=0.5, quiet=()):
        """Move a share of the requests of PP=2 and of each floor pass, from any layer on."""
        for which in (None, *range(FLOORS)):
            for request in range(REQUESTS):
                if request not in quiet and self.draw.random() < share:
                    self.move(which, size, [request], int(self.draw.integers(LAYERS)))

    def judge(self):
        return compare_logits(*(side.save() for side in self.sides))


@pytest.fixture
def pair(build):
    return Pair(build)


def test_equal_bits_pass_under_stress(pair):
    """Nothing moved: rows are bit-identical, and the least fault that shows is any."""
    verdict = pair.judge()
    assert verdict.outcome is Outcome.PASS
    assert verdict.summary == f"{REQUESTS * ROWS} rows bit-identical"
    assert verdict.figures["smallest_fault"] == 0


def test_noise_passes_with_the_smallest_fault_that_would_have_been_seen(pair):
    """PP=2 that moves as PP=1 does passes, and its summary says what it would have seen."""
    pair.noise()
    verdict = pair.judge()
    assert verdict.outcome is Outcome.PASS, verdict.summary
    assert 0 < verdict.figures["smallest_fault"] < 0.01
    assert "in every row would have been seen" in verdict.summary
    assert verdict.figures["floor_passes"] == FLOORS


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("size", [0.01, 0.03])
def test_a_systematic_fault_of_stage_1_fails_and_is_placed(pair, noise, size):
    """Every row off by a percent from stage 1 on (scale-1.01): LOG001 at its first layer."""
    pair.noise(share=noise)
    pair.move(None, size, first_layer=2)
    (found,) = pair.judge().findings
    assert (found.code, found.stage, found.layer) == ("LOG001", 1, 2)
    assert "100% of rows differ there" in found.message
    assert "at PP=1 in other batches" in found.message


def test_a_systematic_fault_is_a_matter_of_bits_where_pp_1_repeats(pair):
    """A thousandth in every row, less than a rounding of bfloat16, fails beside a quiet floor."""
    pair.move(None, 1e-3, first_layer=2)
    assert pair.judge().outcome is Outcome.FAIL


def test_a_fault_of_one_request_fails_where_it_enters(pair):
    """One row that is another's enters by more than any rounding, among noise."""
    pair.noise(quiet=[5])
    pair.move(None, 1.0, [5], first_layer=2, rows=[1])
    (found,) = pair.judge().findings
    assert (found.code, found.layer, found.evidence["requests"]) == ("LOG001", 2, ["r5"])
    assert "r5 position 1" in found.message


def test_a_fault_that_noise_hides_in_the_logits_is_the_layers(pair):
    """Logits that rounding alone makes unrelated say nothing; the layer at the boundary does."""
    for which in range(FLOORS):
        for request in range(REQUESTS):
            pair.move(which, 1e-3, [request], rows=[0])
            name = (f"r{request}", 0)
            pair.baseline.floors[which][name] = pair.draw.normal(0, 4, 50).tolist()
    pair.move(None, 0.4, [5], first_layer=2)
    (found,) = pair.judge().findings
    assert (found.code, found.stage, found.layer) == ("LOG006", 1, 2)


def test_few_rows_beside_a_quiet_floor_are_inconclusive(pair):
    """Two requests off by a percent are no chance and no proof where PP=1 shows no noise."""
    pair.move(None, 0.01, [3, 4], first_layer=2)
    verdict = pair.judge()
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.findings[0].code == "LOG005"
    assert "PP=1 repeats every row" in verdict.summary
    assert "--pp-profile parity" in verdict.findings[0].fix


def test_noise_that_hides_a_percent_is_inconclusive(pair):
    """A comparison that a fault of one percent could pass is no pass."""
    pair.noise(size=0.02, share=1.0)
    verdict = pair.judge()
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "noise hides a fault of" in verdict.summary


def test_rows_of_no_floor_pass_are_inconclusive(pair):
    """Rows that moved and that PP=1 did not run again are compared with nothing."""
    pair.noise()
    pair.move(None, 1e-3, [0])
    del pair.baseline.floors[1]["r0", 3]
    verdict = pair.judge()
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "no floor pass of PP=1 holds" in verdict.summary


def test_another_expert_in_one_row_is_inconclusive(pair):
    """In a mixture of experts a tie may turn: a row that jumps is neither fault nor noise."""
    pair.baseline.event(0, "weights")["kinds"].append("layers.*.router.weight")
    pair.noise(quiet=[5])
    pair.move(None, 0.5, [5], first_layer=2, rows=[1])
    verdict = pair.judge()
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "another expert" in verdict.summary


def test_a_baseline_without_floor_is_inconclusive(pair):
    """Rows that differ with nothing to compare their noise with prove nothing."""
    pair.baseline.floors = []
    pair.move(None, 1e-3, [5])
    assert pair.judge().outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("size", "outcome"),
    [(0.0, Outcome.PASS), (2e-3, Outcome.INCONCLUSIVE), (0.5, Outcome.FAIL)],
)
def test_compiled_code_is_judged_by_bits_or_by_its_bulk(build, size, outcome):
    """The floor of compiled code holds no noise: bits pass, rounding is open, more fails."""
    pair = Pair(build, Profile.PARITY)
    for side in pair.sides:
        side.asked(mode=Mode.COMPILED)
    if size:
        pair.move(None, size)
    assert pair.judge().outcome is outcome


@pytest.mark.parametrize(
    ("noise", "fault", "outcome"),
    [
        (2e-3, 0.0, Outcome.PASS),
        (2e-3, 0.03, Outcome.FAIL),
        (1e-5, 1e-3, Outcome.FAIL),
        (0.02, 0.0, Outcome.INCONCLUSIVE),
        (0.0, 1e-3, Outcome.INCONCLUSIVE),
    ],
)
def test_compiled_code_may_be_as_far_off_as_it_is_from_eager_code(build, noise, fault, outcome):
    """Noise of that size passes and a fault beyond it fails, if a fault of 1 % would show."""
    pair = Pair(build, Profile.PARITY, dtype="float32")
    for side in pair.sides:
        side.asked(mode=Mode.COMPILED, weights=Weights.RANDOM)
    if noise:
        pair.move(0, noise)
        pair.move(None, noise)
    if fault:
        pair.move(None, fault)
    eager = build(pp=1, spans=SPANS)
    eager.logits, eager.floors = pair.baseline.floors[0], []
    pair.baseline.floors = []
    verdict = compare_logits(*(side.save() for side in (*pair.sides, eager)))
    assert verdict.outcome is outcome
    assert ("floor" in verdict.figures) == bool(noise)
    if outcome is Outcome.PASS:
        assert "from compiled to eager code" in verdict.summary


def test_random_weights_may_be_compiled_far_apart(build):
    """Of weights that amplify rounding no bulk is a proof in compiled mode."""
    pair = Pair(build, Profile.PARITY)
    for side in pair.sides:
        side.asked(mode=Mode.COMPILED, weights=Weights.RANDOM)
    pair.move(None, 0.5)
    assert pair.judge().outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(("layer", "outcome"), [(0, Outcome.FAIL), (1, Outcome.PASS)])
def test_what_only_the_last_layer_of_a_stage_shows_is_a_look_ahead(build, layer, outcome):
    """Of a difference that the layer behind it does not see nothing was lost."""
    pair = Pair(build)
    for step in pair.candidate.steps(0):
        prints = step["layers"][str(layer)]
        prints["digest"] = [digest + 1 for digest in prints["digest"]]
        prints["sketch"] = [[value + 9 for value in sketch] for sketch in prints["sketch"]]
    assert pair.judge().outcome is outcome


# ---- parity: bits, row by row -----------------------------------------------------------------


def test_a_row_that_pp_1_repeats_must_be_equal_beside_one_that_it_does_not(build):
    """One unrepeated bit at PP=1 excuses no other row: 3 % in a repeated row fails."""
    pair = Pair(build, Profile.PARITY)
    pair.move(0, 1e-3, [0], rows=[0])
    pair.move(None, 0.03, [5], first_layer=2, rows=[1])
    verdict = pair.judge()
    assert [found.code for found in verdict.findings] == ["LOG001", "LOG007"]
    assert verdict.findings[0].message.startswith("logits differ in 1 of 96 rows")


def test_a_row_that_pp_1_does_not_repeat_is_a_warning(build):
    """Where only that row differs, and no more than at PP=1, parity passes and warns."""
    pair = Pair(build, Profile.PARITY)
    for which in (0, None):
        pair.move(which, 1e-3, [0], rows=[0])
    verdict = pair.judge()
    assert verdict.outcome is Outcome.PASS, verdict.summary
    assert [found.code for found in verdict.findings] == ["LOG007"]
    assert "PP=1 does not repeat 1 of 96 rows" in verdict.findings[0].message


def test_a_layer_that_differs_is_an_error_of_its_own(build):
    """Parity asks for equal layers too: rows whose logits are not kept show only there."""
    pair = Pair(build, Profile.PARITY)
    pair.candidate.steps(1)[7]["layers"]["2"]["digest"][1] += 1
    (found,) = pair.judge().findings
    assert (found.code, found.stage, found.layer) == ("LOG006", 1, 2)


def test_masked_logits_are_equal_on_both_sides(build):
    """Tokens that both sides mask with minus infinity are no finding and no distance."""
    pair = Pair(build, Profile.PARITY)
    for rows in (pair.baseline.logits, pair.candidate.logits, *pair.baseline.floors):
        for values in rows.values():
            values[3] = float("-inf")
    assert pair.judge().outcome is Outcome.PASS


# ---- invariant kernels: bits in other batches ---------------------------------------------------


def test_invariant_kernels_that_repeat_ask_for_bits_under_stress(build):
    """Where PP=1 repeats all rows in other batches, one row off by a millionth fails at PP=N."""
    pair = Pair(build)
    for side in pair.sides:
        side.asked(kernels=Kernels.INVARIANT)
    pair.move(None, 1e-6, [5], first_layer=2, rows=[1])
    (found,) = pair.judge().findings
    assert (found.code, found.layer) == ("LOG001", 2)


def test_invariant_kernels_that_do_not_repeat_are_judged_by_noise(build):
    """The setting is no evidence: PP=1 that moves in other batches has noise, and it is said."""
    pair = Pair(build)
    for side in pair.sides:
        side.asked(kernels=Kernels.INVARIANT)
    pair.noise()
    verdict = pair.judge()
    assert verdict.outcome is Outcome.PASS
    assert [found.code for found in verdict.findings] == ["LOG007"]


# ---- rows that must be there ------------------------------------------------------------------


def test_rows_that_both_sides_lack_are_blocked(pair):
    """All rows but a few dropped on both sides are no agreement of the few."""
    for side in pair.sides:
        side.logits = {row: values for row, values in side.logits.items() if row[0] == "r0"}
    verdict = pair.judge()
    assert verdict.outcome is Outcome.BLOCKED
    assert "lack 92 of the 96 rows" in verdict.summary


def test_layer_rows_that_both_sides_lack_are_blocked(pair):
    """A layer that was traced in some steps only has not been compared."""
    for side in pair.sides:
        del side.steps(0)[3]["layers"]["1"]
    verdict = pair.judge()
    assert verdict.outcome is Outcome.BLOCKED
    assert "layer 1 of PP=1 lack 4 of the 96 rows" in verdict.summary


def test_other_requests_do_not_compare(pair):
    """LOG003: both sides must have been sent the same requests."""
    pair.candidate.cached["more"] = 0
    (found,) = pair.judge().findings
    assert found.code == "LOG003"


@pytest.mark.parametrize("side", [0, 1])
def test_rows_from_the_prefix_cache_are_not_missed(pair, side):
    """What a cache held is computed by nobody; a row behind it that is missing is still LOG003."""
    for step in (step for rank in pair.sides[side].ranks for step in pair.sides[side].steps(rank)):
        if step["spans"][0][0].endswith("r0"):
            step["spans"][0][1:] = [2, 2]
            for content in step["layers"].values():
                for kind in content:
                    content[kind] = content[kind][2:]
    for position in (0, 1):
        del pair.sides[side].logits["r0", position]
    pair.sides[side].cached["r0"] = 2
    assert pair.judge().outcome is Outcome.PASS
    del pair.sides[side].logits["r0", 2]
    (found,) = pair.judge().findings
    assert found.evidence["rows"] == ["r0@2"]


# ---- sensitivity in the metric of the verdict -------------------------------------------------


@pytest.mark.parametrize(("effect", "outcome"), [(0.5, Outcome.PASS), (1e-6, Outcome.INCONCLUSIVE)])
def test_a_weight_that_moves_less_than_noise_hides_is_a_blind_spot(pair, effect, outcome):
    """LOG004: under noise a perturbation counts as seen above the smallest fault alone."""
    pair.noise()
    pair.baseline.effects["weight:embed.weight"] = effect
    verdict = judge("logits", Comparison(*(side.save() for side in pair.sides)))
    assert verdict.outcome is outcome
    codes = [found.code for found in verdict.findings]
    assert codes == ([] if outcome is Outcome.PASS else ["LOG004"])


def test_equal_bits_take_the_least_effect(build):
    """Where bits decide a perturbation counts however little it moves."""
    pair = Pair(build, Profile.PARITY)
    pair.baseline.effects["weight:embed.weight"] = 1e-6
    assert (
        judge("logits", Comparison(*(side.save() for side in pair.sides))).outcome is Outcome.PASS
    )
