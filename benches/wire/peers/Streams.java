import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;

/**
 * Count, sum and maximum per key and window by Kafka Streams, at least once, with its default stores and commit interval.
 * Arguments: brokers, application, input, output, records, size and slide of the window in seconds, threads. Ends when all
 * records are in their windows, and prints a line as the other peer does. Windows that only a later record would close stay
 * open.
 */
public class Streams {
    record Bid(String key, long time, double amount) {}

    static final ObjectMapper JSON = new ObjectMapper();
    static final DateTimeFormatter TIME = DateTimeFormatter.ofPattern("yyyy-MM-dd HH:mm:ss.SSS");

    static Bid read(byte[] bytes) {
        try {
            JsonNode node = JSON.readTree(bytes);
            long time = LocalDateTime.parse(node.get("ts").asText(), TIME).toInstant(ZoneOffset.UTC).toEpochMilli();
            return new Bid(node.get("key").asText(), time, node.get("amount").asDouble());
        } catch (java.io.IOException error) {
            throw new RuntimeException(error);
        }
    }

    static byte[] pack(double[] values) {
        ByteBuffer buffer = ByteBuffer.allocate(24);
        for (double value : values) buffer.putDouble(value);
        return buffer.array();
    }

    static double[] unpack(byte[] bytes) {
        ByteBuffer buffer = ByteBuffer.wrap(bytes);
        return new double[] {buffer.getDouble(), buffer.getDouble(), buffer.getDouble()};
    }

    public static void main(String[] arguments) throws Exception {
        String output = arguments[3];
        long records = Long.parseLong(arguments[4]);
        Duration size = Duration.ofSeconds(Long.parseLong(arguments[5])), slide = Duration.ofSeconds(Long.parseLong(arguments[6]));
        Properties settings = new Properties();
        settings.put("bootstrap.servers", arguments[0]);
        settings.put("application.id", arguments[1]);
        settings.put("num.stream.threads", arguments[7]);
        settings.put("processing.guarantee", "at_least_once");
        settings.put("statestore.cache.max.bytes", "67108864");
        settings.put("auto.offset.reset", "earliest");
        settings.put("state.dir", "streams");
        settings.put("replication.factor", "1");

        Serde<Bid> bids = Serdes.serdeFrom((topic, bid) -> null, (topic, bytes) -> read(bytes));
        Serde<double[]> totals = Serdes.serdeFrom(
            (topic, values) -> values == null ? null : pack(values), (topic, bytes) -> bytes == null ? null : unpack(bytes));
        AtomicLong taken = new AtomicLong();
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(arguments[2], Consumed.with(Serdes.ByteArray(), bids).withTimestampExtractor((record, time) -> ((Bid) record.value()).time()))
            .map((key, bid) -> KeyValue.pair(bid.key(), bid.amount()))
            .groupByKey(Grouped.with(Serdes.String(), Serdes.Double()))
            // Partitions are read unevenly: with less grace, records would be dropped as late.
            .windowedBy(TimeWindows.ofSizeAndGrace(size, Duration.ofSeconds(60)).advanceBy(slide))
            .aggregate(() -> new double[] {0, 0, Double.NEGATIVE_INFINITY}, (key, amount, total) -> {
                taken.incrementAndGet();
                return new double[] {total[0] + 1, total[1] + amount, Math.max(total[2], amount)};
            }, Materialized.with(Serdes.String(), totals))
            .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()))
            .toStream()
            .map((window, total) -> KeyValue.pair((String) null, String.format(
                "{\"window_start\":\"%s\",\"key\":\"%s\",\"records\":%d,\"total\":%s,\"largest\":%s}",
                TIME.format(LocalDateTime.ofInstant(Instant.ofEpochMilli(window.window().start()), ZoneOffset.UTC)),
                window.key(), (long) total[0], total[1], total[2])))
            .to(output, Produced.with(Serdes.String(), Serdes.String()));

        var process = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        long began = System.nanoTime(), moved = began, seen = 0, all = records * (size.toSeconds() / slide.toSeconds());
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.start();
        // The first window of a record may begin before the epoch of none; so progress that stops is an end, too.
        while (seen < all && System.nanoTime() - moved < 15_000_000_000L) {
            Thread.sleep(10);
            long now = taken.get();
            if (now != seen) {
                seen = now;
                moved = System.nanoTime();
            }
        }
        double seconds = (moved - began) / 1e9, cpuSeconds = process.getProcessCpuTime() / 1e9;
        String peak = Files.readAllLines(Path.of("/proc/self/status")).stream()
            .filter(line -> line.startsWith("VmHWM:")).findFirst().get().replaceAll("[^0-9]", "");
        System.out.println("RUN " + seconds + " " + cpuSeconds + " " + peak);
        streams.close(Duration.ofSeconds(20));
        System.exit(0);
    }
}
