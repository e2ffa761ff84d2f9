//! Makes deb, rpm and tarball once for all parts that need them.

use std::cell::OnceCell;
use std::path::PathBuf;

use anyhow::Result;

use crate::arch::Arch;
use crate::dist::program::Profile;
use crate::dist::{self, Kind};
use crate::package_test::skip::need_tools;

/// Packages that are made when a part asks for them.
pub(crate) struct Packages {
    profile: Profile,
    made: OnceCell<Vec<PathBuf>>,
}

impl Packages {
    /// Makes none yet; their program will be of `profile`.
    pub(crate) fn of(profile: Profile) -> Self {
        Self {
            profile,
            made: OnceCell::new(),
        }
    }

    /// Returns the paths of deb, rpm and tarball, which are made at the first call.
    pub(crate) fn get(&self) -> Result<[&PathBuf; 3]> {
        if self.made.get().is_none() {
            need_tools()?;
            let kinds = [Kind::Deb, Kind::Rpm, Kind::Tarball];
            let made = dist::make(&kinds, Arch::Amd64, self.profile)?;
            self.made.get_or_init(|| made);
        }
        match self.made.get().map(Vec::as_slice) {
            Some([deb, rpm, tarball]) => Ok([deb, rpm, tarball]),
            _ => unreachable!("one path for each kind"),
        }
    }
}
