"""What one node has to do: its jobs in the order in which they came, sorted by what they are at.

A value that is made anew at each change (a job begins, answers, ends, a model is loaded), so that between two of them
nothing happens but the passing of time. One model is loaded at a time; whoever comes behind a load that has not begun
waits with it, as Ollama has it.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

Ticket = int | str | None
Prompt = tuple[float, float, str]
Said = tuple[float, str]


class Job(NamedTuple):
    """One request at a node, or in a lane and meant for it; seconds as if it were alone.

    `load_s` is what is left of its model's load, 0 where that is in memory; the load cannot begin before `victims` have
    nothing to do. `answered`: the first token was seen, so only the answer is left. `waits`: it has no slot yet.
    `known`: the answer's length is no guess, so what was said of it counts.
    """

    ticket: Ticket
    model: str
    prefill_s: float
    answer_s: float
    load_s: float = 0.0
    victims: tuple[str, ...] = ()
    answered: bool = False
    waits: bool = False
    known: bool = False


SOON_S: Final = 0.01  # what should be over already is taken to end at every moment
TICKET: Final = itemgetter(0)


@dataclass(slots=True, unsafe_hash=True)
class Work:
    """The jobs of a node as of a moment; nobody changes one that is in use.

    Many requests at once would cost each of them a look at all the others, if what is left of their prompts were
    written down at each change. So it stands on a clock, as fair queueing has it: `clock` tells how long every prompt
    at work has been read, `prefill_s` of such a job is when on that clock it ends, though not before `floor`. Of the
    others it is what is left. Both are 0 while a load is due.

    What follows from the jobs is made when it is first asked for, or with the work that it was made from: `prompts` as
    (when on the clock, answer's seconds, model) and `answers` as (seconds, model), the soonest first. `steady`: no load
    is due, and of no answer is known how long it will be.
    """

    as_of: float = 0.0
    jobs: tuple[Job, ...] = ()
    prompt_fall: float = 0.5
    token_fall: float = 0.2
    clock: float = 0.0
    floor: float = 0.0
    prompts: tuple[Prompt, ...] = field(init=False, compare=False, repr=False)
    answers: tuple[Said, ...] = field(init=False, compare=False, repr=False)
    loading: tuple[Job, ...] = field(init=False, compare=False, repr=False)
    pending: tuple[Job, ...] = field(init=False, compare=False, repr=False)
    waiting: tuple[Job, ...] = field(init=False, compare=False, repr=False)
    held: Mapping[str, int] = field(init=False, compare=False, repr=False)
    steady: bool = field(init=False, compare=False, repr=False)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What follows from the jobs, where it was not made yet: only then is a slot empty."""
            if name not in DERIVED:
                raise AttributeError(name)
            self._sort()
            return getattr(self, name)

    def _sort(self) -> None:
        """Sort the jobs by what they are at: this does not depend on who asks."""
        prompts: list[Prompt] = []
        answers: list[Said] = []
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
        self.prompts, self.answers = tuple(sorted(prompts)), tuple(sorted(answers))
        self.loading, self.pending, self.waiting, self.held = tuple(loading), tuple(pending), tuple(waiting), held
        self.steady = not any(job.load_s > 0 or job.known for job in self.jobs)

    @property
    def at_work(self) -> int:
        """How many requests share the compute."""
        return len(self.prompts) + len(self.answers)

    def begun(self, job: Job, now: float) -> "Work":
        """A job came to the node, or into a lane with this node in mind."""
        if not self.steady or job.load_s > 0 or job.known:
            return self._of((*self._moved(now), job), now)
        work = self._on(now)
        if job.waits:
            work.jobs, work.waiting = (*work.jobs, job), (*work.waiting, job)
            return work
        if job.answered:
            work.answers = _with(work.answers, (job.answer_s, job.model))
        else:
            ticket, model, prefill_s, answer_s, *_ = job
            job = Job(ticket, model, work.clock + prefill_s, answer_s)
            work.prompts = _with(work.prompts, (job.prefill_s, answer_s, model))
        work.jobs = (*work.jobs, job)
        work.held = {**work.held, job.model: work.held.get(job.model, 0) + 1}
        return work

    def answered(self, ticket: Ticket, now: float) -> "Work":
        """A job's first token came: its model is loaded, then."""
        place = self._place(ticket)
        if place is None:
            return self.at(now)
        job = self.jobs[place]
        if not self.steady or job.waits:
            return self._of(tuple(
                each._replace(answered=True, load_s=0.0) if at == place else _in_memory(each, job.model)
                for at, each in enumerate(self._moved(now))
            ), now)  # fmt: skip
        work = self._on(now)
        if not job.answered:
            _, model, prefill_s, answer_s, *_ = job
            work.prompts = _without(work.prompts, (prefill_s, answer_s, model))
            work.answers = _with(work.answers, (answer_s, model))
            spoken = Job(ticket, model, 0.0, answer_s, answered=True)
            work.jobs = (*work.jobs[:place], spoken, *work.jobs[place + 1 :])
        return work

    def loaded(self, model: str, now: float) -> "Work":
        """A model is in memory now, so those who waited for it are at work."""
        if self.steady:
            return self.at(now)
        return self._of(tuple(_in_memory(job, model) for job in self._moved(now)), now)

    def ended(self, ticket: Ticket, now: float) -> "Work":
        """A job is done, or gone."""
        place = self._place(ticket)
        if place is None:
            return self.at(now)
        job = self.jobs[place]
        if not self.steady:
            moved = self._moved(now)
            return self._of((*moved[:place], *moved[place + 1 :]), now)
        work = self._on(now)
        work.jobs = (*work.jobs[:place], *work.jobs[place + 1 :])
        if job.waits:
            work.waiting = tuple(each for each in work.waiting if each is not job)
            return work
        if job.answered:
            work.answers = _without(work.answers, (job.answer_s, job.model))
        else:
            work.prompts = _without(work.prompts, (job.prefill_s, job.answer_s, job.model))
        held = {**work.held, job.model: work.held[job.model] - 1}
        if not held[job.model]:
            del held[job.model]
        work.held = held
        return work

    def at(self, now: float) -> "Work":
        """The same work at a later moment: prompts and a load have gone on; answers are as before, unless known."""
        return self._on(now) if self.steady else self._of(self._moved(now), now)

    def left(self, job: Job) -> float:
        """Seconds that are left of the prompt of a job that is here, as if it were alone."""
        on_the_clock = not (job.answered or job.waits or job.load_s > 0)
        return max(job.prefill_s, self.floor) - self.clock if on_the_clock else job.prefill_s

    def _place(self, ticket: Ticket) -> int | None:
        tickets = list(map(TICKET, self.jobs))
        return tickets.index(ticket) if ticket in tickets else None

    def _on(self, now: float) -> "Work":
        """This work at a later moment, where only the clock goes on."""
        work: Work = object.__new__(Work)
        elapsed, clock, floor = now - self.as_of, self.clock, self.floor
        if not self.prompts:
            clock = floor = 0.0
        elif elapsed > 0:
            clock += elapsed / (1 + self.prompt_fall * (self.at_work - 1))
            floor = clock + SOON_S
        work.as_of, work.jobs, work.clock, work.floor = (now if elapsed > 0 else self.as_of), self.jobs, clock, floor
        work.prompt_fall, work.token_fall = self.prompt_fall, self.token_fall
        work.prompts, work.answers, work.waiting, work.held = self.prompts, self.answers, self.waiting, self.held
        work.loading, work.pending, work.steady = (), (), True
        return work

    def _of(self, jobs: tuple[Job, ...], now: float) -> "Work":
        return Work(max(now, self.as_of), jobs, self.prompt_fall, self.token_fall)

    def _moved(self, now: float) -> tuple[Job, ...]:
        """The jobs with what is left of them now, on no clock."""
        elapsed = max(0.0, now - self.as_of)
        if not self.jobs or (not elapsed and not self.clock):
            return self.jobs
        others, least = max(0, self.at_work - 1), SOON_S if elapsed else 0.0
        read, said = elapsed / (1 + self.prompt_fall * others), elapsed / (1 + self.token_fall * others)
        idle, loading = {id(job) for job in (*self.waiting, *self.pending)}, {id(job) for job in self.loading}
        jobs = []
        for job in self.jobs:
            if (job.answered and not job.known) or id(job) in idle:
                jobs.append(job)
            elif id(job) in loading:
                jobs.append(job._replace(load_s=max(SOON_S, job.load_s - elapsed), victims=()))
            elif job.answered:
                jobs.append(job._replace(answer_s=max(SOON_S, job.answer_s - said)))
            else:
                jobs.append(job._replace(prefill_s=max(least, self.left(job) - read)))
        return tuple(jobs)


DERIVED: Final = frozenset({"prompts", "answers", "loading", "pending", "waiting", "held", "steady"})
IDLE: Final = Work()


def _in_memory(job: Job, model: str | None) -> Job:
    return job._replace(load_s=0.0) if job.load_s > 0 and job.model == model else job


def _with(ordered: tuple[Any, ...], item: tuple[Any, ...]) -> tuple[Any, ...]:
    place = bisect_left(ordered, item)
    return (*ordered[:place], item, *ordered[place:])


def _without(ordered: tuple[Any, ...], item: tuple[Any, ...]) -> tuple[Any, ...]:
    place = bisect_left(ordered, item)
    return (*ordered[:place], *ordered[place + 1 :])
