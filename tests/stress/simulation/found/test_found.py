# What the simulation found in brokerd, each as a short schedule of its own.
from __future__ import annotations

from dataclasses import replace

from tests.stress.simulation.schedule import Event, ProviderSetup, Schedule, Setup, drawn
from tests.stress.simulation.simulation import simulate


def schedule(*events: Event, grants: tuple[str, ...] = ("app",), horizon: float = 1_000.0, **setup: object) -> Schedule:
    provider = ProviderSetup(**{"lifetime": 600.0, "latency": 0.5, **setup})  # type: ignore[arg-type]
    return Schedule(1, Setup({"one": provider, "two": provider}, grants, 0.02), events, horizon)


def at(time: float, what: str, **values: object) -> Event:
    return Event(time, what, values)


def broken_by(made: Schedule) -> str | None:
    found = simulate(made).broken
    return found.law if found is not None else None


IMPORT = at(0.5, "import", grant="app")


def test_a_refresh_by_hand_that_failed_does_not_answer_with_the_old_token() -> None:
    events = (IMPORT, at(100, "kill", grant="app"), at(101, "refresh", grant="app"))
    assert broken_by(schedule(*events)) is None


def test_the_grace_of_a_provider_counts_from_when_the_token_was_sent() -> None:
    never = at(100, "fault", provider="one", kind="never", requests=1)
    assert broken_by(schedule(IMPORT, never, grace=30.0)) is None


def test_no_exchange_begins_while_a_revocation_is_being_written() -> None:
    disk = at(99, "disk", kind="slow", lasts=60)
    events = (IMPORT, disk, at(100, "revoke", grant="app"), *(at(100 + n / 2, "get", **GET) for n in range(1, 12)))
    assert broken_by(schedule(*events)) is None


def test_a_refresh_token_that_an_import_replaced_meanwhile_is_not_sent() -> None:
    disk = at(99, "disk", kind="slow", lasts=60)
    events = (IMPORT, disk, at(100, "import", grant="app"), *(at(100 + n / 2, "get", **GET) for n in range(1, 12)))
    assert broken_by(schedule(*events)) is None


def test_the_provider_is_told_of_a_revocation_also_after_an_import_followed() -> None:
    down = at(99, "fault", provider="one", kind="refuse", lasts=60.0)
    events = (IMPORT, down, at(100, "revoke", grant="app"), at(120, "import", grant="app"))
    assert broken_by(schedule(*events)) is None


def test_a_grant_whose_refresh_token_has_expired_needs_a_login_also_after_a_refresh_by_hand() -> None:
    events = (IMPORT, at(100, "suspend", seconds=20_000.0), at(200, "refresh", grant="app"))
    assert broken_by(schedule(*events, refresh_lifetime=5_000.0)) is None


def test_an_orderly_stop_stores_what_the_disk_takes() -> None:
    disk = at(99, "disk", kind="fails", after=2, writes=3)
    events = (IMPORT, disk, at(100, "refresh", grant="app"), at(106, "stop", down=1.0, copied=False))
    assert broken_by(schedule(*events)) is None


def test_a_grant_that_vanishes_and_returns_during_its_exchange_has_one_exchange() -> None:
    late = at(1.5, "fault", provider="one", kind="late", requests=1, seconds=30.0)
    reload = at(6, "reload", kind="without", grant="app", back=1.0)
    assert broken_by(schedule(IMPORT, late, at(2, "import", grant="app"), reload)) is None


def test_a_grant_that_vanishes_while_it_is_unstored_is_stored_all_the_same() -> None:
    disk = at(99, "disk", kind="fails", after=2, writes=4)
    reload = at(103, "reload", kind="without", grant="app", back=20.0)
    assert broken_by(schedule(IMPORT, disk, at(100, "refresh", grant="app"), reload)) is None


