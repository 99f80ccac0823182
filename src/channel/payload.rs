//! What a message may be.

use std::any::{TypeId, type_name};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

use crate::{
    attachment::{
        ChannelRequest,
        directory::Kind,
        lease::{Held, Lease, Typed},
        policies::{Marks, PolicyRequest},
    },
    schema::{Schema, written::of_name},
    sys::prefetch,
};

mod sealed {
    pub trait Sealed {}
    impl<T: ?Sized> Sealed for T {}
}

/// Plain data that can stand in shared memory: no pointers, no padding, read in place.
///
/// A type of your own becomes plain by one line, [`#[waterway::plain]`](macro@crate::plain), or several at once by
/// [`plain_types!`](macro@crate::plain_types). Its [`Schema`] then says what it consists of, and two programs whose types of one name
/// have other fields do not connect:
///
/// ```
/// use waterway::channel::Plain;
///
/// #[waterway::plain]
/// #[derive(Clone, Copy, Debug)]
/// struct Tick {
///     id: u64,
///     price: f64,
/// }
///
/// fn is_plain<T: Plain>() {}
/// is_plain::<Tick>();
/// is_plain::<[Option<std::num::NonZeroU32>; 4]>();
/// ```
///
/// Plain is also whatever zerocopy says is safe to write as bytes ([`IntoBytes`]) and to check when it is read ([`TryFromBytes`];
/// types of which any bits are a value derive `FromBytes`, and are not checked at all): integers, floats, `bool`, `char`,
/// `NonZeroU32` and its kind, `Option` of those, `Wrapping`, `PhantomData`, numbers of a byte order, arrays of plain data, and types that
/// derive `FromBytes` (or `TryFromBytes`), `IntoBytes`, `Immutable` and `KnownLayout`. Nothing tells the fields of such a type, so it
/// is known by its name, its size and its alignment only, as an [`Opaque`](crate::schema::Opaque): **two versions of it whose fields
/// differ are taken for one**. The same holds for an array that is a payload by itself, whatever it is an array of; of an array in a
/// field, and of a slice, the elements are known.
///
/// What the compiler may lay out as it likes, another program may see otherwise, so these are not plain; put instead:
///
/// | | |
/// |---|---|
/// | `Duration`, `SystemTime`, `Instant` | nanoseconds: a `u64` |
/// | `Ipv4Addr`, `Ipv6Addr` | `u32`, `u128`, by `to_bits`; or `octets()` |
/// | `Uuid` | `[u8; 16]`, by `into_bytes` |
/// | a tuple | a struct, which may be a tuple struct |
/// | `Option<u32>` | `Option<NonZeroU32>`; or an enum with `#[repr(u32)]` |
///
/// Destructors do not run on either side: a value is bytes on the way.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not plain data, so it cannot stand in shared memory as it is",
    label = "not plain data",
    note = "a type of your own becomes plain by `#[waterway::plain]` before it",
    note = "`Duration`, tuples, IP addresses and the like have no layout to rely on: see `waterway::channel::Plain` for what to put \
            instead",
    note = "or let a codec write it: `segment.channel::<T>(name).codec::<Postcard>()`"
)]
pub trait Plain: TryFromBytes + IntoBytes + Immutable + Send + Sync + 'static {
    /// What it consists of.
    #[doc(hidden)]
    fn plain_schema() -> Schema;
}

// What the attribute makes lacks `KnownLayout`, and implements `Plain` itself. So does whatever knows its fields: a derive sees
// them, and this does not.
#[diagnostic::do_not_recommend]
impl<T: TryFromBytes + IntoBytes + KnownLayout + Immutable + Send + Sync + 'static> Plain for T {
    fn plain_schema() -> Schema {
        of_name(type_name::<T>(), size_of::<T>(), align_of::<T>())
    }
}

/// What a channel carries: [`Plain`] data; slices of it, of any length (`[u8]`: bytes); or [`Coded`](crate::channel::Coded), what a codec
/// writes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not plain data, so it cannot stand in shared memory as it is",
    label = "not plain data",
    note = "a type of your own becomes plain by `#[waterway::plain]` before it",
    note = "`Duration`, tuples, IP addresses and the like have no layout to rely on: see `waterway::channel::Plain` for what to put \
            instead",
    note = "or let a codec write it: `segment.channel::<T>(name).codec::<Postcard>()`"
)]
pub trait Payload: sealed::Sealed {
    /// Size in bytes; of slices that of an element, negative: `u64::MAX` for bytes, of which there may be any number.
    #[doc(hidden)]
    const SIZE: u64;
    /// Alignment in bytes.
    #[doc(hidden)]
    const ALIGN: u64;
    /// How a received payload is held: in place, and checked.
    #[doc(hidden)]
    type Held: Held + Send + Sync + Unpin + 'static;
    /// What is sent: what policies are asked about.
    #[doc(hidden)]
    type Value: ?Sized + 'static;

