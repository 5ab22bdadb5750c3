package judge;

import org.apache.kafka.common.network.ListenerName;
import org.apache.kafka.common.security.auth.SecurityProtocol;
import org.apache.kafka.common.test.JaasUtils;
import org.apache.kafka.common.test.api.ClusterConfig;
import org.apache.kafka.server.common.MetadataVersion;

import java.io.File;
import java.io.IOException;
import java.io.Writer;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.*;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;

/** Processes started with BROKER_CMD: their ports, property files, start and end. */
public final class Nodes {
    static final int CONTROLLER_ID = 3000;
    static final String HOST = "localhost";
    static final String CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg";
    static final long READY_MS = Long.parseLong(env("BROKER_READY_MS", "60000"));
    static final int MAX = Integer.parseInt(env("MAX_BROKERS", "1"));
    /** SHRINK=1: a test that declares more than MAX_BROKERS gets MAX_BROKERS, with replication cut to that. */
    static final boolean SHRINK = System.getenv("SHRINK") != null;
    private static final Map<String, Integer> REPLICATION = Map.of(
        "offsets.topic.replication.factor", 3, "transaction.state.log.replication.factor", 3,
        "transaction.state.log.min.isr", 2, "share.coordinator.state.topic.replication.factor", 3,
        "share.coordinator.state.topic.min.isr", 2, "default.replication.factor", 1, "min.insync.replicas", 1);
    private static final AtomicInteger serial = new AtomicInteger();
    private static final Set<Process> live = Collections.synchronizedSet(new HashSet<>());

