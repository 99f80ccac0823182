//! Where C calls: panics end here, failures become a status and a text, pointers become references.

use std::{
    any::Any,
    cell::RefCell,
    ffi::{CStr, c_char, c_void},
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
};

use crate::{
    born::Born,
    status::{Failure, Text, ww_status},
};

thread_local! {
    /// What the last function of this thread that failed has said.
    static LAST: RefCell<Text> = const { RefCell::new(Text::Fixed(c"")) };
}

/// What the last function that failed in this thread has to say, in English. Never NULL, and empty if none has failed. The text
/// stays until the next function fails in this thread; what succeeds leaves it.
#[unsafe(no_mangle)]
pub extern "C" fn ww_last_error() -> *const c_char {
    // A thread that ends has no text any more.
    LAST.try_with(|last| last.borrow().as_c_str().as_ptr()).unwrap_or(c"".as_ptr())
}

fn tell(failure: Failure) -> ww_status {
    // A thread that ends has nowhere to put it.
    let _ = LAST.try_with(|last| *last.borrow_mut() = failure.text);
    failure.status
}

/// What a panic said.
fn panicked(payload: &(dyn Any + Send)) -> Failure {
    let said = payload.downcast_ref::<&str>().copied();
    let said = said.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    Failure::made(ww_status::WW_PANIC, &format!("the library panicked: {}", said.unwrap_or("it said nothing")))
}

fn guarded<R>(work: impl FnOnce() -> Result<R, Failure>) -> Result<R, ww_status> {
    // What a panic leaves half done is behind handles, each of which stays as usable as the library's own types are.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(outcome) => outcome.map_err(tell),
        Err(payload) => {
            let failure = panicked(&*payload);
            // Whatever its end does must not panic here.
            std::mem::forget(payload);
            Err(tell(failure))
        }
    }
}

/// The body of a function that returns a status.
pub(crate) fn border(work: impl FnOnce() -> Result<(), Failure>) -> ww_status {
    match guarded(work) {
        Ok(()) => ww_status::WW_OK,
        Err(status) => status,
    }
}

/// The body of a function that returns a value: this one if it fails.
pub(crate) fn border_or<R>(otherwise: R, work: impl FnOnce() -> Result<R, Failure>) -> R {
    guarded(work).unwrap_or(otherwise)
}

/// What C has a pointer to, and calls by.
pub(crate) trait Handle {
    /// Where it was made.
    fn born(&self) -> Born;
}

/// A handle that C has given: one of this process.
///
/// # Safety
///
/// `pointer` is NULL, or came from [`give`] and was not [taken](take) back, nor is while the reference is in use.
pub(crate) unsafe fn handle<'a, H: Handle>(pointer: *const H) -> Result<&'a H, Failure> {
    // SAFETY: the caller's.
    let handle = unsafe { pointer.as_ref() }.ok_or(Failure::invalid(c"a handle is NULL"))?;
    handle.born().check()?;
    Ok(handle)
}

/// Makes a handle C's, and puts it where C wants it.
///
/// # Safety
///
/// A handle can be written to `to`, which is not NULL.
pub(crate) unsafe fn give<H>(to: *mut *mut H, handle: H) {
    // SAFETY: the caller's.
    unsafe { to.write(Box::into_raw(Box::new(handle))) };
}

/// Takes a handle back, wherever it was made.
///
/// # Safety
///
/// `pointer` is NULL, or came from [`give`], was not taken back before, and nobody uses it any more.
pub(crate) unsafe fn take<H>(pointer: *mut H) -> Result<Box<H>, Failure> {
    if pointer.is_null() {
        return Err(Failure::invalid(c"a handle is NULL"));
    }
    // SAFETY: the caller's.
    Ok(unsafe { Box::from_raw(pointer) })
}

/// Ends a handle, wherever it was made; nothing if it is NULL.
///
/// # Safety
///
/// As for [`take`].
pub(crate) unsafe fn close<H>(pointer: *mut H) {
    if !pointer.is_null() {
        border(|| {
            // SAFETY: the caller's.
            drop(unsafe { take(pointer) });
            Ok(())
        });
    }
}

/// Refuses NULL where something is to be put. What is there is set to NULL first, so that nobody takes what stood there for a
/// handle.
///
/// # Safety
///
/// `to` is NULL, or a handle can be written there.
pub(crate) unsafe fn place<H>(to: *mut *mut H) -> Result<*mut *mut H, Failure> {
    if to.is_null() {
        return Err(Failure::invalid(c"there is no place for the result: it is NULL"));
    }
    // SAFETY: the caller's.
    unsafe { to.write(std::ptr::null_mut()) };
    Ok(to)
}

/// Text that C has given.
///
/// # Safety
///
/// `text` is NULL, or ends with a zero byte, and stays as it is while it is in use.
pub(crate) unsafe fn text<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::invalid(c"a name is NULL"));
    }
    // SAFETY: the caller's.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::invalid(c"a name is not UTF-8"))
}

/// Bytes that C has given.
///
/// # Safety
///
/// `data` is NULL, or `len` bytes can be read there, and nobody writes there while they are in use.
pub(crate) unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Result<&'a [u8], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Failure::invalid(c"the data is NULL, and its length is not 0"));
    }
    if isize::try_from(len).is_err() {
        return Err(Failure::invalid(c"the length is more than there can be in one piece"));
    }
    // SAFETY: the caller's; it is not NULL, and not too long.
    Ok(unsafe { slice::from_raw_parts(data.cast(), len) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> &'static str {
        // SAFETY: the text ends with a zero byte, and stays until something fails in this thread.
        unsafe { CStr::from_ptr(ww_last_error()) }.to_str().unwrap()
    }

    #[test]
    fn a_panic_becomes_a_status_and_a_text() {
        assert_eq!(border(|| panic!("number {}", 7)), ww_status::WW_PANIC);
        assert_eq!(last(), "the library panicked: number 7");
        assert_eq!(border_or(5, || panic!("fixed")), 5);
        assert_eq!(last(), "the library panicked: fixed");
        assert_eq!(border(|| std::panic::panic_any(7)), ww_status::WW_PANIC);
        assert_eq!(last(), "the library panicked: it said nothing");
    }

    #[test]
    fn what_succeeds_leaves_the_text_and_threads_have_their_own() {
        assert_eq!(border(|| Err(Failure::full())), ww_status::WW_FULL);
        assert_eq!(border(|| Ok(())), ww_status::WW_OK);
        assert_eq!(last(), "there is no room now");
        std::thread::spawn(|| assert_eq!(last(), "")).join().unwrap();
    }
}
