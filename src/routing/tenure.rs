//! What receivers have of a routed channel, and give back by dropping it.

use std::{
    ops::Deref,
    sync::{Arc, atomic::fence},
};

use crate::{
    attachment::{directory::End, port::Port},
    channel::{self, Payload},
    ring::routes::{Right, Routes},
    sys::sync::Ordering,
    wake::Waiter,
};

/// The most partitions.
pub(super) const MOST: usize = 256;

/// A process's hold on the head of a routed channel, which stays while there is one.
#[derive(Debug)]
pub(super) struct Head {
    port: Arc<Port>,
    routes: Routes,
}

impl Head {
    /// Takes over an end that has been entered; `None` if the head makes no sense.
    pub(super) fn new(port: Arc<Port>) -> Option<Self> {
        match port.routes() {
            Some(routes) if (1..=MOST).contains(&routes.len()) => Some(Self { port, routes }),
            _ => {
                port.leave(End::Sender);
                None
            }
        }
    }

    pub(super) fn partitions(&self) -> usize {
        self.routes.len()
    }

    pub(super) fn is_usable(&self) -> bool {
        self.port.attachment().is_usable()
    }

    /// The head outlives its ends from now on.
    pub(super) fn persist(&self) {
        self.port.persist();
    }

    /// All partitions have been entered: they are of one life from now on, and outlive their ends if the head does.
    pub(super) fn unite(&self, partitions: &[&Port]) {
        self.port.unite(partitions);
    }

    /// Some partitions have been entered, and left again.
    pub(super) fn unite_those_there(&self) {
        self.port.unite_those_there();
    }

    /// How often something has changed.
    pub(super) fn epoch(&self) -> u64 {
        self.port.epoch()
    }

    /// Tells all receivers that something has changed.
    pub(super) fn tell(&self) {
        self.port.notify_all();
    }

    /// A place among those who wait for a change, and know of so many.
    pub(super) fn wait_for_change(&self, known: u64) -> Waiter {
        self.port.wait_for_epoch(known)
    }

    /// How many partitions are for the receiver in a seat.
    pub(super) fn share(&self, seat: &Seat) -> usize {
        self.routes.share(seat.0.number)
    }

    /// A seat, if one is free.
    pub(super) fn sit(&self) -> Option<Seat> {
        (0..self.partitions()).find_map(|number| self.take(Right::Seat, number)).map(Seat)
    }

    /// A partition, if nobody has it.
    pub(super) fn tenure(&self, partition: usize, comes_back: bool, index: usize) -> Option<Tenure> {
        Some(Tenure { had: self.take(Right::Partition, partition)?, index, comes_back })
    }

    fn take(&self, right: Right, number: usize) -> Option<Had> {
        let me = self.port.attachment().region().me();
        self.routes.take(right, number, me).then(|| Had { head: self.clone(), right, number })
    }
}

impl Clone for Head {
    fn clone(&self) -> Self {
        self.port.duplicate(End::Sender);
        Self { port: Arc::clone(&self.port), routes: self.routes }
    }
}

impl Drop for Head {
    fn drop(&mut self) {
        self.port.leave(End::Sender);
    }
}

/// An end of a partition.
pub(super) trait PartitionEnd {
    fn port(&self) -> &Port;
}

impl<T: Payload + ?Sized> PartitionEnd for channel::Sender<T> {
    fn port(&self) -> &Port {
        &self.port
    }
}

impl<T: Payload + ?Sized> PartitionEnd for channel::Receiver<T> {
    fn port(&self) -> &Port {
        &self.port
    }
}

/// The ends of all partitions. Dropped, they leave as one: see R5 of [`routes`](crate::attachment::routes).
#[derive(Debug)]
pub(super) struct Ends<E: PartitionEnd> {
    ends: Box<[E]>,
    head: Head,
}

impl<E: PartitionEnd> Ends<E> {
    pub(super) fn new(ends: Vec<E>, head: Head) -> Self {
        Self { ends: ends.into(), head }
    }
}

impl<E: PartitionEnd> Deref for Ends<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &self.ends
    }
}

impl<E: PartitionEnd> Drop for Ends<E> {
    fn drop(&mut self) {
        let together = self.head.port.pin_together(self.ends.iter().map(|end| end.port().index()));
        self.ends = Box::default();
        drop(together);
    }
}

/// Something that nobody else has. Dropped, it is to be had, and all are told.
#[derive(Debug)]
struct Had {
    head: Head,
    right: Right,
    number: usize,
}

impl Drop for Had {
    fn drop(&mut self) {
        if self.head.is_usable() {
            self.head.routes.give(self.right, self.number, self.head.port.attachment().region().me());
            self.head.tell();
        }
    }
}

/// A seat: its receiver has a share of the partitions.
#[derive(Debug)]
pub(super) struct Seat(Had);

impl Seat {
    /// The first partition to look at, so that those in different seats begin at different ones.
    pub(super) fn first(&self) -> usize {
        self.0.number
    }
}

/// The right to take messages from a partition. Shared by a receiver and the messages that it was given.
#[derive(Debug)]
pub(super) struct Tenure {
    had: Had,
    /// The number of the partition's channel.
    index: usize,
    comes_back: bool,
}

impl Tenure {
    pub(super) fn partition(&self) -> usize {
        self.had.number
    }
}

/// A message's part of a tenure: to be dropped after the message.
#[derive(Clone, Debug)]
pub(super) struct Hold(pub(super) Arc<Tenure>);

impl Drop for Hold {
    fn drop(&mut self) {
        let Tenure { had: Had { head, .. }, index, comes_back } = &*self.0;
        if !comes_back || !head.is_usable() {
            return;
        }
        // Ordering: the message was acknowledged by a plain store. Either we see that the channel is over, or whoever looks
        // whether the last message was acknowledged, after it saw that, sees this one.
        fence(Ordering::SeqCst);
        if head.port.attachment().is_drained(*index) {
            head.tell();
        }
    }
}
