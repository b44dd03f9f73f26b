//! A broker inside this process, for trying things out: librdkafka's own mock cluster behind real sockets.
//!
//! It keeps everything in memory, at most the newest 5 MB per partition, and is gone with the process. It starts when it is
//! first needed: many statements need no broker. The handle is not thread-safe, so a thread of its own holds it and answers
//! requests.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use rdkafka::mocking::MockCluster;

use crate::error::{Error, Result};

/// Partitions of a topic that is created without saying how many.
const PARTITIONS_DEFAULT: i32 = 1;

enum Request {
    CreateTopic { name: String, partitions: i32, reply: Sender<Result<(), String>> },
    SetUp { up: bool, reply: Sender<Result<(), String>> },
}

/// An in-process broker. Keep it for longer than every client of it.
#[derive(Default)]
pub struct Embedded {
    running: OnceLock<Result<Running>>,
}

struct Running {
    brokers: String,
    /// `None` once it is being dropped, which ends the thread.
    requests: Mutex<Option<Sender<Request>>>,
    thread: Option<JoinHandle<()>>,
}

impl Embedded {
    /// `host:port`. Whoever asks first starts a cluster of one broker on a free local port.
    pub fn brokers(&self) -> Result<&str> {
        Ok(&self.running()?.brokers)
    }

    /// Whether somebody has needed it.
    pub fn has_started(&self) -> bool {
        self.running.get().is_some()
    }

    /// Creates a topic; `partitions` below one means the default.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        let partitions = if partitions < 1 { PARTITIONS_DEFAULT } else { partitions };
        let request = |reply| Request::CreateTopic { name: name.to_owned(), partitions, reply };
        let refused = |e| Error::upstream(format!("the embedded broker cannot create topic \"{name}\": {e}"));
        self.running()?.ask(request).map_err(refused)
    }

    /// Cuts or restores the broker's connections: for tests of what happens in an outage.
    pub fn set_up(&self, up: bool) -> Result<()> {
        self.running()?.ask(|reply| Request::SetUp { up, reply }).map_err(Error::upstream)
    }

    fn running(&self) -> Result<&Running> {
        self.running.get_or_init(Running::start).as_ref().map_err(Error::clone)
    }
}

impl Running {
    fn start() -> Result<Self> {
        let (requests, inbox) = channel();
        let (ready, started) = channel();
        let thread = thread::Builder::new()
            .name("embedded-kafka".to_owned())
            .spawn(move || serve(&inbox, &ready))
            .map_err(|e| Error::usage(format!("cannot start a thread for the embedded broker: {e}")))?;
        let brokers = started
            .recv()
            .unwrap_or_else(|_| Err("its thread ended".to_owned()))
            .map_err(|e| Error::upstream(format!("the embedded broker does not start: {e}")))?;
        Ok(Self { brokers, requests: Mutex::new(Some(requests)), thread: Some(thread) })
    }

    fn ask(&self, request: impl FnOnce(Sender<Result<(), String>>) -> Request) -> Result<(), String> {
        let (reply, answer) = channel();
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = || "its thread ended".to_owned();
        requests.as_ref().ok_or_else(ended)?.send(request(reply)).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its own thread.
            let _ = thread.join();
        }
    }
}

fn serve(inbox: &Receiver<Request>, ready: &Sender<Result<String, String>>) {
    let cluster = match MockCluster::new(1) {
        Ok(cluster) => cluster,
        Err(e) => {
            // Nobody is left to tell when the receiver is gone.
            let _ = ready.send(Err(e.to_string()));
            return;
        }
    };
    let _ = ready.send(Ok(cluster.bootstrap_servers()));
    for request in inbox {
        let (done, reply) = match request {
            Request::CreateTopic { name, partitions, reply } => (cluster.create_topic(&name, partitions, 1), reply),
            Request::SetUp { up: true, reply } => (cluster.broker_up(-1), reply),
            Request::SetUp { up: false, reply } => (cluster.broker_down(-1), reply),
        };
        let _ = reply.send(done.map_err(|e| e.to_string()));
    }
}