    static {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> live.forEach(Nodes::killTree)));
    }

    static String env(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null || value.isEmpty() ? otherwise : value;
    }

    /** One node: its properties and, while it runs, its process. */
    static final class Node {
        final int id;
        final Properties props = new Properties();
        final Map<String, Integer> ports = new HashMap<>();
        int port = -1;
        int controllerPort = -1;
        Process process;

        Node(int id) {
            this.id = id;
        }

        /** Gives every listener that has port 0 a port, and notes them all. */
        void bind() {
            List<String> out = new ArrayList<>();
            for (String l : props.getProperty("listeners").split(",")) {
                int colon = l.lastIndexOf(':');
                int given = Integer.parseInt(l.substring(colon + 1).trim());
                int at = given == 0 ? freePort() : given;
                ports.put(l.substring(0, l.indexOf("://")).trim(), at);
                out.add(l.substring(0, colon + 1) + at);
            }
            props.put("listeners", String.join(",", out));
        }

        boolean alive() {
            return process != null && process.isAlive();
        }
    }

    final Map<Integer, Node> brokers = new TreeMap<>();
    Node controller;
    final Map<String, String> environment = new HashMap<>();
    private final Path dir;

    Nodes() {
        dir = Path.of(env("JUDGE_DIR", System.getProperty("java.io.tmpdir") + "/kafka-own"),
            ProcessHandle.current().pid() + "-" + serial.incrementAndGet());
    }

    /** Null if this configuration can be had from BROKER_CMD, else the reason why not. */
    public static String whyNot(ClusterConfig config) {
        if (System.getenv("JUDGE_DRY") != null) return "DRY " + describe(config);
        if (config.numBrokers() > MAX && !SHRINK) return "MULTI " + config.numBrokers() + " brokers";
        if (!plugins(config).isEmpty() && System.getenv("JUDGE_PLUGINS") == null)
            return "PLUGIN " + String.join(",", plugins(config));
        return null;
    }

    /** Server properties whose value is a class the broker would have to load from the test jars. */
    static Set<String> plugins(ClusterConfig config) {
        Set<String> found = new TreeSet<>();
        List<Map<String, String>> all = new ArrayList<>(config.perServerOverrideProperties().values());
        all.add(config.serverProperties());
        all.forEach(props -> props.forEach((key, value) -> {
            if (value == null || value.indexOf('.') < 0) return;
            for (String name : value.split(",")) {
                try {
                    Class<?> c = Class.forName(name.trim(), false, Nodes.class.getClassLoader());
                    if (c.getProtectionDomain().getCodeSource().getLocation().getPath().contains("test"))
                        found.add(key + "=" + c.getName());
                } catch (ClassNotFoundException | LinkageError | NullPointerException e) {
                    // Not a class: an ordinary value.
                }
            }
        }));
        return found;
    }

    static String describe(ClusterConfig config) {
        List<String> out = new ArrayList<>(List.of("brokers=" + config.numBrokers()));
        if (config.numControllers() > 1) out.add("controllers=" + config.numControllers());
        if (config.numDisksPerBroker() > 1) out.add("disks=" + config.numDisksPerBroker());
        if (config.brokerSecurityProtocol() != SecurityProtocol.PLAINTEXT) out.add("security=" + config.brokerSecurityProtocol());
        if (config.metadataVersion() != MetadataVersion.latestTesting()) out.add("release=" + config.metadataVersion());
        if (!config.features().isEmpty()) out.add("features=" + features(config));
        plugins(config).forEach(p -> out.add("plugin:" + p));
        return String.join(";", out);
    }

    static String features(ClusterConfig config) {
        return config.features().entrySet().stream().map(e -> e.getKey().featureName() + "=" + e.getValue())
            .sorted().collect(Collectors.joining(","));
    }

    static Nodes of(ClusterConfig config) {
        Nodes nodes = new Nodes();
        boolean separate = "separate".equals(env("BROKER_CONTROLLER", "combined"));
        String listener = config.brokerListenerName().value();
        String control = config.controllerListenerName().value();
        int controllerPort = freePort();
        int controllerId = separate ? CONTROLLER_ID : 0;
        int count = SHRINK ? Math.min(MAX, config.numBrokers()) : config.numBrokers();
        for (int id = 0; id < count; id++) {
            Node node = new Node(id);
            nodes.brokers.put(id, node);
        }
        if (separate) nodes.controller = new Node(CONTROLLER_ID);
        else nodes.controller = nodes.brokers.get(0);
        nodes.controller.controllerPort = controllerPort;
        Set<Node> all = new LinkedHashSet<>(List.of(nodes.controller));
        all.addAll(nodes.brokers.values());
        for (Node node : all) {
            Properties p = node.props;
            boolean isBroker = nodes.brokers.containsKey(node.id);
            boolean isController = node == nodes.controller;
            p.putAll(config.serverProperties());
            p.putIfAbsent("listener.security.protocol.map", listener + ":" + config.brokerSecurityProtocol().name
                + "," + control + ":" + config.controllerSecurityProtocol().name);
            List<String> listeners = new ArrayList<>();
            if (isBroker) listeners.add(listener + "://" + HOST + ":0");
            if (isController) listeners.add(control + "://" + HOST + ":" + controllerPort);
            p.putIfAbsent("listeners", String.join(",", listeners));
            p.putIfAbsent("inter.broker.listener.name", listener);
            p.putIfAbsent("controller.listener.names", control);
            p.putIfAbsent("log.cleaner.dedupe.buffer.size", "2097152");
            p.putIfAbsent("unstable.api.versions.enable", "true");
            if (isController) config.perServerOverrideProperties().getOrDefault(CONTROLLER_ID, Map.of()).forEach(p::put);
            config.perServerOverrideProperties().getOrDefault(node.id, Map.of()).forEach(p::put);
            if (count < config.numBrokers()) REPLICATION.forEach((key, usual) ->
                p.put(key, Integer.toString(Math.min(count, Integer.parseInt(p.getProperty(key, usual.toString()))))));
            p.put("process.roles", isBroker && isController ? "broker,controller" : isBroker ? "broker" : "controller");
            p.put("node.id", Integer.toString(node.id));
            node.bind();
            node.port = node.ports.getOrDefault(listener, -1);
            p.put("controller.quorum.voters", controllerId + "@" + HOST + ":" + controllerPort);
            List<String> disks = new ArrayList<>();
            for (int d = 0; d < Math.max(1, config.numDisksPerBroker()); d++)
                disks.add(nodes.dir.resolve("node" + node.id + "/data" + d).toString());
            p.put("log.dirs", String.join(",", disks));
            p.remove("controller.quorum.auto.join.enable");
            if (config.brokerSecurityProtocol() == SecurityProtocol.SASL_PLAINTEXT) sasl(p, config.brokerListenerName(), true);
            if (config.controllerSecurityProtocol() == SecurityProtocol.SASL_PLAINTEXT) sasl(p, config.controllerListenerName(), false);
        }
        nodes.environment.put("JUDGE_CLUSTER_ID", CLUSTER_ID);
        nodes.environment.put("JUDGE_FEATURES", features(config));
        nodes.environment.put("JUDGE_RELEASE_VERSION",
            config.metadataVersion() == MetadataVersion.latestTesting() ? "" : config.metadataVersion().toString());
        return nodes;
    }

    private static void sasl(Properties p, ListenerName listener, boolean broker) {
        p.putIfAbsent("sasl.enabled.mechanisms", "PLAIN");
        p.putIfAbsent("sasl.mechanism.inter.broker.protocol", "PLAIN");
        p.putIfAbsent("sasl.mechanism.controller.protocol", "PLAIN");
        p.putIfAbsent("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer");
        p.putIfAbsent("allow.everyone.if.no.acl.found", "false");
        p.putIfAbsent("super.users", "User:" + JaasUtils.KAFKA_PLAIN_ADMIN);
        p.putIfAbsent(listener.configPrefix() + "plain.sasl.jaas.config",
            "org.apache.kafka.common.security.plain.PlainLoginModule required"
            + " username=\"" + JaasUtils.KAFKA_PLAIN_ADMIN + "\" password=\"" + JaasUtils.KAFKA_PLAIN_ADMIN_PASSWORD + "\""
            + " user_" + JaasUtils.KAFKA_PLAIN_ADMIN + "=\"" + JaasUtils.KAFKA_PLAIN_ADMIN_PASSWORD + "\""
            + " user_" + JaasUtils.KAFKA_PLAIN_USER1 + "=\"" + JaasUtils.KAFKA_PLAIN_USER1_PASSWORD + "\";");
    }

    void startAll() {
        if (!brokers.containsValue(controller)) start(controller);
        brokers.values().forEach(this::start);
    }

    void start(Node node) {
        if (node.alive()) return;
        try {
            Path home = Files.createDirectories(dir.resolve("node" + node.id));
            for (String disk : node.props.getProperty("log.dirs").split(",")) Files.createDirectories(Path.of(disk));
            File file = home.resolve("server.properties").toFile();
            try (Writer w = Files.newBufferedWriter(file.toPath())) {
                node.props.store(w, null);
            }
            String command = Objects.requireNonNull(System.getenv("BROKER_CMD"), "BROKER_CMD is not set");
            ProcessBuilder b = new ProcessBuilder("/bin/sh", "-c", "exec " + command + " \"$0\"", file.getPath());
            b.environment().putAll(environment);
            b.redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.appendTo(home.resolve("broker.log").toFile()));
            node.process = b.start();
            live.add(node.process);
        } catch (IOException e) {
            throw new RuntimeException("BROKER_CMD could not be started", e);
        }
    }

    /** For brokers of Kafka's Scala harness, which hands over finished configurations one by one. */
    Node add(Map<String, ?> originals) {
        Properties p = new Properties();
        originals.forEach((key, value) -> p.put(key, String.valueOf(value)));
        p.remove("metadata.log.dir");
        if (p.getProperty("log.dirs") == null) p.put("log.dirs", p.getProperty("log.dir"));
        Node node = new Node(Integer.parseInt(p.getProperty("node.id", p.getProperty("broker.id"))));
        node.props.putAll(p);
        if (controller == null) {
            controller = node;
            controller.controllerPort = freePort();
            node.props.put("listeners", p.getProperty("listeners") + ",CONTROLLER://" + HOST + ":" + controller.controllerPort);
        }
        node.props.put("process.roles", node == controller ? "broker,controller" : "broker");
        node.props.put("controller.quorum.voters", controller.id + "@" + HOST + ":" + controller.controllerPort);
        node.props.put("controller.listener.names", "CONTROLLER");
        String protocols = p.getProperty("listener.security.protocol.map");
        if (protocols == null) protocols = Arrays.stream(p.getProperty("listeners").split(",")).map(l -> l.substring(0, l.indexOf("://")))
            .map(l -> l + ":" + l).collect(Collectors.joining(","));
        if (!protocols.contains("CONTROLLER:")) protocols += ",CONTROLLER:PLAINTEXT";
        node.props.put("listener.security.protocol.map", protocols);
        node.props.putIfAbsent("unstable.api.versions.enable", "true");
        if (SHRINK) REPLICATION.forEach((key, usual) -> {
            if (Integer.parseInt(node.props.getProperty(key, usual.toString())) > MAX) node.props.put(key, Integer.toString(MAX));
        });
        node.bind();
        node.port = node.ports.getOrDefault("PLAINTEXT", -1);
        brokers.put(node.id, node);
        environment.put("JUDGE_CLUSTER_ID", CLUSTER_ID);
        return node;
    }

    /** Starts and waits until every listener but the controller's accepts: a broker may leave that one out. */
    void startAndWait(Node node) {
        start(node);
        List<String> controllers = Arrays.asList(node.props.getProperty("controller.listener.names", "").split(","));
        for (Map.Entry<String, Integer> listener : node.ports.entrySet()) {
            if (controllers.contains(listener.getKey())) continue;
            int port = listener.getValue();
            long end = System.currentTimeMillis() + READY_MS;
            while (true) {
                dead().ifPresent(why -> {
                    throw new IllegalStateException(why);
                });
                try (java.net.Socket s = new java.net.Socket()) {
                    s.connect(new java.net.InetSocketAddress(HOST, port), 1000);
                    break;
                } catch (IOException e) {
                    if (System.currentTimeMillis() > end) throw new AssertionError("NOT READY: port " + port);
                    java.util.concurrent.locks.LockSupport.parkNanos(50_000_000);
                }
            }
        }
    }

    /** Asks the process to end, as an operator would, and waits. */
    void shutdown(Node node) {
        if (node.process == null) return;
        node.process.destroy();
        try {
            if (!node.process.waitFor(30, TimeUnit.SECONDS)) kill(node);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        live.remove(node.process);
    }

    void kill(Node node) {
        if (node == null || node.process == null) return;
        killTree(node.process);
        live.remove(node.process);
    }

    private static void killTree(Process process) {
        process.descendants().forEach(ProcessHandle::destroyForcibly);
        process.destroyForcibly();
        process.onExit().join();
    }

    public void stopAll() {
        brokers.values().forEach(this::kill);
        kill(controller);
        if (System.getenv("JUDGE_KEEP") == null) delete(dir.toFile());
    }

    /** The first node that has ended by itself, in words, with the end of what it wrote. */
    Optional<String> dead() {
        List<Node> all = new ArrayList<>(brokers.values());
        all.add(controller);
        return all.stream().filter(n -> n.process != null && !n.process.isAlive()).findFirst().map(n -> {
            String log = "";
            try {
                List<String> lines = Files.readAllLines(dir.resolve("node" + n.id + "/broker.log"));
                log = String.join(" | ", lines.subList(Math.max(0, lines.size() - 5), lines.size()));
            } catch (IOException e) {
                log = e.toString();
            }
            return "node " + n.id + " ended with status " + n.process.exitValue() + ": " + log;
        });
    }

    private static void delete(File file) {
        File[] children = file.listFiles();
        if (children != null) for (File child : children) delete(child);
        file.delete();
    }

    private static final Set<Integer> given = new HashSet<>();

    /** A port of JUDGE_PORTS (FROM-TO) that nobody listens on and that this run has not given out lately. */
    static synchronized int freePort() {
        String[] range = env("JUDGE_PORTS", "21000-21999").split("-");
        int from = Integer.parseInt(range[0]);
        int count = Integer.parseInt(range[1]) - from + 1;
        if (given.size() > count / 2) given.clear();
        while (true) {
            int port = from + ThreadLocalRandom.current().nextInt(count);
            if (!given.add(port)) continue;
            try (ServerSocket s = new ServerSocket(port, 1, InetAddress.getLoopbackAddress())) {
                return s.getLocalPort();
            } catch (IOException e) {
                // In use: try another.
            }
        }
    }
}
