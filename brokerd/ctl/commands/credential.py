# The command credential: a grant's token in the form that one kind of client reads. Each form is a pure function.
from __future__ import annotations

import json
import os

from brokerd_client.credentials.times import utc

from brokerd.ctl.terminal import Failed, plain, write_json

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace

    from brokerd_client import Broker, Token

KEY_ID, SECRET_KEY = "access_key_id", "secret_access_key"
KUBERNETES = "client.authentication.k8s.io"
VERSIONS = (f"{KUBERNETES}/v1", f"{KUBERNETES}/v1beta1")


def credential(broker: Broker, arguments: Namespace) -> int:
    """Print it, or answer bazel's question."""
    if arguments.action == "bazel":
        return _bazel(broker)
    return print_as(broker, arguments.action, arguments.grant)


def print_as(broker: Broker, form: str, grant: str) -> int:
    """`credential FORM GRANT` without any option."""
    token = broker.get(grant)
    match form:
        case "aws":
            found = aws(token)
        case "kubernetes":
            found = kubernetes(token, os.environ.get("KUBERNETES_EXEC_INFO"))
        case _:
            found = dict(token.header)
    write_json(found)
    return 0


def aws(token: Token) -> dict[str, object]:
    """For credential_process of AWS's configuration. With the field secret_access_key, the token itself is the session
    token; otherwise it is the secret of a key that has none. Raises Failed."""
    if KEY_ID not in token.fields:
        words = f"its token has no field {KEY_ID}, so it is no AWS key; fields of the grant or its recipe names them"
        raise Failed(f"{plain(token.grant)}: {words}")
    found: dict[str, object] = {"Version": 1, "AccessKeyId": token.fields[KEY_ID]}
    if SECRET_KEY in token.fields:
        found |= {"SecretAccessKey": token.fields[SECRET_KEY], "SessionToken": token.value}
    else:
        found["SecretAccessKey"] = token.value
    if token.expires_at is not None:
        found["Expiration"] = utc(token.expires_at)
    return found


def kubernetes(token: Token, asked: str | None) -> dict[str, object]:
    """An ExecCredential of the version that kubectl asks for, in KUBERNETES_EXEC_INFO. Raises Failed."""
    try:
        version = VERSIONS[0] if asked is None else json.loads(asked)["apiVersion"]
    except (ValueError, TypeError, KeyError):
        version = None
    if version not in VERSIONS:
        words = f"expected KUBERNETES_EXEC_INFO with apiVersion {' or '.join(VERSIONS)}"
        raise Failed(f"{words}; set apiVersion of exec in the kubeconfig")
    status = {"token": token.value}
    if token.expires_at is not None:
        status["expirationTimestamp"] = utc(token.expires_at)
    return {"apiVersion": version, "kind": "ExecCredential", "status": status}


def _bazel(broker: Broker) -> int:
    from brokerd_client.credentials.asking import NoToken, question
    from brokerd_client.credentials.bazel import found_for
    from brokerd_client.helpers import HelpersError

    try:
        write_json(found_for(question(), broker))
    except (NoToken, HelpersError) as error:
        raise Failed(plain(str(error))) from None
    return 0
