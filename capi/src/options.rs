//! Options, as structures that begin with their size.
//!
//! A program says how large the structure was when it was compiled. One that is shorter than ours comes from an older header: what
//! it lacks is not asked for. One that is longer comes from a newer header: what is beyond must be zeros, for a library cannot
//! do what it has not heard of. So zero means "not asked for" in every field.

use std::{
    ffi::{c_char, c_void},
    mem::MaybeUninit,
    ptr, slice,
    time::Duration,
};

use waterway::{
    ChannelOptions, Delivery, Segment, SegmentOptions, WaitStrategy,
    broadcast::{self, Behind, GroupOptions},
    policy::{DeadLetter, Retention},
    service, watch,
};

use crate::{
    border::{bytes, text},
    status::Failure,
};

/// Yes, no, or not asked for.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ww_choice {
    /// As it is, or as it is by default.
    WW_DEFAULT = 0,
    /// No.
    WW_NO = 1,
    /// Yes.
    WW_YES = 2,
}

/// How often messages are delivered.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ww_delivery {
    /// As the channel does it; at most once, for a new one.
    WW_DELIVERY_DEFAULT = 0,
    /// What a process had received that died is gone.
    WW_AT_MOST_ONCE = 1,
    /// What was received comes back unless it is acknowledged: if its process dies, or by ww_msg_nack.
    WW_AT_LEAST_ONCE = 2,
}

/// How somebody waits.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ww_wait {
    /// Tries for some microseconds, for as long as that has paid lately, and then sleeps.
    WW_WAIT_ADAPTIVE = 0,
    /// Sleeps at once: the least work for the processor.
    WW_WAIT_PARK = 1,
}

/// Deliveries at most, where that is not asked for.
pub const WW_DEFAULT_MAX_DELIVERIES: u32 = 16;

/// How a segment is opened or made. What matters only for a new one is ignored if it is there.
///
/// Set all of it to zero, and then struct_size: `ww_segment_options options = { .struct_size = sizeof options };`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ww_segment_options {
    /// sizeof(ww_segment_options).
    pub struct_size: usize,
    /// Bytes that a new segment has at first, and has for good unless there is max_bytes; 0: 16 MiB, and it grows to 1 GiB.
    pub bytes: u64,
    /// Bytes to which it may grow; 0: it stays at `bytes`, if that is given.
    pub max_bytes: u64,
    /// The directory; NULL: $WATERWAY_DIR, or /dev/shm/waterway-<uid>. It must be private to the user.
    pub dir: *const c_char,
    /// The most processes at once, up to 1024; 0: 256.
    pub participants: u32,
    /// The most channels at once, up to 1024; 0: one for 16 KiB.
    pub channels: u32,
    /// A ww_choice: whether a new segment stays when the last process leaves. No by default.
    pub persistent: u32,
    /// A ww_choice: whether what is freed is overwritten with zeros. No by default.
    pub zero_on_free: u32,
    /// A ww_choice: whether this process asks for huge pages. No by default.
    pub huge_pages: u32,
    /// A ww_choice: whether this process touches all of the memory at once. No by default.
    pub populate: u32,
}

/// How a channel is opened. Whoever comes first makes it; who comes later and asks for something else is told WW_MISMATCH.
///
/// Set all of it to zero, and then struct_size: `ww_channel_options options = { .struct_size = sizeof options };`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ww_channel_options {
    /// sizeof(ww_channel_options).
    pub struct_size: usize,
    /// The most messages that may wait, from 1 to 2^24; 0: as the channel has it, or 1024.
    pub capacity: u64,
    /// A ww_delivery.
    pub delivery: u32,
    /// How often a message is delivered at most, where it is delivered at least once; 0: WW_DEFAULT_MAX_DELIVERIES.
    pub max_deliveries: u32,
    /// A ww_choice: whether the channel outlives its ends. A new one does not by default.
    pub persistent: u32,
    /// A ww_wait: how this end waits.
    pub wait: u32,
    /// Nanoseconds after which a message that waits is not delivered any more; 0: as the channel has it, or never.
    pub ttl_ns: u64,
    /// How many messages are kept: a sender drops the oldest and never waits; 0: as the channel has it, or senders wait.
    pub keep_last: u64,
    /// A ww_choice: whether as many messages are kept as the channel has capacity, and senders drop the oldest.
    pub overwrite_oldest: u32,
    /// Zero.
    pub reserved: u32,
    /// The channel for what was delivered too often, or whose time was over; NULL: as the channel has it, or none.
    pub dead_letter: *const c_char,
}

