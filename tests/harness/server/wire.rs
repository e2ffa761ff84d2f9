//! Reads and writes a connection of the reference server by the chosen system calls, and stamps each call.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Write as _},
    os::fd::OwnedFd,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{MemfdFlags, memfd_create, sendfile},
    net::{
        RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recv, recvmsg, send,
        sendmsg,
    },
};

use crate::{
    clock::monotonic_ns,
    http::head_len,
    server::{options::IoMode, stamps::Call},
};

/// A connected socket and the way it is read and written.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    io: IoMode,
    /// Buffer of reads; it grows to the largest.
    buffer: Vec<u8>,
}

impl Wire {
    /// Wraps a connected, blocking socket.
    pub fn new(socket: OwnedFd, io: IoMode) -> Self {
        Self {
            socket,
            io,
            buffer: Vec::new(),
        }
    }

    /// Waits until there is something to read, or the peer has ended, and returns when that was.
    pub fn wait_readable(&self) -> io::Result<u64> {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut fds, None)?;
        Ok(monotonic_ns())
    }

    /// Waits for bytes, and peeks at up to `max` of them.
    pub fn peek(&self, max: usize) -> io::Result<usize> {
        let mut bytes = vec![0; max];
        let (count, _) = recv(&self.socket, bytes.as_mut_slice(), RecvFlags::PEEK)?;
        Ok(count)
    }

    /// Reads at most `max` bytes once, and appends them to `into`; `None` at the end of the stream.
    pub fn read(&mut self, max: usize, into: &mut Vec<u8>) -> io::Result<Option<Call>> {
        if self.buffer.len() < max {
            self.buffer.resize(max, 0);
        }
        let call_ns = monotonic_ns();
        let outcome = read_once(&self.socket, self.io, &mut self.buffer[..max]);
        let return_ns = monotonic_ns();
        let count = outcome?;
        into.extend_from_slice(&self.buffer[..count]);
        let call = Call { call_ns, return_ns };
        Ok((count > 0).then_some(call))
    }

    /// Writes all of `bytes`, in one call unless the kernel accepts fewer. Returns the first call and the last return.
    pub fn write(&self, bytes: &[u8]) -> io::Result<Call> {
        let call_ns = monotonic_ns();
        let mut done = 0;
        while done < bytes.len() {
            done += self.write_once(&bytes[done..])?;
        }
        let return_ns = monotonic_ns();
        Ok(Call { call_ns, return_ns })
    }

    fn write_once(&self, bytes: &[u8]) -> io::Result<usize> {
        let (head, tail) = bytes.split_at(bytes.len().min(20));
        let parts = [IoSlice::new(head), IoSlice::new(tail)];
        Ok(match self.io {
            IoMode::ReadWrite => rustix::io::write(&self.socket, bytes)?,
            IoMode::RecvSend => send(&self.socket, bytes, SendFlags::NOSIGNAL)?,
            IoMode::Vectored => rustix::io::writev(&self.socket, &parts)?,
            IoMode::Message => {
                let mut control = SendAncillaryBuffer::default();
                sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL)?
            }
            IoMode::Sendfile => match head_len(bytes) {
                Some(head) => rustix::io::write(&self.socket, &bytes[..head])?,
                None => self.send_file(bytes)?,
            },
        })
    }

    /// Writes bytes into an anonymous file, and sends them from there.
    fn send_file(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = File::from(memfd_create("answer", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        let mut from = 0;
        Ok(sendfile(&self.socket, &file, Some(&mut from), bytes.len())?)
    }

    /// Ends this direction, and reads what the peer still sends.
    pub fn linger(&mut self) -> io::Result<()> {
        rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write)?;
        let mut rest = Vec::new();
        while self.read(65536, &mut rest)?.is_some() {
            rest.clear();
        }
        Ok(())
    }
}

fn read_once(socket: &OwnedFd, io: IoMode, bytes: &mut [u8]) -> io::Result<usize> {
    let (head, tail) = bytes.split_at_mut(bytes.len().min(100));
    Ok(match io {
        IoMode::ReadWrite | IoMode::Sendfile => rustix::io::read(socket, bytes)?,
        IoMode::RecvSend => recv(socket, bytes, RecvFlags::empty())?.0,
        IoMode::Vectored => {
            let mut parts = [IoSliceMut::new(head), IoSliceMut::new(tail)];
            rustix::io::readv(socket, &mut parts)?
        }
        IoMode::Message => {
            let mut parts = [IoSliceMut::new(head), IoSliceMut::new(tail)];
            let mut control = RecvAncillaryBuffer::default();
            recvmsg(socket, &mut parts, &mut control, RecvFlags::empty())?.bytes
        }
    })
}
