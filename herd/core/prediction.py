"""The physics of a node: what it has to do, and when a further request would begin, answer and end there.

One machine computes for all its models. With n requests at work, a prompt takes 1 + `prompt_fall` (n - 1) times as
long as alone, an answer's token 1 + `token_fall` (n - 1) times. A load takes the same time whoever works. Each model
has its slots; who finds none waits in the order of coming. An answer that has begun is taken to have as much left as
one that begins: what it said so far tells little about how much it will still say.
"""

from bisect import bisect_left, insort
from dataclasses import replace
from math import inf
from operator import itemgetter
from typing import Final, NamedTuple

from herd.core.value import value
from herd.core.work import SOON_S, Job, Said, Work

AT: Final = itemgetter(0)
SAID: Final = itemgetter(1, 2)


@value
class Pace:
    """How fast a node is with one model, in seconds: to load it, to begin, and for a token of prompt and of answer.

    All of a machine that works on nothing else; the falls are what each further request at work adds, as a share.
    `reload_s` is a load whose file was in memory not long before; `measured` is false for a guess.
    """

    load_s: float = 5.0
    reload_s: float = 5.0
    start_s: float = 0.05
    prompt_s: float = 0.001
    token_s: float = 0.02
    prompt_fall: float = 0.5
    token_fall: float = 0.2
    measured: bool = True

    def prefill(self, tokens: float) -> float:
        """Seconds from the start of work to the first token, alone."""
        return self.start_s + self.prompt_s * max(0.0, tokens)

    def answer(self, tokens: float) -> float:
        """Seconds from the first token to the last, alone."""
        return self.token_s * max(0.0, tokens)

    def slower(self, times: float) -> "Pace":
        """The pace of a machine on which all but loads takes so many times as long."""
        start_s, prompt_s, token_s = self.start_s * times, self.prompt_s * times, self.token_s * times
        return replace(self, start_s=start_s, prompt_s=prompt_s, token_s=token_s)


class Times(NamedTuple):
    """Seconds from now until a request's load begins, its work begins, its first token and its end."""

    load_at: float
    work_at: float
    first_at: float
    end_at: float


def ahead(work: Work, now: float, pace: Pace, new: Job, slots: int, to_end: bool = False) -> Times:
    """When a job that came now would begin, answer and end; the end only where asked for, else the first token."""
    if not work.jobs:
        first = new.load_s + new.prefill_s
        return Times(0.0, new.load_s, first, first + new.answer_s)
    elapsed = max(0.0, now - work.as_of)
    if not (work.waiting or work.loading or work.pending) and new.load_s <= 0 and work.held.get(new.model, 0) < slots:
        return _beside(work, elapsed, pace, new, to_end)
    return _Run(work, elapsed, pace, slots).until(new, to_end)


def _beside(work: Work, elapsed: float, pace: Pace, new: Job, to_end: bool) -> Times:
    """The common case: a slot is free and the model loaded, so all begins at once and only the compute is shared."""
    prompts, answers = work.prompts, list(work.answers)
    prompt_fall, token_fall = pace.prompt_fall, pace.token_fall
    others = work.at_work
    prompt_clock, answer_clock, now = work.clock + elapsed / (1 + prompt_fall * max(0, others - 1)), 0.0, 0.0
    mine, first, j = prompt_clock + new.prefill_s, 0.0, 0
    i, count = bisect_left(prompts, (prompt_clock,)) if work.floor <= prompt_clock else 0, len(prompts)
    if i:  # these should be read already
        answers += map(SAID, prompts[:i])
        answers.sort()
    while True:
        prompt_slow, answer_slow = 1 + prompt_fall * others, 1 + token_fall * others
        step = (mine - answer_clock) * answer_slow if first else (mine - prompt_clock) * prompt_slow
        last = j < len(answers) and (answers[j][0] - answer_clock) * answer_slow < step
        if last:
            step = (answers[j][0] - answer_clock) * answer_slow
        if i < count and (other := (max(prompts[i][0], work.floor) - prompt_clock) * prompt_slow) <= step:
            step = max(0.0, other)
            insort(answers, (answer_clock + step / answer_slow + prompts[i][1], prompts[i][2]), lo=j)
            i += 1
        elif last:
            j += 1
            others -= 1
        elif first or not to_end:
            return Times(0.0, 0.0, first or now + step, now + step)
        else:
            first = now + step
            mine = answer_clock + step / answer_slow + new.answer_s
            if i == count:
                return Times(0.0, 0.0, first, first + _to_end(answers[j:], mine, new.answer_s, token_fall))
        now += step
        prompt_clock += step / prompt_slow
        answer_clock += step / answer_slow


def _to_end(answers: list[Said], mine: float, answer_s: float, token_fall: float) -> float:
    """Seconds of an answer that ends at `mine` on the clock of answers, beside others, with no prompt to come.

    Each of the others takes its share for as long as both go on.
    """
    begun, sooner = mine - answer_s, bisect_left(answers, (mine,))
    beside: float = sum(map(AT, answers[:sooner])) - sooner * begun + (len(answers) - sooner) * answer_s
    return answer_s + token_fall * beside


