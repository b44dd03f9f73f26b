//! Programs under test: started, watched, told to end, and never left behind.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a program may take that is only asked to do something and end.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs `tidemill` with these arguments to its end.
pub fn tidemill<S: AsRef<OsStr>>(arguments: &[S]) -> Finished {
    start_tidemill(arguments).finish(RUN_TIMEOUT)
}

/// Starts `tidemill` with these arguments.
pub fn start_tidemill<S: AsRef<OsStr>>(arguments: &[S]) -> Running {
    start_tidemill_with(&[], arguments)
}

/// The same, with variables in its environment.
pub fn start_tidemill_with<S: AsRef<OsStr>>(variables: &[(&str, &str)], arguments: &[S]) -> Running {
    let mut command = command();
    command.args(arguments).envs(variables.iter().copied());
    Running::start(&mut command)
}

/// The program, without arguments yet. What the machine's user has set does not reach it.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    for variable in ["TIDEMILL_BROKERS", "KAFKA_BROKERS", "KAFKA_BOOTSTRAP_SERVERS", "TIDEMILL_PROFILE", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command.env("XDG_CONFIG_HOME", "/nowhere");
    command
}

/// What a program left when it ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; -1 if a signal ended it.
    pub code: i32,
    /// Which signal, if one did.
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A program that runs; it is killed when this value goes.
pub struct Running {
    child: Child,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

/// What a program has printed so far.
#[derive(Default)]
struct Output {
    text: Mutex<[String; 2]>,
    grown: Condvar,
}

impl Running {
    /// Starts a program with nothing on its standard input.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = Arc::<Output>::default();
        let stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        let readers = vec![output.collect(0, stdout), output.collect(1, stderr)];
        Self { child, output, readers }
    }

    /// Waits until the program has printed this, to either stream; panics if it has not in time, or has ended without.
    pub fn wait_for(&self, text: &str, wait: Duration) {
        let deadline = Instant::now() + wait;
        let mut printed = self.output.text.lock().expect("no reader panics");
        while !printed.iter().any(|stream| stream.contains(text)) {
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = self.readers.iter().all(JoinHandle::is_finished);
            assert!(!left.is_zero() && !ended, "{text:?} was not printed within {wait:?}, but: {printed:#?}");
            // The end of the last stream makes no text grow, so do not rely on being woken.
            let look_again = left.min(Duration::from_millis(100));
            printed = self.output.grown.wait_timeout(printed, look_again).expect("no reader panics").0;
        }
    }

    /// Sends a signal, by name: `INT` is Ctrl-C.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -s {name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        assert!(status.success(), "{kill}");
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// What it has printed to standard error so far.
    pub fn said(&self) -> String {
        self.output.text.lock().expect("no reader panics")[1].clone()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end; panics if it does not come in time.
    pub fn finish(mut self, wait: Duration) -> Finished {
        let deadline = Instant::now() + wait;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            if deadline < Instant::now() {
                let printed = self.output.text.lock().expect("no reader panics").clone();
                panic!("it did not end within {wait:?}, and printed: {printed:#?}");
            }
            thread::sleep(Duration::from_millis(5));
        };
        for reader in self.readers.drain(..) {
            reader.join().expect("no reader panics");
        }
        let [stdout, stderr] = std::mem::take(&mut *self.output.text.lock().expect("no reader panics"));
        Finished { code: status.code().unwrap_or(-1), signal: status.signal(), stdout, stderr }
    }
}

impl Output {
    fn collect(self: &Arc<Self>, stream: usize, source: impl Read + Send + 'static) -> JoinHandle<()> {
        let output = Arc::clone(self);
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                output.text.lock().expect("nobody panics with it")[stream].push_str(&String::from_utf8_lossy(&line));
                output.grown.notify_all();
                line.clear();
            }
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
