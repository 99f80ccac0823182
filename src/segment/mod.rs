//! The mapped region: layout, creation and attachment, participants, lanes.

pub(crate) mod lanes;
pub(crate) mod layout;
