"""What engines report, made into speeds: fitted online, one observation at a time, from a prior on.

Seconds of a prompt are start + tokens × (alone + more × others at work), seconds of an answer tokens × (alone + more ×
others). Each is a recursive least-squares fit of relative errors whose outliers count for less, and which slowly
forgets, so that a throttled or an upgraded machine is noticed. Values are frozen; nothing here knows a clock.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import exp, log, sqrt
from statistics import median
from typing import Final

from herd.core.prediction import Pace
from herd.core.value import value

USUAL_ANSWER: Final = 200.0  # tokens, where nothing was seen: the middle of public conversation traces
PARENT_WEIGHT: Final = 8.0  # answers that a tag or a model must have given to count as much as what it is a kind of
NOISE: Final = 0.15  # share by which one observation differs from the next on the same machine
FAR: Final = 3.0  # standard deviations from which on an observation counts for less
FORGET: Final = 0.97  # what the past weighs after one more observation: some dozens count
MOST_ASTRAY: Final = 4  # observations in a row that are far off in one direction are no outliers
LEAST_RATIO: Final = 1e-3  # a cached prompt that an engine does not tell of looks like no work at all
OVERHEAD_S: Final = 0.05
PROMPT_FALL, TOKEN_FALL = 0.5, 0.2
MOST_FALL: Final = 2.0  # a share of a slope that is next to nothing may be any number
# Where a machine is unknown: bytes a second that it loads, and reads of its memory.
LOAD_BYTES_PER_S: Final = 1.0 * 1024**3
MEMORY_BYTES_PER_S: Final = 100e9
EFFICIENCY: Final = 0.6  # of the bandwidth on paper while answering: 45 to 85 % are reported
# A prompt's token against an answer's: compute against bandwidth. Measured on consumer cards 30 to 60, on Apple's chips
# 8 to 15, on processors 3 to 6.
PROMPTS_PER_ANSWER: Final = {"nvidia": 40.0, "amd": 25.0, "apple": 10.0, "other": 8.0, "": 4.0}
UNKNOWN_SIZE: Final = 5 * 1024**3


@value
class Observation:
    """What one answered request says of its node and model; None where it says nothing.

    `load_s` where it loaded the model (`reload`: which was in memory not long before); tokens of the prompt without
    the cached ones; `others` are the requests that were at work beside it, on average.
    """

    load_s: float | None = None
    reload: bool = False
    prompt_tokens: int = 0
    prompt_s: float | None = None
    prompt_others: float = 0.0
    answer_tokens: int = 0
    answer_s: float | None = None
    answer_others: float = 0.0


@value
class Fit:
    """A linear model y = coefficients · x, and how sure it is of each: a covariance that never exceeds the prior's.

    No coefficient is below 0. `astray` counts the latest observations that were far off in the same direction, below 0
    for those that were too small: after some of them the guess that it began with is taken to be wrong.
    """

    coefficients: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    prior: tuple[float, ...]
    astray: int = 0

    @classmethod
    def begun(cls, coefficients: tuple[float, ...], doubts: tuple[float, ...]) -> "Fit":
        """A fit that knows nothing yet but a guess, and by how much each coefficient may be off."""
        variances = tuple(doubt**2 for doubt in doubts)
        size = range(len(variances))
        return cls(coefficients, tuple(tuple(variances[i] if i == j else 0.0 for j in size) for i in size), variances)

    def of(self, *x: float) -> float:
        """What the model says."""
        return sum(coefficient * each for coefficient, each in zip(self.coefficients, x, strict=True))

    def after(self, y: float, *x: float) -> "Fit":
        """The fit with one more observation."""
        said = max(self.of(*x), 1e-9)
        size = range(len(x))
        gains = [sum(row[i] * x[i] for i in size) for row in self.covariance]
        doubt = sum(gain * each for gain, each in zip(gains, x, strict=True))
        noise = (NOISE * max(said, y)) ** 2
        off = (y - said) / sqrt(doubt + noise)
        astray = 0 if abs(off) <= FAR else self.astray + 1 if off > 0 <= self.astray else min(self.astray, 0) - 1
        if abs(astray) >= MOST_ASTRAY:
            return self._again(y, x)
        total = doubt + noise * max(1.0, abs(off) / FAR) ** 2
        moved = [self.coefficients[i] + gains[i] / total * (y - said) for i in size]
        kept = [[(self.covariance[i][j] - gains[i] * gains[j] / total) / FORGET for j in size] for i in size]
        for i in size:  # the likeliest of those that are not below 0: what one may not take, the others do not give
            if moved[i] < 0 and kept[i][i] > 0:
                below = moved[i] / kept[i][i]
                moved = [each - kept[j][i] * below for j, each in enumerate(moved)]
        scale = [min(1.0, sqrt(self.prior[i] / kept[i][i])) if kept[i][i] > 0 else 1.0 for i in size]
        return replace(
            self,
            coefficients=tuple(max(0.0, each) for each in moved),
            covariance=tuple(tuple(kept[i][j] * scale[i] * scale[j] for j in size) for i in size),
            astray=astray,
        )

    def _again(self, y: float, x: tuple[float, ...]) -> "Fit":
        """A new beginning at what is seen now: the guess was off by a factor."""
        usual = sqrt(sum(variance * each**2 for variance, each in zip(self.prior, x, strict=True)))
        times = max(LEAST_RATIO, y / max(self.of(*x), usual))
        doubts = (sqrt(variance) * times for variance in self.prior)
        return Fit.begun(tuple(each * times for each in self.coefficients), tuple(doubts))


@value
class Speeds:
    """How fast a node is with a model, as far as is known; `pace` is what predictions are made with."""

    load: Fit
    reload: Fit
    prompt: Fit
    answer: Fit
    pace: Pace
    seen: int = 0

    def after(self, told: Observation) -> "Speeds":
        """The speeds with what one more request says."""
        known = self if self.seen else self._scaled(told)
        load, reload, prompt, answer = known.load, known.reload, known.prompt, known.answer
        if told.load_s is not None and told.reload:
            reload = reload.after(told.load_s, 1.0)
        elif told.load_s is not None:
            load = load.after(told.load_s, 1.0)
        if told.prompt_s is not None and told.prompt_tokens > 0:
            prompt = prompt.after(told.prompt_s, *_of_prompt(told))
        if told.answer_s is not None and told.answer_tokens > 1:
            answer = answer.after(told.answer_s, *_of_answer(told))
        return Speeds(load, reload, prompt, answer, _pace(load, reload, prompt, answer, True), self.seen + 1)

    def _scaled(self, told: Observation) -> "Speeds":
        """A guess is off by a factor rather than by a sum: the first answer says by which, and is fitted then."""
        load_s, prompt_s, token_s = self.pace.load_s, self.pace.prompt_s, self.pace.token_s
        if told.prompt_s and told.prompt_tokens > 0:
            prompt_s *= max(LEAST_RATIO, told.prompt_s / self.prompt.of(*_of_prompt(told)))
        if told.answer_s and told.answer_tokens > 1:
            token_s *= max(LEAST_RATIO, told.answer_s / self.answer.of(*_of_answer(told)))
        return _begun(load_s, prompt_s, token_s)


@value
class Machine:
    """What is known of a node whatever the model: what it is, and how it compares with such a machine on paper.

    `bandwidth` is bytes a second, None where unknown; `kind` the accelerator's as agents report it, empty for a
    processor. The others are logarithms: measured seconds over those expected on paper.
    """

    bandwidth: float | None = None
    kind: str = ""
    load: float = 0.0
    prompt: float = 0.0
    answer: float = 0.0
    loads_seen: int = 0
    seen: int = 0

    def after(self, told: Observation, size: int) -> "Machine":
        """The machine with what one request for a model of so many bytes says."""
        paper, found = prior(size, self.bandwidth, self.kind).pace, self
        if told.load_s and not told.reload:
            load = _toward(self.load, told.load_s / paper.load_s, self.loads_seen)
            found = replace(found, load=load, loads_seen=self.loads_seen + 1)
        if told.prompt_s and told.answer_s and told.prompt_tokens > 0 and told.answer_tokens > 1:
            expected_prompt = paper.prefill(told.prompt_tokens) * (1 + paper.prompt_fall * told.prompt_others)
            expected_answer = paper.answer(told.answer_tokens - 1) * (1 + paper.token_fall * told.answer_others)
            prompt = _toward(self.prompt, told.prompt_s / expected_prompt, self.seen)
            answer = _toward(self.answer, told.answer_s / expected_answer, self.seen)
            found = replace(found, prompt=prompt, answer=answer, seen=self.seen + 1)
        return found

    def among(self, peers: Sequence["Machine"]) -> "Machine":
        """The same machine, where it was not seen yet, as what its fleet makes likely.

        The middle of the others where it is known on paper. An unknown one is taken to be like the fastest: one request
        shows whether it is, while one that is taken to be slow would never get the request that shows it is not.
        """
        known = [peer for peer in peers if peer.seen]
        loaders = [peer.load for peer in peers if peer.loads_seen]
        guess = median if self.bandwidth else min
        found = self
        if not self.seen and known:
            prompt, answer = guess([peer.prompt for peer in known]), guess([peer.answer for peer in known])
            found = replace(found, prompt=prompt, answer=answer)
        if not self.loads_seen and loaders:
            found = replace(found, load=guess(loaders))
        return found

    def expects(self, size: int) -> Speeds:
        """What to expect of a model of so many bytes that it was not yet seen with."""
        return prior(size, self.bandwidth, self.kind, (exp(self.load), exp(self.prompt), exp(self.answer)))


def prior(
    size: int, bandwidth: float | None = None, kind: str = "", slower: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> Speeds:
    """What to expect of a model of so many bytes (0: unknown) on a machine that is known on paper.

    `slower` is by how much loads, prompts and answers were seen to take longer than on paper with other models.
    """
    weight = size or UNKNOWN_SIZE
    load_s = (1.0 + weight / LOAD_BYTES_PER_S) * slower[0]
    on_paper = weight / ((bandwidth or MEMORY_BYTES_PER_S) * EFFICIENCY)
    prompt_s = on_paper / PROMPTS_PER_ANSWER.get(kind, PROMPTS_PER_ANSWER[""]) * slower[1]
    token_s = on_paper * slower[2]
    return _begun(load_s, prompt_s, token_s)


def _begun(load_s: float, prompt_s: float, token_s: float) -> Speeds:
    """Speeds of a guess: seconds of a load, and for a token of prompt and of answer alone."""
    load, reload = Fit.begun((load_s,), (load_s,)), Fit.begun((load_s / 2,), (load_s,))
    prompt = Fit.begun((OVERHEAD_S, prompt_s, prompt_s * PROMPT_FALL), (OVERHEAD_S, 2 * prompt_s, prompt_s))
    answer = Fit.begun((token_s, token_s * TOKEN_FALL), (token_s, token_s * TOKEN_FALL))
    return Speeds(load, reload, prompt, answer, _pace(load, reload, prompt, answer, False))


def _of_prompt(told: Observation) -> tuple[float, float, float]:
    tokens = float(told.prompt_tokens)
    return 1.0, tokens, tokens * told.prompt_others


def _of_answer(told: Observation) -> tuple[float, float]:
    tokens = float(told.answer_tokens - 1)  # the first comes with the prompt's end
    return tokens, tokens * told.answer_others


def _toward(old: float, ratio: float, seen: int) -> float:
    """A moving average of a ratio's logarithm, in which a first observation counts for most."""
    return old + max(1 / (seen + 1.5), 0.05) * (log(max(ratio, 1e-3)) - old)


