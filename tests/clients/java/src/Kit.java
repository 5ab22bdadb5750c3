import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.function.BooleanSupplier;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Clients with nothing set but what a check is about, and waits with an end. */
final class Kit {
    private Kit() {
    }

    static String unique(String stem) {
        return stem + "-" + Long.toString(System.nanoTime(), 36);
    }

    private static Properties properties(Map<String, ?> extra) {
        Properties p = new Properties();
        p.put("bootstrap.servers", Checks.bootstrap);
        p.putAll(extra);
        return p;
    }

    static Admin admin() {
        return Admin.create(properties(Map.of()));
    }

    static KafkaProducer<String, String> producer(Map<String, ?> extra) {
        return new KafkaProducer<>(properties(extra), new StringSerializer(), new StringSerializer());
    }

    static KafkaConsumer<String, String> consumer(Map<String, ?> extra) {
        Properties p = properties(extra);
        p.putIfAbsent("auto.offset.reset", "earliest");
        return new KafkaConsumer<>(p, new StringDeserializer(), new StringDeserializer());
    }

    /**
     * Creates a topic and waits until its partitions answer: Kafka shows a leader before that one has a log, and
     * what is written with acks=0 in between is lost.
     */
    static String topic(String stem, int partitions, Map<String, String> configs) throws Exception {
        String name = unique(stem);
        try (Admin admin = admin()) {
            admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1).configs(configs))).all().get();
            Map<TopicPartition, OffsetSpec> ends = new HashMap<>();
            partitions(name, partitions).forEach(p -> ends.put(p, OffsetSpec.latest()));
            admin.listOffsets(ends).all().get();
        }
        return name;
    }

    static List<TopicPartition> partitions(String topic, int count) {
        List<TopicPartition> all = new ArrayList<>();
        for (int i = 0; i < count; i++) all.add(new TopicPartition(topic, i));
        return all;
    }

    static void until(String what, long seconds, BooleanSupplier done) {
        long end = System.nanoTime() + seconds * 1_000_000_000L;
        while (!done.getAsBoolean()) {
            Checks.require(System.nanoTime() < end, "not within %d s: %s", seconds, what);
            java.util.concurrent.locks.LockSupport.parkNanos(20_000_000);
        }
    }

    /** Reads the partitions from their start until `count` records are there, then sees that no more come. */
    static List<ConsumerRecord<String, String>> readAll(Collection<TopicPartition> from, int count) {
        List<ConsumerRecord<String, String>> got = new ArrayList<>();
        try (KafkaConsumer<String, String> consumer = consumer(Map.of())) {
            consumer.assign(from);
            consumer.seekToBeginning(from);
            until(count + " records of " + from, 60, () -> {
                consumer.poll(Duration.ofMillis(200)).forEach(got::add);
                return got.size() >= count;
            });
            consumer.poll(Duration.ofMillis(300)).forEach(got::add);
        }
        Checks.same(count, got.size(), "records read");
        return got;
    }

    /** Waits for a future that must fail, and returns the class name of why. */
    static String failure(KafkaFuture<?> future) throws InterruptedException {
        try {
            future.get();
        } catch (ExecutionException e) {
            return e.getCause().getClass().getSimpleName();
        }
        return "success";
    }
}
