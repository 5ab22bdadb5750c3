"""Properties of names, ids, stored topics and incremental configuration."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.config.properties import parse_properties
from penstock.metadata import names, plan
from penstock.metadata.model import Partition, Topic, decode_topic, encode_topic

IDS = st.binary(min_size=16, max_size=16)
INTS = st.integers(min_value=0, max_value=2**31 - 1)
BROKERS = st.lists(INTS, min_size=1, max_size=3).map(tuple)
PARTITIONS = st.builds(Partition, INTS, INTS, INTS, BROKERS, BROKERS, INTS)


@given(IDS)
def test_id_text_round_trip(topic_id: bytes) -> None:
    assert names.id_from_text(names.id_text(topic_id)) == topic_id


@given(
    st.text(),
    IDS,
    st.lists(PARTITIONS, max_size=20).map(tuple),
    st.dictionaries(st.text(), st.text()),
)
def test_stored_topic_round_trip(
    name: str, topic_id: bytes, partitions: tuple[Partition, ...], configs: dict[str, str]
) -> None:
    topic = Topic(name=name, topic_id=topic_id, partitions=partitions, configs=configs)
    try:
        stored = encode_topic(topic)
    except UnicodeEncodeError:
        return
    assert decode_topic(stored) == topic


@given(st.text(max_size=300))
def test_every_name_is_either_fine_or_explained(name: str) -> None:
    problem = names.name_problem(name)
    legal = 0 < len(name) <= 249 and name not in (".", "..") and names._LEGAL.issuperset(name)
    assert (problem is None) == legal


@given(st.lists(st.sampled_from("abcd"), max_size=4), st.lists(st.sampled_from("abcd"), max_size=4))
def test_append_then_subtract_leaves_none_of_the_items(start: list[str], items: list[str]) -> None:
    present = {"k": ",".join(start)}
    value = ",".join(items)
    added = plan.incremental(present, [("k", plan.APPEND, value)], lambda _: None, lambda _: True)
    assert set(items) <= set(plan._split(added["k"]))
    left = plan.incremental(added, [("k", plan.SUBTRACT, value)], lambda _: None, lambda _: True)
    assert set(plan._split(left["k"])) == set(start) - set(items)


@given(st.text())
def test_properties_reader_takes_any_text(text: str) -> None:
    parse_properties(text)
