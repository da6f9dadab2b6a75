//! Progress bars and plain tables.

use super::Global;
use indicatif::ProgressBar;
use indicatif::ProgressDrawTarget;
use indicatif::ProgressStyle;

/// A progress bar on stderr; hidden with `--quiet` and where stderr is no terminal.
pub(crate) fn bar(global: &Global, message: &'static str, bytes: bool) -> ProgressBar {
    let target = if global.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let counts = if bytes { "{bytes}/{total_bytes}" } else { "{pos}/{len}" };
    let template = format!("{{msg:12}} [{{bar:32}}] {counts} {{eta}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(0), target).with_style(style.progress_chars("=> ")).with_message(message)
}
