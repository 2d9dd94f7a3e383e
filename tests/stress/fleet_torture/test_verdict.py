# The checker finds each violation in small histories that were made up, and excuses what the named window explains.
from __future__ import annotations

from typing import Any

import pytest

from tests.stress.fleet_torture.history import Line
from tests.stress.fleet_torture.verdict import Judge, Verdict

LIFE, LIMIT = 30, 30.0


class Story:
    """A history of two hosts and three nodes, told in the order of time."""

    def __init__(self, graces: dict[str, float] | None = None) -> None:
        self.lines: list[Line] = []
        run = {"hosts": ["a", "b"], "nodes": ["n1", "n2", "n3"], "grants": {"g": ["a", "b"]}, "lives": {"g": LIFE}}
        more = {"graces": graces or {}, "answer_timeout": LIMIT, "recovers_within": 60.0}
        self.line(0.0, "run", **run, **more)
        self.request(1.0, 1, "a", "r0", access="a1", next="r1")
        self.get(2.0, "a", "a1")
        self.get(2.0, "b", "a1")

    def line(self, t: float, what: str, **more: object) -> None:
        self.lines.append({"t": t, "what": what, **more})

    def request(
        self,
        t: float,
        number: int,
        host: str,
        refresh: str,
        *,
        outcome: str = "rotated",
        after: float = 0.01,
        arrives: float | None = 0.02,
        lost: float | None = None,
        gone: float | None = None,
        access: str = "",
        next: str = "",  # noqa: A002
    ) -> None:
        """A request, when the provider decided, and when the answer arrived or was lost: seconds after it came."""
        self.line(t, "request", id=number, host=host, grant="g", refresh=refresh, kind="refresh_token", fault=None)
        tokens = {"access": access, "ends": t + after + LIFE, "next": next, "login": 1} if access else {}
        self.line(t + after, "outcome", id=number, outcome=outcome, grant="g", **tokens)
        for moment, what in ((lost, "dropped"), (gone, "gone"), (arrives if lost is None else None, "arrived")):
            if moment is not None:
                self.line(t + moment, what, id=number)

    def get(self, t: float, host: str, access: str, *, why: str = "", since: float | None = None) -> None:
        known = {"alive": not why, "why": why, "since": since, "holder": "g", "access": access}
        self.line(t, "get", host=host, grant="g", asked=t - 0.001, got=t, **known)

    def judged(self, *, calm: float = 200.0) -> Verdict:
        self.line(calm, "calm")
        for host in "ab":
            self.get(calm + 5.0, host, "a9")
        return Judge(sorted(self.lines, key=lambda line: line["t"])).judge()


def second(story: Story, t: float, *, host: str = "b", outcome: str = "reuse") -> Story:
    """r1 comes again, from another host."""
    story.request(t, 3, host, "r1", outcome=outcome, **({} if outcome == "reuse" else {"access": "a3", "next": "r3"}))
    return story


def said(verdict: Verdict, words: str) -> bool:
    return any(words in each for each in verdict.violations)


def test_a_quiet_history_has_no_violation() -> None:
    story = Story()
    story.request(22.0, 2, "b", "r1", access="a2", next="r2")
    verdict = story.judged()
    assert verdict.violations == []
    assert verdict.counts["renewals"] == 2
    assert not verdict.lost


# -- sent twice


def test_a_token_that_is_sent_while_the_first_answer_is_awaited() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", after=18.0, arrives=18.1, access="a2", next="r2")
    assert said(second(story, 36.0, outcome="rotated").judged(), "sent twice while the first outcome could still be")


def test_two_requests_of_one_host_at_a_time() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", arrives=5.0, access="a2", next="r2")
    assert said(second(story, 21.0, host="a").judged(), "sent twice")


def test_two_hosts_at_the_same_moment() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", access="a2", next="r2")
    assert said(second(story, 20.005).judged(), "sent twice")


