"""Kafka's command line tools (4.3.1) as scripts in the cache: what librdkafka's tests call."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from .kafka_own import jars

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .suite import Setting

CLASSES: Mapping[str, str] = {
    "kafka-acls": "org.apache.kafka.tools.AclCommand",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "kafka-dump-log": "org.apache.kafka.tools.DumpLogSegments",
    "kafka-get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-groups": "org.apache.kafka.tools.GroupsCommand",
    "kafka-log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "kafka-producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
}


TEMPLATE = """\
#!/bin/sh
here=$(dirname "$0")
exec java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \\
    -Dlog4j2.configurationFile="$here/log4j2.xml" -cp "$here/../kafka_own/lib/*" MAIN "$@"
"""


def scripts(setting: Setting) -> Path:
    """The directory with kafka-topics.sh and its fellows, made when it is not there."""
    jars(setting)
    logging = setting.home.parent / "kafka_own" / "log4j2.xml"

    def write(directory: Path) -> None:
        shutil.copy(logging, directory)
        for name, main in CLASSES.items():
            script = directory / f"{name}.sh"
            script.write_text(TEMPLATE.replace("MAIN", main), encoding="utf-8")
            script.chmod(0o755)

    return setting.cache.part("bin", [TEMPLATE, logging, *map(str, CLASSES.items())], write)
