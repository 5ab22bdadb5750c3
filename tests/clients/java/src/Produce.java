import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;

import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TransactionalIdAuthorizationException;

/** Writing: codecs and acks, idempotence, topics that appear by being written to, odd and large records. */
final class Produce {
    private static final int COUNT = 300;

    private Produce() {
    }

    static void register(Map<String, Checks.Check> all) {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd"))
            for (String acks : List.of("0", "1", "all"))
                all.put("produce/" + codec + "/acks=" + acks, () -> roundTrip(codec, acks));
        all.put("idempotent", Produce::idempotent);
        all.put("transactional_id", Produce::transactionalId);
        all.put("auto_create", Produce::autoCreate);
        all.put("odd_records", Produce::oddRecords);
        all.put("too_large", Produce::tooLarge);
    }

    private static String value(int i) {
        return "value-" + i + "-" + "abcdefgh".repeat(i % 50);
    }

    private static void roundTrip(String codec, String acks) throws Exception {
        String topic = Kit.topic("codec", 3, Map.of());
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<String, String> producer = Kit.producer(Map.of("compression.type", codec, "acks", acks))) {
            for (int i = 0; i < COUNT; i++) sent.add(producer.send(new ProducerRecord<>(topic, i % 3, "k" + i, value(i))));
        }
        for (int i = 0; i < COUNT; i++) {
            long offset = sent.get(i).get().offset();
            Checks.same(acks.equals("0") ? -1L : (long) (i / 3), offset, "offset of record " + i);
        }
        for (ConsumerRecord<String, String> r : Kit.readAll(Kit.partitions(topic, 3), COUNT)) {
            int i = (int) r.offset() * 3 + r.partition();
            Checks.same("k" + i, r.key(), "key at " + r.offset());
            Checks.same(value(i), r.value(), "value at " + r.offset());
        }
    }

    private static void idempotent() throws Exception {
        String topic = Kit.topic("idempotent", 2, Map.of());
        int many = 5000;
        try (KafkaProducer<String, String> producer = Kit.producer(Map.of("enable.idempotence", "true", "linger.ms", "0", "batch.size", "500"))) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < many; i++) sent.add(producer.send(new ProducerRecord<>(topic, i % 2, "", Integer.toString(i))));
            for (int i = 0; i < many; i++) Checks.same((long) (i / 2), sent.get(i).get().offset(), "offset of " + i);
        }
        for (ConsumerRecord<String, String> r : Kit.readAll(Kit.partitions(topic, 2), many))
            Checks.same(Integer.toString((int) r.offset() * 2 + r.partition()), r.value(), "value at " + r.offset());
    }

    /** A broker without transactions must say so at once; one with them must carry a commit out. */
    private static void transactionalId() throws Exception {
        String topic = Kit.topic("transactional", 1, Map.of());
        long began = System.nanoTime();
        try (KafkaProducer<String, String> producer = Kit.producer(Map.of("transactional.id", Kit.unique("tx")))) {
            try {
                producer.initTransactions();
            } catch (TransactionalIdAuthorizationException refused) {
                Checks.require(System.nanoTime() - began < 10_000_000_000L, "refused, but only after 10 s");
                return;
            }
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, "k", "v"));
            producer.commitTransaction();
        }
        Kit.readAll(Kit.partitions(topic, 1), 1);
    }

    private static void autoCreate() throws Exception {
        String topic = Kit.unique("appears");
        try (KafkaProducer<String, String> producer = Kit.producer(Map.of())) {
            producer.send(new ProducerRecord<>(topic, "k", "v")).get();
            Checks.same(4, producer.partitionsFor(topic).size(), "partitions (num.partitions)");
        }
        Kit.readAll(Kit.partitions(topic, 4), 1);
    }

    private static void oddRecords() throws Exception {
        String topic = Kit.topic("odd", 1, Map.of());
        String large = "x".repeat(900_000);
        long stamp = System.currentTimeMillis() - 12_345;
        try (KafkaProducer<String, String> producer = Kit.producer(Map.of())) {
            producer.send(new ProducerRecord<>(topic, null, null)).get();
            producer.send(new ProducerRecord<>(topic, "", "")).get();
            ProducerRecord<String, String> record = new ProducerRecord<>(topic, 0, stamp, "schlüssel", "wert");
            record.headers().add("a", "1".getBytes(StandardCharsets.UTF_8)).add("a", null).add("b", new byte[0]);
            producer.send(record).get();
            Checks.same(3L, producer.send(new ProducerRecord<>(topic, "large", large)).get().offset(), "offset of the large one");
        }
        List<ConsumerRecord<String, String>> got = Kit.readAll(Kit.partitions(topic, 1), 4);
        Checks.require(got.get(0).key() == null && got.get(0).value() == null, "nulls came back as %s", got.get(0));
        Checks.require(got.get(1).key().isEmpty() && got.get(1).value().isEmpty(), "empty strings came back as %s", got.get(1));
        ConsumerRecord<String, String> third = got.get(2);
        Checks.same("schlüssel", third.key(), "key");
        Checks.same(stamp, third.timestamp(), "timestamp");
        Checks.same(3, third.headers().toArray().length, "headers");
        Checks.require(third.headers().toArray()[1].value() == null, "null header");
        Checks.same(large, got.get(3).value(), "large value");
    }

    private static void tooLarge() throws Exception {
        String topic = Kit.topic("limit", 1, Map.of("max.message.bytes", "10000"));
        try (KafkaProducer<String, String> producer = Kit.producer(Map.of())) {
            try {
                producer.send(new ProducerRecord<>(topic, "k", "x".repeat(20_000))).get();
                throw new AssertionError("a record above max.message.bytes was taken");
            } catch (ExecutionException e) {
                Checks.require(e.getCause() instanceof RecordTooLargeException, "wrong error: %s", e.getCause());
            }
            Checks.same(0L, producer.send(new ProducerRecord<>(topic, "k", "small")).get().offset(), "offset after the refusal");
        }
    }
}