def test_a_paused_host_can_still_read_its_answer() -> None:
    """The answer comes while it is paused, and another host sends the same token before the limit of the first."""
    story = Story()
    story.request(20.0, 2, "a", "r1", after=18.0, arrives=None, access="a2", next="r2")
    story.line(20.5, "paused", host="a")
    story.line(60.0, "resumed", host="a")
    assert said(second(story, 45.0).judged(), "sent twice")


def test_after_the_limit_of_the_first_host_nothing_is_open() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", arrives=None, access="a2", next="r2")
    story.line(20.0, "cut", host="a", net="web", how="unplugged")
    verdict = second(story, 51.0).judged()
    assert verdict.violations == []
    assert verdict.lost == {"answer lost on its way": 1}


def test_an_answer_that_says_no_ends_what_was_open() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", outcome="unavailable")
    assert second(story, 21.0, outcome="rotated").judged().violations == []


def test_a_host_that_is_dead_waits_for_nothing() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", after=18.0, arrives=None, gone=0.6, access="a2", next="r2")
    story.line(20.5, "killed", host="a")
    verdict = second(story, 50.0).judged()
    assert verdict.violations == []
    assert verdict.lost == {"killed before the answer": 1}


# -- sent again, and logins lost


def test_a_token_whose_replacement_had_come() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", access="a2", next="r2")
    verdict = second(story, 40.0).judged()
    assert said(verdict, "sent again although its replacement had come")
    assert said(verdict, "nothing explains it")
    assert verdict.lost == {"UNEXPLAINED": 1}


def test_the_grace_excuses_no_token_whose_replacement_had_come() -> None:
    story = Story(graces={"g": 15.0})
    story.request(20.0, 2, "a", "r1", access="a2", next="r2")
    assert said(second(story, 25.0, outcome="again").judged(), "although its replacement had come")


def test_an_answer_that_the_provider_lost() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", lost=0.03, access="a2", next="r2")
    verdict = second(story, 29.0).judged()
    assert verdict.violations == []
    assert verdict.lost == {"answer lost by the provider": 1}


def test_a_host_that_was_killed_between_answer_and_store() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", access="a2", next="r2")
    story.line(20.5, "killed", host="a")
    verdict = second(story, 51.0).judged()
    assert verdict.violations == []
    assert verdict.lost == {"killed between answer and store": 1}


def test_a_host_that_was_killed_long_after_the_answer() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", access="a2", next="r2")
    story.line(24.0, "killed", host="a")
    assert said(second(story, 51.0).judged(), "nothing explains it")


def test_what_another_host_served_was_stored_whatever_happened_then() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", access="a2", next="r2")
    story.get(20.3, "b", "a2")
    story.line(20.5, "killed", host="a")
    assert said(second(story, 51.0).judged(), "nothing explains it")


@pytest.mark.parametrize(("mended", "explained"), [(100.0, True), (25.0, False)])
def test_a_host_that_was_cut_off_before_it_could_store(mended: float, explained: bool) -> None:
    """It had no ten seconds in a row in which it reached the store; else it should have stored the answer."""
    story = Story()
    story.line(19.9, "cut", host="a", net="store", how="down")
    story.request(20.0, 2, "a", "r1", access="a2", next="r2")
    story.line(mended, "mended", host="a", net="store")
    verdict = second(story, 51.0).judged()
    assert said(verdict, "nothing explains it") is not explained
    assert verdict.lost == {"cut off or paused between answer and store" if explained else "UNEXPLAINED": 1}


@pytest.mark.parametrize(("dead", "explained"), [(("n1", "n2"), True), (("n1",), False)])
def test_a_store_without_a_majority_stores_nothing(dead: tuple[str, ...], explained: bool) -> None:
    story = Story()
    for node in dead:
        story.line(15.0, "killed", node=node)
        story.line(48.0, "started", node=node)
    story.request(20.0, 2, "a", "r1", access="a2", next="r2")
    assert said(second(story, 51.0).judged(), "nothing explains it") is not explained


def test_another_host_that_sends_right_after_the_answer() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", access="a2", next="r2")
    assert said(second(story, 21.0).judged(), "nothing explains it")


