import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.table.api.bridge.java.StreamTableEnvironment;

/**
 * Runs a Flink SQL script of several statements, of which the last one inserts, once per output: arguments are the script's
 * file, the parallelism, and what stands for SINK in each run. A later run has a warm JVM. Prints a line per run: seconds,
 * CPU seconds, and the largest resident memory so far in kilobytes.
 */
public class Flink {
    public static void main(String[] arguments) throws Exception {
        String script = Files.readString(Path.of(arguments[0]));
        int parallelism = Integer.parseInt(arguments[1]);
        var process = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        for (int run = 2; run < arguments.length; run++) {
            long cpu = process.getProcessCpuTime(), began = System.nanoTime();
            // Heap state, for what fits into memory; checkpoints at the interval that most set; what the tuning guide of
            // Flink SQL recommends.
            Configuration configuration = new Configuration();
            configuration.setString("state.backend.type", "hashmap");
            configuration.setString("execution.checkpointing.interval", "10s");
            configuration.setString("execution.checkpointing.dir", Path.of("checkpoints").toUri().toString());
            configuration.setString("pipeline.object-reuse", "true");
            configuration.setString("taskmanager.memory.network.max", "256m");
            configuration.setString("taskmanager.numberOfTaskSlots", "" + parallelism);
            var environment = StreamExecutionEnvironment.createLocalEnvironment(parallelism, configuration);
            var tables = StreamTableEnvironment.create(environment);
            tables.getConfig().set("table.local-time-zone", "UTC");
            tables.getConfig().set("table.exec.mini-batch.enabled", "true");
            tables.getConfig().set("table.exec.mini-batch.allow-latency", "2s");
            tables.getConfig().set("table.exec.mini-batch.size", "50000");
            String[] statements = script.replace("SINK", arguments[run]).split(";\\s*\n");
            for (int at = 0; at < statements.length; at++) {
                if (statements[at].isBlank()) continue;
                var result = tables.executeSql(statements[at]);
                if (statements[at].stripLeading().startsWith("INSERT")) result.await();
            }
            double seconds = (System.nanoTime() - began) / 1e9;
            double cpuSeconds = (process.getProcessCpuTime() - cpu) / 1e9;
            String peak = Files.readAllLines(Path.of("/proc/self/status")).stream()
                .filter(line -> line.startsWith("VmHWM:")).findFirst().get().replaceAll("[^0-9]", "");
            System.out.println("RUN " + seconds + " " + cpuSeconds + " " + peak);
        }
        System.exit(0);
    }
}
