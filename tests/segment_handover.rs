//! Segments without a name: handed over by descriptor, or for this process alone; and what `fork` makes of handles.

mod common;

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    process::{Command, Stdio},
};

use common::{Place, eventually, files, held, within};
use waterway::{OpenError, Receiver, Segment, Sender, TryRecvError, TrySendError};

const SIZE: usize = 1 << 20;

/// A message goes from one to the other.
fn talk(from: &Segment, to: &Segment) {
    let (sender, receiver) = (from.bytes("talk").sender().unwrap(), to.bytes("talk").receiver().unwrap());
    within(sender.send("how do you do")).unwrap();
    assert_eq!(&*within(receiver.recv()).unwrap(), b"how do you do");
}

#[test]
fn an_anonymous_segment_is_reached_by_its_descriptor_alone() {
    let one = Segment::options().size(SIZE).anonymous().unwrap();
    assert_eq!(one.name(), "");
    let descriptor = one.as_fd().unwrap().try_clone_to_owned().unwrap();
    let two = Segment::from_fd(descriptor.try_clone().unwrap()).unwrap();
    assert_eq!((one.id(), one.participants().len()), (two.id(), 2));
    talk(&one, &two);
    talk(&two, &one);
    let sender = one.bytes("kept").persistent(true).sender().unwrap();
    sender.try_send("for later").unwrap();
    drop((one, sender));
    assert_eq!(two.participants().len(), 1);
    drop(two);
    // The descriptor alone keeps it.
    let three = Segment::from_fd(descriptor).unwrap();
    assert_eq!(&*three.bytes("kept").receiver().unwrap().try_recv().unwrap(), b"for later");
}

