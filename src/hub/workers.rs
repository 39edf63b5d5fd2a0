//! Several files at a time; the first failure ends them all.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use bigsmall_codec::Progress;

use super::{Error, Result};
use crate::ui::progress::Meter;

/// A meter, and whether another worker has failed.
pub struct Watch<'a> {
    meter: &'a Meter,
    failed: &'a AtomicBool,
}

impl Watch<'_> {
    /// Says which file it is about now.
    pub fn set_file(&self, name: &str) {
        self.meter.set_file(name);
    }

    /// Fails when it is time to give up.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`](super::ErrorKind::Interrupted).
    pub fn check(&self) -> Result<()> {
        if self.cancelled() { Err(Error::interrupted()) } else { Ok(()) }
    }
}

impl Progress for Watch<'_> {
    fn advance(&self, bytes: u64) {
        self.meter.advance(bytes);
    }

    fn cancelled(&self) -> bool {
        self.meter.cancelled() || self.failed.load(Ordering::Relaxed)
    }
}

/// Does `work` for each of `items` on at most `workers` threads, and gives what came of each, in order.
///
/// # Errors
/// The first that came; the other threads then end as soon as they ask.
pub fn each<T: Sync, R: Send>(
    items: &[T],
    workers: usize,
    meter: &Meter,
    work: impl Fn(&T, &Watch<'_>) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let (next, failed, error) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let results: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    let watch = Watch { meter, failed: &failed };
    let run = || {
        while !failed.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { return };
            match work(item, &watch) {
                Ok(result) => results.lock().expect("no thread panics with it")[number] = Some(result),
                Err(e) => {
                    // Those that follow end because of this one.
                    error.lock().expect("no thread panics with it").get_or_insert(e);
                    failed.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..workers.clamp(1, items.len().max(1)) {
            scope.spawn(run);
        }
    });
    match error.into_inner().expect("no thread panics with it") {
        Some(error) => Err(error),
        None => Ok(results.into_inner().expect("no thread panics with it").into_iter().flatten().collect()),
    }
}

/// Does something on this thread.
///
/// # Errors
/// Those of `work`.
pub fn alone<R>(meter: &Meter, work: impl FnOnce(&Watch<'_>) -> Result<R>) -> Result<R> {
    work(&Watch { meter, failed: &AtomicBool::new(false) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::ErrorKind;

    #[test]
    fn results_come_in_order_and_the_first_failure_ends_all() {
        let meter = Meter::new(0, true);
        let numbers: Vec<u32> = (0..100).collect();
        let doubled = each(&numbers, 4, &meter, |number, _| Ok(number * 2)).unwrap();
        assert_eq!(doubled, numbers.iter().map(|number| number * 2).collect::<Vec<_>>());
        assert!(each(&[] as &[u32], 4, &meter, |_, _| Ok(())).unwrap().is_empty());
        let failure = each(&numbers, 4, &meter, |number, watch| match number {
            7 => Err(Error::new(ErrorKind::Other, "seven")),
            8.. => loop {
                watch.check()?;
                thread::yield_now();
            },
            _ => Ok(()),
        });
        assert_eq!(failure.unwrap_err().to_string(), "seven");
    }
}
