"""A restart in the middle: nothing acknowledged is lost, groups resume, producers go on."""

from __future__ import annotations

import pytest
from adapters import Confluent, Got, until
from confluent_kafka import Producer

import penstock


@pytest.mark.parametrize("abrupt", [False, True], ids=["clean", "kill"])
def test_producer_and_group_go_on_after_a_restart(abrupt: bool) -> None:
    with penstock.Broker() as broker:
        client = Confluent(broker.bootstrap_servers)
        client.create_topic("restarted", 2, {})
        producer = Producer({**client.bootstrap, "enable.idempotence": True})
        errors: list[object] = []

        def delivered(error: object, _message: object) -> None:
            if error:
                errors.append(error)

        for number in range(1000):
            producer.produce("restarted", b"%06d" % number, on_delivery=delivered)
        producer.flush(30)
        member = client.join("survivors", "restarted")
        got: list[Got] = []
        until(lambda: (got.extend(member.poll(0.5)), len(got) >= 1000)[1], "the first thousand")
        member.commit()
        if abrupt:
            broker.kill()
            broker.start()
        else:
            broker.restart()
        for number in range(1000, 2000):
            producer.produce("restarted", b"%06d" % number, on_delivery=delivered)
        producer.flush(60)
        assert errors == []
        until(lambda: (got.extend(member.poll(0.5)), len(got) >= 2000)[1], "the second thousand")
        member.commit()
        member.close()
        assert sorted(record.value or b"" for record in got) == [b"%06d" % n for n in range(2000)]
        again = client.join("survivors", "restarted")
        until(lambda: (again.poll(0.3), len(again.assigned()) == 2)[1], "the group is back")
        assert again.poll(1.0) == []
        again.close()
