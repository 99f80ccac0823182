//! Waterway for C: what `include/waterway.h` declares, and `docs/c.md` explains.
//!
//! What C sees is called here as it is there. A function holds to these rules, which `border.rs` keeps:
//!
//! * It returns a [`ww_status`](status::ww_status), or a value that says that there is none; then
//!   [`ww_last_error`](border::ww_last_error) has a text.
//! * No panic leaves it.
//! * NULL, or a number that means nothing, is an error. A pointer to what is no handle is undefined behaviour, as anywhere in C.
//! * A handle that a forked child inherited is an error, and can be closed.
//!
//! Handles may be used by several threads at once, but for the function that ends one.

#![allow(non_camel_case_types, reason = "what C sees is called here as it is there")]

mod bell;
pub mod border;
mod born;
pub mod broadcast;
pub mod channel;
pub mod message;
pub mod notify;
pub mod options;
pub mod segment;
pub mod semaphore;
pub mod service;
pub mod status;
mod wait;
pub mod watch;
