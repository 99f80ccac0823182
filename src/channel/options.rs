//! How a channel is opened.

use std::{fmt, marker::PhantomData, sync::Arc};

use crate::{
    OpenError,
    attachment::{Anchor, ChannelRequest, directory::End},
    channel::{Codec, Coded, Payload, Receiver, Sender, WaitStrategy},
    segment::name::Name,
};

/// A channel of a segment that is to be opened: made by [`Segment::channel`](crate::Segment::channel) and
/// [`Segment::bytes`](crate::Segment::bytes).
///
/// Whoever comes first creates the channel. Whoever comes later gets the same one, or [`OpenError::Mismatch`] if it
/// carries something else, or has another capacity than the one asked for.
#[must_use = "a channel is opened by `sender`, `receiver` or `open`"]
pub struct ChannelOptions<T: ?Sized> {
    attachment: Anchor,
    name: String,
    capacity: Option<usize>,
    persistent: bool,
    wait: WaitStrategy,
    first_position: u64,
    payload: PhantomData<fn(&T)>,
}

/// The largest capacity of a channel.
const MAX_CAPACITY: usize = 1 << 24;

impl<T: ?Sized> ChannelOptions<T> {
    pub(crate) fn new(attachment: Anchor, name: &str) -> Self {
        Self {
            attachment,
            name: name.to_owned(),
            capacity: None,
            persistent: false,
            wait: WaitStrategy::default(),
            first_position: 0,
            payload: PhantomData,
        }
    }

    /// The most messages that may wait to be received, from 1 to 2²⁴. Unless asked for, it is whatever the channel has,
    /// or 1024 for a new one.
    pub fn capacity(mut self, messages: usize) -> Self {
        self.capacity = Some(messages);
        self
    }

    /// Whether a new channel outlives its ends: messages wait for receivers that come later, receivers for senders that
    /// come back, and nothing is ever closed by leaving. Off by default. The channel still ends with its segment.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// How senders and receivers made by these options wait.
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.wait = strategy;
        self
    }

    /// The sequence number of a new channel's first message: for tests of what happens when numbers wrap around.
    #[doc(hidden)]
    pub fn first_sequence(mut self, sequence: u64) -> Self {
        self.first_position = sequence;
        self
    }

    fn enter(&self, ends: &[End]) -> Result<Arc<crate::attachment::port::Port>, OpenError>
    where
        T: Payload,
    {
        let name = Name::new(&self.name)?;
        let capacity = match self.capacity {
            Some(capacity) if !(1..=MAX_CAPACITY).contains(&capacity) => {
                return Err(OpenError::InvalidOptions(format!(
                    "a capacity of {capacity} messages is not possible: choose one from 1 to {MAX_CAPACITY}"
                )));
            }
            capacity => capacity.map(|capacity| capacity as u64),
        };
        self.attachment.open_channel(
            &ChannelRequest {
                name: name.as_str(),
                capacity,
                persistent: self.persistent,
                payload_size: T::SIZE,
                payload_align: T::ALIGN,
                payload_name: T::name(),
                first_position: self.first_position,
            },
            ends,
        )
    }

    /// A sender.
    ///
    /// # Errors
    ///
    /// [`OpenError::Mismatch`] if the channel is there and carries something else or has another capacity;
    /// [`OpenError::InvalidName`]; [`OpenError::InvalidOptions`] for an impossible capacity;
    /// [`OpenError::TooManyChannels`] or [`OpenError::OutOfMemory`] if there is no place for a new channel.
    pub fn sender(self) -> Result<Sender<T>, OpenError>
    where
        T: Payload,
    {
        Ok(Sender::new(self.enter(&[End::Sender])?, self.wait))
    }

    /// A receiver.
    ///
    /// # Errors
    ///
    /// As for [`sender`](Self::sender).
    pub fn receiver(self) -> Result<Receiver<T>, OpenError>
    where
        T: Payload,
    {
        Ok(Receiver::new(self.enter(&[End::Receiver])?, self.wait))
    }

    /// A sender and a receiver.
    ///
    /// # Errors
    ///
    /// As for [`sender`](Self::sender).
    pub fn open(self) -> Result<(Sender<T>, Receiver<T>), OpenError>
    where
        T: Payload,
    {
        let port = self.enter(&[End::Sender, End::Receiver])?;
        Ok((Sender::new(Arc::clone(&port), self.wait), Receiver::new(port, self.wait)))
    }
}

impl<T: 'static> ChannelOptions<T> {
    /// Has a codec write the values: `Postcard` or `Json`, behind features of their names, or [your own](Codec). For
    /// what is not [`Plain`](crate::Plain) data.
    ///
    /// The codec is part of what the channel carries: whoever comes with another one gets [`OpenError::Mismatch`]. Of
    /// the type only the name is compared; two versions of it are told apart when a message is decoded, if at all.
    ///
    /// # Examples
    ///
    #[cfg_attr(feature = "json", doc = "```")]
    #[cfg_attr(not(feature = "json"), doc = "```ignore")]
    /// use serde::{Deserialize, Serialize};
    /// use waterway::{Json, Segment};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Order { customer: String, items: Vec<u32> }
    ///
    /// # let segment = Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<Order>("orders").codec::<Json>().open()?;
    /// sender.try_send(Order { customer: "Ada".into(), items: vec![7, 9] })?;
    /// let message = receiver.try_recv()?;
    /// assert_eq!(message.as_ref(), br#"{"customer":"Ada","items":[7,9]}"#);
    /// assert_eq!(message.decode()?.items, [7, 9]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn codec<C: Codec<T>>(self) -> ChannelOptions<Coded<T, C>> {
        let Self { attachment, name, capacity, persistent, wait, first_position, payload: _ } = self;
        ChannelOptions { attachment, name, capacity, persistent, wait, first_position, payload: PhantomData }
    }
}

impl<T: ?Sized> fmt::Debug for ChannelOptions<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelOptions")
            .field("name", &self.name)
            .field("capacity", &self.capacity)
            .field("persistent", &self.persistent)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}
