"""kill -9 under idempotent producers: `python -m tests.crash.kill --kills 100`.

Four confluent-kafka producers (idempotent, acks=all) write numbered records to 12 partitions while
the broker is killed at random times and started again on the same directory and port. At the end a
plain reader reads every partition, and the checker compares. Prints seed, kills, figures and the
verdict; exits 1 unless it is clean.
"""

from __future__ import annotations

import argparse
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from tests.crash.checker import History, Verdict, check

TOPIC = "crash"
PARTITIONS = 12
PRODUCERS = 4
RECORD_BYTES = 1024
PER_SECOND = 1000  # records a producer tries to send


class BrokerProcess:
    """`penstock serve` on a fixed port and directory, started again and again."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.directory = directory
        self.process: subprocess.Popen[str] | None = None
        self.starts: list[float] = []

    def start(self) -> None:
        begin = time.monotonic()
        self.process = subprocess.Popen(
            [
                Path(sys.executable).parent / "penstock",
                "serve",
                "--set",
                f"listeners=PLAINTEXT://127.0.0.1:{self.port}",
                "--set",
                f"log.dirs={self.directory}",
                # Small segments: rolls, snapshots and indexes happen between the kills.
                "--set",
                "log.segment.bytes=1048576",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "ready" not in line:
            raise SystemExit(f"the broker did not start again: {line!r}")
        self.starts.append(time.monotonic() - begin)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)


def produce(bootstrap: str, number: int, history: History, stop: threading.Event) -> None:
    """One producer; numbers its records per partition and notes what it is told of each."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "message.timeout.ms": 600000,
            "reconnect.backoff.max.ms": 500,
        }
    )
    counters = [0] * PARTITIONS
    filler = "x" * RECORD_BYTES

    def delivered(error: KafkaError | None, message: Message) -> None:
        producer_text, count_text, _ = (message.value() or b"").split(b" ", 2)
        name = (message.partition() or 0, int(producer_text), int(count_text))
        if error is None:
            history.acknowledged[name] = message.offset() or 0
        else:
            history.failed.add(name)

    partition = number
    begin, sent = time.monotonic(), 0
    while not stop.is_set():
        if sent > (time.monotonic() - begin) * PER_SECOND or len(producer) > 20000:
            producer.poll(0.01)
            continue
        partition = (partition + 1) % PARTITIONS
        name = (partition, number, counters[partition])
        history.sent.add(name)
        value = f"{number} {counters[partition]} {filler}"[:RECORD_BYTES]
        producer.produce(TOPIC, value.encode(), partition=partition, on_delivery=delivered)
        counters[partition] += 1
        sent += 1
        producer.poll(0)
    if producer.flush(120):
        raise SystemExit(f"producer {number} could not flush")


def read_all(bootstrap: str, history: History) -> None:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.partition.eof": False}
    )
    parts = [TopicPartition(TOPIC, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)]
    ends = {
        p: consumer.get_watermark_offsets(TopicPartition(TOPIC, p), timeout=30)[1]
        for p in range(PARTITIONS)
    }
    consumer.assign(parts)
    done = {partition for partition, end in ends.items() if end == 0}
    quiet_since = time.monotonic()
    while len(done) < PARTITIONS:
        for message in consumer.consume(5000, 1.0):
            if message.error():
                raise SystemExit(f"reading failed: {message.error()}")
            producer, count, _ = message.value().split(b" ", 2)
            history.read[message.partition()].append((message.offset(), int(producer), int(count)))
            if message.offset() + 1 >= ends[message.partition()]:
                done.add(message.partition())
            quiet_since = time.monotonic()
        if time.monotonic() - quiet_since > 30:
            raise SystemExit(
                f"reading stalled; partitions missing: {set(range(PARTITIONS)) - done}"
            )
    consumer.close()


def run(
    kills: int, seed: int, pause: tuple[float, float] = (0.5, 2.0)
) -> tuple[Verdict, list[float]]:
    """The whole test; also returns how long each start took (s)."""
    chance = random.Random(seed)
    directory = Path(tempfile.mkdtemp(prefix="penstock-crash-"))
    broker = BrokerProcess(directory)
    history = History()
    stop = threading.Event()
    try:
        broker.start()
        bootstrap = f"127.0.0.1:{broker.port}"
        admin = AdminClient({"bootstrap.servers": bootstrap})
        admin.create_topics([NewTopic(TOPIC, PARTITIONS)])[TOPIC].result(30)
        threads = [
            threading.Thread(target=produce, args=(bootstrap, number, history, stop))
            for number in range(PRODUCERS)
        ]
        for thread in threads:
            thread.start()
        for _ in range(kills):
            time.sleep(chance.uniform(*pause))
            broker.kill()
            broker.start()
        time.sleep(1)
        stop.set()
        for thread in threads:
            thread.join()
        read_all(bootstrap, history)
        broker.stop()
    finally:
        stop.set()
        if broker.process is not None and broker.process.poll() is None:
            broker.kill()
        shutil.rmtree(directory, ignore_errors=True)
    return check(history), broker.starts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.kills} kills", flush=True)
    verdict, starts = run(options.kills, options.seed)
    starts.sort()
    print(
        f"acknowledged {verdict.acknowledged}, read {verdict.read}: lost {verdict.lost},"
        f" duplicated {verdict.duplicated}, reordered {verdict.reordered},"
        f" invented {verdict.invented}, moved {verdict.moved}"
    )
    print(f"start median {starts[len(starts) // 2]:.2f} s, slowest {starts[-1]:.2f} s")
    print(*verdict.examples, sep="\n")
    return 0 if verdict.clean and verdict.acknowledged > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
