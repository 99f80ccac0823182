//! A word that the kernel marks when the thread that holds it ends: a push where locks can only be asked.
//!
//! Reference: `set_robust_list(2)` and the kernel's *robust futexes*. A thread registers a list of words; when it ends,
//! however it does, the kernel sets `FUTEX_OWNER_DIED` in those that hold its thread number, and wakes one sleeper if
//! `FUTEX_WAITERS` is set. The list stands in memory of the thread's own; only the word is shared, so no pointer ever is.

use std::{
    cell::{RefCell, UnsafeCell},
    sync::atomic::Ordering,
};

use crate::sys::{futex::Futex, shared::SharedRef};

const OWNER_DIED: u32 = 0x4000_0000;
const WAITERS: u32 = 0x8000_0000;

/// Whether somebody holds the word, so that there is a death to wait for.
pub(crate) fn is_held(word: u32) -> bool {
    word & OWNER_DIED == 0 && word & !WAITERS != 0
}

/// Whether whoever held the word has died.
pub(crate) fn is_orphan(word: u32) -> bool {
    word & OWNER_DIED != 0
}

#[repr(C)]
struct Node {
    next: *const Node,
}

/// What the kernel reads when the thread ends: `struct robust_list_head`, and the one entry of the list.
#[repr(C)]
struct List {
    first: Node,
    /// From a node to its word.
    offset: libc::c_long,
    pending: *const Node,
    only: Node,
}

/// Bytes of `struct robust_list_head`.
const HEAD_BYTES: usize = 3 * size_of::<usize>();

/// The word that this thread holds.
struct Held {
    word: SharedRef<Futex>,
    list: Box<UnsafeCell<List>>,
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// Lets go of the word when it is dropped, if [`let_go`] has not been called before.
#[derive(Debug)]
#[must_use = "the word is held for as long as this lives"]
pub(crate) struct Hold(());

impl Drop for Hold {
    fn drop(&mut self) {
        let_go();
    }
}

/// Holds the word until it is let go, or until the thread dies. A thread can hold one word, and must not use the C
/// library's robust mutexes besides. Does nothing where the kernel refuses.
pub(crate) fn hold(word: SharedRef<Futex>) -> Hold {
    let list = Box::new(UnsafeCell::new(List {
        first: Node { next: std::ptr::null() },
        offset: 0,
        pending: std::ptr::null(),
        only: Node { next: std::ptr::null() },
    }));
    let at = list.get();
    // SAFETY: the list is ours and nobody else looks at it yet; it is not moved, as it stands in a box.
    unsafe {
        let only = &raw const (*at).only;
        (*at).only.next = &raw const (*at).first;
        (*at).offset = (std::ptr::from_ref(word.word()) as isize - only as isize) as libc::c_long;
        (*at).first.next = only;
    }
    // SAFETY: the list stays where it is until `let_go` takes it back; the size is that of its head.
    let set = unsafe { libc::syscall(libc::SYS_set_robust_list, at, HEAD_BYTES) };
    if set != 0 {
        return Hold(());
    }
    let me = rustix::thread::gettid().as_raw_nonzero().get() as u32;
    word.word().store(me | WAITERS, Ordering::SeqCst);
    HELD.set(Some(Held { word, list }));
    Hold(())
}

/// Lets go of the word that this thread holds, if it does, and tells whoever watches it.
pub(crate) fn let_go() {
    let Some(Held { word, list }) = HELD.take() else { return };
    // SAFETY: takes the list back; the kernel does not look at it any more.
    unsafe { libc::syscall(libc::SYS_set_robust_list, std::ptr::null::<List>(), HEAD_BYTES) };
    drop(list);
    word.word().store(0, Ordering::SeqCst);
    word.wake_one();
}