def test_a_get_that_waits_while_its_grant_vanishes_gets_nothing() -> None:
    late = at(1.0, "fault", provider="one", kind="late", requests=1, seconds=5.0)
    get = at(101, "get", grant="app", callers=1, wait=60.0, refused=True)
    reload = at(103, "reload", kind="without", grant="app", back=50.0)
    assert broken_by(schedule(IMPORT, late, at(20, "import", grant="app"), replace(late, at=100), get, reload)) is None


def test_a_refresh_token_that_its_provider_never_replaces_causes_no_loop() -> None:
    made = schedule(grants=("app", "user"), rotates=False, refresh_lifetime=1_200.0, lifetime=300.0)
    assert broken_by(made) is None


def test_a_password_that_was_refused_ahead_of_need_is_not_sent_again() -> None:
    events = (at(100, "password", told=False, kill=True), at(101, "reload", kind="scope", grant="user"))
    events += (at(150, "get", **{**GET, "grant": "user"}),)
    assert broken_by(schedule(*events, grants=("app", "user"))) is None


def test_a_new_scope_that_is_refused_does_not_stop_the_renewals() -> None:
    refused = at(99, "fault", provider="one", kind="invalid_client", requests=1)
    reload = at(100, "reload", kind="scope", grant="svc")
    assert broken_by(schedule(refused, reload, grants=("app", "svc"), lifetime=300.0, horizon=800.0)) is None


def test_a_retry_after_to_an_early_issue_holds_for_callers_too() -> None:
    limit = at(99, "fault", provider="one", kind="429", requests=1, seconds=250.0, date=False)
    get = at(120, "get", grant="svc", callers=1, wait=10.0, refused=True)
    reload = at(100, "reload", kind="scope", grant="svc")
    assert broken_by(schedule(limit, reload, get, grants=("app", "svc"))) is None


def test_a_refresh_token_that_an_untrusted_clock_dated_is_not_given_up_after_a_reboot() -> None:
    reboots = (at(10, "reboot", down=1.0, off=-2_592_000.0), at(1_000, "reboot", down=1.0, off=0.0))
    assert broken_by(schedule(IMPORT, *reboots, refresh_lifetime=5_000.0)) is None


def test_a_retry_that_an_untrusted_clock_dated_does_not_hold_a_grant_back_for_a_month() -> None:
    ahead = at(300, "reboot", down=1.0, off=2_592_000.0)
    down = at(301, "fault", provider="one", kind="500", lasts=600.0)
    right = at(890, "reboot", down=1.0, off=0.0)
    assert broken_by(schedule(ahead, down, right, grants=("app", "svc"))) is None


def test_a_token_that_an_untrusted_clock_dated_is_not_served_after_its_end() -> None:
    ahead, right = at(10, "reboot", down=1.0, off=3_600.0), at(80, "reboot", down=1.0, off=0.0)
    down = at(81, "fault", provider="one", kind="refuse", lasts=5_000.0)
    sleep = at(90, "suspend", seconds=3_550.0)
    assert broken_by(schedule(IMPORT, ahead, right, down, sleep)) is None


def test_a_revocation_that_is_answered_by_an_error_with_status_200_is_not_done() -> None:
    error = at(99, "fault", provider="one", kind="200-error", requests=2)
    assert broken_by(schedule(IMPORT, error, at(100, "revoke", grant="app"))) is None


def test_a_revocation_while_the_credentials_are_read_is_no_fault_of_our_own() -> None:
    events = [IMPORT]
    for n in range(1, 20):  # after each start the credentials are read anew, and a revocation comes a little later
        stop, again = at(20 * n, "stop", down=1.0, copied=False), at(20 * n + 5, "import", grant="app")
        events += [stop, again, at(20 * n + 5.3 + n / 20, "revoke", grant="app")]
    made = schedule(*events)
    assert broken_by(replace(made, setup=replace(made.setup, disk_latency=0.5))) is None


def test_a_refresh_by_hand_that_could_not_be_stored_is_stored_later() -> None:
    disk = at(100, "disk", kind="full", lasts=50.0)
    assert broken_by(schedule(IMPORT, disk, at(110, "refresh", grant="app"))) is None


