//! [`plain!`](crate::plain): plain data in one line.

/// Makes structs and enums [`Plain`](crate::channel::Plain) data, without a dependency on zerocopy of one's own.
///
/// Each struct becomes `#[repr(C)]`, and gets `Clone`, `Copy` and what zerocopy derives: `TryFromBytes`, `IntoBytes`,
/// `Immutable`, `KnownLayout`. Attributes, further derives and documentation stay as they are written. An enum must have
/// no fields, and says itself how large it is, with `#[repr(u8)]` for instance. Where only some bits are a value (`bool`,
/// an enum, a struct that has one), what arrives is checked; a struct in which any bits are a value costs no check.
///
/// Padding is refused by the compiler, as with zerocopy's own derives: order the fields by size, or fill the gap with a
/// field. For type parameters use those derives.
///
/// The crate must be called `waterway` in `Cargo.toml`.
///
/// ```
/// waterway::plain! {
///     /// A trade.
///     #[derive(Debug, PartialEq)]
///     pub struct Trade {
///         pub id: u64,
///         pub price: f64,
///         pub side: Side,
///         pub last: bool,
///         reserved: [u8; 6],
///     }
///
///     #[derive(Debug, PartialEq)]
///     #[repr(u8)]
///     pub enum Side { Buy = 1, Sell = 2 }
///
///     pub struct Price(pub u64);
/// }
///
/// let segment = waterway::Segment::options().in_process()?;
/// let (sender, receiver) = segment.channel::<Trade>("trades").open()?;
/// sender.try_send(Trade { id: 1, price: 99.5, side: Side::Sell, last: false, reserved: [0; 6] })?;
/// assert_eq!(receiver.try_recv()?.side, Side::Sell);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// What has padding does not compile:
///
/// ```compile_fail
/// waterway::plain! {
///     struct Gap { small: u8, large: u64 }
/// }
/// ```
#[macro_export]
macro_rules! plain {
    () => {};
    ($(#[$attribute:meta])* $visibility:vis struct $name:ident { $($fields:tt)* } $($rest:tt)*) => {
        $crate::plain_derives! {
            #[repr(C)]
            $(#[$attribute])* $visibility struct $name { $($fields)* }
        }
        $crate::plain! { $($rest)* }
    };
    ($(#[$attribute:meta])* $visibility:vis struct $name:ident ( $($fields:tt)* ); $($rest:tt)*) => {
        $crate::plain_derives! {
            #[repr(C)]
            $(#[$attribute])* $visibility struct $name ( $($fields)* );
        }
        $crate::plain! { $($rest)* }
    };
    ($(#[$attribute:meta])* $visibility:vis enum $name:ident { $($variants:tt)* } $($rest:tt)*) => {
        $crate::plain_derives! {
            $(#[$attribute])* $visibility enum $name { $($variants)* }
        }
        $crate::plain! { $($rest)* }
    };
}

/// What [`plain!`] puts before an item.
#[doc(hidden)]
#[macro_export]
macro_rules! plain_derives {
    ($($item:tt)*) => {
        #[derive(
            ::core::clone::Clone,
            ::core::marker::Copy,
            $crate::zerocopy::TryFromBytes,
            $crate::zerocopy::IntoBytes,
            $crate::zerocopy::Immutable,
            $crate::zerocopy::KnownLayout,
        )]
        #[zerocopy(crate = "::waterway::zerocopy")]
        $($item)*
    };
}