def test_nodes_have_time_to_agree_on_a_leader() -> None:
    story = Story()
    story.line(19.5, "killed", node="n1")
    story.request(20.0, 2, "a", "r1", access="a2", next="r2")
    story.line(24.0, "killed", host="a")
    assert second(story, 51.0).judged().lost == {"killed between answer and store": 1}


def test_a_host_that_gave_up_too_early() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", after=18.0, arrives=None, gone=5.0, access="a2", next="r2")
    assert said(second(story, 45.0).judged(), "nothing explains it")


def test_a_late_provider_that_does_the_second_request_first() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", outcome="reuse", after=24.0, arrives=None, gone=1.0)
    story.line(21.0, "killed", host="a")
    verdict = second(story, 40.0, outcome="rotated").judged()
    assert verdict.lost == {"killed before the answer": 1}


def test_a_token_that_is_sent_again_early_is_counted() -> None:
    story = Story()
    story.request(20.0, 2, "a", "r1", lost=0.03, access="a2", next="r2")
    verdict = second(story, 22.0).judged()
    assert verdict.counts["of these, before the living access token was near its end"] == 1


# -- access tokens


def test_a_dead_token_that_was_served() -> None:
    story = Story()
    story.get(40.0, "b", "a1", why="expired", since=31.01)
    verdict = story.judged()
    assert verdict.counts["dead tokens served"] == 1
    assert said(verdict, "after its end")


def test_a_token_that_died_on_its_way() -> None:
    story = Story()
    story.get(31.02, "b", "a1", why="expired", since=31.01)
    assert story.judged().violations == []


@pytest.mark.parametrize("spoil", [{"why": "unknown"}, {"holder": "h"}])
def test_a_token_of_nobody_and_of_another_grant(spoil: dict[str, Any]) -> None:
    story = Story()
    story.get(3.0, "b", "a1", why=str(spoil.get("why", "")))
    story.lines[-1] |= spoil
    assert len(story.judged().violations) == 1


def test_tokens_of_a_login_that_the_provider_ended_are_counted() -> None:
    story = Story()
    story.get(40.0, "b", "a1", why="killed", since=20.0)
    verdict = story.judged()
    assert verdict.counts["tokens served whose login the provider had ended"] == 1


# -- recovery, and the rest


def test_a_grant_that_never_comes_back_on_one_host() -> None:
    story = Story()
    story.line(100.0, "calm")
    story.get(104.0, "a", "a2")
    verdict = Judge(story.lines).judge()
    assert said(verdict, "b had a token of g never after everything was healed")


def test_a_grant_that_comes_back_late() -> None:
    story = Story()
    story.line(100.0, "calm")
    story.get(104.0, "a", "a2")
    story.get(170.0, "b", "a2")
    assert said(Judge(story.lines).judge(), "only 70 s")


def test_a_run_without_an_end() -> None:
    assert said(Judge(Story().lines).judge(), "did not come to its end")


def test_a_host_that_never_served_a_token() -> None:
    story = Story()
    story.lines = [line for line in story.lines if line.get("host") != "b" or line["what"] != "get"]
    story.line(100.0, "calm")
    story.get(101.0, "a", "a2")
    assert said(Judge(story.lines).judge(), "b never served a token")


@pytest.mark.parametrize("what", ["ended by itself", "traceback", "not ready"])
def test_a_broker_that_fails_by_itself(what: str) -> None:
    story = Story()
    story.line(50.0, what, host="a", status=1)
    assert said(story.judged(), f"a: {what}")


def test_the_longest_time_without_a_token() -> None:
    story = Story()
    for moment in (40.0, 50.0):
        story.line(moment, "get", host="a", grant="g", asked=moment, got=moment, error="unavailable")
    story.get(60.0, "b", "a2")
    assert story.judged().without["g"] == pytest.approx(58.0)


def test_every_kind_of_trouble_is_told_apart() -> None:
    """A host that is cut from the provider alone can store."""
    story = Story()
    story.line(19.9, "cut", host="a", net="web", how="down")
    story.request(20.0, 2, "a", "r1", access="a2", next="r2")
    assert said(second(story, 51.0).judged(), "nothing explains it")
