//! Runs the reference server's processes and threads: listening, forking, a thread per connection, and the commands on
//! standard input.
//!
//! For what happens on a connection, see `connection.rs`.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    sync::{Arc, PoisonError},
};

use anyhow::{Context, Result};
use rustix::{
    net::{AddressFamily, SocketAddrV4, SocketType, bind, listen, socket, sockopt},
    process::Signal,
};

use crate::server::{
    connection::serve_connection,
    echo,
    options::{Forking, Options},
    stamps::Stamps,
};

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Serves until standard input ends.
pub fn run(options: &Options) -> Result<()> {
    let stamps = Stamps::default();
    if options.workers > 0 {
        match options.forking {
            Forking::ReusePort => fork_listeners(options)?,
            Forking::ListenFirst | Forking::PerConnection => fork_workers(options)?,
        }
    } else {
        start_listening(options, &stamps)?;
    }
    answer_commands(options, &stamps)
}

/// Listens as the options say, and serves in threads.
fn start_listening(options: &Options, stamps: &Stamps) -> Result<()> {
    let listener = open_listener(options)?;
    announce(&listener)?;
    let (options, stamps) = (options.clone(), Arc::clone(stamps));
    std::thread::spawn(move || match listener {
        Listener::Tcp(listener) if options.echo => echo::serve(&listener),
        listener => accept_all(&options, &listener, &stamps),
    });
    Ok(())
}

fn open_listener(options: &Options) -> Result<Listener> {
    if let Some(path) = &options.unix {
        let listener =
            UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
        return Ok(Listener::Unix(listener));
    }
    let port = options.port;
    let listener = TcpListener::bind(("127.0.0.1", port))
        .with_context(|| format!("listen on 127.0.0.1:{port}"))?;
    Ok(Listener::Tcp(listener))
}

fn announce(listener: &Listener) -> Result<()> {
    let place = match listener {
        Listener::Tcp(listener) => listener.local_addr()?.port().to_string(),
        Listener::Unix(listener) => {
            let address = listener.local_addr()?;
            let path = address.as_pathname();
            let path = path.context("a listening unix socket has a path")?;
            path.display().to_string()
        }
    };
    announce_place(&place)
}

fn announce_place(place: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "listening {place}")?;
    Ok(out.flush()?)
}

/// Executes the commands on standard input until it ends. See `Options` for the commands.
fn answer_commands(options: &Options, stamps: &Stamps) -> Result<()> {
    let mut line = String::new();
    while io::stdin().read_line(&mut line)? > 0 {
        let text = line.trim_end();
        let (command, argument) = text.split_once(' ').unwrap_or((text, ""));
        match command {
            "stamps" => print_stamps(stamps)?,
            "codes" => tell_codes(stamps)?,
            "leave" => leave(options, stamps),
            "listen" => {
                let unix = Some(argument.into());
                let options = options.clone();
                start_listening(&Options { unix, ..options }, stamps)?;
            }
            _ => {}
        }
        line.clear();
    }
    Ok(())
}

fn print_stamps(stamps: &Stamps) -> Result<()> {
    let mut out = io::stdout().lock();
    for stamp in stamps.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        serde_json::to_writer(&mut out, stamp)?;
        out.write_all(b"\n")?;
    }
    out.write_all(b"end\n")?;
    Ok(out.flush()?)
}

/// Prints how many requests were answered, by status.
fn tell_codes(stamps: &Stamps) -> Result<()> {
    let mut codes: BTreeMap<u16, u64> = BTreeMap::new();
    for stamp in stamps.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        *codes.entry(stamp.status).or_default() += 1;
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&codes)?)?;
    Ok(out.flush()?)
}

/// Ends only this thread, as pthread_exit does, and continues the commands on a new one.
fn leave(options: &Options, stamps: &Stamps) -> ! {
    let (options, stamps) = (options.clone(), Arc::clone(stamps));
    std::thread::spawn(move || {
        // An error cannot be reported any more.
        let _ = answer_commands(&options, &stamps);
        exit_child();
    });
    // SAFETY: exit(2) ends the calling thread and frees nothing of it; no other thread waits for this one.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("exit(2) does not return")
}

/// Listens, then forks workers that accept.
fn fork_workers(options: &Options) -> Result<()> {
    let listener = open_listener(options)?;
    let per_connection = options.forking == Forking::PerConnection;
    let acceptors = if per_connection { 1 } else { options.workers };
    for _ in 0..acceptors {
        if fork()? == 0 {
            if per_connection {
                fork_per_connection(options, &listener);
            }
            accept_all(options, &listener, &Stamps::default());
            exit_child();
        }
    }
    announce(&listener)
}

/// Binds a port without listening on it, then forks workers that each listen on it.
fn fork_listeners(options: &Options) -> Result<()> {
    let reserved = bind_shared(options.port)?;
    let address = rustix::net::getsockname(&reserved)?;
    let port = SocketAddrV4::try_from(address)?.port();
    let (mut ready, signal) = io::pipe()?;
    for _ in 0..options.workers {
        if fork()? == 0 {
            let own = bind_shared(port)?;
            listen(&own, 128)?;
            (&signal).write_all(b"1")?;
            let own = Listener::Tcp(TcpListener::from(own));
            accept_all(options, &own, &Stamps::default());
            exit_child();
        }
    }
    drop(signal);
    let mut signalled = vec![0; options.workers];
    ready
        .read_exact(&mut signalled)
        .context("a worker ended before it listened")?;
    announce_place(&port.to_string())
}

/// Returns a socket on a loopback port that others may bind as well; it does not listen.
fn bind_shared(port: u16) -> Result<OwnedFd> {
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseport(&fd, true)?;
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    bind(&fd, &address).with_context(|| format!("bind 127.0.0.1:{port}"))?;
    Ok(fd)
}

fn fork_per_connection(options: &Options, listener: &Listener) -> ! {
    // SAFETY: ignoring SIGCHLD installs no handler; the kernel then reaps the children by itself.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    loop {
        if let Ok((socket, peer_port)) = accept(listener)
            && matches!(fork(), Ok(0))
        {
            serve_connection(options, socket, 0, peer_port, &Stamps::default());
            exit_child();
        }
    }
}

/// Forks a child that dies with its parent. Returns zero in the child.
fn fork() -> Result<i32> {
    // SAFETY: this process has one thread whenever it forks, so no other thread can hold a lock.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    }
    anyhow::ensure!(pid >= 0, "fork: {}", io::Error::last_os_error());
    Ok(pid)
}

fn exit_child() -> ! {
    // SAFETY: _exit takes any value and never returns; nothing of this process is used after it.
    unsafe { libc::_exit(0) }
}

fn accept(listener: &Listener) -> io::Result<(OwnedFd, Option<u16>)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept()?;
            stream.set_nodelay(true)?;
            Ok((stream.into(), Some(peer.port())))
        }
        Listener::Unix(listener) => {
            let (stream, _): (UnixStream, _) = listener.accept()?;
            Ok((stream.into(), None))
        }
    }
}

fn accept_all(options: &Options, listener: &Listener, stamps: &Stamps) {
    for conn in 0.. {
        let Ok((socket, peer_port)) = accept(listener) else {
            return;
        };
        let (options, stamps) = (options.clone(), Arc::clone(stamps));
        std::thread::spawn(move || serve_connection(&options, socket, conn, peer_port, &stamps));
    }
}