def test_an_import_that_is_being_written_when_its_grant_vanishes_is_not_lost() -> None:
    events = (IMPORT, at(99, "disk", kind="slow", lasts=2.0), at(100, "disk", kind="fails", after=0, writes=4))
    reload = at(101, "reload", kind="without", grant="app", back=12.0)
    assert broken_by(schedule(*events, at(100.5, "import", grant="app"), reload)) is None


def test_a_renewal_does_not_let_go_a_password_that_was_refused_ahead_of_need() -> None:
    events = (at(45, "password", told=False, kill=False), at(100, "reload", kind="scope", grant="user"))
    assert broken_by(schedule(*events, grants=("app", "user"), lifetime=120.0)) is None


def test_a_refresh_that_waits_while_its_grant_vanishes_gets_nothing() -> None:
    late = at(100, "fault", provider="one", kind="late", requests=1, seconds=5.0)
    reload = at(103, "reload", kind="without", grant="app", back=50.0)
    assert broken_by(schedule(IMPORT, late, at(101, "refresh", grant="app"), reload)) is None


def test_who_waits_for_a_grant_that_vanished_and_returned_starts_no_second_exchange() -> None:
    limit = at(22, "fault", provider="one", kind="429", requests=4, seconds=30.0, date=False)
    get = at(35, "get", grant="app", callers=5, wait=60.0)
    reload = at(39, "reload", kind="without", grant="app", back=3.0)
    events = (limit, at(26, "import", grant="app"), get, reload, at(44.5, "refresh", grant="app"))
    assert broken_by(schedule(*events)) is None


def test_a_refresh_token_that_an_import_replaces_in_the_journals_own_transaction_is_not_sent() -> None:
    events = [IMPORT, at(99, "disk", kind="slow", lasts=2_000)]
    for n in range(100, 600, 60):  # while svc is being written, the journal's row and the import come to wait together
        busy, get = at(n, "refresh", grant="svc"), at(n + 0.2, "get", **GET)
        events += [busy, get, at(n + 0.4, "import", grant="app")]
    assert broken_by(schedule(*events, grants=("app", "svc"), lifetime=60.0)) is None


def test_a_password_that_was_refused_ahead_of_need_does_not_stop_the_renewals() -> None:
    refused = at(99, "fault", provider="two", kind="invalid_client", requests=1)
    reload = at(100, "reload", kind="scope", grant="user")
    assert broken_by(schedule(refused, reload, grants=("app", "user"), lifetime=60.0)) is None


def test_what_was_refused_and_sent_again_since_holds_a_grant_back_no_more() -> None:
    refused = at(99, "fault", provider="one", kind="invalid_client", requests=1)
    portal, reboot = (
        at(199, "fault", provider="one", kind="html-403", lasts=200.0),
        at(200, "reboot", down=1.0, off=3_600.0),
    )
    events = (IMPORT, refused, at(100, "refresh", grant="app"), portal, reboot)
    assert broken_by(schedule(*events, horizon=300.0)) is None


def test_a_conflict_whose_record_cannot_be_read_because_the_disk_went_away_is_no_fault_of_our_own() -> None:
    events = [IMPORT]
    for n in range(100, 900, 40):  # a commit that fails lies on the disk at times; then the disk goes between two more
        fails = at(n - 1, "disk", kind="fails", after=2, writes=4)
        again = at(n + 7, "disk", kind="fails", after=1, writes=1)
        events += [fails, at(n, "refresh", grant="app"), again]
    assert broken_by(schedule(*events)) is None


def test_a_revocation_while_a_refused_password_is_read_again_is_not_followed_by_another_try() -> None:
    asleep, get = at(100, "suspend", seconds=1_000.0), at(100.1, "get", **{**GET, "grant": "user"})
    events = (asleep, get, at(100.15, "password", told=True, kill=True), at(100.25, "revoke", grant="user"))
    made = schedule(*events, grants=("app", "user"), horizon=200.0, refresh_lifetime=600.0, rotates=False)
    assert broken_by(replace(made, setup=replace(made.setup, disk_latency=0.5))) is None


