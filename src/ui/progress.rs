//! How far a command is, on a terminal.

use std::time::Duration;

use bigsmall_codec::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::printable;
use crate::interrupt;

/// How the bar looks. It is redrawn some times a second whatever the number of calls.
const TEMPLATE: &str =
    "{bar:30} {percent:>3} %  {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left  {wide_msg}";

/// A bar on standard error if that is a terminal; and the way in which a signal cancels the work that it shows.
#[derive(Debug)]
pub struct Meter {
    bar: ProgressBar,
}

impl Meter {
    /// A meter of `total` bytes to come; with `quiet` it shows nothing.
    pub fn new(total: u64, quiet: bool) -> Meter {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        bar.set_style(ProgressStyle::with_template(TEMPLATE).expect("the template is right"));
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        Meter { bar }
    }

    /// Says which file it is about now.
    pub fn set_file(&self, name: &str) {
        self.bar.set_message(printable(name));
    }
}

impl Progress for Meter {
    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn cancelled(&self) -> bool {
        interrupt::caught().is_some()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The steps of something that has no bytes to count, on standard error if that is a terminal.
#[derive(Debug)]
pub struct Steps {
    bar: ProgressBar,
}

impl Steps {
    /// So many steps to come; with `quiet` nothing is shown.
    pub fn new(steps: u64, quiet: bool) -> Steps {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len}  {elapsed}  {wide_msg}");
        bar.set_style(style.expect("the template is right"));
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        Steps { bar }
    }

    /// Says which step begins.
    pub fn begin(&self, name: &str) {
        self.bar.set_message(printable(name));
        self.bar.inc(1);
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Asks a meter whether to give up, but does not move it: for work that its total does not count.
pub struct Quiet<'a>(pub &'a Meter);

impl Progress for Quiet<'_> {
    fn advance(&self, _: u64) {}

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}
