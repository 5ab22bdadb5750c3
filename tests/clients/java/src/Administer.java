import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;

/** Administration: the cluster, topics, configurations, deletion of records, groups. */
final class Administer {
    private Administer() {
    }

    static void register(Map<String, Checks.Check> all) {
        all.put("admin_cluster", Administer::cluster);
        all.put("admin_topics", Administer::topics);
        all.put("admin_configs", Administer::configs);
        all.put("admin_delete_records", Administer::deleteRecords);
        all.put("admin_groups", Administer::groups);
    }

    private static void cluster() throws Exception {
        try (Admin admin = Kit.admin()) {
            Checks.same(1, admin.describeCluster().nodes().get().size(), "nodes");
            Checks.require(!admin.describeCluster().clusterId().get().isEmpty(), "no cluster id");
            int id = admin.describeCluster().nodes().get().iterator().next().id();
            Checks.same(0, id, "node.id");
            String topic = Kit.topic("dirs", 2, Map.of());
            Consume.produce(topic, 2, 10);
            long size = admin.describeLogDirs(List.of(id)).allDescriptions().get().get(id).values().stream()
                .flatMap(d -> d.replicaInfos().entrySet().stream()).filter(e -> e.getKey().topic().equals(topic))
                .mapToLong(e -> e.getValue().size()).sum();
            Checks.require(size > 0, "DescribeLogDirs does not show the topic's bytes");
        }
    }

