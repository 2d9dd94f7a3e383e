# The heap of due times against a model: a dict of times that is searched in full each time.
from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from brokerd.core.timing.due_heap import Schedule

names = st.sampled_from([f"grant-{n}" for n in range(12)])
times = st.floats(0, 100) | st.sampled_from([0.0, 1.0, 50.0])  # equal times too


class ScheduleAgainstADict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule()
        self.model: dict[str, float] = {}

    @rule(name=names, at=times)
    def set(self, name: str, at: float) -> None:
        self.schedule.set(name, at)
        self.model[name] = at

    @rule(name=names)
    def unset(self, name: str) -> None:
        self.schedule.set(name, None)
        self.model.pop(name, None)

    @rule(name=names, step=st.integers(1, 96))
    def set_again_and_again(self, name: str, step: int) -> None:
        for n in range(120):  # more than the heap keeps of old times
            self.set(name, float(n * step % 97))

    @rule(now=times)
    def take_due(self, now: float) -> None:
        taken = list(self.schedule.take_due(now))
        due = {name: at for name, at in self.model.items() if at <= now}
        assert sorted(taken) == sorted(due)
        assert [due[name] for name in taken] == sorted(due.values())
        for name in due:
            del self.model[name]

    @rule(now=times, again=st.floats(0, 50))
    def take_due_while_what_is_taken_is_set_anew(self, now: float, again: float) -> None:
        due = {name for name, at in self.model.items() if at <= now}
        taken = set()
        for name in self.schedule.take_due(now):
            taken.add(name)
            self.set(name, now + again + 0.01)
        assert taken == due

    @invariant()
    def agrees(self) -> None:
        assert len(self.schedule) == len(self.model)
        assert self.schedule.next() == min(self.model.values(), default=None)
        for name in (f"grant-{n}" for n in range(12)):
            assert self.schedule.at(name) == self.model.get(name)


TestScheduleAgainstADict = ScheduleAgainstADict.TestCase
TestScheduleAgainstADict.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


def test_ten_thousand_changes_of_one_grant_leave_no_heap_of_old_times() -> None:
    schedule = Schedule()
    for n in range(10_000):
        schedule.set("reports", float(n % 977))
    assert len(schedule._heap) <= 100
    assert list(schedule.take_due(1_000.0)) == ["reports"]
