//! Columns for a person: aligned, cut, one line a row, printed as the rows come.

use std::io::{self, Write};

/// Rows held back to find the widths of the columns. A screen or two: enough to line up what a
/// person looks at, and an answer of a million rows is never held.
const ROWS_HELD_MAX: usize = 128;

/// Characters between two columns.
const GAP: &str = "  ";

/// A table that is printed while it grows.
#[derive(Debug)]
pub struct Table<const COLUMNS: usize> {
    header: [&'static str; COLUMNS],
    widths: [usize; COLUMNS],
    held: Vec<[String; COLUMNS]>,
    held_max: usize,
    started: bool,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table whose first rows are held back until [`Table::finish`] or until there are enough of
    /// them, so that columns line up.
    pub fn held(header: [&'static str; COLUMNS]) -> Self {
        Self::new(header, ROWS_HELD_MAX)
    }

    /// A table that prints each row at once, for rows that come when they come.
    pub fn immediate(header: [&'static str; COLUMNS]) -> Self {
        Self::new(header, 0)
    }

    fn new(header: [&'static str; COLUMNS], held_max: usize) -> Self {
        let widths = header.map(|title| title.chars().count());
        Self {
            header,
            widths,
            held: Vec::new(),
            held_max,
            started: false,
        }
    }

    /// Adds a row. Cells must hold no line break: see [`printable`].
    pub fn row(&mut self, cells: [String; COLUMNS], out: &mut dyn Write) -> io::Result<()> {
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = (*width).max(cell.chars().count());
        }
        if self.started || self.held_max == 0 {
            self.start(out)?;
            return self.print(&cells, out);
        }
        self.held.push(cells);
        if self.held.len() >= self.held_max {
            self.start(out)?;
        }
        Ok(())
    }

    /// Prints what is held back. A table without a row prints nothing.
    pub fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.held.is_empty() {
            Ok(())
        } else {
            self.start(out)
        }
    }

    fn start(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if !self.started {
            self.started = true;
            self.print(&self.header.map(str::to_owned), out)?;
        }
        for cells in std::mem::take(&mut self.held) {
            self.print(&cells, out)?;
        }
        Ok(())
    }

    fn print(&self, cells: &[String; COLUMNS], out: &mut dyn Write) -> io::Result<()> {
        let mut line = String::new();
        for (width, cell) in self.widths.iter().zip(cells) {
            let padding = width.saturating_sub(cell.chars().count());
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', padding));
            line.push_str(GAP);
        }
        writeln!(out, "{}", line.trim_end())
    }
}

/// One line of at most `chars_max` characters that is safe on a terminal: keys and values come
/// from the network, and a control character in them is an instruction to the terminal.
pub fn printable(text: &str, chars_max: usize) -> String {
    let mut line = String::new();
    let mut chars = 0;
    for c in text.chars() {
        let escaped = match c {
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            c if c.is_control() => c.escape_unicode().to_string(),
            c => c.to_string(),
        };
        chars += escaped.chars().count();
        if chars > chars_max {
            // Make room for the mark that something is missing.
            while line.chars().count() >= chars_max.max(1) {
                line.pop();
            }
            line.push('…');
            return line;
        }
        line.push_str(&escaped);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(table: &mut Table<2>, rows: &[(&str, &str)], expected: &str) {
        let mut out = Vec::new();
        for (first, second) in rows {
            table
                .row([(*first).to_owned(), (*second).to_owned()], &mut out)
                .unwrap();
        }
        table.finish(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn lines_up_what_it_holds() {
        let expected = "KEY        VALUE\na          1\nmuch/more  two\n";
        check(
            &mut Table::held(["KEY", "VALUE"]),
            &[("a", "1"), ("much/more", "two")],
            expected,
        );
    }

    #[test]
    fn prints_at_once_and_widens_as_it_goes() {
        let expected = "KEY  VALUE\na    1\nmuch/more  2\nb          3\n";
        let rows = [("a", "1"), ("much/more", "2"), ("b", "3")];
        check(&mut Table::immediate(["KEY", "VALUE"]), &rows, expected);
    }

    #[test]
    fn holds_no_more_than_a_screen_or_two() {
        let mut table = Table::held(["KEY", "VALUE"]);
        let mut out = Vec::new();
        for row in 0..ROWS_HELD_MAX + 5 {
            table
                .row([row.to_string(), "x".to_owned()], &mut out)
                .unwrap();
            assert!(table.held.len() < ROWS_HELD_MAX);
        }
        assert_eq!(
            out.iter().filter(|byte| **byte == b'\n').count(),
            1 + ROWS_HELD_MAX + 5
        );
    }

    #[test]
    fn an_empty_table_prints_nothing() {
        check(&mut Table::held(["KEY", "VALUE"]), &[], "");
    }

    #[test]
    fn a_cell_is_one_line_without_instructions_to_the_terminal() {
        let rows = [
            ("plain", 10, "plain"),
            ("0123456789", 10, "0123456789"),
            ("0123456789x", 10, "012345678…"),
            ("a\nb\tc", 10, "a\\nb\\tc"),
            ("\u{1b}[2J", 20, "\\u{1b}[2J"),
            ("\u{9b}x", 20, "\\u{9b}x"),
            ("grün", 4, "grün"),
            ("x", 0, "…"),
        ];
        for (text, chars_max, expected) in rows {
            assert_eq!(printable(text, chars_max), expected, "{text:?}");
        }
    }
}
