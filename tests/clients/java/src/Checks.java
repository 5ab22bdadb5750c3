import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * Checks BOOTSTRAP [NAME...]: what kafka-clients must be able to do with a broker, in its default settings.
 * Prints "PASS name seconds", "FAIL name seconds message" a check; see tests/clients/README.md.
 */
public final class Checks {
    /** One check: returns if all is well. */
    interface Check {
        void run() throws Exception;
    }

    static String bootstrap;
    private static final BufferedReader answers =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

    private Checks() {
    }

    static void require(boolean holds, String message, Object... values) {
        if (!holds) throw new AssertionError(String.format(Locale.ROOT, message, values));
    }

    static void same(Object expected, Object found, String what) {
        require(expected.equals(found), "%s: expected %s, found %s", what, expected, found);
    }

    /** Asks whoever runs this program to end the broker and start it again; returns when that is done. */
    static void restart(boolean hard) throws IOException {
        System.out.println("RESTART " + (hard ? "hard" : "soft"));
        System.out.flush();
        require(answers.readLine() != null, "nobody restarts the broker");
    }

    public static void main(String[] args) {
        bootstrap = args[0];
        List<String> wanted = List.of(args).subList(1, args.length);
        Map<String, Check> all = new LinkedHashMap<>();
        Produce.register(all);
        Consume.register(all);
        Administer.register(all);
        Restart.register(all);
        boolean good = true;
        for (Map.Entry<String, Check> entry : all.entrySet()) {
            if (!wanted.isEmpty() && !wanted.contains(entry.getKey())) continue;
            good &= one(entry.getKey(), entry.getValue());
        }
        System.exit(good ? 0 : 1);
    }

    private static boolean one(String name, Check check) {
        long began = System.nanoTime();
        Throwable why = null;
        try {
            check.run();
        } catch (Throwable t) {
            why = t;
        }
        double seconds = (System.nanoTime() - began) / 1e9;
        String text = why == null ? "" : " " + describe(why);
        System.out.printf(Locale.ROOT, "%s %s %.1f%s%n", why == null ? "PASS" : "FAIL", name, seconds, text);
        System.out.flush();
        return why == null;
    }

    private static String describe(Throwable why) {
        StringBuilder text = new StringBuilder();
        for (Throwable t = why; t != null; t = t.getCause()) text.append(text.isEmpty() ? "" : " <- ").append(t);
        for (StackTraceElement frame : why.getStackTrace()) {
            if (frame.getFileName() == null || !frame.getFileName().matches("(Produce|Consume|Administer|Restart).java")) continue;
            text.append(" at ").append(frame.getFileName()).append(':').append(frame.getLineNumber());
            break;
        }
        return text.toString().replaceAll("\\s+", " ");
    }
}
