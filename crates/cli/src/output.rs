//! How a list is shown: a table for a person, JSON or YAML for a program.

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::{Cell, ContentArrangement, Table, presets};
use serde::Serialize;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
    Yaml,
}

/// Prints `value` for a program, or calls `human` for a person.
pub fn print<T: Serialize + ?Sized>(
    format: Format,
    value: &T,
    human: impl FnOnce(&T) -> String,
) -> Result<()> {
    match format {
        Format::Table => println!("{}", human(value).trim_end()),
        Format::Json => println!("{}", serde_json::to_string_pretty(value)?),
        Format::Yaml => print!("{}", serde_saphyr::to_string(&value)?),
    }
    Ok(())
}

/// A table without lines, its columns two blanks apart.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| Cell::new(name.to_uppercase())));
    for row in rows {
        table.add_row(row.into_iter().map(|text| if text.is_empty() { "-".into() } else { text }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
