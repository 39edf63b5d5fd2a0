//! Locking, whatever has become of those who held the lock before.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The guard of `mutex`, also when a thread has panicked with it: what is poisoned here is never inconsistent, since each critical section changes one
/// thing at a time.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
