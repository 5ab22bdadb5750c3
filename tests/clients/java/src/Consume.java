import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;

/** Reading: groups whose members come and go, committed positions, positions by time. */
final class Consume {
    private Consume() {
    }

    static void register(Map<String, Checks.Check> all) {
        all.put("group_rebalance", Consume::groupRebalance);
        all.put("group_resume", Consume::groupResume);
        all.put("group_static", Consume::groupStatic);
        all.put("group_pattern", Consume::groupPattern);
        all.put("seek_by_time", Consume::seekByTime);
        all.put("long_poll", Consume::longPoll);
    }

    /** A group member on a thread of its own, in default settings; `seen` counts each record by place. */
    static final class Member extends Thread {
        final Map<TopicPartition, Boolean> owned = new ConcurrentHashMap<>();
        private final Map<String, AtomicInteger> seen;
        private final KafkaConsumer<String, String> consumer;
        private volatile boolean leaving;
        private volatile Throwable why;

        Member(String group, String topic, Map<String, AtomicInteger> seen, Map<String, ?> extra) {
            Map<String, Object> settings = new HashMap<>(extra);
            settings.put("group.id", group);
            this.seen = seen;
            consumer = Kit.consumer(settings);
            consumer.subscribe(List.of(topic));
            start();
        }

