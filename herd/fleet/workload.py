"""What one node has to do, and how fast it was seen to do it.

It keeps the jobs of `core.prediction` in step with what happens, and marks when requests begin and answer.
Times are unix seconds of a clock that never jumps.
"""

from dataclasses import dataclass, field, replace

from herd.core.learning import Machine
from herd.core.observed import Mark
from herd.core.prediction import Pace
from herd.core.work import IDLE, Job, Ticket, Work


@dataclass(slots=True)
class Workload:
    """The jobs of one node, with a mark for each by its ticket; `busy` is the sum over time of who was at work."""

    machine: Machine
    work: Work = IDLE
    busy: float = 0.0
    marks: dict[Ticket, Mark] = field(default_factory=dict)

    def without(self, ticket: int | None, now: float) -> Work:
        """The node's work as it would be without this ticket's own."""
        if ticket is None or ticket not in self.marks:
            return self.work
        return self.work.ended(ticket, now)

    def begun(self, job: Job, now: float) -> None:
        """A request was given to the node, or waits for a slot there."""
        self._move(now)
        self.work = self.work.begun(job, now)
        self.marks[job.ticket] = Mark(now, self.busy)

    def answered(self, ticket: int, now: float) -> None:
        """A request's first content came."""
        if mark := self.marks.get(ticket):
            self._move(now)
            self.work = self.work.answered(ticket, now)
            mark.first_at, mark.first_busy = now, self.busy

    def loaded(self, model: str, now: float) -> None:
        """A model is in memory now."""
        if self.work.jobs:
            self._move(now)
            self.work = self.work.loaded(model, now)

    def ended(self, ticket: int, now: float) -> Mark | None:
        """A request is done with the node, or waits for it no longer; returns where it began."""
        mark = self.marks.pop(ticket, None)
        if mark is not None:
            self._move(now)
            self.work = self.work.ended(ticket, now)
        return mark

    def follow(self, pace: Pace) -> None:
        """Take over how the machine slows with the number of requests at work."""
        if (self.work.prompt_fall, self.work.token_fall) != (pace.prompt_fall, pace.token_fall):
            self.work = replace(self.work, prompt_fall=pace.prompt_fall, token_fall=pace.token_fall)

    def _move(self, now: float) -> None:
        self.busy += max(0.0, now - self.work.as_of) * self.work.at_work