/// What happens when a group of subscribers falls behind.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ww_behind {
    /// As the group does it; a new one lags.
    WW_BEHIND_DEFAULT = 0,
    /// It misses the oldest messages, and is told how many.
    WW_LAG = 1,
    /// Publishers wait for it.
    WW_BLOCK = 2,
    /// Publishers wait for it for evict_after_ns, and then it is put out.
    WW_EVICT = 3,
}

/// How a broadcast is opened. Whoever comes first makes it, or the group; who comes later and asks for something else is told
/// WW_MISMATCH. What is of groups is ignored by ww_publisher_open.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ww_broadcast_options {
    /// sizeof(ww_broadcast_options).
    pub struct_size: usize,
    /// The most messages that a group may be behind, from 1 to 2^20; 0: as the broadcast has it, or 256.
    pub capacity: u64,
    /// How many of the latest messages are kept for groups that come later; 0: as the broadcast has it, or none.
    pub history: u64,
    /// How many groups there can be, from 1 to 64; 0: as the broadcast has it, or 16.
    pub max_groups: u32,
    /// A ww_wait: how this end waits.
    pub wait: u32,
    /// The group of the subscriber: each message goes to one member of each group. NULL: a group of its own.
    pub group: *const c_char,
    /// A ww_behind: what happens when the group falls behind.
    pub behind: u32,
    /// A ww_delivery, to the group.
    pub delivery: u32,
    /// How often a message is delivered to the group at most, up to 255; 0: WW_DEFAULT_MAX_DELIVERIES.
    pub max_deliveries: u32,
    /// A ww_choice: whether the group outlives its members. A new one does not by default.
    pub persistent: u32,
    /// For how many nanoseconds publishers wait for the group, with WW_EVICT.
    pub evict_after_ns: u64,
    /// With up to how many of the latest messages, of those that are kept, a new group begins.
    pub replay: u64,
}

/// How a service is opened. Whoever comes first makes it; who comes later and asks for something else is told WW_MISMATCH.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ww_service_options {
    /// sizeof(ww_service_options).
    pub struct_size: usize,
    /// The most requests that may wait for a server; 0: as the service has it, or 1024.
    pub capacity: u64,
    /// The most calls that this client may have in flight, of all threads; 0: 256.
    pub calls: u64,
    /// A ww_delivery: whether this client sends a request again whose server dies or gives it back.
    pub delivery: u32,
    /// How often at most; 0: WW_DEFAULT_MAX_DELIVERIES.
    pub max_deliveries: u32,
    /// A ww_choice: whether the service outlives its ends. A new one does not by default.
    pub persistent: u32,
    /// A ww_wait: how this end waits.
    pub wait: u32,
}

/// How a watch is opened. Whoever comes first makes it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ww_watch_options {
    /// sizeof(ww_watch_options).
    pub struct_size: usize,
    /// The value of a new watch; of one that is there, it stays as it is. NULL: no bytes.
    pub initial: *const c_void,
    /// How many bytes the value has.
    pub initial_len: usize,
    /// A ww_choice: whether the watch outlives its ends, with its value. A new one does not by default.
    pub persistent: u32,
    /// Zero.
    pub reserved: u32,
}

/// A structure of options.
///
/// # Safety
///
/// It is made of integers and pointers without padding, so that any bytes are one, and begins with its size, a `usize`.
pub(crate) unsafe trait Options: Copy {}

// SAFETY: it is. The fields say so, and `structures_have_no_padding`.
unsafe impl Options for ww_segment_options {}
// SAFETY: as above.
unsafe impl Options for ww_channel_options {}
// SAFETY: as above.
unsafe impl Options for ww_broadcast_options {}
// SAFETY: as above.
unsafe impl Options for ww_service_options {}
// SAFETY: as above.
unsafe impl Options for ww_watch_options {}