    /// What it looks like, by which two programs know that they mean the same.
    #[doc(hidden)]
    fn schema() -> Schema;

    /// Takes over a block that was received; `None` if what stands in it is no such payload, and then it is freed.
    #[doc(hidden)]
    fn arrive(block: Arrival) -> Option<Self::Held>;

    /// Asks about a payload that was received; `None` if it cannot be read.
    #[doc(hidden)]
    fn judge(held: &Self::Held, rules: &dyn Fn(&Self::Value) -> Marks) -> Option<Marks>;
}

impl<'a> ChannelRequest<'a> {
    /// A channel of such payloads, without policies, that delivers at most once.
    pub(crate) fn of<P: Payload + ?Sized>(name: &'a str) -> Self {
        Self {
            name,
            kind: Kind::Channel,
            capacity: None,
            asked: u64::MAX,
            persistent: None,
            payload_size: P::SIZE,
            payload_align: P::ALIGN,
            schema: P::schema(),
            as_it_is: false,
            first_position: 0,
            deliveries: Some(0),
            dead_letter: None,
            policies: PolicyRequest::NONE,
            slots: 0,
        }
    }
}

/// A block that was received, and belongs to this process.
#[derive(Debug)]
pub struct Arrival(Lease);

impl Arrival {
    pub(crate) fn new(whole: Lease) -> Self {
        Self(whole)
    }

    /// The block, for a payload that has another one in it.
    pub(crate) fn into_lease(self) -> Lease {
        self.0
    }

    /// The bytes that stand behind a header of so many; `None` if it says that there are more than there can be.
    #[inline]
    pub(super) fn framed(self, header: usize) -> Option<Lease> {
        let (len, _) = u64::read_from_prefix(self.0.bytes()).ok()?;
        self.0.narrow(header, usize::try_from(len).ok()?)
    }
}

#[diagnostic::do_not_recommend]
impl<T: Plain> Payload for T {
    const SIZE: u64 = size_of::<T>() as u64;
    const ALIGN: u64 = align_of::<T>() as u64;
    type Held = Typed<T>;
    type Value = T;

    fn schema() -> Schema {
        T::plain_schema()
    }

    #[inline(always)]
    fn arrive(block: Arrival) -> Option<Typed<T>> {
        Typed::new(block.0.narrow(0, size_of::<T>())?)
    }

    fn judge(held: &Typed<T>, rules: &dyn Fn(&T) -> Marks) -> Option<Marks> {
        Some(rules(held))
    }
}

/// Bytes of the header that stands before bytes: their number, and room to come.
pub(super) const BYTES_HEADER: usize = 16;
/// Alignment of a block of bytes; the payload itself has that of its header.
pub(super) const BYTES_ALIGN: usize = 16;

/// Bytes of the header that stands before elements of that alignment, and alignment of the block: the elements come behind it.
pub(crate) const fn header_of(align: usize) -> usize {
    if align > BYTES_HEADER { align } else { BYTES_HEADER }
}

/// The same for elements of a type.
pub(super) const fn header<T>() -> usize {
    header_of(align_of::<T>())
}

/// Elements of any number, which stand behind a header that has the number of their bytes. Bytes are elements of one byte.
impl<T: Plain> Payload for [T] {
    const SIZE: u64 = {
        assert!(size_of::<T>() > 0, "a slice in a segment cannot have elements of size 0: send their number instead");
        (size_of::<T>() as u64).wrapping_neg()
    };
    const ALIGN: u64 = align_of::<T>() as u64;
    type Held = Typed<[T]>;
    type Value = [T];

    fn schema() -> Schema {
        if TypeId::of::<T>() == TypeId::of::<u8>() { Schema::bytes() } else { Schema::slice_of::<T>() }
    }

    #[inline]
    fn arrive(block: Arrival) -> Option<Typed<[T]>> {
        prefetch::block_for_read(block.0.bytes().as_ptr(), block.0.bytes().len());
        Typed::new_slice(block.framed(header::<T>())?)
    }

    fn judge(held: &Typed<[T]>, rules: &dyn Fn(&[T]) -> Marks) -> Option<Marks> {
        Some(rules(held))
    }
}

/// A type's name without the paths of modules: `a::b::C<d::E>` is `C<E>`.
pub(crate) fn short_name(full: &str) -> String {
    let mut short = String::with_capacity(full.len());
    for part in full.split_inclusive(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        let path_end = part.trim_end_matches(|c: char| !(c.is_alphanumeric() || c == '_')).len();
        let last = part[..path_end].rfind("::").map_or(0, |at| at + 2);
        short.push_str(&part[last..]);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_modules_and_nothing_else() {
        assert_eq!(short_name("u64"), "u64");
        assert_eq!(short_name("my_crate::orders::Order"), "Order");
        assert_eq!(short_name("a::Pair<b::c::Left, [d::Right; 3]>"), "Pair<Left, [Right; 3]>");
        assert_eq!(short_name("(a::B, c::D)"), "(B, D)");
    }
}
