//! The same for each of many, several at once: for what waits for disks and servers.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Result;
use crate::step::internal;

/// How many at once.
const AT_ONCE: usize = 6;

/// Does `work` for each item; returns the results in the items' order, or the first failure.
pub(crate) fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    if let [item] = items {
        return Ok(vec![work(item)?]);
    }
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        let worker = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(number) else { return Ok(()) };
                let result = work(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
                results.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(result);
            }
        };
        let workers: Vec<_> = (0..AT_ONCE.min(items.len())).map(|_| scope.spawn(worker)).collect();
        let done = workers.into_iter().map(|worker| worker.join().map_err(|_| internal("work in parallel"))?);
        done.collect::<Vec<Result<()>>>().into_iter().collect::<Result<()>>()
    })?;
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().map(|result| result.ok_or_else(|| internal("work in parallel"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_and_a_failure_ends_it() {
        let items: Vec<usize> = (0..50).collect();
        assert_eq!(in_parallel(&items, |item| Ok(item * 2)).expect("no failure")[49], 98);
        let failed = in_parallel(&items, |item| if *item == 20 { Err(internal("twenty")) } else { Ok(()) });
        assert!(failed.expect_err("a failure").to_string().contains("twenty"));
        assert!(in_parallel(&[], |_: &u8| Ok(())).expect("nothing").is_empty());
    }
}
