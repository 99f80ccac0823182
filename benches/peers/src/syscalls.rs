//! System calls of this process, counted by the kernel where it lets us. Every call takes longer meanwhile, so this is not
//! done in the runs whose time is shown.

use std::{
    fs::{self, File},
    io::Read,
    os::fd::FromRawFd,
    sync::OnceLock,
};

static COUNTER: OnceLock<Option<File>> = OnceLock::new();

/// The kernel's description of a counter, as long as it was at first.
#[repr(C)]
#[derive(Default)]
struct Description {
    kind: u32,
    size: u32,
    config: u64,
    unused: [u64; 3],
    flags: u64,
    rest: [u64; 2],
}

const TRACEPOINT: u32 = 2;
/// Threads that are started later are counted, too.
const INHERIT: u64 = 1 << 1;

fn open() -> Option<File> {
    let event = "events/raw_syscalls/sys_enter/id";
    let id = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .iter()
        .find_map(|place| fs::read_to_string(format!("{place}/{event}")).ok()?.trim().parse().ok())?;
    let size = size_of::<Description>() as u32;
    let description = Description { kind: TRACEPOINT, size, config: id, flags: INHERIT, ..Description::default() };
    // SAFETY: the description is as long as it says; of this process, on any core, in no group, without flags.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const description, 0, -1, -1, 0) };
    // SAFETY: it is new and ours.
    (fd >= 0).then(|| unsafe { File::from_raw_fd(fd as i32) })
}

/// Whether they can be counted here.
pub fn can_be_counted() -> bool {
    open().is_some()
}

/// Counts from now on, in this thread and those that it starts.
pub fn count() {
    COUNTER.get_or_init(open);
}

/// How many there were since then.
pub fn seen() -> u64 {
    let mut value = [0; 8];
    let counter = COUNTER.get().and_then(Option::as_ref);
    let read = counter.map(|mut counter| counter.read_exact(&mut value));
    read.and_then(Result::ok).expect("who counts has looked whether it can be done");
    u64::from_ne_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_calls_of_other_threads_are_counted_too() {
        if !can_be_counted() {
            eprintln!("not tested: the kernel does not let us");
            return;
        }
        count();
        let before = seen();
        // SAFETY: a plain call.
        let call = || unsafe { libc::syscall(libc::SYS_getppid) };
        std::thread::spawn(move || (0..1000).map(|_| call()).sum::<i64>()).join().expect("it does not panic");
        assert!(seen() - before >= 1000);
    }
}