    private static void topics() throws Exception {
        String name = Kit.unique("admin");
        try (Admin admin = Kit.admin()) {
            NewTopic wanted = new NewTopic(name, 2, (short) 1);
            admin.createTopics(List.of(wanted), new CreateTopicsOptions().validateOnly(true)).all().get();
            Checks.require(!admin.listTopics().names().get().contains(name), "validateOnly created the topic");
            var created = admin.createTopics(List.of(wanted));
            Checks.same(2, created.numPartitions(name).get(), "partitions in the answer");
            Uuid id = created.topicId(name).get();
            Checks.same("TopicExistsException", Kit.failure(admin.createTopics(List.of(wanted)).all()), "again");
            Checks.same("InvalidTopicException", Kit.failure(admin.createTopics(List.of(new NewTopic("a b", 1, (short) 1))).all()), "a bad name");
            Checks.same("InvalidReplicationFactorException",
                Kit.failure(admin.createTopics(List.of(new NewTopic(name + "x", 1, (short) 2))).all()), "two replicas of one broker");
            admin.createPartitions(Map.of(name, NewPartitions.increaseTo(5))).all().get();
            Checks.same("InvalidPartitionsException", Kit.failure(admin.createPartitions(Map.of(name, NewPartitions.increaseTo(3))).all()), "fewer");
            TopicDescription d = admin.describeTopics(List.of(name)).allTopicNames().get().get(name);
            Checks.same(5, d.partitions().size(), "partitions");
            Checks.same(id, d.topicId(), "topic id");
            Checks.require(d.partitions().stream().allMatch(p -> p.leader().id() == 0 && p.isr().size() == 1), "leaders: %s", d);
            Checks.same(name, admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id).name(), "name by id");
            Checks.require(admin.listTopics().names().get().contains(name), "not listed");
            admin.deleteTopics(List.of(name)).all().get();
            Checks.same("UnknownTopicOrPartitionException", Kit.failure(admin.describeTopics(List.of(name)).allTopicNames()), "after deletion");
            Uuid second = admin.createTopics(List.of(wanted)).topicId(name).get();
            Checks.require(!second.equals(id), "the id was used again");
            admin.deleteTopics(TopicCollection.ofTopicIds(List.of(second))).all().get();
            Checks.same("UnknownTopicOrPartitionException", Kit.failure(admin.deleteTopics(List.of(name)).all()), "deleting what is gone");
        }
    }

    private static ConfigEntry entry(Admin admin, ConfigResource of, String key) throws Exception {
        Config config = admin.describeConfigs(List.of(of)).all().get().get(of);
        return config.get(key);
    }

    /** A broker may answer before its own view of the configuration is the new one. */
    private static void expect(Admin admin, ConfigResource of, String key, String value, String what) throws Exception {
        long end = System.nanoTime() + 5_000_000_000L;
        while (!entry(admin, of, key).value().equals(value) && System.nanoTime() < end) Thread.sleep(50);
        Checks.same(value, entry(admin, of, key).value(), what);
    }

    private static void alter(Admin admin, ConfigResource of, String key, String value, AlterConfigOp.OpType how) throws Exception {
        admin.incrementalAlterConfigs(Map.of(of, List.of(new AlterConfigOp(new ConfigEntry(key, value), how)))).all().get();
    }

    private static void configs() throws Exception {
        String topic = Kit.topic("config", 1, Map.of("retention.ms", "123456789"));
        ConfigResource of = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        try (Admin admin = Kit.admin()) {
            expect(admin, of, "retention.ms", "123456789", "given at creation");
            Checks.same(ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, entry(admin, of, "retention.ms").source(), "its source");
            alter(admin, of, "max.message.bytes", "54321", AlterConfigOp.OpType.SET);
            expect(admin, of, "max.message.bytes", "54321", "after SET");
            alter(admin, of, "retention.ms", "", AlterConfigOp.OpType.DELETE);
            expect(admin, of, "retention.ms", "604800000", "after DELETE");
            Checks.require(entry(admin, of, "retention.ms").source() != ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "source after DELETE");
            alter(admin, of, "cleanup.policy", "compact", AlterConfigOp.OpType.APPEND);
            expect(admin, of, "cleanup.policy", "delete,compact", "after APPEND");
            alter(admin, of, "cleanup.policy", "compact", AlterConfigOp.OpType.SUBTRACT);
            expect(admin, of, "cleanup.policy", "delete", "after SUBTRACT");
            expect(admin, of, "max.message.bytes", "54321", "untouched by the others");
            Checks.same("InvalidConfigurationException", Kit.failure(admin.incrementalAlterConfigs(Map.of(of,
                List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "soon"), AlterConfigOp.OpType.SET)))).all()), "a bad value");
            ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, "0");
            Checks.same("4", entry(admin, broker, "num.partitions").value(), "num.partitions of the broker");
        }
    }

    private static void deleteRecords() throws Exception {
        String topic = Kit.topic("cut", 1, Map.of());
        TopicPartition partition = new TopicPartition(topic, 0);
        Consume.produce(topic, 1, 100);
        try (Admin admin = Kit.admin(); KafkaConsumer<String, String> consumer = Kit.consumer(Map.of())) {
            long low = admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(40))).lowWatermarks().get(partition).get().lowWatermark();
            Checks.same(40L, low, "low watermark");
            Checks.same(40L, consumer.beginningOffsets(Set.of(partition)).get(partition), "start");
            consumer.assign(Set.of(partition));
            consumer.seek(partition, 10);
            List<ConsumerRecord<String, String>> got = new ArrayList<>();
            Kit.until("the 60 that are left", 30, () -> {
                consumer.poll(Duration.ofMillis(200)).forEach(got::add);
                return got.size() >= 60;
            });
            Checks.same(40L, got.get(0).offset(), "first offset (reset from 10)");
            Checks.same("OffsetOutOfRangeException",
                Kit.failure(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(500))).all()), "beyond the end");
        }
    }

    private static void groups() throws Exception {
        String topic = Kit.topic("groups", 2, Map.of());
        String group = Kit.unique("group");
        Consume.produce(topic, 2, 20);
        List<TopicPartition> partitions = Kit.partitions(topic, 2);
        try (Admin admin = Kit.admin()) {
            try (KafkaConsumer<String, String> consumer = Kit.consumer(Map.of("group.id", group))) {
                consumer.subscribe(List.of(topic));
                List<ConsumerRecord<String, String>> got = new ArrayList<>();
                Kit.until("20 records", 30, () -> {
                    consumer.poll(Duration.ofMillis(200)).forEach(got::add);
                    return got.size() >= 20;
                });
                consumer.commitSync();
                Checks.require(admin.listGroups().all().get().stream().anyMatch(g -> g.groupId().equals(group)), "not listed");
                ConsumerGroupDescription d = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
                Checks.same(GroupState.STABLE, d.groupState(), "state");
                Checks.same(1, d.members().size(), "members");
                Checks.same(Set.copyOf(partitions), d.members().iterator().next().assignment().topicPartitions(), "assignment");
                Checks.same("GroupNotEmptyException", Kit.failure(admin.deleteConsumerGroups(List.of(group)).all()), "deleting a group in use");
            }
            Checks.same(GroupState.EMPTY, admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState(), "state when all left");
            Checks.same(10L, offset(admin, group, partitions.get(0)), "committed");
            admin.alterConsumerGroupOffsets(group, Map.of(partitions.get(0), new OffsetAndMetadata(3))).all().get();
            Checks.same(3L, offset(admin, group, partitions.get(0)), "after alterConsumerGroupOffsets");
            admin.deleteConsumerGroupOffsets(group, Set.of(partitions.get(0))).all().get();
            Checks.require(!admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().containsKey(partitions.get(0)), "still committed");
            admin.deleteConsumerGroups(List.of(group)).all().get();
            Checks.require(admin.listGroups().all().get().stream().noneMatch(g -> g.groupId().equals(group)), "still listed");
        }
    }

    private static long offset(Admin admin, String group, TopicPartition partition) throws Exception {
        return admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(partition).offset();
    }
}
