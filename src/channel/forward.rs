//! Moving messages that are in the segment already: on to another channel, or out of the way of a newer one.

use crate::{
    attachment::{lease::Held, policies::Marks, port::Refused},
    channel::{
        error::{ForwardError, TrySendError},
        message::Message,
        payload::{Payload, header_of},
        sendable::Sendable,
        sender::Sender,
    },
};

/// How often in a row there may be neither room nor a message that could go.
const LOOKS: usize = 100;

impl<T: Payload + ?Sized> Message<T> {
    /// Sends the message on into another channel of the segment, without a copy: its block moves. There it is a new
    /// message, with a sequence number of that channel, sent by this thread.
    ///
    /// Where either channel delivers [at least once](crate::Delivery::AtLeastOnce) or has [policies](crate::ChannelOptions::policy), it
    /// may have to be copied; it is acknowledged once the copy is on its way. The policies of the other channel hold for it from
    /// then on, as if it were sent anew.
    ///
    /// It never waits. If there is no room (or no memory for a copy), the message comes back in the error.
    ///
    /// # Errors
    ///
    /// [`ForwardError`] with the message.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.bytes("in").open()?;
    /// let (onward, end) = segment.bytes("out").open()?;
    /// sender.try_send("a long text")?;
    /// let message = receiver.try_recv()?;
    /// let at = message.as_ptr();
    /// message.forward(&onward)?;
    /// let message = end.try_recv()?;
    /// assert_eq!((&*message, message.as_ptr()), (&b"a long text"[..], at));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn forward(self, to: &Sender<T>) -> Result<(), ForwardError<T>> {
        if !to.port.attachment().keeps(self.body.lease().attachment()) {
            return Err(ForwardError::OtherSegment(self));
        }
        let Self { body, sequence, sender } = self;
        let marks = to.rules().and_then(|rules| T::judge(&body, &**rules)).unwrap_or_default();
        body.give(|lease| to.port.try_send_on(&to.position, lease, header_of(T::ALIGN as usize), marks)).map_err(
            |(refused, body)| {
                let message = Self { body, sequence, sender };
                match refused {
                    Refused::Full | Refused::Memory(_) => ForwardError::Full(message),
                    // Only the first of these happens.
                    Refused::Closed | Refused::Unwritten => ForwardError::Closed(message),
                }
            },
        )
    }
}

impl<T: Payload + ?Sized> Sender<T> {
    /// Sends a value now, if need be in place of the oldest message that waits: that one is received, as a receiver would
    /// receive it, and returned. It never waits. Where there are [priorities](crate::policy::Priority), the oldest of the same one.
    ///
    /// Messages that [came back](crate::Delivery::AtLeastOnce) take up no room, so none of them has to go.
    ///
    /// If other senders are quicker in taking the room that was made, more than one message has to go; the last of them
    /// is returned.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the value. [`Full`](TrySendError::Full) means that there is no message that could go: all the
    /// room is reserved by permits.
    /// [`OutOfMemory`](TrySendError::OutOfMemory) means that there was no block even after the messages that had to go
    /// were dropped, if there were any.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<u64>("latest").capacity(2).open()?;
    /// assert!(sender.force_send(1)?.is_none());
    /// assert!(sender.force_send(2)?.is_none());
    /// assert_eq!(*sender.force_send(3)?.unwrap(), 1);
    /// assert_eq!((*receiver.try_recv()?, *receiver.try_recv()?), (2, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn force_send<V: Sendable<T>>(&self, value: V) -> Result<Option<Message<T>>, TrySendError<V>> {
        let mut value = value;
        let mut displaced: Option<Message<T>> = None;
        let mut vain = 0;
        loop {
            value = match self.try_send_value(value) {
                Ok(()) => return Ok(displaced),
                Err(TrySendError::Full(value)) => {
                    match self.take_oldest(self.marks(value.value())) {
                        Some(oldest) => (displaced, vain) = (Some(oldest), 0),
                        // Others were quicker, for a few times. Or whoever has the room keeps it.
                        None if vain == LOOKS => return Err(TrySendError::Full(value)),
                        None => vain += 1,
                    }
                    value
                }
                // What had to go gives its memory to what comes.
                Err(TrySendError::OutOfMemory(value)) if displaced.take().is_some() => value,
                Err(error) => return Err(error),
            };
        }
    }

    /// Receives the oldest message; `None` if somebody else did, or it made no sense.
    fn take_oldest(&self, marks: Marks) -> Option<Message<T>> {
        Message::arrive(&self.port, self.port.try_displace(marks)?)
    }
}