/// What C asks for: nothing, if it is NULL.
///
/// # Safety
///
/// `from` is NULL, or as many bytes can be read there as the size says with which it begins.
pub(crate) unsafe fn read<T: Options>(from: *const T) -> Result<T, Failure> {
    let mut options = MaybeUninit::<T>::zeroed();
    if !from.is_null() {
        // SAFETY: the caller's: there is a size at least.
        let size = unsafe { from.cast::<usize>().read() };
        if size < size_of::<usize>() {
            return Err(Failure::invalid(c"struct_size is not that of the structure: set it to sizeof"));
        }
        // SAFETY: the caller's.
        let given = unsafe { slice::from_raw_parts(from.cast::<u8>(), size) };
        if given.get(size_of::<T>()..).is_some_and(|beyond| beyond.iter().any(|byte| *byte != 0)) {
            return Err(Failure::invalid(c"an option is asked for that this version of the library has not got"));
        }
        // SAFETY: no more is copied than either has.
        unsafe {
            ptr::copy_nonoverlapping(given.as_ptr(), options.as_mut_ptr().cast(), size.min(size_of::<T>()));
        }
    }
    // SAFETY: any bytes are one, and all are written: zeros at first.
    Ok(unsafe { options.assume_init() })
}

/// What a [`ww_choice`] says, if anything.
fn choice(number: u32) -> Result<Option<bool>, Failure> {
    match number {
        0 => Ok(None),
        1 => Ok(Some(false)),
        2 => Ok(Some(true)),
        _ => Err(Failure::invalid(c"a ww_choice is none of WW_DEFAULT, WW_NO and WW_YES")),
    }
}

/// A number, if one is asked for.
fn number(number: u64) -> Result<Option<usize>, Failure> {
    let too_large = |_| Failure::invalid(c"a number in the options is too large");
    (number != 0).then(|| usize::try_from(number).map_err(too_large)).transpose()
}

/// What a [`ww_wait`] says.
pub(crate) fn wait(number: u32) -> Result<WaitStrategy, Failure> {
    match number {
        0 => Ok(WaitStrategy::Adaptive),
        1 => Ok(WaitStrategy::Park),
        _ => Err(Failure::invalid(c"a ww_wait is none of WW_WAIT_ADAPTIVE and WW_WAIT_PARK")),
    }
}

/// What a [`ww_delivery`] says, if anything.
pub(crate) fn delivery(number: u32, max_deliveries: u32) -> Result<Option<Delivery>, Failure> {
    let max_deliveries = if max_deliveries == 0 { WW_DEFAULT_MAX_DELIVERIES } else { max_deliveries };
    match number {
        0 => Ok(None),
        1 => Ok(Some(Delivery::AtMostOnce)),
        2 => Ok(Some(Delivery::AtLeastOnce { max_deliveries })),
        _ => {
            Err(Failure::invalid(c"a ww_delivery is none of WW_DELIVERY_DEFAULT, WW_AT_MOST_ONCE and WW_AT_LEAST_ONCE"))
        }
    }
}

/// Options for a segment.
///
/// # Safety
///
/// As for [`read`], and the directory is as for [`text`].
pub(crate) unsafe fn of_segment(from: *const ww_segment_options) -> Result<SegmentOptions, Failure> {
    // SAFETY: the caller's.
    let asked = unsafe { read(from) }?;
    let mut options = Segment::options();
    if let Some(bytes) = number(asked.bytes)? {
        options = options.size(bytes);
    }
    if let Some(bytes) = number(asked.max_bytes)? {
        options = options.max_size(bytes);
    }
    if !asked.dir.is_null() {
        // SAFETY: the caller's.
        options = options.dir(unsafe { text(asked.dir) }?);
    }
    if asked.participants != 0 {
        options = options.participants(asked.participants);
    }
    if asked.channels != 0 {
        options = options.channels(asked.channels);
    }
    if let Some(persistent) = choice(asked.persistent)? {
        options = options.persistent(persistent);
    }
    if let Some(zero) = choice(asked.zero_on_free)? {
        options = options.zero_on_free(zero);
    }
    if let Some(ask) = choice(asked.huge_pages)? {
        options = options.huge_pages(ask);
    }
    if let Some(populate) = choice(asked.populate)? {
        options = options.populate(populate);
    }
    Ok(options)
}