def test_a_refresh_token_that_expires_while_the_credentials_are_read_is_no_fault_of_our_own() -> None:
    disk, refresh = at(99, "disk", kind="slow", lasts=60.0), at(100, "refresh", grant="app")
    for gap in (3.6, 3.8, 4.0):  # the machine is suspended then
        events = (IMPORT, disk, refresh, at(100 + gap, "suspend", seconds=20_000.0))
        assert broken_by(schedule(*events, horizon=300.0, refresh_lifetime=5_000.0)) is None


GET = {"grant": "app", "callers": 1, "wait": 10.0, "refused": True}


def test_a_downscoped_token_that_comes_dead_is_not_asked_for_over_and_over() -> None:
    assert broken_by(drawn(1188).only([23, 26])) is None


def test_an_exchange_that_waits_for_the_providers_limit_is_not_sent_once_its_grant_is_revoked() -> None:
    late = at(99, "fault", provider="one", kind="late", requests=1, seconds=30.0)
    get = at(101, "get", **{**GET, "grant": "svc"})
    events = (IMPORT, late, at(100, "refresh", grant="app"), get, at(105, "revoke", grant="svc"))
    assert broken_by(schedule(*events, grants=("app", "svc"), concurrency=1)) is None


def test_a_breaker_that_an_untrusted_clock_shut_does_not_hold_a_provider_back_for_a_month() -> None:
    ahead, right = at(92, "step", seconds=2_592_000.0, noticed=True), at(398, "reboot", down=1.0, off=0.0)
    never = at(92, "fault", provider="one", kind="never", lasts=400.0)
    assert broken_by(schedule(IMPORT, ahead, never, right, grants=("app", "svc"), lifetime=150.0)) is None


def test_what_is_unstored_is_stored_at_an_orderly_stop_also_after_a_long_exchange() -> None:
    late = at(97, "fault", provider="one", kind="late", requests=1, seconds=59.0)
    disk, other = at(100, "disk", kind="full", lasts=30.0), at(0.5, "import", grant="app2")
    events = (IMPORT, other, late, at(98, "refresh", grant="app"), disk, at(110, "import", grant="app2"))
    assert broken_by(schedule(*events, at(130, "stop", down=1.0, copied=False), grants=("app", "app2"))) is None


def test_a_retry_after_that_a_crash_took_away_cannot_be_obeyed_whatever_held_an_early_issue_back() -> None:
    limit = at(290, "fault", provider="one", kind="503", requests=1, seconds=250.0, date=False)
    crash = at(291, "crash", where="after-answer", down=20.0, count=1)
    events = (at(100, "reload", kind="scope", grant="svc"), limit, crash)
    assert broken_by(schedule(*events, grants=("app", "svc"), lifetime=300.0)) is None


def test_the_grace_counts_anew_from_a_refused_client_which_leaves_the_token_as_it_was() -> None:
    refused = at(300, "fault", provider="one", kind="invalid_client", requests=1)
    portal = at(450, "fault", provider="one", kind="html-403", requests=1)
    assert broken_by(schedule(IMPORT, refused, portal, at(451, "refresh", grant="app"), grace=30.0)) is None


def test_a_token_that_an_import_replaced_before_the_revocation_was_written_is_not_the_revocations() -> None:
    slow, leaves = at(93, "disk", kind="slow", lasts=30.0), at(98.6, "import", grant="app", leaves=0.09)
    for gap in (0.3, 1.0):
        events = (IMPORT, slow, leaves, at(101, "revoke", grant="app"), at(101 + gap, "import", grant="app"))
        assert broken_by(schedule(*events, rotates=False, lifetime=30.0)) is None


