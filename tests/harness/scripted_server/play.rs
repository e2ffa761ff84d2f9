//! Plays both ends of a scripted connection: the server in new threads, the client in the caller's.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    io::ioctl_fionread,
    net::{RecvFlags, recv, sockopt::set_socket_linger},
    thread::gettid,
};

use crate::{
    clock::{monotonic_ns, wait_for},
    scripted_server::{
        progress::Progress,
        script::{Act, Script, Step},
    },
    server::stamps::{Call, Stamp},
};

/// Longest wait of one end for the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// Outcome of a script.
pub struct Played {
    /// The client's port.
    pub peer_port: u16,
    /// Time span of its rows, because ports are reused.
    pub time_ns: Range<u64>,
    /// Stamps of each answered request, and its first send.
    pub stamps: Vec<(Stamp, Call)>,
}

/// The server's end, shared by its threads.
#[derive(Clone)]
struct End {
    stream: Arc<TcpStream>,
    answers: Arc<Vec<u8>>,
    progress: Arc<Progress>,
    /// Id of the thread that is in a read, or about to be; 0 for none.
    reader: Arc<AtomicI32>,
}

/// Plays a script on a new connection to `listener`, which listens on a port of 127.0.0.1.
pub fn play(listener: &TcpListener, script: &Script) -> Played {
    let opened_ns = monotonic_ns();
    let address = listener.local_addr().expect("a listener has an address");
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).expect("it listens");
    client.set_nodelay(true).expect("TCP");
    client.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let peer_port = client.local_addr().expect("it is connected").port();
    let (stream, _) = listener.accept().expect("a client has connected");
    stream.set_nodelay(true).expect("TCP");
    let end = End {
        stream: Arc::new(stream),
        answers: Arc::new(script.answered.clone()),
        progress: Arc::default(),
        reader: Arc::default(),
    };
    let progress = Arc::clone(&end.progress);
    let reader = Arc::clone(&end.reader);
    let steps = script.server.clone();
    let server = thread::spawn(move || end.run(&steps));
    act(client, script, &progress, &reader);
    server.join().expect("the server does all of its script");
    Played {
        peer_port,
        time_ns: opened_ns..monotonic_ns(),
        stamps: stamps(script, &progress, peer_port),
    }
}

impl End {
    fn run(&self, steps: &[Step]) {
        let mut beside: Vec<JoinHandle<()>> = Vec::new();
        for step in steps {
            match step {
                Step::Elsewhere(steps) => self.spawn(steps).join().expect("its script is done"),
                Step::Beside(steps) => beside.push(self.spawn(steps)),
                Step::Join => join_all(&mut beside),
                step => self.step(step),
            }
        }
        join_all(&mut beside);
    }

    fn spawn(&self, steps: &[Step]) -> JoinHandle<()> {
        let (end, steps) = (self.clone(), steps.to_vec());
        thread::spawn(move || end.run(&steps))
    }

    fn step(&self, step: &Step) {
        match *step {
            Step::Read { size, until } => {
                while self.progress.reads.bytes() < until && self.read(size) {}
            }
            Step::Drain { size } => while self.read(size) {},
            Step::Probe => {
                let mut byte = [0];
                let found = recv(&*self.stream, &mut byte, RecvFlags::DONTWAIT);
                assert!(found.is_err(), "a probe that found something: {found:?}");
            }
            Step::Arrived(until) => wait_for("bytes in the queue", PATIENCE, || {
                let waiting = ioctl_fionread(&*self.stream).expect("a socket reports its queue");
                let waiting = usize::try_from(waiting).expect("a queue is short");
                (self.progress.reads.bytes() + waiting >= until).then_some(())
            }),
            Step::Write(until) => {
                let from = self.progress.writes.bytes();
                let call_ns = monotonic_ns();
                let taken = (&*self.stream).write_all(&self.answers[from..until]);
                let return_ns = monotonic_ns();
                taken.expect("the client is there");
                let call = Call { call_ns, return_ns };
                self.progress.writes.add(until - from, call);
            }
            Step::Work(time) => thread::sleep(time),
            Step::FinishWriting => self
                .stream
                .shutdown(Shutdown::Write)
                .expect("the connection is open"),
            Step::Reset => {
                set_socket_linger(&*self.stream, Some(Duration::ZERO)).expect("TCP");
            }
            Step::Elsewhere(_) | Step::Beside(_) | Step::Join => unreachable!("run sees to them"),
        }
    }

