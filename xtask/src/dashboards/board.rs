//! A board: its choices at the top, and its panels from left to right and from top to bottom.
//!
//! Does not depend on: what the boards show.

use crate::dashboards::panel::{DATA_SOURCE, with_matchers};
use crate::dashboards::schema::{
    Dashboard, Entry, GridPos, Link, Panel, Query, Row, SCHEMA_VERSION, Templating, TimeRange,
    Variable, VariableType,
};

/// Columns of Grafana's grid.
const GRID_COLUMNS: u32 = 24;
const TAG: &str = "inferprobe";

/// A dashboard under construction.
pub(crate) struct Board {
    dashboard: Dashboard,
    /// Where the next panel goes.
    at: GridPos,
}

/// Which value of a variable is meant if the user chose none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// All of them, or several.
    Many,
    /// The first one; one at a time.
    One,
}

impl Board {
    /// Starts a board on which the user chooses the data source.
    pub(crate) fn new(title: &str, description: &str) -> Self {
        let data_source = Variable {
            name: "datasource".into(),
            label: "Data source".into(),
            r#type: VariableType::Datasource,
            query: Query::DataSources(DATA_SOURCE.r#type),
            datasource: None,
            include_all: false,
            multi: false,
            all_value: None,
            refresh: 1,
            sort: 0,
        };
        let menu = Link {
            title: TAG.into(),
            tooltip: "The other boards".into(),
            r#type: "dashboards",
            icon: "external link",
            tags: vec![TAG.into()],
            as_dropdown: true,
            include_vars: true,
            keep_time: true,
            target_blank: false,
        };
        Self {
            dashboard: Dashboard {
                title: format!("{TAG}: {title}"),
                description: description.into(),
                tags: vec![TAG.into()],
                schema_version: SCHEMA_VERSION,
                editable: true,
                graph_tooltip: 1,
                refresh: "30s".into(),
                time: TimeRange {
                    from: "now-1h".into(),
                    to: "now".into(),
                },
                timezone: "browser".into(),
                links: vec![menu],
                templating: Templating {
                    list: vec![data_source],
                },
                panels: Vec::new(),
            },
            at: GridPos::default(),
        }
    }

    /// Lets the user choose values of a label that the series of `family` have.
    pub(crate) fn choose(mut self, name: &str, label: &str, family: &str, choice: Choice) -> Self {
        let is_many = choice == Choice::Many;
        self.dashboard.templating.list.push(Variable {
            name: name.into(),
            label: label.into(),
            r#type: VariableType::Query,
            query: Query::Labels {
                query: with_matchers(&format!("label_values({family}, {name})")),
                ref_id: name.into(),
            },
            datasource: Some(DATA_SOURCE),
            include_all: is_many,
            multi: is_many,
            // Also series that lack the label.
            all_value: is_many.then_some(".*"),
            refresh: 2,
            sort: 1,
        });
        self
    }

    /// Adds a heading.
    pub(crate) fn row(mut self, title: &str) -> Self {
        self.next_line();
        let row = Row {
            id: self.next_id(),
            r#type: "row",
            title: title.into(),
            collapsed: false,
            grid_pos: GridPos {
                h: 1,
                w: GRID_COLUMNS,
                ..self.at
            },
            panels: [],
        };
        self.at.y += 1;
        self.dashboard.panels.push(Entry::Row(row));
        self
    }

    /// Adds panels of one size, `count` of them beside each other.
    pub(crate) fn panels<const N: usize>(
        mut self,
        (count, height): (u32, u32),
        panels: [Panel; N],
    ) -> Self {
        self.next_line();
        let width = GRID_COLUMNS / count;
        for mut panel in panels {
            if self.at.x + width > GRID_COLUMNS {
                self.next_line();
            }
            panel.id = self.next_id();
            self.at.h = height;
            panel.grid_pos = GridPos {
                w: width,
                ..self.at
            };
            self.at.x += width;
            self.dashboard.panels.push(Entry::Panel(Box::new(panel)));
        }
        self
    }

    fn next_line(&mut self) {
        self.at = GridPos {
            y: self.at.y + self.at.h,
            ..GridPos::default()
        };
    }

    fn next_id(&self) -> u32 {
        u32::try_from(self.dashboard.panels.len() + 1).expect("a board has few panels")
    }

    /// Returns the finished dashboard.
    pub(crate) fn finish(self) -> Dashboard {
        self.dashboard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboards::panel::lines;

    #[test]
    fn panels_fill_lines_and_rows_begin_new_ones() {
        let panel = || lines("p", "s", "", &[("x", "")]);
        let board = Board::new("t", "")
            .row("one")
            .panels((2, 8), [panel(), panel(), panel()])
            .row("two")
            .panels((3, 4), [panel()])
            .finish();
        let places: Vec<GridPos> = board
            .panels
            .iter()
            .map(|entry| match entry {
                Entry::Row(row) => row.grid_pos,
                Entry::Panel(panel) => panel.grid_pos,
            })
            .collect();
        let place = |h, w, x, y| GridPos { h, w, x, y };
        assert_eq!(
            places,
            [
                place(1, 24, 0, 0),
                place(8, 12, 0, 1),
                place(8, 12, 12, 1),
                place(8, 12, 0, 9),
                place(1, 24, 0, 17),
                place(4, 8, 0, 18)
            ]
        );
    }
}
