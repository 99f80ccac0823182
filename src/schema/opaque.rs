//! [`Opaque`]: plain data of which no more is said than how large it is.

use std::ops::{Deref, DerefMut};

use zerocopy::{Immutable, IntoBytes, TryFromBytes};

use crate::{
    channel::Plain,
    schema::{
        Schema,
        written::{Body, name_of, plain},
    },
};

/// Plain data that is compared by its name, its size and its alignment only, whatever is known of its fields.
///
/// This is how a type is carried that has zerocopy's derives and no [`#[waterway::plain]`](macro@crate::plain): its fields cannot be
/// seen, so two versions of it that have other fields are taken for one type. A program whose type says its fields opens such a
/// channel as `Opaque` of it: an `Opaque<Tick>` is the same as a `Tick` that has the derives only.
///
/// ```
/// use waterway::{Schema, Segment, schema::Opaque};
///
/// mod elsewhere {
///     #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
///     #[repr(C)]
///     pub struct Sample { pub left: f32, pub right: f32 }
/// }
///
/// #[waterway::plain]
/// struct Sample { left: f32, right: f32 }
///
/// let segment = Segment::options().in_process()?;
/// let sender = segment.channel::<elsewhere::Sample>("samples").sender()?;
/// let receiver = segment.channel::<Opaque<Sample>>("samples").receiver()?;
/// sender.try_send(elsewhere::Sample { left: 0.5, right: 0.25 })?;
/// assert_eq!(receiver.try_recv()?.left, 0.5);
/// assert!(Schema::of::<elsewhere::Sample>().is_opaque());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// Without `KnownLayout`, as what the attribute makes: so it says its schema itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, TryFromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct Opaque<T>(pub T);

impl<T: TryFromBytes + IntoBytes + Immutable + Send + Sync + 'static> Plain for Opaque<T> {
    fn plain_schema() -> Schema {
        plain::<Self>(name_of::<T>(), Body::Opaque)
    }
}

impl<T> Deref for Opaque<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Opaque<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> From<T> for Opaque<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}
