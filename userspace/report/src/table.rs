//! Columns.

use std::fmt;

/// Which side of its column a cell stands on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Align {
    /// Text.
    #[default]
    Left,
    /// Numbers.
    Right,
}

/// A table of text: a heading, rows, columns as wide as their widest cell.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns; a name that begins with `>` is of a column of numbers.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        let column = |name: &&str| match name.strip_prefix('>') {
            Some(name) => (name.to_owned(), Align::Right),
            None => ((*name).to_owned(), Align::Left),
        };
        Table { columns: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row. Cells that are missing are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether it has no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let mut widths: Vec<usize> = heading.iter().map(|name| name.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in std::iter::once(&heading).chain(&self.rows) {
            let mut line = String::new();
            for (n, (width, (_, align))) in widths.iter().zip(&self.columns).enumerate() {
                let cell = row.get(n).map_or("", String::as_str);
                let blank = " ".repeat(width.saturating_sub(cell.chars().count()));
                if n != 0 {
                    line.push_str("  ");
                }
                match align {
                    Align::Left => line.extend([cell, &blank]),
                    Align::Right => line.extend([&blank, cell]),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_blank_ends() {
        let mut table = Table::new(&["NAME", ">PACKETS", "WHY"]);
        table.row(["vm1".into(), "12".into(), String::new()]);
        table.row(["a-long-name".into(), "1234567890".into(), "x".into()]);
        assert_eq!(
            table.to_string(),
            "NAME            PACKETS  WHY\nvm1                  12\na-long-name  1234567890  x\n"
        );
    }
}
