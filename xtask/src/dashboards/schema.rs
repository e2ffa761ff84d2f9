//! The parts of Grafana's dashboard schema that the boards use, as types.
//!
//! `check` compares what is written with Grafana's own types. Does not depend on: what the boards show.

use serde::Serialize;
use serde_json::Value;

/// Version of the schema, that of Grafana 11.6. Newer versions migrate it when they load it.
pub(crate) const SCHEMA_VERSION: u32 = 41;

/// A dashboard. It has no `uid`: Grafana chooses one, so that two imports do not collide.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dashboard {
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) tags: Vec<String>,
    pub(crate) schema_version: u32,
    pub(crate) editable: bool,
    /// 1: the cursor of one panel is in all.
    pub(crate) graph_tooltip: u8,
    pub(crate) refresh: String,
    pub(crate) time: TimeRange,
    pub(crate) timezone: String,
    pub(crate) links: Vec<Link>,
    pub(crate) templating: Templating,
    pub(crate) panels: Vec<Entry>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TimeRange {
    pub(crate) from: String,
    pub(crate) to: String,
}

/// A menu of all dashboards with a tag.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Link {
    pub(crate) title: String,
    pub(crate) tooltip: String,
    pub(crate) r#type: &'static str,
    pub(crate) icon: &'static str,
    pub(crate) tags: Vec<String>,
    pub(crate) as_dropdown: bool,
    pub(crate) include_vars: bool,
    pub(crate) keep_time: bool,
    pub(crate) target_blank: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct Templating {
    pub(crate) list: Vec<Variable>,
}

/// A choice at the top of the dashboard.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) r#type: VariableType,
    pub(crate) query: Query,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) datasource: Option<DataSource>,
    pub(crate) include_all: bool,
    pub(crate) multi: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) all_value: Option<&'static str>,
    /// 2: read again when the time range changes.
    pub(crate) refresh: u8,
    /// 1: by name.
    pub(crate) sort: u8,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum VariableType {
    Datasource,
    Query,
}

/// The query of a variable.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Query {
    /// Type of data sources to choose from.
    DataSources(&'static str),
    #[serde(rename_all = "camelCase")]
    Labels { query: String, ref_id: String },
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct DataSource {
    pub(crate) r#type: &'static str,
    pub(crate) uid: &'static str,
}

/// What is on the board: a heading, or a panel.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Entry {
    Row(Row),
    Panel(Box<Panel>),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) id: u32,
    pub(crate) r#type: &'static str,
    pub(crate) title: String,
    pub(crate) collapsed: bool,
    pub(crate) grid_pos: GridPos,
    pub(crate) panels: [Value; 0],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Panel {
    pub(crate) id: u32,
    pub(crate) r#type: PanelType,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) datasource: DataSource,
    pub(crate) grid_pos: GridPos,
    pub(crate) targets: Vec<Target>,
    pub(crate) field_config: FieldConfigSource,
    pub(crate) options: Options,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) transformations: Vec<Transformation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PanelType {
    Timeseries,
    Stat,
    Table,
    Heatmap,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct GridPos {
    pub(crate) h: u32,
    pub(crate) w: u32,
    pub(crate) x: u32,
    pub(crate) y: u32,
}

/// A PromQL query.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Target {
    pub(crate) ref_id: String,
    pub(crate) datasource: DataSource,
    pub(crate) expr: String,
    pub(crate) legend_format: String,
    pub(crate) format: Format,
    pub(crate) instant: bool,
    pub(crate) range: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    TimeSeries,
    Table,
    Heatmap,
}

#[derive(Debug, Serialize)]
pub(crate) struct FieldConfigSource {
    pub(crate) defaults: FieldConfig,
    pub(crate) overrides: Vec<Override>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct FieldConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) thresholds: Option<Thresholds>,
    pub(crate) color: Color,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) custom: Option<Graph>,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Color {
    pub(crate) mode: ColorMode,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ColorMode {
    #[default]
    PaletteClassic,
    Thresholds,
}

#[derive(Debug, Serialize)]
pub(crate) struct Thresholds {
    pub(crate) mode: &'static str,
    pub(crate) steps: Vec<Step>,
}

/// From `value` upwards the colour is `color`; `None` is the lowest step.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) color: &'static str,
    pub(crate) value: Option<f64>,
}

/// How a time series is drawn.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Graph {
    pub(crate) draw_style: &'static str,
    pub(crate) line_width: u8,
    pub(crate) fill_opacity: u8,
    pub(crate) show_points: &'static str,
    pub(crate) stacking: Stacking,
}

#[derive(Debug, Serialize)]
pub(crate) struct Stacking {
    pub(crate) mode: StackingMode,
    pub(crate) group: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StackingMode {
    None,
    Normal,
}

/// What a field has instead of the defaults.
#[derive(Debug, Serialize)]
pub(crate) struct Override {
    pub(crate) matcher: Matcher,
    pub(crate) properties: Vec<Property>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Matcher {
    pub(crate) id: &'static str,
    pub(crate) options: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Property {
    pub(crate) id: &'static str,
    pub(crate) value: Value,
}

#[derive(Debug, Serialize)]
pub(crate) struct Transformation {
    pub(crate) id: &'static str,
    pub(crate) options: Value,
}

/// Options of a panel, by its type.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Options {
    Timeseries(TimeseriesOptions),
    Stat(StatOptions),
    Table(TableOptions),
    Heatmap(HeatmapOptions),
}

#[derive(Debug, Serialize)]
pub(crate) struct TimeseriesOptions {
    pub(crate) legend: Legend,
    pub(crate) tooltip: Tooltip,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Legend {
    pub(crate) display_mode: &'static str,
    pub(crate) placement: &'static str,
    pub(crate) show_legend: bool,
    pub(crate) calcs: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Tooltip {
    pub(crate) mode: &'static str,
    pub(crate) sort: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatOptions {
    pub(crate) color_mode: &'static str,
    pub(crate) graph_mode: &'static str,
    pub(crate) justify_mode: &'static str,
    pub(crate) orientation: &'static str,
    pub(crate) percent_change_color_mode: &'static str,
    pub(crate) reduce_options: ReduceOptions,
    pub(crate) show_percent_change: bool,
    pub(crate) text_mode: &'static str,
    pub(crate) wide_layout: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct ReduceOptions {
    pub(crate) calcs: Vec<&'static str>,
    pub(crate) fields: &'static str,
    pub(crate) values: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TableOptions {
    pub(crate) frame_index: u32,
    pub(crate) show_header: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeatmapOptions {
    pub(crate) calculate: bool,
    pub(crate) color: HeatmapColor,
    pub(crate) exemplars: Exemplars,
    pub(crate) legend: HeatmapLegend,
    pub(crate) show_value: &'static str,
    pub(crate) tooltip: HeatmapTooltip,
    pub(crate) y_axis: HeatmapAxis,
}

#[derive(Debug, Serialize)]
pub(crate) struct HeatmapColor {
    pub(crate) exponent: f64,
    pub(crate) fill: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) reverse: bool,
    pub(crate) scheme: &'static str,
    pub(crate) steps: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Exemplars {
    pub(crate) color: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct HeatmapLegend {
    pub(crate) show: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeatmapTooltip {
    pub(crate) mode: &'static str,
    pub(crate) y_histogram: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeatmapAxis {
    pub(crate) unit: &'static str,
    pub(crate) axis_placement: &'static str,
}