def test_a_lock_whose_caller_goes_away_is_a_whole_lock_and_can_be_unlocked() -> None:
    late = at(99, "fault", provider="one", kind="late", requests=1, seconds=40.0)
    lock = at(101, "lock", unlocked=60.0, leaves=0.2)
    assert broken_by(schedule(IMPORT, late, at(100, "refresh", grant="app"), lock)) is None


def test_what_systemd_holds_survives_an_older_commit_that_failed_and_landed() -> None:
    made = schedule(at(30, "disk", kind="full", lasts=200.0), at(176, "crash", where="now", down=1.0), lifetime=60.0)
    for seed in range(1, 13):  # which commit lands is drawn from the seed
        held = replace(made, seed=seed, setup=replace(made.setup, grants=("app", "svc"), holds=True))
        assert broken_by(held) is None


def test_a_rotation_whose_commit_failed_and_landed_is_followed_by_another_one() -> None:
    events = [IMPORT]
    for n in range(100, 900, 40):  # a commit that fails lies on the disk at times
        events += [at(n, "disk", kind="fails", after=0, writes=1), at(n + 0.01, "rotate", full=False)]
    assert broken_by(schedule(*events)) is None


def test_a_refused_client_is_not_taken_for_a_refused_password() -> None:
    refused = at(103, "fault", provider="two", kind="invalid_client", requests=4)
    events = (refused, at(117, "kill", grant="user"), at(186, "reload", kind="scope", grant="user"))
    assert broken_by(schedule(*events, grants=("app", "user"), lifetime=30.0, horizon=300.0)) is None


def test_a_refused_client_does_not_make_a_refused_password_forgotten() -> None:
    events = (
        *(IMPORT, at(12.61, "stop", down=60.0, copied=False)),
        at(21.83, "crash", where="before-send", down=20.0, count=2),
        at(43.83, "fault", provider="two", kind="expires-text", requests=1),
        at(63.9, "fault", provider="two", kind="invalid_client", requests=2),
        *(at(64.19, "password", told=True, kill=True), at(144.23, "stop", down=1.0, copied=False)),
        *(at(144.45, "reload", kind="scope", grant="user"), at(181.56, "password", told=False, kill=False)),
        *(at(240.08, "stop", down=0.1, copied=False), at(271.56, "reload", kind="scope", grant="user")),
        at(288.58, "reload", kind="back"),
    )
    one = ProviderSetup(lifetime=30.0, latency=0.05, refresh_lifetime=600.0, limit=2)
    two = ProviderSetup(lifetime=30.0, latency=0.5, refresh_lifetime=600.0, concurrency=2)
    made = Schedule(7007875, Setup({"one": one, "two": two}, ("app", "user"), 0.0), events, 300.0)
    assert broken_by(made) is None


def test_a_reload_that_a_lock_overtook_brings_nothing_back() -> None:
    slow = at(99, "disk", kind="slow", lasts=30.0)
    reload, lock = at(100, "reload", kind="without", grant="app", back=0.2), at(100.3, "lock", unlocked=100.0)
    for gap in (0.0, 0.2, 0.4):
        events = (IMPORT, slow, reload, replace(lock, at=100.3 + gap), at(150, "stop", down=1.0, copied=False))
        assert broken_by(schedule(*events, grants=("app", "svc"), horizon=300.0)) is None


def test_a_reload_while_a_password_is_about_to_leave_sends_no_empty_one() -> None:
    for n in range(8):
        made = schedule(at(0.2 + n / 4, "reload", kind="same"), grants=("app", "user"), horizon=100.0)
        assert broken_by(replace(made, setup=replace(made.setup, disk_latency=0.5))) is None


def test_a_retry_after_to_a_password_that_may_be_refused_holds_for_the_refresh_token_too() -> None:
    limit = at(99, "fault", provider="two", kind="wait-401", requests=1, seconds=400.0)
    reload = at(100, "reload", kind="scope", grant="user")
    assert broken_by(schedule(limit, reload, grants=("app", "user"), lifetime=300.0)) is None


