//! Other engines over the same topic: Flink SQL with the same statement, and Kafka Streams with a program for it.
//!
//! What they need comes from Maven, once, into `target/peers/wire`; `java`, `javac` and `mvn` must be there. Flink runs in this
//! machine's memory by one process, twice over: cold, and warm, as a job that has run for a while. Kafka Streams runs once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cases::Case;
use crate::common::broker::repository;
use crate::measure::Run;

/// What Flink's own start script tells Java to open to it.
const OPENS: [&str; 6] = ["java.lang", "java.util", "java.net", "java.io", "java.nio", "java.time"];

/// Makes sure that the peers are there.
pub fn install() -> PathBuf {
    let home = repository().join("target/peers/wire");
    let sources = repository().join("benches/wire/peers");
    let pom = fs::read_to_string(sources.join("pom.xml")).expect("a file beside this one");
    if fs::read_to_string(home.join("complete")).ok().as_deref() != Some(pom.as_str()) {
        eprintln!("fetching Flink and Kafka Streams");
        fs::create_dir_all(&home).expect("a directory");
        let copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";
        let mut maven = Command::new("mvn");
        maven.args(["--batch-mode", "--quiet", "-f"]).arg(sources.join("pom.xml")).arg(copy);
        maven.arg(format!("-DoutputDirectory={}", home.join("lib").display()));
        assert!(maven.status().expect("mvn").success(), "Maven does not fetch the peers");
        fs::write(home.join("complete"), pom).expect("a file");
    }
    for name in ["Flink", "Streams"] {
        let mut compiler = Command::new("javac");
        compiler.args(["-cp", &format!("{}/lib/*", home.display()), "-d"]).arg(home.join("classes"));
        assert!(compiler.arg(sources.join(format!("{name}.java"))).status().expect("javac").success(), "{name}.java");
    }
    home
}

/// Runs Flink once per output topic, cold and then warm; the outputs' options are given whole. None, if the heap does not
/// suffice.
pub fn flink(case: &Case, heap: &str, brokers: &str, sinks: &[String]) -> Vec<Run> {
    let home = install();
    let file = home.join("script.sql");
    fs::write(&file, case.flink_script(brokers)).expect("a file");
    let mut java = java(&home, heap, "Flink");
    java.arg(&file).arg("2").args(sinks);
    runs(&mut java)
}

/// Runs Kafka Streams, if it can express the case.
pub fn streams(case: &Case, heap: &str, brokers: &str, application: &str, output: &str) -> Option<Run> {
    // Of overlapping windows it updates each for each record, which takes sixty times as long.
    let (size, slide) = case.window_seconds().filter(|(size, slide)| size == slide)?;
    let home = install();
    let mut java = java(&home, heap, "Streams");
    java.args([brokers, application, &case.data.topic(), output, &case.records().to_string()]);
    java.args([&size.to_string(), &slide.to_string(), "2"]);
    runs(&mut java).pop()
}

fn java(home: &Path, heap: &str, class: &str) -> Command {
    let mut java = Command::new("java");
    java.args(OPENS.map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED")));
    java.args([
        &format!("-Xmx{heap}"),
        "-XX:+ExitOnOutOfMemoryError",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        "-cp",
    ]);
    java.arg(format!("{0}/classes:{0}/lib/*", home.display())).arg(class).current_dir(home);
    java
}

/// What the program prints of its runs.
fn runs(java: &mut Command) -> Vec<Run> {
    let output = java.stdin(Stdio::null()).stderr(Stdio::inherit()).output().expect("java");
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        eprintln!("{java:?} ended with {}: {text}", output.status);
        return Vec::new();
    }
    let run = |line: &str| {
        let mut numbers = line.strip_prefix("RUN ")?.split(' ').map(|n| n.parse::<f64>().expect("a number"));
        let mut next = || numbers.next().expect("three numbers");
        Some(Run { wall_s: next(), cpu_s: next(), peak_mb: (next() / 1_024.0) as u64 })
    };
    text.lines().filter_map(run).collect()
}