#[test]
fn an_anonymous_segment_is_handed_to_another_process() {
    const TEST: &str = "an_anonymous_segment_is_handed_to_another_process";
    const ROLE: &str = "WATERWAY_TEST_DESCRIPTOR";
    if std::env::var_os(ROLE).is_some() {
        let segment = Segment::from_fd(io::stdin().as_fd().try_clone_to_owned().unwrap()).unwrap();
        let requests = segment.bytes("requests").receiver().unwrap();
        let replies = segment.bytes("replies").sender().unwrap();
        within(async {
            while let Some(request) = requests.recv().await {
                let reply: Vec<u8> = request.iter().rev().copied().collect();
                replies.send(reply).await.unwrap();
            }
        });
        return;
    }
    let segment = Segment::options().size(SIZE).anonymous().unwrap();
    let requests = segment.bytes("requests").persistent(false).sender().unwrap();
    let replies = segment.bytes("replies").receiver().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([TEST, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, "yes")
        .stdin(Stdio::from(segment.as_fd().unwrap().try_clone_to_owned().unwrap()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    within(async {
        for len in 0..1000_usize {
            let request: Vec<u8> = (0..len * 3).map(|index| index as u8).collect();
            requests.send(&request).await.unwrap();
            let mut reply = replies.recv().await.unwrap().to_vec();
            reply.reverse();
            assert_eq!(reply, request);
        }
    });
    drop(requests);
    assert!(within(replies.recv()).is_none(), "the child leaves when there are no more requests");
    assert!(child.wait().unwrap().success());
    drop(replies);
    assert_eq!(held(&segment), 0);
}

#[test]
fn nobody_can_truncate_an_anonymous_segment() {
    let segment = Segment::options().size(SIZE).anonymous().unwrap();
    let file = File::from(segment.as_fd().unwrap().try_clone_to_owned().unwrap());
    for len in [0, 4096, SIZE as u64 - 1, SIZE as u64 * 2] {
        assert_eq!(file.set_len(len).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
    assert_eq!(file.metadata().unwrap().len(), SIZE as u64);
    talk(&segment, &segment);
}

#[test]
fn a_descriptor_of_something_else_is_no_segment() {
    let place = Place::new();
    fs::write(place.path().join("text"), "text".repeat(1000)).unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let descriptors: [OwnedFd; 5] = [
        File::options().read(true).write(true).open(place.path().join("text")).unwrap().into(),
        File::options().read(true).write(true).open("/dev/null").unwrap().into(),
        reader.into(),
        writer.into(),
        File::open(place.path()).unwrap().into(),
    ];
    for (number, descriptor) in descriptors.into_iter().enumerate() {
        let error = Segment::from_fd(descriptor).unwrap_err();
        let fits = matches!(error, OpenError::NotASegment { .. } | OpenError::WrongOwner { .. } | OpenError::Io { .. });
        assert!(fits, "{number}: {error:?}");
    }
}

#[test]
fn a_segment_in_the_process_has_no_file() {
    let segment = Segment::options().size(SIZE).participants(7).in_process().unwrap();
    assert!(segment.as_fd().is_none());
    assert_eq!(segment.name(), "");
    assert_eq!(segment.participants().iter().map(|one| one.pid).collect::<Vec<_>>(), [std::process::id()]);
    talk(&segment, &segment.clone());
    assert_ne!(segment.id(), Segment::options().size(SIZE).in_process().unwrap().id());
    assert_eq!(held(&segment), 0);
}

/// What goes wrong in the child, as its exit code.
fn in_forked_child(work: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only does `work`, which takes no lock that another thread of the parent may hold except the
    // allocator's, which the C library hands over, and then ends without any cleaning up.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", io::Error::last_os_error()),
        0 => {
            let code = work();
            // SAFETY: it has no preconditions.
            unsafe { libc::_exit(code) }
        }
        child => {
            let mut status = 0;
            let mut result = 0;
            eventually("the child ends", || {
                // SAFETY: our child, and a place for its status.
                result = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
                result != 0
            });
            assert_eq!(result, child);
            if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
        }
    }
}

type Check = fn(&Segment, &Sender<[u8]>, &Receiver<[u8]>) -> bool;

/// What a forked child finds: the number of the first thing that is not as it should be, or 0.
fn use_inherited(segment: &Segment) -> i32 {
    let (sender, receiver) = segment.bytes("fork").open().unwrap();
    sender.try_send("before").unwrap();
    let code = in_forked_child(|| {
        let checks: [Check; 12] = [
            |_, sender, _| matches!(sender.try_send("child"), Err(TrySendError::Closed(_))),
            |_, _, receiver| matches!(receiver.try_recv(), Err(TryRecvError::Disconnected)),
            |segment, _, _| matches!(segment.bytes("fork").sender(), Err(OpenError::Forked)),
            |segment, _, _| matches!(segment.bytes("other").open(), Err(OpenError::Forked)),
            |segment, _, _| segment.id() == segment.clone().id(),
            |segment, _, _| segment.as_fd().is_none(),
            |_, sender, receiver| sender.is_closed() && receiver.is_empty(),
            |_, sender, receiver| {
                drop((sender.clone(), receiver.clone()));
                true
            },
            |segment, _, _| segment.participants().is_empty(),
            |segment, _, _| segment.channels().is_empty(),
            |segment, _, _| !segment.check().is_clean(),
            |segment, _, _| {
                segment.bury_the_dead();
                true
            },
        ];
        let failed = checks.iter().position(|holds| !holds(segment, &sender, &receiver));
        failed.map_or(0, |index| index as i32 + 1)
    });
    // The parent has noticed nothing.
    sender.try_send("after").unwrap();
    assert_eq!(&*receiver.try_recv().unwrap(), b"before");
    assert_eq!(&*receiver.try_recv().unwrap(), b"after");
    assert_eq!(receiver.try_recv().unwrap_err(), TryRecvError::Empty);
    drop((sender, receiver));
    assert_eq!((segment.participants().len(), held(segment)), (1, 0));
    code
}

#[test]
fn a_forked_child_may_use_no_inherited_handle_and_does_no_harm() {
    let place = Place::new();
    assert_eq!(use_inherited(&place.options().size(SIZE).create("forked").unwrap()), 0, "a named segment");
    assert_eq!(use_inherited(&Segment::options().size(SIZE).anonymous().unwrap()), 0, "an anonymous segment");
    assert_eq!(use_inherited(&Segment::options().size(SIZE).in_process().unwrap()), 0, "a segment on the heap");
    assert!(files(place.path()).is_empty());
}

#[test]
fn a_forked_child_that_drops_all_it_inherited_does_not_leave_for_its_parent() {
    let place = Place::new();
    let segment = place.options().size(SIZE).create("forked").unwrap();
    let other = place.options().open("forked").unwrap();
    let (sender, receiver) = (segment.bytes("b").sender().unwrap(), other.bytes("b").receiver().unwrap());
    sender.try_send("first").unwrap();
    sender.try_send("second").unwrap();
    let message = receiver.try_recv().unwrap();
    let mut inherited = Some((segment, sender, message));
    let code = in_forked_child(|| {
        drop(inherited.take());
        0
    });
    assert_eq!(code, 0);
    let (segment, sender, message) = inherited.unwrap();
    assert_eq!((&*message, segment.participants().len()), (&b"first"[..], 2));
    assert_eq!(&*receiver.try_recv().unwrap(), b"second");
    sender.try_send("third").unwrap();
    assert_eq!(&*receiver.try_recv().unwrap(), b"third");
    other.bury_the_dead();
    assert_eq!(other.participants().len(), 2);
    drop((segment, sender, message));
    assert!(within(receiver.recv()).is_none());
    assert_eq!((other.participants().len(), files(place.path())), (1, vec!["forked".to_owned()]));
}

#[test]
fn a_forked_child_opens_the_segment_anew() {
    let place = Place::new();
    let segment = place.options().size(SIZE).create("forked").unwrap();
    let receiver = segment.bytes("b").receiver().unwrap();
    let options = place.options();
    let code = in_forked_child(|| {
        let Ok(segment) = options.open("forked") else { return 1 };
        let Ok(sender) = segment.bytes("b").sender() else { return 2 };
        if sender.try_send("from the child").is_err() {
            return 3;
        }
        if segment.participants().len() != 2 {
            return 4;
        }
        drop((sender, segment));
        0
    });
    assert_eq!(code, 0);
    assert_eq!(&*within(receiver.recv()).unwrap(), b"from the child");
    assert!(within(receiver.recv()).is_none());
    assert_eq!(segment.participants().len(), 1);
}