def test_a_password_that_may_be_refused_waits_also_where_no_clock_can_date_it_after_a_reboot() -> None:
    doubted = at(99, "fault", provider="two", kind="detail-401", requests=4)
    events = (doubted, at(100, "reload", kind="scope", grant="user"), at(200, "reboot", down=30.0, off=7_200.0))
    assert broken_by(schedule(*events, grants=("app", "user"))) is None


def test_an_unlock_that_the_disk_does_not_take_leaves_everything_locked() -> None:
    full = at(101, "disk", kind="full", lasts=20.0)
    events = (IMPORT, at(100, "lock", unlocked=5.0), full, at(150, "stop", down=1.0, copied=False))
    made = schedule(*events)
    assert broken_by(replace(made, setup=replace(made.setup, audits=True))) is None


def test_brokerd_can_be_stopped_while_it_is_locked() -> None:
    made = schedule(IMPORT, at(100, "lock", unlocked=400.0), at(150, "stop", down=1.0, copied=False))
    assert broken_by(replace(made, setup=replace(made.setup, audits=True))) is None


def test_of_a_login_and_an_import_the_one_that_was_stored_last_counts() -> None:
    late = at(9, "fault", provider="one", kind="late", requests=1, seconds=5.0)
    events = (at(1, "login", grant="dev", approves=7.0), late, at(14, "import", grant="dev"))
    assert broken_by(schedule(*events, grants=("app", "dev"), horizon=300.0)) is None


def test_a_restored_store_knows_nothing_of_a_rejection_that_came_after_its_backup() -> None:
    rejected = (at(100, "kill", grant="app"), at(110, "refresh", grant="app"), at(120, "refresh", grant="app"))
    events = (IMPORT, at(50, "backup", down=1.0), *rejected, at(200, "restore", down=1.0))
    made = schedule(*events, at(250, "stop", down=1.0, copied=False), rotates=False, horizon=300.0)
    assert broken_by(made) is None


def test_a_life_in_which_nothing_happens_begins_no_audit_log() -> None:
    made = schedule(at(50, "stop", down=1.0, copied=False), horizon=60.0)
    assert broken_by(replace(made, setup=replace(made.setup, audits=True))) is None


def test_what_was_changed_in_a_request_is_tried_at_once_with_a_password_that_may_have_been_refused() -> None:
    doubted = at(0.0, "fault", provider="two", kind="detail-401", requests=1)
    events = (doubted, at(100, "reload", kind="scope", grant="user"))
    assert broken_by(schedule(*events, grants=("app", "user"))) is None


def test_what_a_reload_changed_while_a_password_was_on_its_way_is_tried_at_once_too() -> None:
    doubted = at(0.0, "fault", provider="two", kind="detail-401", requests=1)
    for n in range(4):
        events = (doubted, at(1 + n / 2, "reload", kind="scope", grant="user"), at(8, "reload", kind="same"))
        assert broken_by(schedule(*events, grants=("app", "user"), latency=3.0, horizon=300.0)) is None


def test_a_rejection_that_a_slow_disk_keeps_until_the_access_token_has_died_is_confirmed_all_the_same() -> None:
    stray = at(26.5, "fault", provider="one", kind="stray", requests=1)
    slow = at(26.6, "disk", kind="slow", lasts=60.0)
    for n in range(6):
        refresh = at(26.5 + n / 4, "refresh", grant="app")
        events = (IMPORT, at(19, "fault", provider="one", kind="refuse", lasts=7.0), stray, slow, refresh)
        assert broken_by(schedule(*sorted(events, key=lambda e: e.at), lifetime=30.0, horizon=60.0)) is None


def test_a_full_rotation_whose_last_commit_failed_and_landed_is_at_its_end() -> None:
    assert broken_by(drawn(30070757)) is None


def test_a_backup_beside_another_one_is_its_own() -> None:
    assert broken_by(drawn(40000351).only([3, 4, 5, 7])) is None


def test_a_password_that_proved_right_once_and_was_doubted_since_is_noted_before_it_is_sent() -> None:
    assert broken_by(drawn(40001388).only([1, 6, 14, 19, 22, 27, 34, 37])) is None


