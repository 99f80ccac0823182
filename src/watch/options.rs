//! How a watch is opened.

use std::{fmt, marker::PhantomData, sync::Arc};

use crate::{
    OpenError,
    attachment::{
        Anchor, ChannelRequest,
        directory::{End, Kind},
        port::Port,
    },
    blocks::{Content, current::Name},
    channel::Plain,
    region,
    watch::{Receiver, Sender, value::View},
};

/// A watch of a segment that is to be opened: made by [`Segment::watch`](crate::Segment::watch).
///
/// Whoever comes first creates the watch. Whoever comes later gets the same one, or [`OpenError::Mismatch`] if its value is
/// of another type.
#[must_use = "a watch is opened by `sender`, `receiver` or `open`"]
pub struct Options<T: Content + ?Sized> {
    attachment: Anchor,
    name: String,
    persistent: Option<bool>,
    initial: Option<Vec<u8>>,
    value: PhantomData<fn(&T)>,
}

impl<T: Content + ?Sized> Options<T> {
    pub(crate) fn new(attachment: Anchor, name: &str) -> Self {
        Self { attachment, name: name.to_owned(), persistent: None, initial: None, value: PhantomData }
    }

    /// Whether the watch outlives its ends, with its value: nothing is closed by leaving. A new one does not unless that is asked
    /// for; for one that is there see [`ChannelOptions::persistent`](crate::ChannelOptions::persistent). It still ends with its segment.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = Some(persistent);
        self
    }

    fn enter(&self, ends: &[End]) -> Result<Arc<Port>, OpenError> {
        let name = region::name::Name::new(&self.name)?;
        let request = ChannelRequest {
            payload_size: T::SIZE,
            payload_align: T::ALIGN,
            schema: T::schema(),
            persistent: self.persistent,
            ..ChannelRequest::of_nothing(name.as_str(), Kind::Watch, None)
        };
        let port = self.attachment.open_channel(&request, ends)?;
        // Whoever has created it may have been killed before it had a value, or be about to give it one.
        if port.current() == Name::NONE
            && let Err(error) = self.give_initial(&port)
        {
            ends.iter().for_each(|end| port.leave(*end));
            return Err(error);
        }
        Ok(port)
    }

    fn give_initial(&self, port: &Port) -> Result<(), OpenError> {
        let len = match (&self.initial, T::SIZE) {
            (Some(initial), _) => initial.len(),
            (None, u64::MAX) => 0,
            (None, size) => size as usize,
        };
        let mut draft = port
            .draft(len, T::ALIGN as usize)
            .map_err(|source| OpenError::OutOfMemory { what: format!("the value of watch {:?}", self.name), source })?;
        match &self.initial {
            Some(initial) => draft.bytes_mut().copy_from_slice(initial),
            None => draft.bytes_mut().fill(0),
        }
        if T::view(draft.bytes_mut()).is_none() {
            return Err(OpenError::InvalidOptions(format!(
                "zeros are no {}: say what the value of watch {:?} is at first (watch::Options::initial)",
                T::schema().name(),
                self.name
            )));
        }
        // Of two who come at the same time one is first.
        port.publish_over(draft, Name::NONE);
        Ok(())
    }

    /// A sender.
    ///
    /// # Errors
    ///
    /// [`OpenError::Mismatch`] if the watch is there with a value of another type, or something else of that name;
    /// [`OpenError::InvalidName`]; [`OpenError::InvalidOptions`] if a new watch needs an [initial](Self#method.initial) value;
    /// [`OpenError::TooManyChannels`] or [`OpenError::OutOfMemory`] if there is no place for a new watch.
    pub fn sender(self) -> Result<Sender<T>, OpenError> {
        View::new(self.enter(&[End::Sender])?, End::Sender).map(Sender::new)
    }

    /// A receiver. It has seen the value that there is: [`changed`](Receiver::changed) waits for another one.
    ///
    /// # Errors
    ///
    /// As for [`sender`](Self::sender).
    pub fn receiver(self) -> Result<Receiver<T>, OpenError> {
        View::new(self.enter(&[End::Receiver])?, End::Receiver).map(Receiver::new)
    }

    /// A sender and a receiver.
    ///
    /// # Errors
    ///
    /// As for [`sender`](Self::sender).
    pub fn open(self) -> Result<(Sender<T>, Receiver<T>), OpenError> {
        let port = self.enter(&[End::Sender, End::Receiver])?;
        // Both are made, so that both leave if one cannot be.
        let (sender, receiver) = (View::new(Arc::clone(&port), End::Sender), View::new(port, End::Receiver));
        Ok((Sender::new(sender?), Receiver::new(receiver?)))
    }
}

impl<T: Plain> Options<T> {
    /// The value of a new watch; of one that is there, it stays as it is. Zeros, unless told otherwise.
    pub fn initial(mut self, value: T) -> Self {
        self.initial = Some(value.as_bytes().to_vec());
        self
    }
}

impl Options<[u8]> {
    /// The value of a new watch; of one that is there, it stays as it is. No bytes, unless told otherwise.
    pub fn initial(mut self, value: impl AsRef<[u8]>) -> Self {
        self.initial = Some(value.as_ref().to_vec());
        self
    }
}

impl<T: Content + ?Sized> fmt::Debug for Options<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("name", &self.name)
            .field("persistent", &self.persistent)
            .finish_non_exhaustive()
    }
}
