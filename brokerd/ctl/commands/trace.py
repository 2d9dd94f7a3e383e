# The trace command: one renewal, step by step, while it happens. brokerd decides what is shown; no secret comes here.
from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from brokerd_client import Broker
from brokerd_client.errors import from_map

from brokerd.ctl.terminal import called, complain, plain, write, write_json

MARGIN = " " * 24  # of lines below a step


def trace(broker: Broker, arguments: Namespace) -> int:
    """Print the steps. Ends as refresh does."""
    request_id = None
    for step in broker.trace(arguments.grant, only_wait=arguments.only_wait):
        if arguments.json:
            write_json(step)
        elif step["step"] != "end":
            if (known := step.get("request_id")) is not None and known != request_id:
                request_id = known
                write(f"{plain(arguments.grant)}: request_id {plain(known)}")
            for line in lines(step):
                write(line)
        if lost := step.get("lost"):
            complain(f"{lost} steps are missing, because this terminal was too slow")
        if (error := step.get("error")) is not None:
            raise from_map(error)
    return 0


def lines(step: dict[str, Any]) -> Iterator[str]:
    """A step in words: when, what, and for requests and answers what is in them."""
    yield f"{step['ms']:>8.0f} ms  {plain(step['step']):<11} {called(plain(step['words']))}"
    if headers := step.get("headers"):
        said = headers if isinstance(headers, list) else [f"{name}: {value}" for name, value in headers.items()]
        yield f"{MARGIN}headers: {plain(', '.join(said))}"
    for name, value in step.get("fields", {}).items():
        yield f"{MARGIN}{plain(name)} = {plain(value)}"
    if more := step.get("more_fields"):
        yield f"{MARGIN}and {more} more fields, whose names are hidden too"
    if (own := step.get("provider_request_id")) is not None:
        yield f"{MARGIN}provider_request_id {plain(own)}"
