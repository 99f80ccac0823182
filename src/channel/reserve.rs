//! Taking capacity in advance.

use std::iter;

use crate::{
    alloc::AllocError,
    attachment::{
        port::{Port, Refused},
        reserve::{Patience, Slot},
    },
    channel::{
        error::{SendError, SendErrorKind, TrySendError},
        payload::{Payload, Plain, header},
        permit::{OwnedPermit, Permit, PermitIterator},
        sendable::{Sendable, elements_len},
        sender::{Sender, Wait, refusal},
        wait::block_on,
    },
};

/// Reserving, whatever the payload.
impl<T: Payload + ?Sized> Sender<T> {
    /// One slot, now.
    fn attempt_slot(&self, size: usize, align: usize) -> Result<Slot, Refused> {
        self.port.try_reserve(&self.position, 1, Patience::None, || self.port.slot(size, align))
    }

    /// One slot, as soon as there is room and memory.
    async fn slot(&self, size: usize, align: usize) -> Result<Slot, SendErrorKind> {
        self.until_done(|| self.attempt_slot(size, align).map_err(Wait::sort)).await
    }

    /// What `allocate` makes for so many messages.
    fn attempt_slots<'a>(
        &'a self,
        messages: usize,
        patience: Patience<'a, '_>,
        allocate: impl FnOnce(&'a Port) -> Result<Vec<Slot>, AllocError>,
    ) -> Result<PermitIterator<'a, T>, Result<Wait, SendErrorKind>> {
        let capacity = self.max_capacity();
        if messages > capacity {
            return Err(Err(SendErrorKind::TooMany { asked: messages, capacity }));
        }
        let slots = match messages {
            0 if self.is_closed() => return Err(Err(SendErrorKind::Closed)),
            0 => Vec::new(),
            // A capacity, and so a number up to it, has fewer than 32 bits: see `ChannelOptions::capacity`.
            _ => {
                let reserved =
                    self.port.try_reserve(&self.position, messages as u32, patience, || allocate(&self.port));
                reserved.map_err(|refused| match refused {
                    Refused::Full => Ok(Wait::ManyRooms),
                    refused => match Wait::sort(refused) {
                        Ok(Wait::Memory) if messages > 1 => Ok(Wait::ManyBlocks),
                        sorted => sorted,
                    },
                })?
            }
        };
        Ok(PermitIterator::new(self, slots))
    }

    /// The same, as soon as there is room and memory for all.
    async fn slots<'a>(
        &'a self,
        messages: usize,
        allocate: impl Fn(&'a Port) -> Result<Vec<Slot>, AllocError>,
    ) -> Result<PermitIterator<'a, T>, SendError<()>> {
        let mut line = None;
        let attempt = || match self.attempt_slots(messages, Patience::Line(&mut line), &allocate) {
            Err(Ok(Wait::ManyRooms)) if line.is_some() => Err(Ok(Wait::InLine)),
            outcome => outcome,
        };
        let reserved = self.until_done(attempt).await;
        reserved.map_err(|kind| SendError((), kind))
    }
}