def test_an_audit_log_that_is_still_being_written_when_the_store_has_ended_holds_up_no_stop() -> None:
    assert broken_by(drawn(40004363).only([1, 2, 3, 14, 15, 24, 30, 32, 37, 38])) is None


def test_what_systemd_holds_survives_a_first_commit_that_failed_and_landed() -> None:
    full, crash = at(44, "disk", kind="full", lasts=300.0), at(60, "crash", where="now", down=1.0)
    made = schedule(full, at(46, "refresh", grant="app"), at(48, "import", grant="app"), crash)
    for seed in range(1, 13):  # which commit lands is drawn from the seed
        assert broken_by(replace(made, seed=seed, setup=replace(made.setup, holds=True))) is None


def test_of_what_systemd_holds_and_a_commit_of_the_same_generation_that_landed_the_commit_counts() -> None:
    assert broken_by(drawn(40007458).only([16, 18, 19, 29, 30, 31, 34, 35])) is None


def test_a_rejection_that_comes_while_brokerd_is_being_locked_is_a_rejection() -> None:
    assert broken_by(drawn(40007614).only([18, 39, 41, 42, 45, 46])) is None


def test_a_reload_that_another_one_overtakes_applies_no_grant_without_its_record() -> None:
    one = ProviderSetup(lifetime=600.0, latency=0.05, refresh_lifetime=6_000.0, concurrency=2)
    events = (
        at(4.68, "get", grant="svc", callers=5, wait=60.0, refused=True, scope="read"),
        at(6.58, "reload", kind="back"),
        at(6.64, "reload", kind="without", grant="svc", back=0.2),
        at(7.33, "disk", kind="full", lasts=200.0),
    )
    for seed in range(12):
        made = Schedule(seed, Setup({"one": one, "two": one}, ("app", "svc"), 0.5), events, 200.0)
        assert broken_by(made) is None


def test_what_nobody_heard_of_another_clock_is_not_expected_of_a_later_refusal() -> None:
    skewed = at(99, "fault", provider="one", kind="skewed", requests=1)
    crash = at(99, "crash", where="after-answer", count=1, down=1.0)
    refused = at(199, "fault", provider="one", kind="invalid_client", requests=2)
    events = (skewed, crash, at(100, "refresh", grant="svc"), refused, at(200, "refresh", grant="svc"))
    assert broken_by(schedule(*events, grants=("app", "svc"), horizon=300.0)) is None


def test_a_grant_that_comes_back_after_a_start_finds_what_the_disk_refused_before() -> None:
    assert broken_by(drawn(50101236).only([0, 2, 18, 19, 21, 22, 24])) is None


def test_an_orderly_stop_stores_also_what_systemd_holds_of_a_grant_that_is_not_configured() -> None:
    full, without = at(30, "disk", kind="full", lasts=25.0), at(38.5, "reload", kind="without", grant="app")
    crash, stop = at(39, "crash", where="now", down=1.0), at(100, "stop", down=1.0, copied=False)
    made = schedule(IMPORT, full, at(38, "import", grant="app"), without, crash, stop, horizon=200.0)
    for seed in range(1, 7):  # which commit lands is drawn from the seed
        assert broken_by(replace(made, seed=seed, setup=replace(made.setup, holds=True))) is None


def test_what_a_login_brings_while_brokerd_is_being_locked_is_stored_first() -> None:
    late = at(19.9, "fault", provider="one", kind="late-before", requests=1, seconds=59.0)
    events = (at(19.5, "login", grant="dev", approves=40.0), late, at(35, "lock", unlocked=100.0))
    assert broken_by(schedule(*events, grants=("app", "dev"), lifetime=60.0, horizon=300.0)) is None


def test_a_grant_that_comes_back_while_its_record_is_read_is_not_one_of_an_older_record() -> None:
    assert broken_by(drawn(60003061).only([5, 6, 8])) is None