        @Override
        public void run() {
            try (consumer) {
                while (!leaving) {
                    for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(100)))
                        seen.computeIfAbsent(r.partition() + "@" + r.offset(), k -> new AtomicInteger()).incrementAndGet();
                    Set<TopicPartition> now = consumer.assignment();
                    owned.keySet().retainAll(now);
                    now.forEach(p -> owned.put(p, true));
                }
            } catch (Throwable t) {
                why = t;
            }
        }

        void leave() throws Exception {
            leaving = true;
            join(30_000);
            Checks.require(!isAlive(), "close() takes more than 30 s");
            Checks.require(why == null, "a member failed: %s", why);
        }
    }

    static void produce(String topic, int partitions, int count) throws Exception {
        try (KafkaProducer<String, String> producer = Kit.producer(Map.of())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < count; i++) sent.add(producer.send(new ProducerRecord<>(topic, i % partitions, "k" + i, "v" + i)));
            for (Future<RecordMetadata> f : sent) f.get();
        }
    }

    private static boolean each(List<Member> members, int partitions) {
        return members.stream().allMatch(m -> m.owned.size() == partitions)
            && members.stream().flatMap(m -> m.owned.keySet().stream()).distinct().count() == (long) partitions * members.size();
    }

    private static void groupRebalance() throws Exception {
        String topic = Kit.topic("rebalance", 6, Map.of());
        String group = Kit.unique("group");
        Map<String, AtomicInteger> seen = new ConcurrentHashMap<>();
        List<Member> members = new ArrayList<>();
        try {
            for (int i = 0; i < 3; i++) members.add(new Member(group, topic, seen, Map.of()));
            Kit.until("two partitions for each of three", 60, () -> each(members, 2));
            produce(topic, 6, 600);
            Kit.until("600 records", 30, () -> seen.size() == 600);
            members.remove(1).leave();
            Kit.until("three partitions for each of two", 60, () -> each(members, 3));
            produce(topic, 6, 600);
            Kit.until("1200 records", 30, () -> seen.size() == 1200);
        } finally {
            for (Member m : members) m.leave();
        }
        Checks.require(seen.values().stream().allMatch(n -> n.get() == 1), "records were read twice");
        try (Admin admin = Kit.admin()) {
            Map<TopicPartition, OffsetAndMetadata> committed = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
            for (TopicPartition p : Kit.partitions(topic, 6)) Checks.same(200L, committed.get(p).offset(), "committed of " + p);
        }
    }

    private static void groupResume() throws Exception {
        String topic = Kit.topic("resume", 1, Map.of());
        produce(topic, 1, 100);
        Map<String, Object> settings = Map.of("group.id", Kit.unique("group"), "enable.auto.commit", "false", "max.poll.records", "10");
        TopicPartition partition = new TopicPartition(topic, 0);
        try (KafkaConsumer<String, String> consumer = Kit.consumer(settings)) {
            consumer.subscribe(List.of(topic));
            AtomicInteger got = new AtomicInteger();
            Kit.until("40 records", 30, () -> got.addAndGet(consumer.poll(Duration.ofMillis(200)).count()) >= 40);
            consumer.commitAsync(Map.of(partition, new OffsetAndMetadata(10)), null);
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(40, "note")));
            OffsetAndMetadata stored = consumer.committed(Set.of(partition)).get(partition);
            Checks.require(stored.offset() == 40 && stored.metadata().equals("note"), "committed: %s", stored);
        }
        try (KafkaConsumer<String, String> consumer = Kit.consumer(settings)) {
            consumer.subscribe(List.of(topic));
            List<Long> offsets = new ArrayList<>();
            Kit.until("the rest", 30, () -> {
                consumer.poll(Duration.ofMillis(200)).forEach(r -> offsets.add(r.offset()));
                return offsets.size() >= 60;
            });
            Checks.same(40L, offsets.get(0), "the first record after the committed position");
            Checks.same(60, offsets.size(), "records after the committed position");
        }
    }

    /** A static member that comes back keeps its partitions without a rebalance of the others. */
    private static void groupStatic() throws Exception {
        String topic = Kit.topic("static", 4, Map.of());
        String group = Kit.unique("group");
        Map<String, AtomicInteger> seen = new ConcurrentHashMap<>();
        List<Member> members = new ArrayList<>();
        try {
            for (String id : List.of("a", "b")) members.add(new Member(group, topic, seen, Map.of("group.instance.id", id)));
            Kit.until("two partitions for each of two", 60, () -> each(members, 2));
            Set<TopicPartition> before = Set.copyOf(members.get(1).owned.keySet());
            members.remove(1).leave();
            members.add(new Member(group, topic, seen, Map.of("group.instance.id", "b")));
            Kit.until("the same partitions again", 30, () -> members.get(1).owned.keySet().equals(before));
            Checks.same(2, members.get(0).owned.size(), "partitions of the one that stayed");
            produce(topic, 4, 40);
            Kit.until("40 records", 30, () -> seen.size() == 40);
        } finally {
            for (Member m : members) m.leave();
        }
    }

    private static void groupPattern() throws Exception {
        String stem = Kit.unique("pattern");
        try (Admin admin = Kit.admin(); KafkaConsumer<String, String> consumer = Kit.consumer(
            Map.of("group.id", Kit.unique("group"), "metadata.max.age.ms", "500"))) {
            admin.createTopics(List.of(new org.apache.kafka.clients.admin.NewTopic(stem + "-1", 1, (short) 1))).all().get();
            consumer.subscribe(java.util.regex.Pattern.compile(stem + "-.*"));
            Kit.until("the first topic", 30, () -> {
                consumer.poll(Duration.ofMillis(100));
                return consumer.assignment().size() == 1;
            });
            admin.createTopics(List.of(new org.apache.kafka.clients.admin.NewTopic(stem + "-2", 2, (short) 1))).all().get();
            Kit.until("the second topic", 30, () -> {
                consumer.poll(Duration.ofMillis(100));
                return consumer.assignment().size() == 3;
            });
        }
    }

    private static void seekByTime() throws Exception {
        String topic = Kit.topic("time", 1, Map.of());
        TopicPartition partition = new TopicPartition(topic, 0);
        long start = System.currentTimeMillis() - 500_000;
        try (KafkaProducer<String, String> producer = Kit.producer(Map.of())) {
            for (int i = 0; i < 100; i++) {
                producer.send(new ProducerRecord<>(topic, 0, start + i * 1000L, "k", "v" + i));
                if (i % 10 == 9) producer.flush();
            }
        }
        try (KafkaConsumer<String, String> consumer = Kit.consumer(Map.of()); Admin admin = Kit.admin()) {
            for (long[] c : new long[][] {{-5000, 0}, {0, 0}, {55_000, 55}, {55_001, 56}, {99_000, 99}}) {
                OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(partition, start + c[0])).get(partition);
                Checks.same(c[1], found.offset(), "offset at " + c[0] + " ms");
                Checks.same(start + c[1] * 1000, found.timestamp(), "timestamp at " + c[0] + " ms");
            }
            Checks.require(consumer.offsetsForTimes(Map.of(partition, start + 99_001)).get(partition) == null, "beyond the last record");
            Checks.same(0L, consumer.beginningOffsets(Set.of(partition)).get(partition), "start");
            Checks.same(100L, consumer.endOffsets(Set.of(partition)).get(partition), "end");
            Checks.same(99L, admin.listOffsets(Map.of(partition, OffsetSpec.maxTimestamp())).all().get().get(partition).offset(), "largest timestamp");
            consumer.assign(Set.of(partition));
            consumer.seek(partition, 56);
            List<ConsumerRecord<String, String>> got = new ArrayList<>();
            Kit.until("records from 56 on", 30, () -> {
                consumer.poll(Duration.ofMillis(200)).forEach(got::add);
                return got.size() >= 44;
            });
            Checks.same("v56", got.get(0).value(), "first value");
        }
    }

    /** A waiting reader gets a record soon after it was written, long before its poll ends. */
    private static void longPoll() throws Exception {
        String topic = Kit.topic("poll", 1, Map.of());
        TopicPartition partition = new TopicPartition(topic, 0);
        try (KafkaConsumer<String, String> consumer = Kit.consumer(Map.of("fetch.max.wait.ms", "6000"));
             KafkaProducer<String, String> producer = Kit.producer(Map.of())) {
            consumer.assign(Set.of(partition));
            consumer.poll(Duration.ofMillis(500));
            Thread writer = new Thread(() -> {
                java.util.concurrent.locks.LockSupport.parkNanos(500_000_000);
                producer.send(new ProducerRecord<>(topic, "k", "v"));
            });
            long began = System.nanoTime();
            writer.start();
            Checks.same(1, consumer.poll(Duration.ofSeconds(10)).count(), "records");
            Checks.require(System.nanoTime() - began < 3_000_000_000L, "the waiting fetch was not woken");
            writer.join();
        }
    }
}