impl<T: Plain> Sender<T> {
    /// Reserves room and memory for a message, waiting for both.
    ///
    /// # Errors
    ///
    /// [`SendError`], at once: if the channel is closed, or if the message can never fit.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was reserved.
    pub async fn reserve(&self) -> Result<Permit<'_, T>, SendError<()>> {
        let slot = self.slot(size_of::<T>(), align_of::<T>()).await;
        slot.map(|slot| Permit::new(self, slot)).map_err(|kind| SendError((), kind))
    }

    /// Reserves room and memory for a message if there are both now. Of those who try at once, as many as there is room for get it.
    /// Lock-free between processes; threads of one process that try for the last places at the same moment take turns.
    ///
    /// # Errors
    ///
    /// [`TrySendError`].
    pub fn try_reserve(&self) -> Result<Permit<'_, T>, TrySendError<()>> {
        let slot = self.attempt_slot(size_of::<T>(), align_of::<T>());
        slot.map(|slot| Permit::new(self, slot)).map_err(|refused| refusal((), Wait::sort(refused)))
    }

    /// Reserves room and memory for so many messages, all at once, waiting for both.
    ///
    /// It does not starve beside small sends: it waits at the head of a line, where nobody gets past it; only those who want many
    /// wait for each other, in no particular order. Who could have what it waits for there, and does not take it for 50
    /// milliseconds, because its process is stopped or nobody polls the future, is passed over, and waits anew when it goes on. Who
    /// holds permits and waits for many that are only to be had with those waits for itself, as in tokio.
    ///
    /// # Errors
    ///
    /// [`SendError`], at once: if the channel is closed, if so many are more than its capacity, or if the messages can never
    /// fit into the segment.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was reserved, and its place in the line is given up.
    pub async fn reserve_many(&self, messages: usize) -> Result<PermitIterator<'_, T>, SendError<()>> {
        self.slots(messages, plain_slots::<T>(messages)).await
    }

    /// Reserves room and memory for so many messages if there are both now. Lock-free.
    ///
    /// # Errors
    ///
    /// [`TrySendError`]: `Full` also if so many are more than the channel's capacity.
    pub fn try_reserve_many(&self, messages: usize) -> Result<PermitIterator<'_, T>, TrySendError<()>> {
        let reserved = self.attempt_slots(messages, Patience::None, plain_slots::<T>(messages));
        reserved.map_err(|refused| refusal((), refused))
    }

    /// Reserves as [`reserve`](Self::reserve); the permit takes the sender with it. Clone the sender to keep one.
    ///
    /// # Errors
    ///
    /// As for [`reserve`](Self::reserve). The sender is dropped then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was reserved, and the sender is dropped.
    pub async fn reserve_owned(self) -> Result<OwnedPermit<T>, SendError<()>> {
        match self.slot(size_of::<T>(), align_of::<T>()).await {
            Ok(slot) => Ok(OwnedPermit::new(self, slot)),
            Err(kind) => Err(SendError((), kind)),
        }
    }

    /// Reserves as [`try_reserve`](Self::try_reserve); the permit takes the sender with it.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the sender.
    pub fn try_reserve_owned(self) -> Result<OwnedPermit<T>, TrySendError<Self>> {
        match self.attempt_slot(size_of::<T>(), align_of::<T>()) {
            Ok(slot) => Ok(OwnedPermit::new(self, slot)),
            Err(refused) => Err(refusal(self, Wait::sort(refused))),
        }
    }

    /// Sends copies of all these values, in their order, as soon as there is room and memory for all of them: all or none.
    /// Messages of others may come between them.
    ///
    /// # Errors
    ///
    /// As for [`reserve_many`](Self::reserve_many); then none was sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, none was sent.
    pub async fn send_many(&self, values: &[T]) -> Result<(), SendError<()>> {
        let mut reserved = self.reserve_many(values.len()).await?;
        for (slot, value) in reserved.slots().iter_mut().zip(values) {
            Sendable::<T>::writer(value)(self.port.bytes_mut(slot));
            slot.mark(self.marks(value));
        }
        reserved.send();
        Ok(())
    }

    /// Reserves as [`reserve`](Self::reserve), blocking the thread until there is room and memory.
    ///
    /// # Errors
    ///
    /// As for [`reserve`](Self::reserve).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// sender.blocking_reserve()?.send(1);
    /// assert_eq!(*receiver.try_recv()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_reserve(&self) -> Result<Permit<'_, T>, SendError<()>> {
        block_on(self.reserve())
    }

    /// Reserves as [`reserve_many`](Self::reserve_many), blocking the thread until there is room and memory for all.
    ///
    /// # Errors
    ///
    /// As for [`reserve_many`](Self::reserve_many).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// for permit in sender.blocking_reserve_many(3)? {
    ///     permit.send(1);
    /// }
    /// assert_eq!(receiver.len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_reserve_many(&self, messages: usize) -> Result<PermitIterator<'_, T>, SendError<()>> {
        block_on(self.reserve_many(messages))
    }

    /// Reserves as [`reserve_owned`](Self::reserve_owned), blocking the thread until there is room and memory.
    ///
    /// # Errors
    ///
    /// As for [`reserve_owned`](Self::reserve_owned).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// let sender = sender.blocking_reserve_owned()?.send(1);
    /// assert_eq!((*receiver.try_recv()?, sender.len()), (1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_reserve_owned(self) -> Result<OwnedPermit<T>, SendError<()>> {
        block_on(self.reserve_owned())
    }

    /// Sends as [`send_many`](Self::send_many), blocking the thread until there is room and memory for all.
    ///
    /// # Errors
    ///
    /// As for [`send_many`](Self::send_many).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.channel::<u64>("numbers").open()?;
    /// sender.blocking_send_many(&[1, 2, 3])?;
    /// assert_eq!(receiver.len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_send_many(&self, values: &[T]) -> Result<(), SendError<()>> {
        block_on(self.send_many(values))
    }
}

