//! The doorbell: the word on which a participant's bridge sleeps.
//!
//! `count:31 | asleep:1`
//!
//! | step | by | change |
//! |---|---|---|
//! | going to sleep | the bridge | `+3`: asleep, and a new count |
//! | awake | the bridge | `& !1` |
//! | ring | anybody | only if asleep: `+2`; then wake; then, if nothing has happened since, `& !1` |
//!
//! The new count per sleep lets a late ring change the value that the bridge is about to sleep on, and keeps a late
//! "nothing has happened" from clearing the flag of the *next* sleep. The flag is never cleared before the wake: whoever
//! died in between would leave the bridge asleep with nobody ringing any more.

use std::{cell::Cell, time::Duration};

use crate::sys::{futex::Futex, sync::Ordering};

const ASLEEP: u32 = 1;
const COUNT: u32 = 2;
/// What the bridge adds when it goes to sleep.
pub(super) const FALL_ASLEEP: u32 = COUNT + ASLEEP;

thread_local! {
    /// Whether this thread has woken a bridge lately.
    static RUNG: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread has woken another process since it was asked last.
pub(crate) fn has_rung() -> bool {
    RUNG.replace(false)
}

/// Whether a bridge sleeps on this doorbell for which nobody has rung.
#[inline(always)]
pub(super) fn is_asleep(bell: &Futex) -> bool {
    super::fence_for_models();
    // Ordering: SeqCst: {set pending, load doorbell} against {change doorbell, load pending}.
    bell.word().load(Ordering::SeqCst) & ASLEEP != 0
}

/// R5: wakes the bridge that sleeps on this doorbell, if it does.
#[cold]
pub(super) fn ring(bell: &Futex) {
    if !is_asleep(bell) {
        return;
    }
    let word = bell.word();
    // Ordering: SeqCst here and below, as there.
    let before = word.fetch_add(COUNT, Ordering::SeqCst);
    if before & ASLEEP != 0 {
        bell.wake_one();
        RUNG.set(true);
        let now = before.wrapping_add(COUNT);
        // Others need not call the kernel again for the same sleep. A failure means that there is another by now.
        let _ = word.compare_exchange(now, now & !ASLEEP, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// Wakes whoever sleeps on this doorbell, whatever it says: somebody may have overwritten it.
#[cold]
pub(super) fn insist(bell: &Futex) {
    // Ordering: SeqCst, as above. Who is about to sleep finds another word than it expects.
    bell.word().fetch_add(COUNT, Ordering::SeqCst);
    bell.wake_one();
}

/// Sleeps until somebody rings, for at most `time`, unless there is something to do already. A change of `watched`, from
/// what it is expected to be, ends the sleep, too.
pub(super) fn sleep(
    bell: &Futex,
    time: Option<Duration>,
    watched: Option<(&Futex, u32)>,
    nothing_to_do: impl FnOnce() -> bool,
) {
    let word = bell.word();
    let asleep = word.fetch_add(FALL_ASLEEP, Ordering::SeqCst).wrapping_add(FALL_ASLEEP);
    super::fence_for_models();
    if nothing_to_do() {
        match watched {
            Some(watched) => bell.wait_either(asleep, watched, time),
            None => bell.wait(asleep, time),
        }
    }
    word.fetch_and(!ASLEEP, Ordering::SeqCst);
}
