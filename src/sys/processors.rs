//! How many processors the machine has.

use std::sync::OnceLock;

/// Whether another process can run while this one does: the machine has more than one processor, whichever of them this process
/// may use itself.
pub(crate) fn are_many() -> bool {
    static MANY: OnceLock<bool> = OnceLock::new();
    // SAFETY: asks for a number.
    *MANY.get_or_init(|| unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) } > 1)
}