def test_a_refresh_by_hand_while_a_password_is_refused_does_not_send_it_again_later() -> None:
    assert broken_by(drawn(60003419).only([10, 12, 21, 32, 62, 74])) is None


def test_a_login_while_its_grant_vanishes_and_returns_is_the_grants() -> None:
    events = (
        *(at(1, "login", grant="dev", approves=1.0), at(50, "login", grant="dev", approves=40.0)),
        *(at(52, "reload", kind="without", grant="dev", back=3.0), at(62, "refresh", grant="dev")),
    )
    assert broken_by(schedule(*events, grants=("app", "dev"), lifetime=60.0, horizon=300.0)) is None


def test_a_token_that_an_import_replaces_before_two_revocations_are_written_is_not_the_revocations() -> None:
    assert broken_by(drawn(60013226).only([26, 28, 33, 34, 35])) is None


def test_who_leaves_while_an_import_ends_a_revocation_has_not_revoked_what_it_brings() -> None:
    assert broken_by(drawn(61000433).only([67, 77, 79, 83])) is None


def test_a_login_that_ends_a_revocation_does_not_end_a_second_one() -> None:
    late = at(12, "fault", provider="one", kind="late", requests=1, seconds=10.0)
    events = (at(8, "revoke", grant="dev"), at(9.5, "login", grant="dev", approves=2.0), late)
    made = schedule(*events, at(17, "revoke", grant="dev"), grants=("app", "dev"), lifetime=60.0, horizon=100.0)
    assert broken_by(made) is None


def test_a_new_data_key_whose_commit_failed_and_landed_is_known() -> None:
    assert broken_by(drawn(62000276).only([9, 10, 14, 15])) is None


def test_a_revocation_stands_although_who_asked_for_it_and_who_asked_once_more_went_away() -> None:
    slow = at(99, "disk", kind="slow", lasts=30.0)
    for gap in (0.1, 0.3):
        leaves = at(100, "revoke", grant="app", leaves=0.02), at(100, "revoke", grant="app", leaves=gap)
        assert broken_by(schedule(IMPORT, slow, *leaves)) is None


def test_a_stop_while_a_revocation_waits_for_the_disk_lets_the_grant_go_on() -> None:
    slow = at(99, "disk", kind="slow", lasts=30.0)
    stop = at(101, "stop", down=1.0, copied=False)
    refresh, revoke = at(100, "refresh", grant="app"), at(100.1, "revoke", grant="app")
    assert broken_by(schedule(IMPORT, slow, refresh, revoke, stop, horizon=300.0)) is None


def test_a_refresh_by_hand_beside_a_downscoped_token_brings_a_token_of_the_grants_own() -> None:
    get = at(100, "get", grant="app", callers=1, wait=10, scope="read")
    assert broken_by(schedule(IMPORT, get, at(102, "refresh", grant="app"))) is None
    assert broken_by(drawn(66014010)) is None


def test_a_request_may_be_changed_back_although_its_password_may_have_been_refused() -> None:
    assert broken_by(drawn(66021448).only([0, 8, 18, 24, 25, 26, 49, 50])) is None


def test_nothing_is_expected_of_a_password_that_waits_its_quarter_of_an_hour() -> None:
    for seed, kept in ((66003578, [0, 1]), (66016733, [18, 19, 27, 33, 34, 72])):
        assert broken_by(drawn(seed).only(kept)) is None


def test_a_revocation_that_was_never_written_is_not_the_one_before_an_unwritten_import() -> None:
    assert broken_by(drawn(68003976).only([3, 14, 18, 19, 20, 21])) is None


def test_an_orderly_stop_during_which_all_faults_stop_has_met_a_full_disk_all_the_same() -> None:
    assert broken_by(drawn(69004383).only([33, 34, 37, 48, 49, 50])) is None


def test_a_revocation_that_only_systemd_held_is_lost_with_the_power() -> None:
    assert broken_by(drawn(69010898).only([4, 33, 39, 49, 54])) is None
