//! Segments.

use std::{
    ffi::{CString, c_char},
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    ptr,
};

use waterway::{OpenError, Segment, SegmentOptions};

use crate::{
    border::{Handle, border, border_or, close, give, handle, place, text},
    born::Born,
    options::{of_segment, ww_segment_options},
    status::{Failure, ww_status},
};

/// A hold on a segment: a region of memory that processes share, in which channels live.
///
/// Ends, messages and loans keep the segment as well, so they may be closed in any order. A process should open a segment once, and
/// share the handle between its threads.
pub struct ww_segment {
    pub(crate) inner: Segment,
    name: CString,
    path: Option<CString>,
    born: Born,
}

impl ww_segment {
    fn new(inner: Segment) -> Self {
        // Neither has a zero byte: the library has made files of them.
        let c_string = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
        let path = inner.path().map(|path| c_string(path.as_os_str().as_bytes()));
        Self { name: c_string(inner.name().as_bytes()), path, inner, born: Born::here() }
    }
}

impl Handle for ww_segment {
    fn born(&self) -> Born {
        self.born
    }
}

/// Opens or makes a named segment.
///
/// # Safety
///
/// As for the functions that call it.
unsafe fn named(
    name: *const c_char,
    options: *const ww_segment_options,
    segment: *mut *mut ww_segment,
    open: impl FnOnce(SegmentOptions, &str) -> Result<Segment, OpenError>,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let segment = place(segment)?;
            let inner = open(of_segment(options)?, text(name)?)?;
            give(segment, ww_segment::new(inner));
        }
        Ok(())
    })
}

/// Opens the segment of that name, or makes it. However many processes do so at once, all get the same one. Options may be NULL.
///
/// # Safety
///
/// The name ends with a zero byte; the options are NULL, or as long as they say, and their strings end with zero bytes; a pointer
/// can be written to `segment`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_segment_open_or_create(
    name: *const c_char,
    options: *const ww_segment_options,
    segment: *mut *mut ww_segment,
) -> ww_status {
    // SAFETY: the caller's.
    unsafe { named(name, options, segment, SegmentOptions::open_or_create) }
}

/// Makes a segment of that name. WW_EXISTS if somebody is using one. Options may be NULL.
///
/// # Safety
///
/// As for ww_segment_open_or_create.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_segment_create(
    name: *const c_char,
    options: *const ww_segment_options,
    segment: *mut *mut ww_segment,
) -> ww_status {
    // SAFETY: the caller's.
    unsafe { named(name, options, segment, SegmentOptions::create) }
}

/// Opens the segment of that name. WW_NOT_FOUND if there is none. Options may be NULL.
///
/// # Safety
///
/// As for ww_segment_open_or_create.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_segment_open(
    name: *const c_char,
    options: *const ww_segment_options,
    segment: *mut *mut ww_segment,
) -> ww_status {
    // SAFETY: the caller's.
    unsafe { named(name, options, segment, SegmentOptions::open) }
}

/// Makes a segment without a name. Others attach to it by its descriptor: ww_segment_fd, handed over by inheritance or SCM_RIGHTS,
/// and ww_segment_from_fd. Options may be NULL.
///
/// # Safety
///
/// As for ww_segment_open_or_create.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_segment_anonymous(
    options: *const ww_segment_options,
    segment: *mut *mut ww_segment,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let segment = place(segment)?;
            give(segment, ww_segment::new(of_segment(options)?.anonymous()?));
        }
        Ok(())
    })
}

/// Attaches to an anonymous segment by its descriptor, which stays the caller's.
///
/// # Safety
///
/// A pointer can be written to `segment`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_segment_from_fd(fd: i32, segment: *mut *mut ww_segment) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let segment = unsafe { place(segment) }?;
        if fd < 0 {
            return Err(Failure::invalid(c"the descriptor is negative"));
        }
        // SAFETY: it is used for this call only. If it is not open, the system call says so.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let fd = fd.try_clone_to_owned();
        let fd = fd.map_err(|error| Failure::made(ww_status::WW_INVALID, &format!("the descriptor: {error}")))?;
        // SAFETY: the caller's.
        unsafe { give(segment, ww_segment::new(Segment::from_fd(fd)?)) };
        Ok(())
    })
}

/// The descriptor of the segment, to hand to another process; it stays the segment's. -1 if it has none.
///
/// # Safety
///
/// `segment` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_segment_fd(segment: *const ww_segment) -> i32 {
    border_or(-1, || {
        // SAFETY: the caller's.
        let segment = unsafe { handle(segment) }?;
        let none = Failure::invalid(c"the segment has no descriptor");
        segment.inner.as_fd().map(|fd| fd.as_raw_fd()).ok_or(none)
    })
}

/// Leaves the segment, as far as this handle goes. Nothing if it is NULL.
///
/// # Safety
///
/// `segment` is a handle that nobody uses any more, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_segment_close(segment: *mut ww_segment) {
    // SAFETY: the caller's.
    unsafe { close(segment) }
}

/// The segment's name, empty for one without. It stays as long as the handle. NULL if that is NULL, or inherited.
///
/// # Safety
///
/// `segment` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_segment_name(segment: *const ww_segment) -> *const c_char {
    // SAFETY: the caller's.
    border_or(ptr::null(), || Ok(unsafe { handle(segment) }?.name.as_ptr()))
}

/// Where the segment's file is. It stays as long as the handle. NULL if it has none, or if the handle is NULL or inherited.
///
/// # Safety
///
/// `segment` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_segment_path(segment: *const ww_segment) -> *const c_char {
    border_or(ptr::null(), || {
        // SAFETY: the caller's.
        let segment = unsafe { handle(segment) }?;
        segment.path.as_ref().map(|path| path.as_ptr()).ok_or(Failure::invalid(c"the segment has no file"))
    })
}

/// Bytes that messages, loans and channels of all processes hold now. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `segment` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_segment_held_bytes(segment: *const ww_segment) -> usize {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(segment) }?.inner.stats().held_bytes()))
}

/// Checks the segment's memory. WW_DAMAGED, with a text, if something is wrong. Exact only while nobody works in the segment; it takes
/// time in proportion to the size.
///
/// # Safety
///
/// `segment` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_segment_check(segment: *const ww_segment) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let report = unsafe { handle(segment) }?.inner.check();
        if report.is_clean() {
            return Ok(());
        }
        Err(Failure::made(ww_status::WW_DAMAGED, &report.problems.join("; ")))
    })
}

/// Removes the name of a segment. Whoever has it open goes on. Of the options, which may be NULL, the directory counts.
///
/// # Safety
///
/// As for ww_segment_open_or_create.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_segment_remove(name: *const c_char, options: *const ww_segment_options) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (options, name) = unsafe { (of_segment(options)?, text(name)?) };
        Ok(options.remove(name)?)
    })
}

/// Removes what processes have left behind that died before they could, and puts how many segments that were to `removed`, unless
/// it is NULL. Of the options, which may be NULL, the directory counts.
///
/// # Safety
///
/// The options are as for ww_segment_open_or_create; `removed` is NULL, or can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_segment_sweep(options: *const ww_segment_options, removed: *mut usize) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let swept = unsafe { of_segment(options) }?.sweep()?;
        if !removed.is_null() {
            // SAFETY: the caller's.
            unsafe { removed.write(swept.len()) };
        }
        Ok(())
    })
}
