//! Progress bars, and lines on stdout.

use super::Global;
use anyhow::Result;
use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle;
use std::fmt::Display;
use std::io::ErrorKind;
use std::io::Write;

/// A progress bar on stderr; hidden with `--quiet` and where stderr is no terminal.
pub(crate) fn bar(global: &Global, message: &'static str, bytes: bool) -> ProgressBar {
    let target = if global.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let counts = if bytes { "{bytes}/{total_bytes}" } else { "{pos}/{len}" };
    let template = format!("{{msg:12}} [{{bar:32}}] {counts} {{eta}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(0), target).with_style(style.progress_chars("=> ")).with_message(message)
}

/// Writes a line to stdout. A reader that has seen enough, as `head` has, is no error.
pub(crate) fn line(text: impl Display) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        written => Ok(written?),
    }
}
