//! A network between a client and a broker that does what it is told, while it runs.
//!
//! It knows where a message of Kafka's protocol begins and ends, and of what kind it is: so it can hold back the end of a
//! transaction and nothing else. A frame is its length in four bytes; a request then tells its kind (two bytes), a version
//! (two) and a number (four), which the answer begins with.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// `AddPartitionsToTxn`.
pub const ADD_PARTITIONS: i16 = 24;
/// `EndTxn`: a commit or an abort.
pub const END_TXN: i16 = 26;

/// What is done to a request of some kind.
#[derive(Clone, Copy, Debug)]
pub enum Treatment {
    /// It reaches the broker so much later, whatever has become of the connection; others overtake it.
    Delay(Duration),
    /// It reaches the broker, and the answer nobody.
    SwallowAnswer,
}

/// How a network is. The default is one that does no harm.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// How long everything is under way, in each direction.
    pub latency: Duration,
    /// Bytes per second of a connection, in each direction: to the broker, and from it.
    pub rates: [Option<u32>; 2],
    /// What is sent in this direction does not arrive, and connections stay open.
    pub stalled: [bool; 2],
    /// Connections are closed as soon as they are made.
    pub refuses: bool,
    /// What is done to requests of a kind, and to how many of them.
    pub treatments: BTreeMap<i16, (Treatment, usize)>,
}

/// The directions, as indices.
const TO_BROKER: usize = 0;
const FROM_BROKER: usize = 1;

/// See the module's head. The network is gone when this value is.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    broker: u16,
    weather: Mutex<Weather>,
    changed: Condvar,
    /// One end of each connection, and when it is cut the other one follows.
    connections: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
    /// Requests that were treated.
    treated: AtomicU64,
}

impl Proxy {
    /// Clients connect to the listener, and reach the broker's port.
    pub fn start(listener: TcpListener, broker: u16) -> Self {
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            broker,
            weather: Mutex::default(),
            changed: Condvar::new(),
            connections: Mutex::default(),
            ended: AtomicBool::new(false),
            treated: AtomicU64::new(0),
        });
        let of_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if of_thread.ended.load(Ordering::Acquire) {
                    return;
                }
                // A client that has hung up already, or a broker that is away.
                let _ = client.and_then(|client| of_thread.connect(client));
            }
        });
        Self { port, shared }
    }

    /// Where clients connect to.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Changes how the network is from now on; what is under way is subject to it, too.
    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.shared.weather());
        self.shared.changed.notify_all();
    }

    /// Treats the next requests of a kind, so many of them.
    pub fn treat(&self, kind: i16, treatment: Treatment, count: usize) {
        self.change(|weather| {
            weather.treatments.insert(kind, (treatment, count));
        });
    }

    /// No harm any more, but for what has been held back already.
    pub fn clear(&self) {
        self.change(|weather| *weather = Weather::default());
    }

    /// Closes all connections, with everything on them.
    pub fn cut(&self) {
        for connection in lock(&self.shared.connections).drain(..) {
            // It may be closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }

    /// How many requests have been treated so far.
    pub fn treated(&self) -> u64 {
        self.shared.treated.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.cut();
        // Wakes whoever waits for connections.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// What the two directions of a connection share.
struct Connection {
    shared: Arc<Shared>,
    /// The numbers of requests whose answers are swallowed.
    swallowed: Mutex<Vec<[u8; 4]>>,
}

type Frames = (Sender<(Instant, Vec<u8>)>, Receiver<(Instant, Vec<u8>)>);

impl Shared {
    fn weather(&self) -> MutexGuard<'_, Weather> {
        lock(&self.weather)
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> std::io::Result<()> {
        if self.weather().refuses {
            return Ok(());
        }
        let broker = TcpStream::connect(("127.0.0.1", self.broker))?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        lock(&self.connections).push(client.try_clone()?);
        let connection = Arc::new(Connection { shared: Arc::clone(self), swallowed: Mutex::default() });
        for (direction, from, to) in
            [(TO_BROKER, client.try_clone()?, broker.try_clone()?), (FROM_BROKER, broker, client)]
        {
            let (sender, receiver): Frames = channel();
            let ends = [from.try_clone()?, to.try_clone()?];
            let reading = Arc::clone(&connection);
            thread::spawn(move || reading.read(direction, from, &sender));
            let writing = Arc::clone(self);
            thread::spawn(move || {
                // Either end may be closed; then both are.
                let _ = writing.write(direction, to, &receiver);
                ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
            });
        }
        Ok(())
    }

    /// Writes frames when their time has come.
    fn write(&self, direction: usize, mut to: TcpStream, frames: &Receiver<(Instant, Vec<u8>)>) -> std::io::Result<()> {
        for (due, frame) in frames {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            for piece in frame.chunks(2_048) {
                let mut weather = self.weather();
                while weather.stalled[direction] && !self.ended.load(Ordering::Acquire) {
                    let waited = self.changed.wait_timeout(weather, Duration::from_millis(200));
                    weather = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                let rate = weather.rates[direction];
                drop(weather);
                if let Some(rate) = rate {
                    thread::sleep(Duration::from_secs_f64(piece.len() as f64 / f64::from(rate)));
                }
                to.write_all(piece)?;
            }
        }
        Ok(())
    }

    /// What is to be done to a request of this kind now.
    fn treatment(&self, kind: i16) -> Option<Treatment> {
        let mut weather = self.weather();
        let (treatment, left) = weather.treatments.get_mut(&kind).filter(|(_, left)| 0 < *left)?;
        *left -= 1;
        self.treated.fetch_add(1, Ordering::Relaxed);
        Some(*treatment)
    }

    /// Sends a request by a way of its own, so much later.
    fn send_later(&self, after: Duration, request: Vec<u8>) {
        let broker = self.broker;
        thread::spawn(move || {
            thread::sleep(after);
            let Ok(mut to) = TcpStream::connect(("127.0.0.1", broker)) else { return };
            if to.write_all(&request).is_ok() {
                // The answer is to nobody; but who hangs up at once may not be heard.
                let _ = read_frame(&mut to);
            }
        });
    }
}

impl Connection {
    fn read(&self, direction: usize, mut from: TcpStream, to: &Sender<(Instant, Vec<u8>)>) {
        while let Ok(frame) = read_frame(&mut from) {
            let passes = if direction == TO_BROKER { self.request(&frame) } else { self.answer(&frame) };
            let due = Instant::now() + self.shared.weather().latency;
            if passes && to.send((due, frame)).is_err() {
                return;
            }
        }
    }

    /// Whether a request goes on.
    fn request(&self, frame: &[u8]) -> bool {
        let Some(&[high, low, _, _, ref number @ ..]) = frame.get(4..12) else { return true };
        match self.shared.treatment(i16::from_be_bytes([high, low])) {
            None => return true,
            Some(Treatment::Delay(after)) => {
                self.shared.send_later(after, frame.to_vec());
                return false;
            }
            Some(Treatment::SwallowAnswer) => {
                lock(&self.swallowed).push(number.try_into().expect("four bytes"));
            }
        }
        true
    }

    /// Whether an answer goes on.
    fn answer(&self, frame: &[u8]) -> bool {
        let mut swallowed = lock(&self.swallowed);
        let found = swallowed.iter().position(|number| frame.get(4..8) == Some(number));
        found.map(|at| swallowed.swap_remove(at)).is_none()
    }
}

/// The next frame, with its length before it.
fn read_frame(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if 200 << 20 < length {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut frame = vec![0; 4 + length];
    frame[..4].copy_from_slice(&u32::try_from(length).expect("checked").to_be_bytes());
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