/// Options for a channel of that name.
///
/// # Safety
///
/// As for [`read`], and both names are as for [`text`].
pub(crate) unsafe fn of_channel(
    segment: &Segment,
    name: *const c_char,
    from: *const ww_channel_options,
) -> Result<ChannelOptions<[u8]>, Failure> {
    // SAFETY: the caller's.
    let (name, asked) = unsafe { (text(name)?, read(from)?) };
    if asked.reserved != 0 {
        return Err(Failure::invalid(c"`reserved` must be zero"));
    }
    let mut options = segment.bytes(name).wait(wait(asked.wait)?);
    if let Some(capacity) = number(asked.capacity)? {
        options = options.capacity(capacity);
    }
    if let Some(delivery) = delivery(asked.delivery, asked.max_deliveries)? {
        options = options.delivery(delivery);
    }
    if let Some(persistent) = choice(asked.persistent)? {
        options = options.persistent(persistent);
    }
    if asked.ttl_ns != 0 {
        options = options.policy(Retention::ttl(Duration::from_nanos(asked.ttl_ns)));
    }
    match (number(asked.keep_last)?, choice(asked.overwrite_oldest)?) {
        (Some(_), Some(true)) => {
            return Err(Failure::invalid(
                c"keep_last and overwrite_oldest say two things of the same: ask for one of them",
            ));
        }
        (Some(messages), _) => options = options.policy(Retention::keep_last(messages)),
        (None, Some(true)) => options = options.policy(Retention::overwrite_oldest()),
        (None, _) => {}
    }
    if !asked.dead_letter.is_null() {
        // SAFETY: the caller's.
        options = options.policy(DeadLetter::to(unsafe { text(asked.dead_letter) }?));
    }
    Ok(options)
}

/// Options for a broadcast of that name.
///
/// # Safety
///
/// As for [`read`], and the name is as for [`text`].
pub(crate) unsafe fn of_broadcast(
    segment: &Segment,
    name: *const c_char,
    from: *const ww_broadcast_options,
) -> Result<broadcast::Options<[u8]>, Failure> {
    // SAFETY: the caller's.
    let (name, asked) = unsafe { (text(name)?, read(from)?) };
    let mut options = segment.broadcast(name).wait(wait(asked.wait)?);
    if let Some(capacity) = number(asked.capacity)? {
        options = options.capacity(capacity);
    }
    if let Some(history) = number(asked.history)? {
        options = options.history(history);
    }
    if let Some(groups) = number(asked.max_groups.into())? {
        options = options.max_groups(groups);
    }
    Ok(options)
}

/// Options for a group of a broadcast of that name.
///
/// # Safety
///
/// As for [`read`], and both names are as for [`text`].
pub(crate) unsafe fn of_group(
    segment: &Segment,
    name: *const c_char,
    from: *const ww_broadcast_options,
) -> Result<GroupOptions<[u8]>, Failure> {
    // SAFETY: the caller's.
    let (broadcast, asked) = unsafe { (of_broadcast(segment, name, from)?, read(from)?) };
    let mut options = if asked.group.is_null() {
        broadcast.only()
    } else {
        // SAFETY: the caller's.
        broadcast.group(unsafe { text(asked.group) }?)
    };
    match asked.behind {
        0 => {}
        1 => options = options.behind(Behind::Lag),
        2 => options = options.behind(Behind::Block),
        3 => options = options.behind(Behind::Evict(Duration::from_nanos(asked.evict_after_ns))),
        _ => {
            return Err(Failure::invalid(c"a ww_behind is none of WW_BEHIND_DEFAULT, WW_LAG, WW_BLOCK and WW_EVICT"));
        }
    }
    if let Some(delivery) = delivery(asked.delivery, asked.max_deliveries)? {
        options = options.delivery(delivery);
    }
    if let Some(persistent) = choice(asked.persistent)? {
        options = options.persistent(persistent);
    }
    if let Some(messages) = number(asked.replay)? {
        options = options.history(messages);
    }
    Ok(options)
}

