//! Panels of each type, from a title, a unit and queries.
//!
//! Does not depend on: where they are on a board.

use serde_json::{Map, Value, json};

use crate::dashboards::schema::{
    Color, ColorMode, DataSource, Exemplars, FieldConfig, FieldConfigSource, Format, Graph,
    GridPos, HeatmapAxis, HeatmapColor, HeatmapLegend, HeatmapOptions, HeatmapTooltip, Legend,
    Matcher, Options, Override, Panel, PanelType, Property, ReduceOptions, Stacking, StackingMode,
    StatOptions, Step, TableOptions, Target, Thresholds, TimeseriesOptions, Tooltip,
    Transformation,
};

/// The data source that the user chooses at the top of the board.
pub(crate) const DATA_SOURCE: DataSource = DataSource {
    r#type: "prometheus",
    uid: "${datasource}",
};

/// A query of a graph: expression and legend.
pub(crate) type Line<'a> = (&'a str, &'a str);

/// A column of a table: its name, its unit, and the expression of its values.
pub(crate) type Column<'a> = (&'a str, &'a str, &'a str);

/// Draws a line for each series.
pub(crate) fn lines(title: &str, unit: &'static str, help: &str, lines: &[Line<'_>]) -> Panel {
    graph(title, unit, help, lines, StackingMode::None)
}

/// Draws series on top of each other: their sum means something.
pub(crate) fn stacked(title: &str, unit: &'static str, help: &str, lines: &[Line<'_>]) -> Panel {
    graph(title, unit, help, lines, StackingMode::Normal)
}

