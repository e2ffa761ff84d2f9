//! Runs the unit tests of the rules with promtool, and checks that every alert has a test that it fires and one that it is
//! silent.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_yaml_ng::Value;

use crate::server::program;

/// Returns the path of the rules.
pub(crate) fn file() -> PathBuf {
    let path = "../deploy/prometheus/inferprobe.rules.yml";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    path.canonicalize().unwrap()
}

/// A rule: what it records or alerts on, and its expression.
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) is_alert: bool,
    pub(crate) expr: String,
}

/// Returns every rule of the file.
pub(crate) fn all() -> Vec<Rule> {
    let rules = yaml(&file());
    let groups = rules["groups"].as_sequence().unwrap().iter();
    groups
        .flat_map(|group| group["rules"].as_sequence().unwrap())
        .map(|rule| {
            let alert = rule["alert"].as_str();
            let name = alert.or(rule["record"].as_str()).unwrap();
            Rule {
                name: name.to_owned(),
                is_alert: alert.is_some(),
                expr: rule["expr"].as_str().unwrap().to_owned(),
            }
        })
        .collect()
}

fn yaml(path: &Path) -> Value {
    serde_yaml_ng::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("prometheus/rules/alerts.yml")
}

#[test]
fn alerts_fire_and_are_silent_as_their_tests_say() {
    let Some(promtool) = program("promtool") else {
        return;
    };
    let output = Command::new(promtool)
        .args(["test", "rules"])
        .arg(tests())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
}

#[test]
fn every_alert_has_a_test_that_fires_and_one_that_is_silent() {
    let alerts: BTreeSet<String> = all()
        .into_iter()
        .filter(|rule| rule.is_alert)
        .map(|rule| rule.name)
        .collect();
    let (mut firing, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for test in yaml(&tests())["tests"].as_sequence().unwrap() {
        for case in test["alert_rule_test"].as_sequence().unwrap() {
            let name = case["alertname"].as_str().unwrap().to_owned();
            let expected = case["exp_alerts"].as_sequence().unwrap();
            if expected.is_empty() {
                silent.insert(name);
            } else {
                firing.insert(name);
            }
        }
    }
    assert_eq!(firing, alerts);
    assert_eq!(silent, alerts);
}
