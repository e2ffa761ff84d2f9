//! Starts a program in a mount namespace of its own, so that a test chooses where tracefs is mounted.
//!
//! The machine's own mounts stay as they are, so tests do not depend on what is mounted there.

use std::{
    io,
    process::{Child, Command},
    thread,
};

use rustix::{
    fs::{Mode, mkdir},
    io::Errno,
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount},
    thread::{UnshareFlags, unshare_unsafe},
};

/// The mount that has all the others.
const SYSFS: &str = "/sys";
/// Where the kernel's documentation has tracefs mounted.
const OWN: &str = "/sys/kernel/tracing";
/// Where debugfs is mounted.
const DEBUGFS: &str = "/sys/kernel/debug";
/// Where kernels before 4.1 had it, and debugfs shows it still.
const IN_DEBUGFS: &str = "/sys/kernel/debug/tracing";

/// Where a program finds tracefs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tracefs {
    /// On `/sys/kernel/tracing`.
    Own,
    /// On `/sys/kernel/debug/tracing`.
    InDebugfs,
    /// Nowhere.
    NotMounted,
}

/// Starts `command` where tracefs is mounted as `tracefs` says. Needs root.
pub(crate) fn spawn(command: &mut Command, tracefs: Tracefs) -> io::Result<Child> {
    // A mount namespace belongs to a thread, and a process that the thread starts inherits it.
    thread::scope(|scope| {
        let spawning = scope.spawn(|| {
            // SAFETY: no table of file descriptors is unshared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
            mount_only(tracefs)?;
            command.spawn()
        });
        spawning.join().expect("starting a program does not panic")
    })
}

/// Mounts tracefs as `tracefs` says in this thread's mount namespace, and unmounts what else is there.
fn mount_only(tracefs: Tracefs) -> io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    // Not `/`, which is no mount point in a chroot.
    mount_change(SYSFS, private)?;
    unmount_all(OWN)?;
    unmount_all(DEBUGFS)?;
    match tracefs {
        Tracefs::Own => mount_on(OWN, "tracefs"),
        Tracefs::InDebugfs => {
            // A debugfs may be forbidden, or mount a tracefs by itself.
            mount_on(DEBUGFS, "tmpfs")?;
            mkdir(IN_DEBUGFS, Mode::from_raw_mode(0o755))?;
            mount_on(IN_DEBUGFS, "tracefs")
        }
        Tracefs::NotMounted => Ok(()),
    }
}

fn mount_on(folder: &str, kind: &str) -> io::Result<()> {
    Ok(mount(kind, folder, kind, MountFlags::empty(), None)?)
}

/// Unmounts all that is mounted on `folder`, with what is mounted below.
fn unmount_all(folder: &str) -> io::Result<()> {
    loop {
        match unmount(folder, UnmountFlags::DETACH) {
            Ok(()) => {}
            // Not a mount point, or not there.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(err) => return Err(err.into()),
        }
    }
}