def _pace(load: Fit, reload: Fit, prompt: Fit, answer: Fit, measured: bool) -> Pace:
    start_s, prompt_s, prompt_more = prompt.coefficients
    token_s, token_more = answer.coefficients
    return Pace(
        load_s=load.coefficients[0],
        reload_s=min(load.coefficients[0], reload.coefficients[0]),
        start_s=start_s,
        prompt_s=prompt_s,
        token_s=token_s,
        prompt_fall=min(MOST_FALL, prompt_more / prompt_s) if prompt_s else PROMPT_FALL,
        token_fall=min(MOST_FALL, token_more / token_s) if token_s else TOKEN_FALL,
        measured=measured,
    )


@value
class Length:
    """How long the answers of one kind (a model, or a model and a tag) were on average, newer ones counting more."""

    mean: float = USUAL_ANSWER
    seen: int = 0

    def after(self, tokens: int) -> "Length":
        """The average with one more answer."""
        share = max(1 / (self.seen + 1), 1 - FORGET)
        return Length(self.mean + share * (tokens - self.mean), self.seen + 1)

    def within(self, parent: float) -> float:
        """Tokens to expect: this kind's own average the more, the more answers it is made of, else its parent's."""
        return (self.seen * self.mean + PARENT_WEIGHT * parent) / (self.seen + PARENT_WEIGHT)


def expected_tokens(of_model: Length, of_tag: Length | None = None, max_tokens: int | None = None) -> float:
    """The length to expect of an answer: by model and tag, else by model, else a constant; `max_tokens` bounds it."""
    expected = of_model.within(USUAL_ANSWER)
    if of_tag:
        expected = of_tag.within(expected)
    return expected if max_tokens is None or max_tokens < 0 else min(expected, float(max_tokens))
