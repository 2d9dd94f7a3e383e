# How many connections clients may have.
from brokerd.proxy.crowd import EACH, MOST, SHARE, SPARE, Crowd


def entered(crowd: Crowd, uid: int, times: int) -> int:
    return sum(crowd.enter(uid, "place", 0.0) is None for _ in range(times))


def test_one_user_gets_its_share_and_leaves_the_rest_to_others() -> None:
    crowd = Crowd(1_000_000)
    assert entered(crowd, 1, 10_000) == MOST // SHARE
    assert crowd.enter(2, "place", 0.0) is None
    assert "of one user" in (crowd.enter(1, "place", 0.0) or "")
    crowd.leave(1)
    assert crowd.enter(1, "place", 0.0) is None


def test_all_users_together_have_a_limit_that_their_descriptors_set() -> None:
    crowd = Crowd(SPARE + 40 * EACH)
    assert [entered(crowd, uid, 100) for uid in range(6)] == [10, 10, 10, 10, 0, 0]
    assert "all 40 connections are taken" in (crowd.enter(7, "place", 0.0) or "")
    for uid in range(4):
        for _ in range(10):
            crowd.leave(uid)
    assert crowd.number == 0


def test_a_user_that_was_refused_is_refused_again_without_a_look_for_a_moment() -> None:
    crowd = Crowd(1_000_000)
    crowd.refused(7, "place", 100.0)
    assert "may not use this proxy" in (crowd.enter(7, "place", 100.9) or "")
    assert crowd.enter(7, "another place", 100.9) is None
    assert crowd.enter(8, "place", 100.9) is None
    assert crowd.enter(7, "place", 101.0) is None
