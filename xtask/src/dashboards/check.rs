//! Compares the dashboards with Grafana's types: its npm package `@grafana/schema`, and TypeScript's compiler.
//!
//! Does not depend on: how the dashboards are made.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::progress;
use crate::tools::grafana;

/// Type arguments of string enumerations are their strings: the dashboards are JSON, which has no enumerations.
const TYPES: &str = r#"
import type { Dashboard, DataQuery } from "@grafana/schema";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";

type Json<T> = T extends string ? `${T}`
  : T extends number | boolean | null | undefined ? T
  : T extends (infer E)[] ? Json<E>[]
  : T extends object ? { [K in keyof T]: Json<T[K]> }
  : T;
type Target = DataQuery & {
  expr: string; legendFormat: string; format: "time_series" | "table" | "heatmap";
  instant: boolean; range: boolean; datasource: { type: "prometheus"; uid: string };
};
type Options = {
  timeseries: Json<timeseries.Options>; stat: Json<stat.Options>;
  table: Json<table.Options>; heatmap: Json<heatmap.Options>;
};
type Custom = {
  timeseries: Json<timeseries.FieldConfig>; stat: never; table: Json<table.FieldConfig>; heatmap: Json<heatmap.FieldConfig>;
};
"#;

/// Runs the compiler over all `files`; its errors are shown.
pub(crate) fn run(files: &[(PathBuf, String)]) -> Result<()> {
    let grafana = grafana::ensure()?;
    let source = grafana.folder().join("dashboards.ts");
    let mut text = TYPES.to_owned();
    for (path, json) in files {
        add(&mut text, path, json)?;
    }
    fs::write(&source, text).with_context(|| format!("write {}", source.display()))?;
    progress::step(
        "compare with Grafana's types",
        &mut grafana.compiler(&source),
    )
}

/// Adds the dashboard itself, and options, fields and queries of each panel, which the dashboard's type leaves open.
fn add(text: &mut String, path: &Path, json: &str) -> Result<()> {
    let board: Value =
        serde_json::from_str(json).with_context(|| format!("read {} as JSON", path.display()))?;
    writeln!(text, "({json}) satisfies Json<Dashboard>;")?;
    for panel in board["panels"].as_array().into_iter().flatten() {
        let Some(kind) = panel["type"].as_str().filter(|kind| *kind != "row") else {
            continue;
        };
        writeln!(
            text,
            "({}) satisfies Options[\"{kind}\"];",
            panel["options"]
        )?;
        writeln!(text, "({}) satisfies Target[];", panel["targets"])?;
        if let Some(custom) = panel["fieldConfig"]["defaults"].get("custom") {
            writeln!(text, "({custom}) satisfies Custom[\"{kind}\"];")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_is_compared_by_its_type() {
        let mut text = String::new();
        let json = r#"{"panels": [{"type": "row"},
            {"type": "stat", "options": {"a": 1}, "targets": [], "fieldConfig": {"defaults": {}}},
            {"type": "timeseries", "options": {}, "targets": [], "fieldConfig": {"defaults": {"custom": {"b": 2}}}}]}"#;
        add(&mut text, Path::new("x.json"), json).unwrap();
        assert!(text.contains("({\"a\":1}) satisfies Options[\"stat\"];"));
        assert!(text.contains("({\"b\":2}) satisfies Custom[\"timeseries\"];"));
        assert_eq!(text.matches("satisfies Target[]").count(), 2);
        assert!(!text.contains("\"row\"]"));
    }
}