class _Run:
    """All that can happen at a node, event by event: loads that wait for room, slots that come free, shared compute."""

    def __init__(self, work: Work, elapsed: float, pace: Pace, slots: int) -> None:
        self.pace = pace
        self.slots = slots
        self.now = 0.0
        self.prompts = [(max(at, work.floor), answer_s, model, False) for at, answer_s, model in work.prompts]
        self.answers: list[tuple[float, str, bool]] = [(*each, False) for each in work.answers]
        self.held = dict(work.held)
        self.active: dict[str, int] = {}
        for model in (*(each[2] for each in work.prompts), *(each[1] for each in work.answers)):
            self.active[model] = self.active.get(model, 0) + 1
        self.waiting: list[tuple[Job, bool]] = [(job, False) for job in work.waiting]
        self.pending: list[tuple[Job, bool]] = [(job, False) for job in work.pending]
        self.loading: list[tuple[Job, bool]] = [(job, False) for job in work.loading]
        self.loaded: set[str] = set()
        self.load_end = max(SOON_S, work.loading[0].load_s - elapsed) if work.loading else inf
        self.times = [0.0, 0.0, 0.0, 0.0]
        n = len(self.prompts) + len(self.answers)
        self.prompt_clock, self.answer_clock = work.clock + elapsed / (1 + pace.prompt_fall * max(0, n - 1)), 0.0

    def until(self, new: Job, to_end: bool) -> Times:
        """Run until the new job's first token or end."""
        held = self.held.get(new.model, 0)
        if held >= self.slots or any(job.model == new.model for job, _ in self.waiting):
            self.waiting.append((new, True))
        else:
            self._enter(new, True)
        self._serve_waiting()
        while not self._step(to_end):
            pass
        return Times(*self.times)

    def _enter(self, job: Job, mine: bool) -> None:
        self.held[job.model] = self.held.get(job.model, 0) + 1
        self.pending.append((job, mine))
        self._admit()

    def _admit(self) -> None:
        while self.pending:
            job, mine = self.pending[0]
            if self.loading and self.loading[0][0].model == job.model:
                self.loading.append((job, mine))
            elif job.load_s <= 0 or job.model in self.loaded:
                self._work(job, mine)
            elif self.loading or any(self.active.get(victim) for victim in job.victims):
                return
            else:
                self.loading, self.load_end = [(job, mine)], self.now + job.load_s
                self.loaded.difference_update(job.victims)
            if mine:
                self.times[0] = self.now
            self.pending.pop(0)

    def _work(self, job: Job, mine: bool) -> None:
        if mine:
            self.times[1] = self.now
        self.active[job.model] = self.active.get(job.model, 0) + 1
        insort(self.prompts, (self.prompt_clock + job.prefill_s, job.answer_s, job.model, mine))

    def _step(self, to_end: bool) -> bool:
        n = len(self.prompts) + len(self.answers)
        prompt_slow = 1 + self.pace.prompt_fall * (n - 1)
        answer_slow = 1 + self.pace.token_fall * (n - 1)
        prompt = (self.prompts[0][0] - self.prompt_clock) * prompt_slow if self.prompts else inf
        answer = (self.answers[0][0] - self.answer_clock) * answer_slow if self.answers else inf
        load = self.load_end - self.now
        step = max(0.0, min(prompt, answer, load))
        if step == inf:
            return self._unstick()
        self.now += step
        if n:
            self.prompt_clock += step / prompt_slow
            self.answer_clock += step / answer_slow
        if load <= step:
            self._end_load()
            return False
        return self._end_prompt(to_end) if prompt <= answer else self._end_answer()

    def _end_load(self) -> None:
        there, self.loading, self.load_end = self.loading, [], inf
        self.loaded.add(there[0][0].model)
        for job, mine in there:
            self._work(job, mine)
        self._admit()

    def _end_prompt(self, to_end: bool) -> bool:
        _, answer_s, model, mine = self.prompts.pop(0)
        if mine:
            self.times[2] = self.times[3] = self.now
            if not to_end:
                return True
        insort(self.answers, (self.answer_clock + answer_s, model, mine))
        return False

    def _end_answer(self) -> bool:
        _, model, mine = self.answers.pop(0)
        if mine:
            self.times[3] = self.now
            return True
        self.active[model] -= 1
        self.held[model] -= 1
        self._serve_waiting()
        self._admit()
        return False

    def _serve_waiting(self) -> None:
        left = []
        for job, mine in self.waiting:
            if self.held.get(job.model, 0) < self.slots:
                self._enter(job, mine)
            else:
                left.append((job, mine))
        self.waiting = left

    def _unstick(self) -> bool:
        """Who waits has nothing to wait for, as far as is known here: it begins rather than never."""
        job, mine = (self.pending or self.waiting).pop(0)
        self.pending.insert(0, (job._replace(victims=()), mine))
        self._admit()
        return False
