// Prints Kafka's error table, one line each: code, name, retriable, message (tab separated).
// Run by tools/gen with the published kafka-clients jar on the class path.
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.protocol.Errors;

public class PrintErrors {
    public static void main(String[] args) {
        for (Errors error : Errors.values()) {
            boolean retriable = error.exception() instanceof RetriableException;
            String message = error == Errors.NONE ? "" : error.message();
            System.out.println(error.code() + "\t" + error.name() + "\t" + retriable + "\t"
                + message.replaceAll("\\s+", " ").trim());
        }
    }
}
