"""What `decide` foresees is what the engine does, where nothing is left to guess."""

import pytest

from herd.planning.arrivals import at_rate, for_models
from herd.planning.compare import made_trace
from herd.planning.fleets import MODELS, fleet
from herd.planning.live import Herd, Options
from herd.planning.policies import Clairvoyant
from herd.planning.simulate import Simulation

ALL_KNOWN = Options(always_fresh=True, speeds_known=True, lengths_known=True)


class Watched(Herd):
    """Herd, with a note of what it foresaw and of what a copy of the engine run ahead says."""

    def __init__(self, engines):
        super().__init__(engines, ALL_KNOWN)
        self.seer = Clairvoyant(engines)
        self.pairs = []

    def _place(self, asked, now):
        waited = asked.waits
        truth = {place: self.seer.first_token(place, asked.job) - now for place in self.seer.holders[asked.job.model]}
        gifts = super()._place(asked, now)
        if not waited and not asked.waits:  # who waits in a lane is not at the engine yet, so it cannot be run ahead
            self.pairs.append((asked.candidate.predicted_ttft_s, truth[asked.place]))
        return gifts


@pytest.mark.parametrize(("machines", "rate", "kind"), [(5, 0.6, "code"), (3, 0.3, "conversation"), (3, 0.06, "long")])
def test_with_nothing_left_to_guess_a_prediction_is_the_engines_own_time(machines, rate, kind):
    """Loads, evictions, slots, shared compute: one physics, or the predictions are of another machine."""
    lengths = at_rate(made_trace(kind, 5), rate, 400, 5)
    simulation = Simulation(fleet(machines), Watched)
    simulation.run(for_models(lengths, list(MODELS), 5))
    pairs = simulation.router.pairs
    off = sorted(abs(said - truth) / truth for said, truth in pairs)
    assert len(pairs) > 300
    assert off[int(len(off) * 0.95)] < 0.01
    assert off[len(off) // 2] < 0.001
