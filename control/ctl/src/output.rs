//! How results are printed: for people, or as JSON or YAML.

use std::io::{self, Write};

use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// JSON; of what goes on, an object a line.
    Json,
    /// YAML; of what goes on, a document each.
    Yaml,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Output {
    /// How to print.
    #[arg(
        short = 'o',
        long = "output",
        value_enum,
        value_name = "FORMAT",
        default_value = "table"
    )]
    output: Format,
    /// As -o json.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

impl Output {
    pub(super) fn format(self) -> Format {
        match self.json {
            true => Format::Json,
            false => self.output,
        }
    }

    /// Whether it is for people.
    pub(super) fn table(self) -> bool {
        self.format() == Format::Table
    }

    /// A result that is whole, for programs.
    pub(super) fn whole(self, out: &mut impl Write, value: &Value) -> io::Result<()> {
        match self.format() {
            Format::Yaml => out.write_all(yaml(value)?.as_bytes()),
            _ => writeln!(out, "{value:#}"),
        }
    }

    /// One of many, for programs. A line of standard output leaves with its end.
    pub(super) fn one(self, out: &mut impl Write, value: &Value) -> io::Result<()> {
        match self.format() {
            Format::Yaml => write!(out, "---\n{}", yaml(value)?),
            _ => writeln!(out, "{value}"),
        }
    }
}

fn yaml(value: &Value) -> io::Result<String> {
    let mut text = serde_saphyr::to_string(value).map_err(io::Error::other)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
