# ansible: a task of a playbook asks brokerd for a token and uses it; the token is in no output.
from __future__ import annotations

import pytest

from tests.real.clients.conftest import GRANT, Machine, needs
from tests.servers import IX_API_KEY

PLAYBOOK = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: call the API
      ansible.builtin.uri:
        url: {api}/me
        headers: {{Authorization: "Bearer {{{{ lookup('ansible.builtin.pipe', 'brokerctl get {grant}') }}}}"}}
        return_content: true
      no_log: true
      register: answer
    - name: ask brokerd over HTTP
      ansible.builtin.uri:
        url: http://brokerd/v1/token/{grant}
        unix_socket: {socket}
      no_log: true
      register: token
    - name: call the API again
      ansible.builtin.uri:
        url: {api}/me
        headers: {{Authorization: "Bearer {{{{ token.json.access_token }}}}"}}
        return_content: true
      no_log: true
      register: second
    - ansible.builtin.assert:
        that: answer.json == second.json and second.status == 200
"""


@pytest.fixture
def playbook(machine: Machine) -> str:
    needs("ansible-playbook")
    path = machine.home / "playbook.yml"
    path.write_text(PLAYBOOK.format(api=machine.provider.base_url, grant=GRANT, socket=machine.brokerd.http_socket))
    return str(path)


async def test_a_playbook_uses_tokens_and_shows_none(machine: Machine, playbook: str) -> None:
    done = await machine.run("ansible-playbook", "-vvv", playbook, ANSIBLE_LOCALHOST_WARNING="0")
    assert done.returncode == 0, done.stdout
    assert machine.provider.count("me") == 2
    assert machine.token not in done.stdout + done.stderr
    assert IX_API_KEY not in done.stdout
    assert [path for path, text in machine.written().items() if machine.token in text] == []


async def test_a_playbook_stops_where_there_is_no_token(machine: Machine, playbook: str) -> None:
    await machine.brokerd.call("revoke", grant=GRANT, local=True)
    done = await machine.run("ansible-playbook", playbook)
    assert done.returncode == 2
    assert machine.provider.count("me") == 0
