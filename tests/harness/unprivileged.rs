//! Copies the agent for a user without privileges, with or without file capabilities.

use std::{
    fs::{Permissions, copy, set_permissions},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::Command,
};

use rustix::fs::{XattrFlags, setxattr};
use tempfile::TempDir;

use crate::agent::launcher::agent_binary;

/// User and group `nobody` of Debian and most other distributions.
const NOBODY: u32 = 65534;
/// `VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE` (include/uapi/linux/capability.h): granted as the program starts.
const EFFECTIVE: u32 = 0x0200_0001;

/// The copy; it is removed when dropped.
pub struct Unprivileged {
    folder: TempDir,
}

impl Unprivileged {
    /// Makes a copy with `capabilities`, by number. Needs root.
    pub fn with(capabilities: &[u32]) -> Self {
        // Other users may not be able to read the build folder.
        let folder = tempfile::tempdir().expect("a folder for the agent's copy");
        let open = Permissions::from_mode(0o755);
        set_permissions(folder.path(), open).expect("the folder is ours");
        let this = Self { folder };
        copy(agent_binary(), this.path()).expect("the agent can be copied");
        if !capabilities.is_empty() {
            let attribute = attribute(capabilities);
            let flags = XattrFlags::empty();
            setxattr(this.path(), "security.capability", &attribute, flags)
                .expect("root may grant capabilities to a file of its own");
        }
        this
    }

    /// Returns a command that runs the copy as the user `nobody`.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.path());
        command.uid(NOBODY).gid(NOBODY);
        command
    }

    /// Returns its path.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("inferprobe")
    }
}

/// Returns a `vfs_cap_data`: flags, then permitted and inheritable, low words first.
fn attribute(capabilities: &[u32]) -> Vec<u8> {
    let permitted = capabilities.iter().fold(0_u64, |mask, one| mask | 1 << one);
    let bytes = permitted.to_le_bytes();
    let (low, high) = bytes.split_at(4);
    let none = [0; 4];
    [&EFFECTIVE.to_le_bytes()[..], low, &none, high, &none].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_what_setcap_writes() {
        // Of `setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep`.
        let expected = [
            1, 0, 0, 2, 0, 0, 8, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(attribute(&[39, 38, 19]), expected);
    }
}
