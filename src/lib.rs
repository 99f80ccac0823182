//! Async channels between processes, through shared memory.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("waterway runs on Linux, x86-64 and AArch64: it needs futexes, OFD locks and 64-bit atomics");

pub(crate) mod alloc;
pub(crate) mod ring;
pub(crate) mod segment;
pub(crate) mod sys;
