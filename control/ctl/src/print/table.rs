//! Tables of numbers, as wide as they must be.

use std::io::{self, Write};

/// A name and numbers a row.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(first: &str, columns: &[&str]) -> Self {
        let header = std::iter::once(first).chain(columns.iter().copied());
        Self {
            rows: vec![header.map(str::to_owned).collect()],
        }
    }

    pub(super) fn row(&mut self, name: &str, numbers: &[u64]) {
        let row = std::iter::once(name.to_owned()).chain(numbers.iter().map(u64::to_string));
        self.rows.push(row.collect());
    }

    /// Prints it, if it has rows.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        if self.rows.len() == 1 {
            return Ok(());
        }
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        for row in &self.rows {
            write!(out, "{:<1$}", row[0], widths[0])?;
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                write!(out, "  {cell:>width$}")?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