/// Options for a service of that name.
///
/// # Safety
///
/// As for [`read`], and the name is as for [`text`].
pub(crate) unsafe fn of_service(
    segment: &Segment,
    name: *const c_char,
    from: *const ww_service_options,
) -> Result<service::Options<[u8], [u8]>, Failure> {
    // SAFETY: the caller's.
    let (name, asked) = unsafe { (text(name)?, read(from)?) };
    let mut options = segment.service(name).wait(wait(asked.wait)?);
    if let Some(capacity) = number(asked.capacity)? {
        options = options.capacity(capacity);
    }
    if let Some(calls) = number(asked.calls)? {
        options = options.calls(calls);
    }
    if let Some(delivery) = delivery(asked.delivery, asked.max_deliveries)? {
        options = options.delivery(delivery);
    }
    if let Some(persistent) = choice(asked.persistent)? {
        options = options.persistent(persistent);
    }
    Ok(options)
}

/// Options for a watch of that name.
///
/// # Safety
///
/// As for [`read`]; the name is as for [`text`], the value as for [`bytes`].
pub(crate) unsafe fn of_watch(
    segment: &Segment,
    name: *const c_char,
    from: *const ww_watch_options,
) -> Result<watch::Options<[u8]>, Failure> {
    // SAFETY: the caller's.
    let (name, asked) = unsafe { (text(name)?, read(from)?) };
    if asked.reserved != 0 {
        return Err(Failure::invalid(c"`reserved` must be zero"));
    }
    // SAFETY: the caller's.
    let initial = unsafe { bytes(asked.initial, asked.initial_len) }?;
    let mut options = segment.watch::<[u8]>(name);
    if !initial.is_empty() {
        options = options.initial(initial);
    }
    if let Some(persistent) = choice(asked.persistent)? {
        options = options.persistent(persistent);
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options from a header that is so many bytes longer than ours, of that value.
    fn longer(beyond: u8) -> Result<ww_channel_options, Failure> {
        #[repr(C)]
        struct Longer {
            known: ww_channel_options,
            beyond: [u8; 16],
        }
        // SAFETY: any bytes are one.
        let mut given: Longer = unsafe { MaybeUninit::zeroed().assume_init() };
        given.known.struct_size = size_of::<Longer>();
        given.known.capacity = 7;
        given.beyond[15] = beyond;
        // SAFETY: it is as long as it says.
        unsafe { read((&raw const given).cast::<ww_channel_options>()) }
    }

    #[test]
    fn options_of_an_older_header_ask_for_nothing_more() {
        #[repr(C)]
        struct Shorter {
            struct_size: usize,
            capacity: u64,
        }
        let given = Shorter { struct_size: size_of::<Shorter>(), capacity: 7 };
        // SAFETY: it is as long as it says.
        let options = unsafe { read((&raw const given).cast::<ww_channel_options>()) }.unwrap();
        assert_eq!((options.capacity, options.delivery, options.dead_letter), (7, 0, ptr::null()));
    }

    #[test]
    fn options_of_a_newer_header_are_refused_only_if_they_ask_for_something_new() {
        assert_eq!(longer(0).unwrap().capacity, 7);
        let refused = longer(1).unwrap_err();
        assert_eq!(refused.status, crate::status::ww_status::WW_INVALID);
    }

    #[test]
    fn no_options_and_no_size_are_told_apart() {
        // SAFETY: NULL is possible.
        assert_eq!(unsafe { read(ptr::null::<ww_segment_options>()) }.unwrap().bytes, 0);
        let nothing = 0_usize;
        // SAFETY: there is a size.
        assert!(unsafe { read((&raw const nothing).cast::<ww_segment_options>()) }.is_err());
    }

    #[test]
    fn structures_have_no_padding() {
        assert_eq!(size_of::<ww_segment_options>(), 8 + 3 * 8 + 6 * 4);
        assert_eq!(size_of::<ww_channel_options>(), 8 + 8 + 4 * 4 + 2 * 8 + 2 * 4 + 8);
        assert_eq!(size_of::<ww_broadcast_options>(), 3 * 8 + 2 * 4 + 8 + 4 * 4 + 2 * 8);
        assert_eq!(size_of::<ww_service_options>(), 3 * 8 + 4 * 4);
        assert_eq!(size_of::<ww_watch_options>(), 3 * 8 + 2 * 4);
    }
}
