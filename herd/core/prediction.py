"""The physics of a node: what it has to do, and when a further request would begin, answer and end there.

One machine computes for all its models. With n requests at work, a prompt takes 1 + `prompt_fall` (n - 1) times as
long as alone, an answer's token 1 + `token_fall` (n - 1) times. A load takes the same time whoever works. Each model
has its slots; who finds none waits in the order of coming. An answer that has begun is taken to have as much left as
one that begins: what it said so far tells little about how much it will still say.
"""

from bisect import insort
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final, NamedTuple


@dataclass(frozen=True, slots=True)
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


class Job(NamedTuple):
    """One request at a node, or in a lane and meant for it; seconds as if it were alone.

    `load_s` is what is left of its model's load, 0 where that is in memory; the load cannot begin before `victims` have
    nothing to do. `answered`: the first token was seen, so only the answer is left. `waits`: it has no slot yet.
    `known`: the answer's length is no guess, so what was said of it counts.
    """

    ticket: Hashable
    model: str
    prefill_s: float
    answer_s: float
    load_s: float = 0.0
    victims: tuple[str, ...] = ()
    answered: bool = False
    waits: bool = False
    known: bool = False


class Times(NamedTuple):
    """Seconds from now until a request's load begins, its work begins, its first token and its end."""

    load_at: float
    work_at: float
    first_at: float
    end_at: float


SOON_S: Final = 0.01  # what should be over already is taken to end at every moment


@dataclass(frozen=True, slots=True)
class Work:
    """What one node has to do, as of a moment: its jobs in the order in which they came.

    Made anew at each change (a job begins, answers, ends, a model is loaded), so that between two of them nothing
    happens but the passing of time. One model is loaded at a time; whoever comes behind a load that has not begun
    waits with it, as Ollama has it.
    """

    as_of: float = 0.0
    jobs: tuple[Job, ...] = ()
    prompt_fall: float = 0.5
    token_fall: float = 0.2
    prompts: tuple[tuple[float, float, str], ...] = field(init=False, compare=False)
    answers: tuple[tuple[float, str], ...] = field(init=False, compare=False)
    loading: tuple[Job, ...] = field(init=False, compare=False)
    pending: tuple[Job, ...] = field(init=False, compare=False)
    waiting: tuple[Job, ...] = field(init=False, compare=False)
    held: Mapping[str, int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Sort the jobs by what they are at: this does not depend on who asks."""
        prompts: list[tuple[float, float, str]] = []
        answers: list[tuple[float, str]] = []
        loading: list[Job] = []
        pending: list[Job] = []
        waiting: list[Job] = []
        held: dict[str, int] = {}
        working: set[str] = set()
        for job in self.jobs:
            if job.waits:
                waiting.append(job)
                continue
            held[job.model] = held.get(job.model, 0) + 1
            if pending and not job.answered:
                pending.append(job)
            elif job.load_s > 0:
                begun = loading[0].model == job.model if loading else working.isdisjoint(job.victims)
                (loading if begun else pending).append(job)
            else:
                working.add(job.model)
                if job.answered:
                    answers.append((job.answer_s, job.model))
                else:
                    prompts.append((job.prefill_s, job.answer_s, job.model))
        for name, value in (
            ("prompts", tuple(sorted(prompts))), ("answers", tuple(sorted(answers))), ("loading", tuple(loading)),
            ("pending", tuple(pending)), ("waiting", tuple(waiting)), ("held", held),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    @property
    def at_work(self) -> int:
        """How many requests share the compute."""
        return len(self.prompts) + len(self.answers)

    def begun(self, job: Job, now: float) -> "Work":
        """A job came to the node, or into a lane with this node in mind."""
        moved = self.at(now)
        return replace(moved, jobs=(*(each for each in moved.jobs if each.ticket != job.ticket), job))

    def answered(self, ticket: Hashable, now: float) -> "Work":
        """A job's first token came: its model is loaded, then."""
        moved = self.at(now)
        model = next((job.model for job in moved.jobs if job.ticket == ticket), None)
        return replace(moved, jobs=tuple(
            job._replace(answered=True, load_s=0.0) if job.ticket == ticket else _in_memory(job, model)
            for job in moved.jobs
        ))  # fmt: skip

    def loaded(self, model: str, now: float) -> "Work":
        """A model is in memory now, so those who waited for it are at work."""
        moved = self.at(now)
        return replace(moved, jobs=tuple(_in_memory(job, model) for job in moved.jobs))

    def ended(self, ticket: Hashable, now: float) -> "Work":
        """A job is done, or gone."""
        moved = self.at(now)
        return replace(moved, jobs=tuple(job for job in moved.jobs if job.ticket != ticket))

    def at(self, now: float) -> "Work":
        """The same work at a later moment: prompts and a load have gone on; answers are as before, unless known."""
        if not self.jobs or now <= self.as_of:
            return self if now <= self.as_of else replace(self, as_of=now)
        others, elapsed = max(0, self.at_work - 1), now - self.as_of
        read, said = elapsed / (1 + self.prompt_fall * others), elapsed / (1 + self.token_fall * others)
        idle = {id(job) for job in self.waiting} | {id(job) for job in self.pending}
        loading = {id(job) for job in self.loading}
        jobs = []
        for job in self.jobs:
            if id(job) in idle or (job.answered and not job.known):
                jobs.append(job)
            elif id(job) in loading:
                jobs.append(job._replace(load_s=max(SOON_S, job.load_s - elapsed), victims=()))
            elif job.answered:
                jobs.append(job._replace(answer_s=max(SOON_S, job.answer_s - said)))
            else:
                jobs.append(job._replace(prefill_s=max(SOON_S, job.prefill_s - read)))
        return replace(self, as_of=now, jobs=tuple(jobs))


IDLE: Final = Work()


def _in_memory(job: Job, model: str | None) -> Job:
    return job._replace(load_s=0.0) if job.load_s > 0 and job.model == model else job


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
    prompt_clock, answer_clock, now = elapsed / (1 + prompt_fall * max(0, others - 1)), 0.0, 0.0
    mine = prompt_clock + new.prefill_s
    first = 0.0
    i = j = 0
    while True:
        prompt_slow, answer_slow = 1 + prompt_fall * others, 1 + token_fall * others
        step, which = (mine - prompt_clock) * prompt_slow if not first else (mine - answer_clock) * answer_slow, 0
        if i < len(prompts) and (other := (prompts[i][0] - prompt_clock) * prompt_slow) < step:
            step, which = max(0.0, other), 1
        if j < len(answers) and (other := (answers[j][0] - answer_clock) * answer_slow) < step:
            step, which = other, 2
        now += step
        prompt_clock += step / prompt_slow
        answer_clock += step / answer_slow
        if which == 1:
            insort(answers, (answer_clock + prompts[i][1], prompts[i][2]), lo=j)
            i += 1
        elif which == 2:
            j += 1
            others -= 1
        elif first or not to_end:
            return Times(0.0, 0.0, first or now, now)
        else:
            first, mine = now, answer_clock + new.answer_s


class _Run:
    """All that can happen at a node, event by event: loads that wait for room, slots that come free, shared compute."""

    def __init__(self, work: Work, elapsed: float, pace: Pace, slots: int) -> None:
        self.pace = pace
        self.slots = slots
        self.now = 0.0
        self.prompts: list[tuple[float, float, str, bool]] = [(*each, False) for each in work.prompts]
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
        self.prompt_clock, self.answer_clock = elapsed / (1 + pace.prompt_fall * max(0, n - 1)), 0.0

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
