# Every kind of line in the log, one row each: a name that never changes, the level, the words, the MESSAGE_ID if people
# search the journal for it, and what to do. docs/events.md describes them. Pure; telemetry/event_log.py writes them.
from __future__ import annotations

from enum import StrEnum

LEVELS = DEBUG, INFO, WARNING, ERROR = "debug", "info", "warning", "error"


class Event(StrEnum):
    """An event is its name. `words` may change. `remedy`: what to do, where the line itself does not know better. `id`:
    the MESSAGE_ID (systemd.journal-fields(7)), 128 bits, drawn once with systemd-id128 new."""

    level: str
    words: str
    id: str | None
    remedy: str | None

    def __new__(
        cls, name: str, level: str, words: str, message_id: str | None = None, remedy: str | None = None
    ) -> Event:
        member = str.__new__(cls, name)
        member._value_ = name
        member.level, member.words, member.id, member.remedy = level, words, message_id, remedy
        return member

    # Grants and their exchanges

    RENEWED = "renewed", INFO, "the grant has a new token", "31ebad23b08f4e13adbe20e2d7373e46"
    RENEWAL_FAILED = (
        "renewal_failed",
        WARNING,
        "the renewal failed",
        "5d230de9c6e74748ab9f29ed6ba45730",
        "to see when it is tried again, and what is wrong: brokerctl status GRANT",
    )
    STILL_FAILING = (
        "still_failing",
        WARNING,
        "renewals still fail",
        "66485483789349da961b96f852e1bf38",
        "to see which grants, and what is wrong: brokerctl status",
    )
    GRANT_NEEDS_LOGIN = (
        "grant_needs_login",
        WARNING,
        "a person must log in",
        "00187200560c4a4ca8ccc6b58a3cfbb3",
        "brokerctl login GRANT, or brokerctl import GRANT",
    )
    REFRESH_TOKEN_EXPIRES = (
        "refresh_token_expires",
        WARNING,
        "the refresh token will expire, and only a person can replace it",
        "3d6958ff44f94c53bbdb083437fa806f",
        "brokerctl login GRANT",
    )
    EXCHANGE_INTERRUPTED = (
        "exchange_interrupted",
        WARNING,
        "the last run of brokerd sent a refresh token and got no answer",
        "5b58d61db1884122a54e2fd70d3e3f43",
        "nothing now; if a login is needed later, brokerctl status says so",
    )
    RENEWED_ELSEWHERE = "renewed_elsewhere", INFO, "the grant was renewed meanwhile; that result is used"
    EXCHANGE_JOINED = "exchange_joined", INFO, "a request waits for an exchange that has begun already"
    VERIFIED = "verified", INFO, "the provider says that the token is active"
    VERIFICATION_FAILED = (
        "verification_failed",
        WARNING,
        "the provider was asked about a token and did not say that it is active",
        None,
        "to get a new token: brokerctl refresh GRANT",
    )
    SECRET_UNREADABLE = (
        "secret_unreadable",
        WARNING,
        "a secret file cannot be read",
        None,
        "correct what reason names; brokerd reads the file again by itself when it needs it",
    )
    SECRET_READABLE = "secret_readable", INFO, "a secret file can be read now"
    SECRET_CHANGED = "secret_changed", INFO, "the secret of a static token has changed"
    LOGIN_BEGUN = "login_begun", INFO, "a login was begun"
    LOGIN_DONE = "login_done", INFO, "a person logged in", "d3ba166d81074f3c8b513238259e3045"
    IMPORTED = "imported", INFO, "a refresh token was imported", "d3ba166d81074f3c8b513238259e3045"
    LOGIN_FAILED = (
        "login_failed",
        WARNING,
        "the login failed",
        "41c9c213cbc546f3866ba061fde967ae",
        "to try again: brokerctl login GRANT",
    )
    LOGIN_ALARM = (
        "login_alarm",
        WARNING,
        "LOGIN ALARM: a second browser opened the page of a login",
        "37dcc6c6c7ff4e64ba54e8c08fc2e152",
        "find out who opened it: somebody may have tried to log in with their own account. Then: brokerctl login GRANT",
    )
    REVOKED = "revoked", INFO, "the grant was revoked", "cfe1e9b8a5394d03926b33332d01932b"
    REVOCATION_TOLD = (
        "revocation_told",
        INFO,
        "the provider has been told of the revocation",
        "97a75ad7c55d40cea2c8df821cd1a146",
    )
    REVOCATION_NOT_TOLD = (
        "revocation_not_told",
        WARNING,
        "the provider could not be told of the revocation",
        "527e3839eea647deac96db981b33bf29",
        "nothing: brokerd tries again. The token stays valid at the provider until then",
    )
    FORGOTTEN = "forgotten", INFO, "the records of a grant were deleted"
    PROVIDER_TRUSTED = "provider_trusted", INFO, "what the provider says about itself was accepted"
    STORED_AT_LAST = "stored_at_last", INFO, "the newest state of the grant is stored now"
    STATE_LOST = (
        "state_lost",
        WARNING,
        "the newest state of the grant could not be stored and is lost",
        "b9b9c441cb75489393bea4a8b360eaf5",
        "make room on the disk of the store, start brokerd, then look at: brokerctl status GRANT",
    )
    STATE_KEPT_BY_SYSTEMD = (
        "state_kept_by_systemd",
        WARNING,
        "the newest state of the grant could not be stored; systemd keeps it across a restart, not across a stop",
        "bd4a98b09705420bb739f73f8910ee06",
        "make room on the disk of the store, then: systemctl start brokerd",
    )
    STATE_KEPT_HERE = (
        "state_kept_here",
        INFO,
        "the newest state of the grant is not in the fleet's etcd yet; this host keeps it for its next start",
    )
    STATE_FROM_SYSTEMD = (
        "state_from_systemd",
        WARNING,
        "what could not be stored before this start was kept by systemd",
        "7fb0b60099bf41669e1b3a4e37498ebd",
        "if stored is false: make room on the disk of the store",
    )
    DORMANT_DELETED = "dormant_deleted", INFO, "a record that no configuration has used for 30 days was deleted"
    DORMANT_NOT_CHECKED = (
        "dormant_not_checked",
        WARNING,
        "old records could not be checked",
        None,
        "nothing: brokerd tries again in a day",
    )

    # Providers

    PROVIDER_DOWN = (
        "provider_down",
        WARNING,
        "the provider seems to be down",
        "24bed937ccdc496882a9f62001e3cfb8",
        "see what keeps this machine from the provider: brokerctl doctor; brokerd tries again by itself",
    )
    PROVIDER_STILL_DOWN = (
        "provider_still_down",
        WARNING,
        "the provider is still down",
        "a5781794b956409d9f16d07c1dd6cdb7",
        "see what keeps this machine from the provider: brokerctl doctor; brokerd tries again by itself",
    )
    PROVIDER_SLOW = (
        "provider_slow",
        WARNING,
        "the provider has not answered yet",
        "c4545b7a4ef84579867f067ec47ca60c",
        "ask the provider's operator whether it has a problem; brokerd waits, and tokens that live are served",
    )
    PROVIDER_UP = "provider_up", INFO, "the provider answers again", "633da642883c4a9588c5e0bb78abe5d0"

    CERTIFICATE_EXPIRES = (
        "certificate_expires",
        WARNING,
        "a certificate in a file of the provider will expire",
        "bee2ad5b28ea4d94a25a157b92439101",
        "replace the file by one with a newer certificate; brokerd reads it again by itself",
    )

    # Callers

    TOKEN_FETCHED = "token_fetched", DEBUG, "a caller got a token"
    SHARE_ENDED = "share_ended", DEBUG, "a caller's shared token ended"
    REQUEST_FAILED = "request_failed", DEBUG, "a request failed"
    TRACE_BEGUN = "trace_begun", INFO, "a caller follows a renewal step by step"
    DENIED = (
        "denied",
        WARNING,
        "no rule allows what a caller asked for",
        "3dfe8b7008c24f10803a31c64e17b843",
        "to see why: brokerctl explain GRANT --pid PID",
    )
    CONNECTION_REFUSED = (
        "connection_refused",
        WARNING,
        "a connection was refused",
        None,
        "look for a program of that user that opens connections without end, or raise max_connections in [daemon]",
    )
    BAD_INPUT = "bad_input", WARNING, "bad input on a connection", None, "look at the program that sent it"
    CONNECTIONS_NOT_ACCEPTED = (
        "connections_not_accepted",
        WARNING,
        "cannot accept connections",
        None,
        "raise LimitNOFILE= of brokerd.service, or lower max_connections in [daemon]",
    )
    CREDENTIAL_AWAITED = (
        "credential_awaited",
        WARNING,
        "a unit waits for its credential",
        None,
        "to see what is wrong with the grant: brokerctl status GRANT",
    )
    CREDENTIAL_NOT_GIVEN = (
        "credential_not_given",
        WARNING,
        "a unit got no credential",
        "8d78b2750a7641b3bf6006c110989b27",
        "to see what is wrong with the grant: brokerctl status GRANT",
    )

    # Store, keys and the audit log

    STORE_CREATED = "store_created", INFO, "a new store was created"
    STORE_UPGRADED = "store_upgraded", INFO, "the store was upgraded"
    STORE_NOT_ADOPTED = (
        "store_not_adopted",
        WARNING,
        "the store was restored or copied to this machine, so no stored token is sent",
        None,
        "if this machine is its only user now: brokerctl adopt",
    )
    STORE_ADOPTED = "store_adopted", INFO, "the store was adopted"
    STORE_NOT_WRITTEN = (
        "store_not_written",
        WARNING,
        "the store cannot be written",
        "33996285f40e4c9a8613ae3150c607e0",
        "make room on its disk, or let brokerd write there: df -h, dmesg | tail",
    )
    STORE_WRITTEN_AGAIN = "store_written_again", INFO, "the store is written again", "4c34a26d131940a592f72c1ff057ac45"
    ETCD_AWAY = (
        "etcd_away",
        WARNING,
        "etcd cannot be reached, or refuses this host",
        "95df74a4c11844c49af8d6011d7aac0c",
        "look which server does not answer, and why: brokerctl fleet, brokerctl doctor",
    )
    ETCD_BACK = "etcd_back", INFO, "etcd can be reached again", "c90d5ff801654720a677c12a13a113bb"
    ETCD_NOT_ADOPTED = (
        "etcd_not_adopted",
        WARNING,
        "etcd is another one than before, or was restored from a snapshot, so no stored token is sent",
        None,
        "make sure that it is the right one, then: brokerctl adopt",
    )
    AUDIT_NOT_WRITTEN = (
        "audit_not_written",
        WARNING,
        "THE AUDIT LOG CANNOT BE WRITTEN",
        "1271dfadaaa14836a0aff5e54f514999",
        "make room on its disk, or let brokerd write there: df -h, dmesg | tail",
    )
    AUDIT_WRITTEN_AGAIN = (
        "audit_written_again",
        INFO,
        "the audit log can be written again",
        "4407cc1f7bc149738f9449d03752e420",
    )
    AUDIT_CHANGED = (
        "audit_changed",
        WARNING,
        "THE AUDIT LOG WAS CUT OR CHANGED, or its store was",
        "a556583de7cc4bc8a7363099af369726",
        "to see where: brokerctl audit verify. Then find out who can write there; keep a copy of the files before",
    )
    AUDIT_INCOMPLETE = (
        "audit_incomplete",
        WARNING,
        "the end of the audit log was not complete",
        None,
        "nothing, if brokerd was killed or the machine lost power; else: brokerctl audit verify",
    )
    AUDIT_LINES_LOST = (
        "audit_lines_lost",
        WARNING,
        "LINES OF THE AUDIT LOG WERE LOST",
        "1dcbd18935b048daa2bae919b9483ba1",
        "make room on its disk. What brokerd did meanwhile is in its log: journalctl -u brokerd",
    )
    LOCKED = "locked", INFO, "brokerd was locked and serves nothing", None, "to unlock: brokerctl unlock"
    UNLOCKED = "unlocked", INFO, "brokerd was unlocked"
    NOT_UNLOCKED = "not_unlocked", WARNING, "brokerd could not be unlocked", None, "to try again: brokerctl unlock"
    STARTED_LOCKED = "started_locked", WARNING, "brokerd is locked and serves no token", None, "brokerctl unlock"
    KEY_ROTATED = "key_rotated", INFO, "the data keys are encrypted under another key"
    ROTATION_BEGAN = "rotation_began", INFO, "a full rotation of the keys began"
    ROTATION_ENDED = "rotation_ended", INFO, "a full rotation of the keys ended"
    BACKUP_MADE = "backup_made", INFO, "a copy of the store was made"

    # The process

    STARTING = "starting", INFO, "brokerd starts"
    READY = "ready", INFO, "it has started and serves", "b8ed68b5afd94fe0b6a1b8d4298b48af"
    STOPPED = "stopped", INFO, "brokerd has stopped", "1657f0a296be4afab082f873694c573e"
    NOT_STARTED = (
        "not_started",
        ERROR,
        "brokerd cannot start",
        "0a58dbe9aff04932a683c989121cf7d3",
        "correct what the message names",
    )
    RELOADED = "reloaded", INFO, "the configuration was read again", "efb91982f4c74906b27501ee529bd3b0"
    NOT_RELOADED = (
        "not_reloaded",
        WARNING,
        "the configuration was not reloaded; nothing has changed",
        "1452450b6f52473b93a64a8318424fb9",
        "correct what reason names, then reload again",
    )
    RESTART_NEEDED = (
        "restart_needed",
        WARNING,
        "a table has changed that is read only at the start",
        None,
        "systemctl restart brokerd",
    )
    LOG_LEVEL_SET = "log_level_set", WARNING, "the level of the log was set", None, "to see it: brokerctl log-level"
    MEMORY_NOT_LOCKED = (
        "memory_not_locked",
        INFO,
        "memory is not locked: tokens and keys may be swapped out",
        None,
        "LimitMEMLOCK=infinity in its unit",
    )
    RUNS_AS_ROOT = "runs_as_root", WARNING, "brokerd runs as root and never needs to", None, "User=brokerd in its unit"
    METRICS_EXPOSED = (
        "metrics_exposed",
        WARNING,
        "metrics can be read from other machines",
        None,
        'let a firewall permit only the scraper, or set [http] metrics = "127.0.0.1:9464"',
    )
    MESSAGES_LOST = (
        "messages_lost",
        WARNING,
        "messages were lost: the journal was too slow",
        None,
        "give the journal more room, or log less: brokerctl log-level warning",
    )
    BUG = "bug", ERROR, "a fault of brokerd's own", "ac057b7ee43d452693bf55202995ce49", "report it, with the traceback"

    # Commands that are run for events ([[on_event]])

    ON_EVENT_RAN = "on_event_ran", INFO, "a command of on_event ran", "34f5daf64d6948638eabf8a3bca16efb"
    ON_EVENT_FAILED = (
        "on_event_failed",
        WARNING,
        "A COMMAND OF ON_EVENT FAILED: perhaps nobody was told",
        "413c5b680d464c7d999c261845c317d7",
        "correct what reason names, then try it: brokerctl test-event EVENT",
    )

    # Files with tokens (brokerctl files)

    FILE_WRITTEN = "file_written", INFO, "file written", "451cdd0b172341b190b87ed5cb4a840b"
    FILE_REMOVED = "file_removed", INFO, "file removed", "8cfa8d51abce48168680232e1c66f1fc"
    FILE_EMPTIED = "file_emptied", INFO, "file emptied", "8cfa8d51abce48168680232e1c66f1fc"
    FILE_NOT_WRITTEN = (
        "file_not_written",
        WARNING,
        "file not written",
        "46c6f651dc444d4e8513700e73531d48",
        "correct what reason names; it is tried again",
    )
    ON_CHANGE_RAN = "on_change_ran", INFO, "on_change ran", "8dfa89d7e31e420d831657d89ac91de1"
    ON_CHANGE_FAILED = (
        "on_change_failed",
        WARNING,
        "on_change failed",
        "5cfb553d0ecb47d3a36e94918bb36258",
        "run it by hand as the user of the unit; it is tried again",
    )
    BROKERD_AWAY = (
        "brokerd_away",
        WARNING,
        "brokerd cannot be asked; its last tokens are used until they expire",
        None,
        "systemctl status brokerd",
    )
    BROKERD_BACK = "brokerd_back", INFO, "brokerd can be asked again"
