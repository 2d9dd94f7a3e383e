# The text in which Prometheus reads metrics (its exposition format, version 0.0.4). Pure. prometheus-client writes it
# too, but not for some callers only, and too slowly for 10,000 grants.
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def head(name: str, kind: str, text: str) -> str:
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def labelled(labels: Mapping[str, str]) -> str:
    """Labels as they stand behind a name."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(ESCAPED)}"' for name, value in labels.items()) + "}"


def number(value: float) -> str:
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(value)


def counted(families: Iterable[Metric], shows: Callable[[Mapping[str, str]], bool]) -> Iterator[str]:
    """What prometheus-client counted: the series with labels that are shown."""
    for family in families:
        lines = [
            f"{each.name}{labelled(each.labels)} {number(each.value)}\n"
            for each in family.samples
            if not each.name.endswith("_created") and shows(each.labels)
        ]
        if lines:
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield head(name, family.type, family.documentation) + "".join(lines)