    /// Reads once; returns false at the end.
    fn read(&self, size: usize) -> bool {
        let mut bytes = vec![0; size];
        let thread = gettid().as_raw_nonzero().get();
        self.reader.store(thread, Ordering::SeqCst);
        let call_ns = monotonic_ns();
        let outcome = (&*self.stream).read(&mut bytes);
        let return_ns = monotonic_ns();
        self.reader.store(0, Ordering::SeqCst);
        let count = outcome.unwrap_or(0);
        if count > 0 {
            let call = Call { call_ns, return_ns };
            self.progress.reads.add(count, call);
        }
        count > 0
    }
}

fn join_all(threads: &mut Vec<JoinHandle<()>>) {
    for thread in threads.drain(..) {
        thread.join().expect("its script is done");
    }
}

fn act(client: TcpStream, script: &Script, progress: &Progress, reader: &AtomicI32) {
    let mut received = 0;
    for act in &script.client {
        match *act {
            Act::Awaited => wait_for("a server that waits in a read", PATIENCE, || {
                let thread = reader.load(Ordering::SeqCst);
                let stat =
                    std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
                let (_, state) = stat.rsplit_once(')')?;
                state.starts_with(" S").then_some(())
            }),
            Act::Send(until) => {
                let from = progress.sends.bytes();
                let call_ns = monotonic_ns();
                let taken = (&client).write_all(&script.sent[from..until]);
                let return_ns = monotonic_ns();
                taken.expect("the server is there");
                let call = Call { call_ns, return_ns };
                progress.sends.add(until - from, call);
            }
            Act::Read(until) => wait_for("bytes that the server reads", PATIENCE, || {
                (progress.reads.bytes() >= until).then_some(())
            }),
            Act::Receive(until) => {
                let mut bytes = vec![0; until - received];
                (&client)
                    .read_exact(&mut bytes)
                    .expect("the server answers");
                assert!(bytes == script.answered[received..until], "other bytes");
                received = until;
            }
            Act::FinishSending => client.shutdown(Shutdown::Write).expect("it is open"),
            Act::Reset => set_socket_linger(&client, Some(Duration::ZERO)).expect("TCP"),
        }
    }
    // Some scripts wait for its end.
    drop(client);
}

/// Returns the stamps of the answered requests.
fn stamps(script: &Script, progress: &Progress, peer_port: u16) -> Vec<(Stamp, Call)> {
    let mut stamps = Vec::new();
    for (seq, asked) in script.asked.iter().enumerate() {
        let (request, answer) = (&asked.request, &asked.answer);
        let read = |at| progress.reads.call_of(at);
        let written = |at| progress.writes.call_of(at).expect("it was written");
        if answer.is_empty() {
            continue;
        }
        let first_read = read(request.start).expect("it was read");
        let stamp = Stamp {
            conn: 0,
            peer_port: Some(peer_port),
            seq: u32::try_from(seq).expect("few requests"),
            target: asked.model.clone(),
            readable_ns: None,
            first_read,
            last_read: read(request.end - 1).unwrap_or(first_read),
            first_write: written(answer.start),
            last_write: written(answer.end - 1),
            starved_ns: None,
            status: asked.status,
            request_bytes: (request.len() + asked.session_bytes) as u64,
            response_bytes: answer.len() as u64,
        };
        let sent = progress.sends.call_of(request.start);
        stamps.push((stamp, sent.expect("it was sent")));
    }
    stamps
}
