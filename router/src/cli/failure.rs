//! How the program says that it failed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use super::EXIT_ERROR;

/// Prints an error with what caused it; gives the exit status. A reader that went away (`weir get
/// ... | head`) is no error.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    // Nobody is left to tell if standard error is closed too.
    let _ = write!(std::io::stderr(), "{}", render(error));
    ExitCode::from(EXIT_ERROR)
}

/// Prints clap's message: the help and the version too are "errors" of its own.
pub fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(EXIT_ERROR)
    } else {
        ExitCode::SUCCESS
    }
}

fn render(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}\n");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Many libraries repeat their source in their own message.
        if !said.contains(&cause) {
            let _ = writeln!(text, "  because: {cause}");
            said = cause;
        }
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("disk full")
            .context("cannot write")
            .context("cannot put");
        let expected = "error: cannot put\n  because: cannot write\n  because: disk full\n";
        assert_eq!(render(&error), expected);
        let error = anyhow::anyhow!("disk full").context("cannot write: disk full");
        assert_eq!(render(&error), "error: cannot write: disk full\n");
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let gone = anyhow::Error::from(Error::from(ErrorKind::BrokenPipe)).context("printing");
        assert!(is_broken_pipe(&gone));
        assert!(!is_broken_pipe(&anyhow::Error::from(Error::from(
            ErrorKind::NotFound
        ))));
    }
}