fn plain_slots<T>(messages: usize) -> impl Fn(&Port) -> Result<Vec<Slot>, AllocError> {
    move |port| port.slots(iter::repeat_n(size_of::<T>(), messages), align_of::<T>())
}

impl<T: Plain> Sender<[T]> {
    /// Reserves room and memory for a message of up to `len` elements, waiting for both.
    ///
    /// # Errors
    ///
    /// [`SendError`], at once: if the channel is closed, or if that many can never fit.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was reserved.
    pub async fn reserve(&self, len: usize) -> Result<Permit<'_, [T]>, SendError<()>> {
        let slot = self.slot(elements_len::<T>(len), header::<T>()).await;
        slot.map(|slot| Permit::new(self, slot)).map_err(|kind| SendError((), kind))
    }

    /// Reserves room and memory for a message of up to `len` elements if there are both now. Lock-free.
    ///
    /// # Errors
    ///
    /// [`TrySendError`].
    pub fn try_reserve(&self, len: usize) -> Result<Permit<'_, [T]>, TrySendError<()>> {
        let slot = self.attempt_slot(elements_len::<T>(len), header::<T>());
        slot.map(|slot| Permit::new(self, slot)).map_err(|refused| refusal((), Wait::sort(refused)))
    }

    /// Reserves room and memory for so many messages of up to `len` elements each, all at once, waiting for both. It does not
    /// starve beside small sends: it waits at the head of a line, where nobody gets past it; only those who want many wait for
    /// each other, in no particular order. Who could have what it waits for there, and does not take it for 50 milliseconds,
    /// because its process is stopped or nobody polls the future, is passed over, and waits anew when it goes on. Who holds permits
    /// and waits for many that are only to be had with those waits for itself, as in tokio.
    ///
    /// # Errors
    ///
    /// [`SendError`], at once: if the channel is closed, if so many are more than its capacity, or if the messages can never
    /// fit into the segment.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was reserved, and its place in the line is given up.
    pub async fn reserve_many(&self, messages: usize, len: usize) -> Result<PermitIterator<'_, [T]>, SendError<()>> {
        self.slots(messages, slices_slots::<T>(iter::repeat_n(len, messages))).await
    }

    /// Reserves room and memory for so many messages of up to `len` elements each if there are both now. Lock-free.
    ///
    /// # Errors
    ///
    /// [`TrySendError`]: `Full` also if so many are more than the channel's capacity.
    pub fn try_reserve_many(&self, messages: usize, len: usize) -> Result<PermitIterator<'_, [T]>, TrySendError<()>> {
        let reserved = self.attempt_slots(messages, Patience::None, slices_slots::<T>(iter::repeat_n(len, messages)));
        reserved.map_err(|refused| refusal((), refused))
    }

    /// Reserves as [`reserve`](Self::reserve); the permit takes the sender with it. Clone the sender to keep one.
    ///
    /// # Errors
    ///
    /// As for [`reserve`](Self::reserve). The sender is dropped then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, nothing was reserved, and the sender is dropped.
    pub async fn reserve_owned(self, len: usize) -> Result<OwnedPermit<[T]>, SendError<()>> {
        match self.slot(elements_len::<T>(len), header::<T>()).await {
            Ok(slot) => Ok(OwnedPermit::new(self, slot)),
            Err(kind) => Err(SendError((), kind)),
        }
    }

    /// Reserves as [`try_reserve`](Self::try_reserve); the permit takes the sender with it.
    ///
    /// # Errors
    ///
    /// [`TrySendError`] with the sender.
    pub fn try_reserve_owned(self, len: usize) -> Result<OwnedPermit<[T]>, TrySendError<Self>> {
        match self.attempt_slot(elements_len::<T>(len), header::<T>()) {
            Ok(slot) => Ok(OwnedPermit::new(self, slot)),
            Err(refused) => Err(refusal(self, Wait::sort(refused))),
        }
    }

    /// Sends all these messages, in their order, as soon as there is room and memory for all of them: all or none. Messages
    /// of others may come between them.
    ///
    /// # Errors
    ///
    /// As for [`reserve_many`](Self::reserve_many); then none was sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is done, none was sent.
    pub async fn send_many<B: AsRef<[T]>>(&self, messages: &[B]) -> Result<(), SendError<()>> {
        let lens = messages.iter().map(|values| values.as_ref().len());
        let mut reserved = self.slots(messages.len(), slices_slots::<T>(lens)).await?;
        for (slot, values) in reserved.slots().iter_mut().zip(messages) {
            // Whoever is asked twice may answer twice: there is room for what it said first.
            let (block, values) = (self.port.bytes_mut(slot), values.as_ref());
            let room = (block.len() - header::<T>()) / size_of::<T>();
            let values = &values[..values.len().min(room)];
            Sendable::<[T]>::writer(&values)(block);
            slot.mark(self.marks(values));
        }
        reserved.send();
        Ok(())
    }

    /// Reserves as [`reserve`](Self::reserve), blocking the thread until there is room and memory.
    ///
    /// # Errors
    ///
    /// As for [`reserve`](Self::reserve).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.bytes("numbers").open()?;
    /// let mut permit = sender.blocking_reserve(3)?;
    /// permit.extend_from_slice(b"one");
    /// permit.send();
    /// assert_eq!(receiver.try_recv()?[..], *b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_reserve(&self, len: usize) -> Result<Permit<'_, [T]>, SendError<()>> {
        block_on(self.reserve(len))
    }

    /// Reserves as [`reserve_many`](Self::reserve_many), blocking the thread until there is room and memory for all.
    ///
    /// # Errors
    ///
    /// As for [`reserve_many`](Self::reserve_many).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.bytes("numbers").open()?;
    /// assert_eq!(sender.blocking_reserve_many(3, 100)?.len(), 3);
    /// # drop(receiver);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_reserve_many(&self, messages: usize, len: usize) -> Result<PermitIterator<'_, [T]>, SendError<()>> {
        block_on(self.reserve_many(messages, len))
    }

    /// Reserves as [`reserve_owned`](Self::reserve_owned), blocking the thread until there is room and memory.
    ///
    /// # Errors
    ///
    /// As for [`reserve_owned`](Self::reserve_owned).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.bytes("numbers").open()?;
    /// let sender = sender.blocking_reserve_owned(3)?.release();
    /// assert_eq!(sender.len(), receiver.len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_reserve_owned(self, len: usize) -> Result<OwnedPermit<[T]>, SendError<()>> {
        block_on(self.reserve_owned(len))
    }

    /// Sends as [`send_many`](Self::send_many), blocking the thread until there is room and memory for all.
    ///
    /// # Errors
    ///
    /// As for [`send_many`](Self::send_many).
    ///
    /// # Panics
    ///
    /// Where tokio lets nobody block, as it would stop a runtime: in a task, and in what `block_on` runs, such as the body of
    /// `#[tokio::main]`. It waits in `spawn_blocking`, in `block_in_place`, and in threads that are not tokio's.
    ///
    /// # Examples
    ///
    /// ```
    /// # let segment = waterway::Segment::options().in_process()?;
    /// let (sender, receiver) = segment.bytes("numbers").open()?;
    /// sender.blocking_send_many(&["one", "two"])?;
    /// assert_eq!(receiver.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn blocking_send_many<B: AsRef<[T]>>(&self, messages: &[B]) -> Result<(), SendError<()>> {
        block_on(self.send_many(messages))
    }
}

fn slices_slots<T>(lens: impl Iterator<Item = usize> + Clone) -> impl Fn(&Port) -> Result<Vec<Slot>, AllocError> {
    move |port| port.slots(lens.clone().map(elements_len::<T>), header::<T>())
}
