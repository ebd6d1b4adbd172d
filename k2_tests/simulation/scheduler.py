"""Actors under one seeded scheduler: wherever a port is touched, another may go on, and this one may sleep or die."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from greenlet import getcurrent, greenlet

NEVER = 1 << 60
"""Step at which an actor wakes that sleeps until nobody else is left."""


class Crashed(BaseException):
    """An actor dies here. No BaseException is caught by the protocol, and nothing of a dead actor reaches a port."""


@dataclass
class Fate:
    """What happens to an actor at the nth time it passes a place, any place with None.

    It dies, with nap_steps None; it sleeps; or it stands still until somebody else is done with something, meanwhile.
    """

    place: str | None
    nth: int
    nap_steps: int | None = None
    meanwhile: Actor | None = None


@dataclass(eq=False)
class Actor:
    """One process: its own memory, gone when it dies. run_id names it in receipts. Nature is no process."""

    run_id: str
    body: Callable[[Actor], object]
    fates: list[Fate] = field(default_factory=list)
    wakes: int = 0
    left: int = 0
    dead: bool = False
    is_nature: bool = False
    thread: greenlet | None = None


class Stuck(AssertionError):
    """Raised when a seed takes more steps than any honest one: somebody goes in circles."""


class Scheduler:
    """Runs actors one step at a time. The same seed is the same schedule."""

    def __init__(self, rng: Random, *, slice_steps_max: int, steps_max: int, traced: bool = False) -> None:
        """slice_steps_max: how many steps an actor may take before the next is drawn. steps_max bounds a seed."""
        self.rng = rng
        self.step = 0
        self.actors: list[Actor] = []
        self.current: Actor | None = None
        self.trace: list[str] | None = [] if traced else None
        self.visited: dict[str, int] = {}
        self.died: Callable[[Actor], None] = lambda actor: None
        self._slice_steps_max = slice_steps_max
        self._steps_max = steps_max
        self._later: list[tuple[int, Callable[[], object]]] = []
        self._doomed: list[Actor] = []
        self._alone: list[Actor] = []
        self._main = getcurrent()

    def spawn(self, actor: Actor) -> None:
        """Let an actor take part from now on."""
        actor.thread = greenlet(self._live, parent=self._main)
        self.actors.append(actor)

    def reach(self, place: str) -> None:
        """Pass a named place; the only way from one actor to another. Outside of actors nothing happens."""
        actor = self.current
        self.visited[place] = self.visited.get(place, 0) + 1
        if actor is None:
            return
        if actor.dead:
            raise Crashed
        self.step += 1
        if self.trace is not None:
            self.trace.append(f"{self.step:>5} {actor.run_id:<14} {place}")
        if actor.fates:
            self._meet_fate(actor, place)
        actor.left -= 1
        if actor.left <= 0:
            self._give_way(actor)

    def tell(self, text: str) -> None:
        """Add a line to the trace of a seed that is replayed."""
        if self.trace is not None:
            who = self.current.run_id if self.current else "-"
            self.trace.append(f"      {who:<14}   {text}")

    def later(self, steps: int, what: Callable[[], object]) -> None:
        """Do something without an actor, a number of steps from now: a request still under way."""
        self._later.append((self.step + steps, what))

    def nap(self, steps: int) -> None:
        """Let the current actor sleep."""
        assert self.current is not None, "only an actor sleeps"
        self.current.wakes = self.step + steps
        self._give_way(self.current)

    def kill_all(self) -> None:
        """Let every other process die where it is."""
        self._doomed += [a for a in self.actors if a is not self.current and not a.is_nature]

    def run(self, go_on: Callable[[], bool]) -> None:
        """Run until no actor is left or go_on says no. Raises Stuck."""
        while self.actors and go_on():
            if self.step > self._steps_max:
                raise Stuck(f"{self._steps_max} steps and still {[a.run_id for a in self.actors]}")
            self._bury()
            self._arrive()
            if self.actors:
                self._switch(self._next())
        self._arrive(everything=True)

    def _next(self) -> Actor:
        if self._alone:
            return self._alone[-1]
        ready = [a for a in self.actors if a.wakes <= self.step]
        if not ready:
            self.step = max(self.step, min(a.wakes for a in self.actors if a.wakes < NEVER) if self._alarms() else 0)
            ready = [a for a in self.actors if a.wakes <= self.step] or self.actors
        return ready[int(self.rng.random() * len(ready))]

    def _alarms(self) -> bool:
        return any(a.wakes < NEVER for a in self.actors)

    def _switch(self, actor: Actor) -> None:
        actor.wakes = 0
        actor.left = 1 + int(self.rng.random() * self._slice_steps_max)
        self.current = actor
        assert actor.thread is not None, "spawned"
        try:
            actor.thread.switch(actor)
        finally:
            self.current = None
        if actor.thread.dead:
            self._leave(actor)

    def _live(self, actor: Actor) -> None:
        try:
            actor.body(actor)
        except Crashed:
            self.tell("is dead")

    def _give_way(self, actor: Actor) -> None:
        self._main.switch()
        if actor.dead:
            raise Crashed

    def _meet_fate(self, actor: Actor, place: str) -> None:
        fate = actor.fates[0]
        if fate.place is not None and fate.place != place:
            return
        fate.nth -= 1
        if fate.nth > 0:
            return
        actor.fates.pop(0)
        if fate.meanwhile is not None:
            self.tell(f"stands at {place} while {fate.meanwhile.run_id}")
            self.spawn(fate.meanwhile)
            self._alone.append(fate.meanwhile)
            self._give_way(actor)
            return
        if fate.nap_steps is None:
            self.tell(f"dies at {place}")
            actor.dead = True
            raise Crashed
        self.tell(f"sleeps {fate.nap_steps} steps at {place}")
        actor.wakes = NEVER if fate.nap_steps == NEVER else self.step + fate.nap_steps
        self._give_way(actor)

    def _bury(self) -> None:
        doomed, self._doomed = self._doomed, []
        for actor in doomed:
            if actor not in self.actors:
                continue
            actor.dead = True
            if actor.thread:
                self._switch(actor)
            else:  # never started: nothing of it has to be unwound
                self._leave(actor)

    def _leave(self, actor: Actor) -> None:
        self.actors.remove(actor)
        if actor in self._alone:
            self._alone.remove(actor)
        if actor.dead:
            self.died(actor)

    def _arrive(self, *, everything: bool = False) -> None:
        if not self._later:
            return
        due = [what for step, what in self._later if everything or step <= self.step]
        self._later = [] if everything else [(step, what) for step, what in self._later if step > self.step]
        for what in due:
            what()