fn graph(
    title: &str,
    unit: &'static str,
    help: &str,
    lines: &[Line<'_>],
    mode: StackingMode,
) -> Panel {
    let is_stacked = mode == StackingMode::Normal;
    let defaults = FieldConfig {
        unit: Some(unit),
        min: Some(0.0),
        custom: Some(Graph {
            draw_style: "line",
            line_width: 1,
            fill_opacity: if is_stacked { 60 } else { 10 },
            show_points: "never",
            stacking: Stacking { mode, group: "A" },
        }),
        ..FieldConfig::default()
    };
    let options = Options::Timeseries(TimeseriesOptions {
        legend: Legend {
            display_mode: "list",
            placement: "bottom",
            show_legend: true,
            calcs: Vec::new(),
        },
        tooltip: Tooltip {
            mode: "multi",
            sort: "desc",
        },
    });
    let targets = lines
        .iter()
        .enumerate()
        .map(|(at, (expr, legend))| target(at, expr, legend, Format::TimeSeries))
        .collect();
    panel(
        PanelType::Timeseries,
        (title, help),
        targets,
        defaults,
        options,
    )
}

/// Shows the latest value as a number; it is green below the first limit of `steps`, unless they say otherwise.
pub(crate) fn number(
    title: &str,
    unit: &'static str,
    help: &str,
    expr: &str,
    steps: &[(&'static str, f64)],
) -> Panel {
    let (lowest, steps) = match steps {
        [(color, f64::NEG_INFINITY), rest @ ..] => (*color, rest),
        all => ("green", all),
    };
    let base = Step {
        color: lowest,
        value: None,
    };
    let steps = steps.iter().map(|(color, value)| Step {
        color,
        value: Some(*value),
    });
    let defaults = FieldConfig {
        unit: Some(unit),
        thresholds: Some(Thresholds {
            mode: "absolute",
            steps: std::iter::once(base).chain(steps).collect(),
        }),
        color: Color {
            mode: ColorMode::Thresholds,
        },
        ..FieldConfig::default()
    };
    let options = Options::Stat(StatOptions {
        color_mode: "value",
        graph_mode: "area",
        justify_mode: "auto",
        orientation: "auto",
        percent_change_color_mode: "standard",
        reduce_options: ReduceOptions {
            calcs: vec!["lastNotNull"],
            fields: "",
            values: false,
        },
        show_percent_change: false,
        text_mode: "auto",
        wide_layout: true,
    });
    let targets = vec![target(0, expr, "", Format::TimeSeries)];
    panel(PanelType::Stat, (title, help), targets, defaults, options)
}

/// Shows a row for each set of labels, and a column for each expression.
pub(crate) fn table(title: &str, help: &str, columns: &[Column<'_>]) -> Panel {
    let targets = columns.iter().enumerate();
    let targets = targets.map(|(at, (.., expr))| target(at, expr, "", Format::Table));
    let field = |at: usize| match columns.len() {
        1 => "Value".to_owned(),
        _ => format!("Value #{}", ref_id(at)),
    };
    let overrides = columns
        .iter()
        .enumerate()
        .map(|(at, (_, unit, _))| Override {
            matcher: Matcher {
                id: "byName",
                options: columns[at].0.to_owned(),
            },
            properties: vec![Property {
                id: "unit",
                value: json!(unit),
            }],
        });
    let names: Map<String, Value> = columns
        .iter()
        .enumerate()
        .map(|(at, (name, ..))| (field(at), json!(name)))
        .collect();
    let transformations = vec![
        Transformation {
            id: "merge",
            options: json!({}),
        },
        Transformation {
            id: "organize",
            options: json!({"excludeByName": {"Time": true}, "renameByName": names}),
        },
    ];
    let options = Options::Table(TableOptions {
        frame_index: 0,
        show_header: true,
    });
    let mut panel = panel(
        PanelType::Table,
        (title, help),
        targets.collect(),
        FieldConfig::default(),
        options,
    );
    panel.field_config.overrides = overrides.collect();
    panel.transformations = transformations;
    panel
}

/// Shows how many requests fell into each bucket of a histogram over time.
pub(crate) fn heatmap(title: &str, unit: &'static str, help: &str, expr: &str) -> Panel {
    let options = Options::Heatmap(HeatmapOptions {
        calculate: false,
        color: HeatmapColor {
            exponent: 0.5,
            fill: "dark-orange",
            mode: "scheme",
            reverse: false,
            scheme: "Oranges",
            steps: 64,
        },
        exemplars: Exemplars {
            color: "rgba(255,0,255,0.7)",
        },
        legend: HeatmapLegend { show: true },
        show_value: "never",
        tooltip: HeatmapTooltip {
            mode: "single",
            y_histogram: true,
        },
        y_axis: HeatmapAxis {
            unit,
            axis_placement: "left",
        },
    });
    panel(
        PanelType::Heatmap,
        (title, help),
        vec![target(0, expr, "{{le}}", Format::Heatmap)],
        FieldConfig::default(),
        options,
    )
}

fn panel(
    r#type: PanelType,
    (title, description): (&str, &str),
    targets: Vec<Target>,
    defaults: FieldConfig,
    options: Options,
) -> Panel {
    Panel {
        id: 0,
        r#type,
        title: title.to_owned(),
        description: description.to_owned(),
        datasource: DATA_SOURCE,
        grid_pos: GridPos::default(),
        targets,
        field_config: FieldConfigSource {
            defaults,
            overrides: Vec::new(),
        },
        options,
        transformations: Vec::new(),
    }
}

fn target(at: usize, expr: &str, legend: &str, format: Format) -> Target {
    let is_table = format == Format::Table;
    Target {
        ref_id: ref_id(at),
        datasource: DATA_SOURCE,
        expr: with_matchers(expr),
        legend_format: legend.to_owned(),
        format,
        instant: is_table,
        range: !is_table,
    }
}

/// Names the queries of a panel as Grafana does: A, B, C.
fn ref_id(at: usize) -> String {
    char::from(b'A' + u8::try_from(at).expect("a panel has few queries")).to_string()
}

/// Writes label matchers for what the user chose, and the interval of a rate, in place of their short names.
pub(crate) fn with_matchers(expr: &str) -> String {
    const HOST: &str = r#"instance=~"$instance""#;
    const SERVER: &str = r#"instance=~"$instance",server=~"$server""#;
    const MODEL: &str = r#"instance=~"$instance",server=~"$server",model=~"$model""#;
    const POD: &str = r#"instance=~"$instance",namespace=~"$namespace",pod=~"$pod""#;
    const OWN: &str = r#"and on (job, instance) inferprobe_build_info{instance=~"$instance"}"#;
    expr.replace("@host", HOST)
        .replace("@server", SERVER)
        .replace("@model", MODEL)
        .replace("@pod", POD)
        .replace("@own", OWN)
        .replace("@i", "$__rate_interval")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_become_matchers_and_the_interval() {
        let expr = with_matchers("sum(rate(x{@model}[@i]) @own)");
        assert_eq!(
            expr,
            "sum(rate(x{instance=~\"$instance\",server=~\"$server\",model=~\"$model\"}[$__rate_interval]) \
             and on (job, instance) inferprobe_build_info{instance=~\"$instance\"})"
        );
    }

    #[test]
    fn a_table_renames_the_value_of_each_query() {
        let rename = |panel: &Panel| {
            panel.transformations[1].options["renameByName"]
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        let one = table("t", "", &[("Rate", "reqps", "a")]);
        assert_eq!(rename(&one), ["Value"]);
        let two = table("t", "", &[("Rate", "reqps", "a"), ("p99", "s", "b")]);
        assert_eq!(rename(&two), ["Value #A", "Value #B"]);
        assert!(
            two.targets
                .iter()
                .all(|target| target.instant && !target.range)
        );
    }
}
