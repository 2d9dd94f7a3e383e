# The rows of all metrics, and the text that Prometheus reads: docs/metrics.md lists each metric, no label can hold more
# than names of grants and providers and fixed words, and what is not to be shown is not written.
from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from brokerd.broker import gauges
from brokerd.server import scrape
from brokerd.telemetry.exposition import counted, head, labelled, number
from brokerd.telemetry.metrics import GAUGE, ROWS, Metrics
from tests.project.test_docs import page, table, unquoted

NONE = "–"
LABELS = {"grant", "provider", "state", "operation", "outcome", "kind", "version", "certificate", "direction", "status"}


def rows() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Name → type and labels."""
    found = {row.name: (row.kind, row.labels) for row in (*ROWS, gauges.CERTIFICATES, scrape.TRANSACTIONS)}
    for table_ in (gauges.GRANTS, gauges.PROVIDERS, scrape.DAEMON, scrape.FLEET):
        found |= {row.name: (GAUGE, row.labels) for row in table_}
    return found


def test_every_metric_is_on_the_page_and_no_other() -> None:
    sections = page("docs/metrics.md").split("\n## ")[1:]
    listed = [row for text in sections for row in table(text)]
    on_page = {
        unquoted(row["metric"])[0]: (row["type"], () if row["labels"] == NONE else tuple(unquoted(row["labels"])))
        for row in listed
    }
    assert on_page == rows()
    assert len(on_page) == len(listed)


def test_no_metric_has_another_label() -> None:
    assert {label for _, labels in rows().values() for label in labels} == LABELS


def test_the_text_is_read_back_whole_whatever_a_name_holds() -> None:
    metrics, strange = Metrics(), 'a "quoted" \\ back\nslash'
    metrics.exchanges.labels(strange, "renew", "issued").inc(2)
    metrics.exchanges.labels("hidden", "renew", "issued").inc()
    metrics.get_wait.observe(0.3)
    text = "".join(counted(metrics.registry.collect(), lambda labels: labels.get("provider") in (None, strange)))
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    renewed = ("brokerd_exchanges_total", ("operation", "renew"), ("outcome", "issued"), ("provider", strange))
    assert found[renewed] == 2
    assert "hidden" not in text
    assert found["brokerd_get_wait_seconds_bucket", ("le", "0.25")] == 0
    assert found["brokerd_get_wait_seconds_bucket", ("le", "+Inf")] == 1
    assert not any(name.endswith("_created") for name, *_ in found)


def test_numbers_and_labels_are_written_as_prometheus_reads_them() -> None:
    assert [number(each) for each in (0.0, 1.0, 1_796_000_000.25, float("inf"))] == ["0", "1", "1796000000.25", "+Inf"]
    assert (labelled({}), labelled({"a": "b", "c": "d"})) == ("", '{a="b",c="d"}')
    assert head("a_total", "counter", "Words.") == "# HELP a_total Words.\n# TYPE a_total counter\n"
