//! Observers beside all of it: they look at everything in a loop, and nothing may be different for that. What they see may be in the
//! middle of changing, so that a look fails; it must end, and most must not fail.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use waterway::{Observer, observer::ObserveError};

use crate::Result;

/// Between two looks: others need the processors, too.
const PAUSE: Duration = Duration::from_millis(10);

/// Processes that look, until they are asked to end.
pub(crate) struct Observers(Vec<Child>);

impl Drop for Observers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Observers {
    pub(crate) fn start(many: u64, place: &Path) -> Result<Self> {
        let mut observers = Self(Vec::new());
        for number in 0..many {
            let child = Command::new(std::env::current_exe()?)
                .env("WATERWAY_CHAOS_ROLE", format!("observer {number}"))
                .env("WATERWAY_CHAOS_PLACE", place)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            observers.0.push(child);
        }
        Ok(observers)
    }

    /// Asks them to end, and waits for it: how many looks they took, and how many of those failed.
    pub(crate) fn end(mut self) -> Result<(u64, u64)> {
        let (mut looks, mut failed) = (0, 0);
        self.0.iter_mut().for_each(|child| drop(child.stdin.take()));
        for child in &mut self.0 {
            let mut said = String::new();
            child.stdout.take().ok_or("no pipe")?.read_to_string(&mut said)?;
            let status = child.wait()?;
            let (all, bad) = said.trim().split_once(' ').ok_or("an observer says nothing")?;
            let (all, bad): (u64, u64) = (all.parse()?, bad.parse()?);
            if !status.success() || all == 0 || bad * 2 > all {
                return Err(format!("an observer took {all} looks, of which {bad} failed: {status}").into());
            }
            (looks, failed) = (looks + all, failed + bad);
        }
        Ok((looks, failed))
    }
}

/// Looks at all that there is.
fn look(observer: &Observer) -> std::result::Result<(), ObserveError> {
    observer.try_participants()?;
    observer.try_memory()?;
    for view in observer.try_channels()? {
        for looked in [
            observer.try_peek(&view.name, 8).map(drop),
            observer.follow(&view.name, 8).and_then(|mut follower| follower.look()).map(drop),
        ] {
            match looked {
                // It has gone, or has none.
                Err(ObserveError::NoChannel { .. } | ObserveError::NoMessages { .. }) => {}
                looked => looked?,
            }
        }
    }
    Ok(())
}

/// The life of an observer.
pub(crate) fn observe() -> Result<ExitCode> {
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        // Ordering: Relaxed: nothing else is told by it.
        IS_OVER.store(true, Ordering::Relaxed);
    });
    // The bounds of the others are to hold on a machine of two processors: they come first.
    // SAFETY: a plain system call, about this process.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    let place = PathBuf::from(std::env::var_os("WATERWAY_CHAOS_PLACE").ok_or("no place")?);
    let (mut looks, mut failed): (u64, u64) = (0, 0);
    // One look at least, however late it comes to that.
    loop {
        let looked = Observer::open_path(place.join("chaos"))?;
        looks += 1;
        failed += u64::from(look(&looked).is_err());
        // Ordering: Relaxed: as where it is set.
        if IS_OVER.load(Ordering::Relaxed) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    writeln!(std::io::stdout(), "{looks} {failed}")?;
    Ok(ExitCode::SUCCESS)
}
