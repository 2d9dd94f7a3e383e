# msmtp, mutt and getmail with a token as OAUTHBEARER or XOAUTH2, against mail servers that demand it.
from __future__ import annotations

import pytest

from tests.real.clients.conftest import CA, GRANT, Machine, needs
from tests.servers.guarded.guard import certified
from tests.servers.guarded.mail import MailServer

MAIL = "To: you@mail.example\nSubject: report\n\nAll is well.\n"


@pytest.fixture
def mail(machine: Machine) -> MailServer:
    return MailServer(machine.provider)


async def port(machine: Machine, mail: MailServer, protocol: str) -> int:
    return await mail.listen(machine.nursery, certified(CA, "localhost"), protocol)


@pytest.mark.parametrize("mechanism", ["oauthbearer", "xoauth2"])
async def test_msmtp_sends_with_the_newest_token(machine: Machine, mail: MailServer, mechanism: str) -> None:
    needs("msmtp")
    lines = [
        "account default",
        "host localhost",
        f"port {await port(machine, mail, 'smtp')}",
        "tls on",
        "tls_starttls off",
        f"tls_trust_file {machine.ca_file}",
        f"auth {mechanism}",
        "user me@mail.example",
        "from me@mail.example",
        f'passwordeval "brokerctl get {GRANT}"',
    ]
    config = machine.home / ".msmtprc"
    config.write_text("\n".join(lines) + "\n")
    config.chmod(0o600)
    for again in (True, False):
        sent = await machine.run("msmtp", "you@mail.example", stdin=MAIL)
        assert (sent.returncode, sent.stderr) == (0, "")
        assert mail.shown[-1] == (mechanism.upper(), "me@mail.example", machine.token)
        if again:
            await machine.brokerd.call("get", grant=GRANT, refused=machine.token)
    assert [user for user, text in mail.sent if "All is well." in text] == ["me@mail.example"] * 2
    assert [path for path, text in machine.written().items() if machine.token in text] == []


async def test_msmtp_says_what_brokerd_says(machine: Machine, mail: MailServer) -> None:
    needs("msmtp")
    await machine.brokerd.call("revoke", grant=GRANT, local=True)
    options = ("--host=localhost", f"--port={await port(machine, mail, 'smtp')}", "--auth=xoauth2", "--user=me")
    tls = ("--tls=on", "--tls-starttls=off", f"--tls-trust-file={machine.ca_file}")
    command = (
        "msmtp",
        *options,
        *tls,
        "--from=me@mail.example",
        f"--passwordeval=brokerctl get {GRANT}",
        "you@x.example",
    )
    done = await machine.run(*command, stdin=MAIL)
    assert (done.returncode != 0, "was revoked" in done.stderr) == (True, True), done.stderr
    assert mail.shown == []


async def test_mutt_sends(machine: Machine, mail: MailServer) -> None:
    needs("mutt")
    lines = [
        "set from = me@mail.example",
        f"set smtp_url = smtps://me@mail.example@localhost:{await port(machine, mail, 'smtp')}/",
        "set smtp_authenticators = oauthbearer",
        f'set smtp_oauth_refresh_command = "brokerctl get {GRANT}"',
        f"set certificate_file = {machine.ca_file}",
        "set copy = no",
    ]
    (machine.home / ".muttrc").write_text("\n".join(lines) + "\n")
    sent = await machine.run("mutt", "-s", "report", "you@mail.example", stdin="All is well.\n")
    assert sent.returncode == 0, sent.stderr
    assert mail.shown == [("OAUTHBEARER", "me@mail.example", machine.token)]
    assert "Subject: report" in mail.sent[0][1]


async def test_getmail_fetches(machine: Machine, mail: MailServer) -> None:
    needs("getmail")
    lines = [
        "[retriever]",
        "type = SimpleIMAPSSLRetriever",
        "server = localhost",
        f"port = {await port(machine, mail, 'imap')}",
        "username = me@mail.example",
        "use_xoauth2 = True",
        f'password_command = ("brokerctl", "get", "{GRANT}")',
        f"ca_certs = {machine.ca_file}",
        "[destination]",
        "type = MDA_external",
        "path = /bin/cat",
        "allow_root_commands = True",
        "[options]",
        "read_all = True",
    ]
    folder = machine.home / ".getmail"
    folder.mkdir()
    (folder / "getmailrc").write_text("\n".join(lines) + "\n")
    got = await machine.run("getmail")
    assert (got.returncode, mail.shown) == (0, [("XOAUTH2", "me@mail.example", machine.token)]), got.stderr
