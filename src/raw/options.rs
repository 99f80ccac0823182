//! How a raw end is opened.

use std::sync::Arc;

use crate::{
    Delivery, OpenError, Schema, WaitStrategy,
    attachment::{
        Anchor, ChannelRequest,
        directory::{End, Kind},
        port::Port,
    },
    channel::checked_capacity,
    raw::{Receiver, Sender, ends::Described},
    region::name::Name,
};

/// A channel that is to be opened by who does not have its type: made by [`Segment::raw`](crate::Segment::raw).
#[derive(Debug)]
#[must_use = "a channel is opened by `sender`, `receiver` or `open`"]
pub struct Options {
    attachment: Anchor,
    name: String,
    schema: Option<Schema>,
    capacity: Option<usize>,
    persistent: Option<bool>,
    delivery: Option<Delivery>,
    wait: WaitStrategy,
}

impl Options {
    pub(crate) fn new(attachment: Anchor, name: &str, schema: Option<&Schema>) -> Self {
        Self {
            attachment,
            name: name.to_owned(),
            schema: schema.cloned(),
            capacity: None,
            persistent: None,
            delivery: None,
            wait: WaitStrategy::default(),
        }
    }

    /// As for [any channel](crate::ChannelOptions::capacity).
    pub fn capacity(mut self, messages: usize) -> Self {
        self.capacity = Some(messages);
        self
    }

    /// As for [any channel](crate::ChannelOptions::persistent).
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = Some(persistent);
        self
    }

    /// As for [any channel](crate::ChannelOptions::delivery).
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = Some(delivery);
        self
    }

    /// How ends made by these options wait.
    pub fn wait(mut self, strategy: WaitStrategy) -> Self {
        self.wait = strategy;
        self
    }

    fn enter(&self, ends: &[End]) -> Result<(Arc<Port>, Arc<Described>), OpenError> {
        let name = Name::new(&self.name)?;
        self.delivery.map_or(Ok(()), |delivery| delivery.check("message"))?;
        let mut request = ChannelRequest {
            persistent: self.persistent,
            deliveries: self.delivery.map(Delivery::deliveries),
            as_it_is: self.schema.is_none(),
            ..ChannelRequest::of_nothing(name.as_str(), Kind::Channel, checked_capacity(self.capacity, "messages")?)
        };
        if let Some(schema) = &self.schema {
            (request.payload_size, request.payload_align) = schema.size_and_alignment();
            request.schema = schema.clone();
        }
        let port = self.attachment.open_channel(&request, ends)?;
        let Some(described) = Described::of(&self.attachment, &port) else {
            ends.iter().for_each(|end| port.leave(*end));
            return Err(self.attachment.damaged(format!("channel {:?} carries what no type is like", name.as_str())));
        };
        Ok((port, Arc::new(described)))
    }

    /// A sender.
    ///
    /// # Errors
    ///
    /// [`OpenError::Mismatch`] if the channel is there and carries something else, or has another capacity or delivery, or if its
    /// messages have priorities, of which bytes say nothing; [`OpenError::InvalidOptions`] if there is no such channel and no schema
    /// was given, or for an impossible capacity; [`OpenError::InvalidName`]; [`OpenError::TooManyChannels`] or
    /// [`OpenError::OutOfMemory`] if there is no place for a new channel.
    pub fn sender(self) -> Result<Sender, OpenError> {
        let (port, described) = self.enter(&[End::Sender])?;
        Ok(Sender::new(port, self.wait, described))
    }

    /// A receiver.
    ///
    /// # Errors
    ///
    /// As for [`sender`](Self::sender).
    pub fn receiver(self) -> Result<Receiver, OpenError> {
        let (port, described) = self.enter(&[End::Receiver])?;
        Ok(Receiver::new(port, self.wait, described))
    }

    /// A sender and a receiver.
    ///
    /// # Errors
    ///
    /// As for [`sender`](Self::sender).
    pub fn open(self) -> Result<(Sender, Receiver), OpenError> {
        let (port, described) = self.enter(&[End::Sender, End::Receiver])?;
        let sender = Sender::new(Arc::clone(&port), self.wait, Arc::clone(&described));
        Ok((sender, Receiver::new(port, self.wait, described)))
    }
}
