import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;

import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;

/** The broker ends and comes back while a producer and a group run: nothing is lost, doubled or out of order. */
final class Restart {
    private static final int COUNT = 2000;

    private Restart() {
    }

    static void register(Map<String, Checks.Check> all) {
        all.put("restart_soft", () -> middle(false));
        all.put("restart_hard", () -> middle(true));
    }

    private static void middle(boolean hard) throws Exception {
        String topic = Kit.topic("restart", 2, Map.of());
        Map<String, AtomicInteger> seen = new ConcurrentHashMap<>();
        Consume.Member member = new Consume.Member(Kit.unique("group"), topic, seen, Map.of());
        AtomicBoolean going = new AtomicBoolean(true);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (KafkaProducer<String, String> producer = Kit.producer(Map.of())) {
            Thread writer = new Thread(() -> {
                for (int i = 0; i < COUNT && going.get(); i++) {
                    synchronized (sent) {
                        sent.add(producer.send(new ProducerRecord<>(topic, i % 2, "", Integer.toString(i))));
                    }
                    LockSupport.parkNanos(2_000_000);
                }
            });
            writer.start();
            Kit.until("the first 300 records", 60, () -> seen.size() > 300);
            Checks.restart(hard);
            writer.join();
            for (Future<RecordMetadata> f : sent) f.get();
        } finally {
            going.set(false);
        }
        Map<Integer, Integer> next = new HashMap<>(Map.of(0, 0, 1, 1));
        for (ConsumerRecord<String, String> r : Kit.readAll(Kit.partitions(topic, 2), COUNT)) {
            Checks.same(Integer.toString(next.get(r.partition())), r.value(), "value at " + r.partition() + "@" + r.offset());
            next.merge(r.partition(), 2, Integer::sum);
        }
        Kit.until("all records in the group", 90, () -> seen.size() == COUNT);
        member.leave();
    }
}
