//! Subscriptions for asynchronous programs (feature `tokio`).
//!
//! Nothing here needs a particular runtime: the draining thread wakes the task.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::{Item, Subscription};

impl Subscription {
    /// Makes this a [`Stream`] of the same items.
    #[must_use]
    pub fn into_stream(self) -> EventStream {
        EventStream { subscription: self }
    }
}

/// A [`Subscription`] to await. Dropping it ends the subscription.
#[derive(Debug)]
pub struct EventStream {
    subscription: Subscription,
}

impl EventStream {
    /// As [`Subscription::try_next`].
    pub fn try_next(&mut self) -> Option<Item> {
        self.subscription.try_next()
    }

    /// The next item; `None` where the stream has ended. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Item> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// As [`Subscription::is_finished`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.subscription.is_finished()
    }
}

impl Stream for EventStream {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        loop {
            if let Some(item) = self.subscription.try_next() {
                return Poll::Ready(Some(item));
            }
            if self.subscription.is_finished() {
                return Poll::Ready(None);
            }
            if !self.subscription.register(context.waker()) {
                return Poll::Pending;
            }
        }
    }
}
