//! Chooses the name of this host and the labels to leave out.
//!
//! Does not depend on: metrics.

use crate::{
    identity::{REPLICA_LABELS, ShownLabels},
    usage::{UsageError, invalid},
};

/// Environment variable with the name of a Kubernetes node: in a container, the kernel's name is that of the container.
pub(super) const NODE_NAME: &str = "NODE_NAME";

/// Returns the value of the labels `Hostname` and `hostname`; `given` is the name and value of the option or key.
pub(super) fn hostname(
    given: Option<(&str, &str)>,
    node_name: Option<String>,
) -> Result<String, UsageError> {
    match given {
        Some((name, "")) => {
            let reason = "empty; give a name, or leave it out to use the host's";
            Err(invalid(name, "", reason.into()))
        }
        Some((_, hostname)) => Ok(hostname.to_owned()),
        None => Ok(node_name
            .filter(|name| !name.is_empty())
            .unwrap_or_else(kernels)),
    }
}

fn kernels() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Returns the labels that are left when `hidden` are left out; each has the name of the option or key that it is from.
pub(super) fn shown<'a>(
    hidden: impl Iterator<Item = (&'a str, &'a String)>,
) -> Result<ShownLabels, UsageError> {
    let mut shown = ShownLabels::ALL;
    for (name, label) in hidden {
        if !shown.hide(label) {
            let reason = format!("no such label; give one of {}", REPLICA_LABELS.join(", "));
            return Err(invalid(name, label, reason));
        }
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_given_name_precedes_that_of_the_node_and_the_kernels() {
        let node = || Some("gpu-07".to_owned());
        let given = Some(("--hostname", "a"));
        assert_eq!(hostname(given, node()).unwrap(), "a");
        assert_eq!(hostname(None, node()).unwrap(), "gpu-07");
        for node in [None, Some(String::new())] {
            assert_eq!(hostname(None, node).unwrap(), kernels());
        }
        let message = hostname(Some(("hostname", "")), None).unwrap_err();
        assert!(message.to_string().starts_with("hostname \"\": empty"));
    }

    #[test]
    fn only_labels_of_replicas_can_be_left_out() {
        let (pod, model) = ("pod".to_owned(), "model".to_owned());
        let left = shown([("--no-label", &pod)].into_iter()).unwrap();
        assert!(!left.shows("pod") && left.shows("port"));
        let message = shown([("no_labels", &model)].into_iter()).unwrap_err();
        assert_eq!(
            message.to_string(),
            "no_labels \"model\": no such label; give one of port, namespace, pod, container"
        );
    }
}
