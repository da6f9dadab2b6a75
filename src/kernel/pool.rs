//! Threads of the wasm module. JavaScript starts workers, each with an instance on the shared memory, that wait in [`work`] until
//! [`start`] makes them the pool of the thread that calls it.

use crate::error::Error;
use crate::error::Result;
use rayon::ThreadBuilder;
use rayon::ThreadPoolBuilder;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;

/// What the pool has for workers to become.
static THREADS: Mutex<Vec<ThreadBuilder>> = Mutex::new(Vec::new());
static ADDED: Condvar = Condvar::new();

/// Makes the pool: the calling thread, which then takes part, and one worker less than `threads`. Waits for the workers, so they
/// must get to [`work`] without the caller's help.
///
/// # Errors
/// [`Error::InvalidArgument`] when there is a pool already.
pub fn start(threads: usize) -> Result<()> {
    let give = |thread| {
        THREADS.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        ADDED.notify_one();
        Ok(())
    };
    let pool = ThreadPoolBuilder::new().num_threads(threads).use_current_thread().spawn_handler(give);
    pool.build_global().map_err(|e| Error::InvalidArgument(e.to_string()))
}

/// A worker's life; it ends with the page's or its worker's.
pub fn work() {
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let thread = loop {
        match threads.pop() {
            Some(thread) => break thread,
            None => threads = ADDED.wait(threads).unwrap_or_else(PoisonError::into_inner),
        }
    };
    drop(threads);
    thread.run();
}
