//! Semaphores: permits that the threads of all processes share.

use std::ffi::c_char;

use waterway::semaphore::{OwnedPermit, Semaphore, TryAcquireError};

use crate::{
    border::{Handle, border, border_or, close, give, handle, place, take, text},
    born::Born,
    segment::ww_segment,
    status::{Failure, ww_status},
    wait::{Limit, block_on},
};

/// A semaphore, for any number of threads.
pub struct ww_semaphore {
    inner: Semaphore,
    born: Born,
}

impl Handle for ww_semaphore {
    fn born(&self) -> Born {
        self.born
    }
}

/// Permits of a semaphore that this process has. They come back if it dies.
pub struct ww_permit {
    permit: OwnedPermit,
    born: Born,
}

impl Handle for ww_permit {
    fn born(&self) -> Born {
        self.born
    }
}

/// Opens the semaphore of that name, which whoever comes first makes with so many permits; 0: as it was made, or 1. WW_MISMATCH if
/// it was made with another number.
///
/// # Safety
///
/// `segment` is a handle, or NULL; the name ends with a zero byte; a pointer can be written to `semaphore`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_semaphore_open(
    segment: *const ww_segment,
    name: *const c_char,
    permits: usize,
    semaphore: *mut *mut ww_semaphore,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe {
            let semaphore = place(semaphore)?;
            let mut options = handle(segment)?.inner.semaphore(text(name)?);
            if permits != 0 {
                options = options.permits(permits);
            }
            give(semaphore, ww_semaphore { inner: options.open()?, born: Born::here() });
        }
        Ok(())
    })
}

/// Closes this handle. Nothing if it is NULL.
///
/// # Safety
///
/// `semaphore` is a handle that nobody uses any more, or NULL. Its permits may be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_semaphore_close(semaphore: *mut ww_semaphore) {
    // SAFETY: the caller's.
    unsafe { close(semaphore) }
}

/// Acquires so many permits at once, and waits for them for so many nanoseconds; WW_FOREVER as long as that takes. WW_TIMEOUT; WW_CLOSED;
/// WW_TOO_MANY if there are not so many, free or held. To be ended by ww_permit_release or ww_permit_forget.
///
/// # Safety
///
/// `semaphore` is a handle, or NULL; a pointer can be written to `permit`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_semaphore_acquire(
    semaphore: *const ww_semaphore,
    permits: u32,
    timeout_ns: i64,
    permit: *mut *mut ww_permit,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (to, semaphore) = unsafe { (place(permit)?, handle(semaphore)?) };
        let acquired = block_on(Limit::of(timeout_ns), semaphore.inner.clone().acquire_many_owned(permits));
        let permit = acquired.ok_or(Failure::timed_out())??;
        // SAFETY: the caller's.
        unsafe { give(to, ww_permit { permit, born: Born::here() }) };
        Ok(())
    })
}

/// Acquires so many permits at once, if they are free now. WW_EMPTY, WW_CLOSED.
///
/// # Safety
///
/// As for ww_semaphore_acquire.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_semaphore_try_acquire(
    semaphore: *const ww_semaphore,
    permits: u32,
    permit: *mut *mut ww_permit,
) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let (to, semaphore) = unsafe { (place(permit)?, handle(semaphore)?) };
        let permit = semaphore.inner.clone().try_acquire_many_owned(permits).map_err(|error| match error {
            TryAcquireError::Closed => Failure::made(ww_status::WW_CLOSED, &error),
            _ => Failure::made(ww_status::WW_EMPTY, &error),
        })?;
        // SAFETY: the caller's.
        unsafe { give(to, ww_permit { permit, born: Born::here() }) };
        Ok(())
    })
}

/// Permits that are free now. 0 if the handle is NULL or inherited.
///
/// # Safety
///
/// `semaphore` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_semaphore_available(semaphore: *const ww_semaphore) -> usize {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(semaphore) }?.inner.available_permits()))
}

/// Adds so many permits for good, and returns how many were added: fewer if there would be more than 2^24. 0 if the handle is NULL or
/// inherited.
///
/// # Safety
///
/// `semaphore` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_semaphore_add(semaphore: *const ww_semaphore, permits: usize) -> usize {
    // SAFETY: the caller's.
    border_or(0, || Ok(unsafe { handle(semaphore) }?.inner.add_permits(permits)))
}

/// Closes the semaphore for everybody: whoever waits, and whoever comes, is told WW_CLOSED.
///
/// # Safety
///
/// `semaphore` is a handle, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_semaphore_shutdown(semaphore: *const ww_semaphore) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        unsafe { handle(semaphore) }?.inner.close();
        Ok(())
    })
}

/// Gives permits back. Nothing if it is NULL.
///
/// # Safety
///
/// `permit` is a handle that nobody uses any more, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_permit_release(permit: *mut ww_permit) {
    // SAFETY: the caller's.
    unsafe { close(permit) }
}

/// Takes permits away for good: the semaphore has so many fewer. The handle is gone, whatever this returns.
///
/// # Safety
///
/// `permit` is a handle that nobody uses any more, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ww_permit_forget(permit: *mut ww_permit) -> ww_status {
    border(|| {
        // SAFETY: the caller's.
        let permit = unsafe { take(permit) }?;
        permit.born.check()?;
        permit.permit.forget();
        Ok(())
    })
}
