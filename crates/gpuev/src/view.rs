//! Events where they wait, for who looks at many and keeps none: nothing is copied out of the queue.

use crate::event::{EventFacts, Gap, Item};
use crate::message::write_message;
use crate::{Record, decode};

/// As [`Item`], borrowed from where it waits.
#[derive(Debug, Clone)]
pub enum ItemView<'a> {
    /// Something happened.
    Event(EventView<'a>),
    /// Something may have happened and is not here.
    Gap(Gap),
}

impl From<ItemView<'_>> for Item {
    fn from(view: ItemView<'_>) -> Self {
        match view {
            ItemView::Event(event) => Self::Event(event.into()),
            ItemView::Gap(gap) => Self::Gap(gap),
        }
    }
}

/// An event where it lies, with its line taken apart: for who looks at many and keeps none.
#[derive(Debug, Clone, Copy)]
pub struct EventView<'a> {
    /// What an [`Event`](crate::Event) is made of.
    pub facts: EventFacts<'a>,
    /// What the line decodes to.
    pub record: Record<'a>,
}

impl<'a> EventView<'a> {
    /// The event of these facts.
    #[must_use]
    pub fn of(facts: EventFacts<'a>) -> Self {
        Self { facts, record: decode(facts.raw) }
    }

    /// Appends what [`Event::message`](crate::Event::message) says, faster than by way of [`Display`](std::fmt::Display).
    pub fn write_message(&self, out: &mut String) {
        let _infallible = write_message(out, self);
    }
}
