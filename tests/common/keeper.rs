//! A child process that never outlives this one, however this one ends.
//!
//! A panic, a `SIGKILL`, an `exit` in the middle of a test: none of them runs destructors. So between us and the child
//! stands a small shell that reads its orders from a pipe of ours. The pipe closes when this process is gone, for
//! whatever reason, and then the shell kills the child and deletes its directory. (Linux's parent-death signal would not
//! do: it fires when the *thread* that started the child ends, and tests are threads.)

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// `$1` is the directory to delete in the end, `$2` the log file; the rest is the child's command line.
/// Every order is answered by one line: the child's process id.
const SCRIPT: &str = r#"
directory=$1; log=$2; shift 2
while read -r order; do
    case $order in
    start) "$@" >>"$log" 2>&1 </dev/null & pid=$! ;;
    STOP | CONT) kill -s "$order" "$pid" ;;
    *) kill -s CONT "$pid" 2>/dev/null; kill -s "$order" "$pid" 2>/dev/null; wait "$pid" 2>/dev/null ;;
    esac
    echo "$pid"
done
[ -z "$pid" ] || kill -s KILL "$pid" 2>/dev/null
wait
rm -rf "$directory"
"#;

/// The shell that keeps a child.
pub struct Keeper {
    shell: Child,
    /// `None` once the shell has been told to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Keeper {
    /// A keeper for this command line, which is not started yet. `directory` is deleted in the end.
    pub fn new<S: AsRef<OsStr>>(directory: &Path, log: &Path, command: &[S]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "keeper"]).arg(directory).arg(log).args(command);
        // A process group of its own: a Ctrl-C in the terminal is for the tests; the shell still has to tidy up.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().expect("a shell");
        let orders = shell.stdin.take();
        let answers = BufReader::new(shell.stdout.take().expect("piped"));
        Self { shell, orders, answers }
    }

    /// Starts the child; it must not be running. Its process id.
    pub fn start(&mut self) -> u32 {
        self.order("start")
    }

    /// Sends a signal, by name. For those that end a process, waits until it has ended.
    pub fn signal(&mut self, name: &str) {
        self.order(name);
    }

    fn order(&mut self, order: &str) -> u32 {
        let orders = self.orders.as_mut().expect("open until dropped");
        writeln!(orders, "{order}").expect("the keeper listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the keeper answers");
        answer.trim().parse().unwrap_or_else(|_| panic!("the keeper did not {order}: {answer:?}"))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.orders.take());
        // Nothing to do about a failure here; the shell is on its own.
        let _ = self.shell.wait();
    }
}
