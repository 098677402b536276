"""Writes the README's tables of settings from the defaults: ``python docs/settings.py``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from cadasta.workertoolbox.brokers.kinds import BROKERS
from cadasta.workertoolbox.brokers.visibility import VISIBILITY_TIMEOUT
from cadasta.workertoolbox.conf import defaults

README = Path(__file__).parent.parent / "README.rst"


def table(rows: Iterable[tuple[str, str, str]]) -> str:
    """An RST list-table of name, value and words."""
    lines = [".. list-table::", "   :widths: 30 20 50", ""]
    for name, value, words in rows:
        lines += [f"   * - ``{name}``", f"     - {value}", f"     - {words}"]
    return "\n".join(lines) + "\n"


def celery_rows() -> Iterator[tuple[str, str, str]]:
    """Each setting of Celery whose default the toolbox changes."""
    groups = [
        ("", defaults.COMMON),
        ("with ``DURABLE=True``: ", defaults.DURABLE),
        *((f"on {broker.title}: ", broker.settings) for broker in BROKERS),
    ]
    for where, group in groups:
        for name, default in sorted(group.items()):
            yield name, f"{where}``{default.value!r}``", default.reason
    options = [
        ("", defaults.TRANSPORT),
        *((f"on {broker.title}: ", broker.options) for broker in BROKERS),
    ]
    for where, group in options:
        for name, default in group.items():
            shown = f"{where}``{default.value!r}``"
            yield f"broker_transport_options: {name}", shown, default.reason
    yield (
        "broker_transport_options: connect_retries_timeout",
        "for a list of brokers: ``15.0``, or the timeout of each connection for each",
        "Each is tried, also after silent ones; ``max_retries`` is their number as well.",
    )
    yield (
        "broker_transport_options: visibility_timeout",
        f"on Redis, SQS, embedded: ``{VISIBILITY_TIMEOUT}`` or more",
        "Above every time limit and ``ETA_HORIZON``: a shorter one hands a task out twice.",
    )
    yield (
        "broker_transport_options: region",
        "on SQS: ``AWS_REGION``, ``AWS_DEFAULT_REGION`` or ``'us-west-2'``",
        "Where the queues are; a region in ``~/.aws/config`` is not looked at.",
    )
    yield (
        "broker_transport_options: wait_time_seconds",
        "on SQS: ``20``",
        "The longest poll that there is, so that idle workers cost least.",
    )
    yield (
        "broker_transport",
        "on Redis: ``toolbox-redis``",
        "All copies of a publish are one transaction.",
    )
    yield (
        "broker_transport",
        "on RabbitMQ: ``toolbox-amqp``",
        "Each wait for the broker has an end, and a dead connection is opened anew.",
    )
    yield (
        "broker_transport",
        "on SQS: ``toolbox-sqs``",
        "Each request has an end, which botocore's defaults put at minutes.",
    )
    yield (
        "broker_url",
        "where Amazon's variables, a region or ``QUEUE_PREFIX`` are set: ``sqs://``",
        "Amazon SQS with boto3's own search for credentials.",
    )
    yield (
        "result_backend",
        "``toolbox+postgresql+psycopg2://...``",
        "Built of the ``RESULT_DB_`` settings; results have to be in SQL for the ledger to join.",
    )


def own_rows() -> Iterator[tuple[str, str, str]]:
    """Each setting of the toolbox itself."""
    for name, (_, value, words) in defaults.OWN.items():
        yield name, "" if value is None else f"``{value!r}``", words


def updated(readme: str) -> str:
    """``readme`` with the tables of now."""
    for marker, rows in (("defaults", celery_rows()), ("own", own_rows())):
        begin, end = f".. {marker} begin\n", f".. {marker} end\n"
        before, _, rest = readme.partition(begin)
        _, _, after = rest.partition(end)
        readme = f"{before}{begin}\n{table(rows)}\n{end}{after}"
    return readme


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
