//! Nothing but a `stat` of every file below a directory, on all processors: what looking at a context costs at least.

use std::fs;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};

#[derive(Default)]
struct State {
    open: Vec<PathBuf>,
    busy: usize,
    files: usize,
}

fn main() {
    let Some(root) = std::env::args_os().nth(1) else {
        eprintln!("usage: stat_walk DIRECTORY");
        std::process::exit(2);
    };
    let state = Mutex::new(State { open: vec![PathBuf::from(root)], ..State::default() });
    let wake = Condvar::new();
    let work = || {
        let mut guard = state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(directory) = guard.open.pop() {
                guard.busy += 1;
                drop(guard);
                let (directories, files) = look_at(&directory);
                guard = state.lock().unwrap_or_else(PoisonError::into_inner);
                guard.busy -= 1;
                guard.open.extend(directories);
                guard.files += files;
                wake.notify_all();
            } else if guard.busy == 0 {
                return;
            } else {
                guard = wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
            }
        }
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 1..processors {
            scope.spawn(work);
        }
        work();
    });
    println!("{}", state.into_inner().unwrap_or_else(PoisonError::into_inner).files);
}

fn look_at(directory: &PathBuf) -> (Vec<PathBuf>, usize) {
    let mut directories = Vec::new();
    let mut files = 0;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => directories.push(entry.path()),
            Ok(_) => files += 1,
            Err(_) => {}
        }
    }
    (directories, files)
}
