//! A segment file with wrong bytes is opened and used.
#![no_main]

#[path = "../src/attach.rs"]
mod attach;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    attach::run(data);
});
