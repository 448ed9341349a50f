//! The bounded queue before a sink, and the bell that wakes its thread.
//!
//! What waits is ordered by how bad it is and by age, or by age alone. Of each alert only the latest state waits,
//! where the sink is told of alerts. A message that its receiver answered with an error waits apart, until its own
//! next try, and holds up nobody.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gpuev::Severity;

use crate::sink::Order;
use crate::sink::message::Message;
use crate::sink::people::{COLLECTED, Limiter};

/// Alerts whose last delivered revision is remembered.
const MOST_TOLD: usize = 4096;

/// A lock whose holder cannot panic half-way through a change.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a message stands: how bad it is (0 is worst) where that counts, and how early it came. Those that their receiver
/// answered with an error stand behind all that were not tried yet.
type Place = (u8, i64);

/// Added to how bad it is for those that are tried again.
const AGAIN: u8 = 3;

/// A message that waits, and what became of it so far.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: Message,
    place: Place,
    /// Since when it waits.
    pub(super) since: Instant,
    /// How often its receiver answered it with an error.
    pub(super) tries: u32,
    /// The last of these errors.
    pub(super) error: Option<String>,
    /// How many messages had been delivered when it last broke the connection.
    pub(super) broke_at: Option<u64>,
    /// People were told enough of its rule: it waits for the summary.
    held: bool,
}

/// A message that its receiver answered with an error, and that is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetAside {
    /// The message.
    pub id: Arc<str>,
    /// How bad it is.
    pub severity: Severity,
    /// How often it was tried.
    pub tries: u32,
    /// What the receiver said last.
    pub error: String,
}

/// Messages that wait in memory. Those that find it full are not taken, and counted.
#[derive(Debug)]
pub(super) struct Queue {
    order: Order,
    ready: BTreeMap<Place, Entry>,
    /// Not to be tried before a time.
    later: BTreeMap<(Instant, Place), Entry>,
    /// Where each alert waits: its place, and its time where it is among those of later.
    alerts: HashMap<Arc<str>, (Place, Option<Instant>)>,
    /// Being delivered.
    lent: Vec<Entry>,
    told: Told,
    limiter: Limiter,
    bytes: usize,
    most_messages: usize,
    most_bytes: usize,
    next: i64,
    next_recovered: i64,
    /// Not taken since the last one that was.
    missing: u64,
}

/// What became of an offered message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// It waits.
    Taken,
    /// It waits in the place of an older state of its alert.
    Replaced,
    /// This state of the alert, or a later one, waits already or was delivered.
    Known,
    /// There is no room.
    Full,
}

impl Queue {
    pub(super) fn new(order: Order, most_messages: usize, most_bytes: usize) -> Self {
        Self {
            order,
            ready: BTreeMap::new(),
            later: BTreeMap::new(),
            alerts: HashMap::new(),
            lent: Vec::new(),
            told: Told::default(),
            limiter: Limiter::default(),
            bytes: 0,
            most_messages: most_messages.max(1),
            most_bytes,
            next: 0,
            next_recovered: i64::MIN / 2,
            missing: 0,
        }
    }

    /// Puts `message` in its place. Where others before it found no room, what `marker` makes of their number stands
    /// before it. What makes way for it, an older state of its alert or what is less bad, is put into `dropped`.
    pub(super) fn offer(
        &mut self,
        message: &Message,
        marker: impl FnOnce(u64) -> Option<Message>,
        dropped: &mut Vec<Message>,
    ) -> Offered {
        if let Some(known) = self.take_newer_state(message, dropped) {
            return known;
        }
        if !self.make_room(message, dropped) {
            self.missing += 1;
            return Offered::Full;
        }
        self.tell_missing(marker);
        let place = self.next_place(message.severity);
        let entry = Entry::new(message.clone(), place);
        if self.order == Order::People && message.alert.is_some() {
            let due = self.collected_at(message);
            self.insert_later(entry, due);
        } else {
            self.insert(entry);
        }
        Offered::Taken
    }

    /// What an earlier run left, the oldest first: it comes before all that is new, and not where it is known. How many
    /// were taken; what is not to be kept any longer is put into `dropped`.
    pub(super) fn recover(&mut self, messages: Vec<Message>, dropped: &mut Vec<Message>) -> u64 {
        let waiting = self.ready.values().chain(self.later.values()).chain(&self.lent);
        let known: HashSet<Arc<str>> = waiting.map(|entry| entry.message.id.clone()).collect();
        let mut taken = 0;
        for message in messages {
            if known.contains(&message.id) {
                continue;
            }
            match self.take_newer_state(&message, dropped) {
                Some(Offered::Known) => dropped.push(message),
                Some(_) => taken += 1,
                // Without room it stays where it is, for the next start.
                None if !self.make_room(&message, dropped) => {}
                None => {
                    let place = (self.class(message.severity), self.next_recovered);
                    self.next_recovered += 1;
                    self.insert(Entry::new(message, place));
                    taken += 1;
                }
            }
        }
        taken
    }

    /// These alerts were delivered up to these revisions. What waits and is known by that is put into `dropped`.
    pub(super) fn were_told(
        &mut self,
        told: impl IntoIterator<Item = (Arc<str>, u64)>,
        dropped: &mut Vec<Message>,
    ) {
        for (alert, revision) in told {
            self.told.note(alert, revision);
        }
        let known = self.ready.iter().filter(|(_, entry)| self.told.knows(&entry.message));
        let known: Vec<Place> = known.map(|(place, _)| *place).collect();
        for place in known {
            dropped.extend(self.remove(place, None).map(|entry| entry.message));
        }
    }

    /// When the group of `message` is told: a moment after the first of it came.
    fn collected_at(&self, message: &Message) -> Instant {
        let same = |entry: &&Entry| entry.tries == 0 && !entry.held && entry.is_with(message);
        let first = self.later.iter().find(|(_, entry)| same(entry));
        first.map_or_else(|| Instant::now() + COLLECTED, |((due, _), _)| *due)
    }

    /// Looks whether `message` is of an alert that waits. The newer state takes the place of the older, and is tried
    /// at once where the older one was not taken by its receiver.
    fn take_newer_state(
        &mut self,
        message: &Message,
        dropped: &mut Vec<Message>,
    ) -> Option<Offered> {
        let key = self.key(message)?;
        if self.told.knows(message) {
            return Some(Offered::Known);
        }
        let (place, due) = *self.alerts.get(&key)?;
        let waiting = match due {
            Some(due) => self.later.get(&(due, place)),
            None => self.ready.get(&place),
        }?;
        if waiting.message.revision() >= message.revision() {
            return Some(Offered::Known);
        }
        let mut entry = self.remove(place, due)?;
        let keeps_waiting = due.filter(|_| entry.tries == 0);
        entry.place = (self.class(message.severity), entry.place.1);
        dropped.push(std::mem::replace(&mut entry.message, message.clone()));
        (entry.tries, entry.error, entry.broke_at) = (0, None, None);
        match keeps_waiting {
            Some(due) => self.insert_later(entry, due),
            None => self.insert(entry),
        }
        Some(Offered::Replaced)
    }

    /// Whether there is room for `message`, also by dropping what is less bad. One that is larger than the whole
    /// queue still passes where nothing waits.
    fn make_room(&mut self, message: &Message, dropped: &mut Vec<Message>) -> bool {
        while self.len() >= self.most_messages
            || (self.len() > 0 && self.bytes + message.bytes() > self.most_bytes)
        {
            let class = self.class(message.severity);
            let ready = self.ready.keys().next_back().map(|place| (*place, None));
            let later = self.later.keys().map(|(due, place)| (*place, Some(*due)));
            let last = ready.into_iter().chain(later).max();
            let Some((place, due)) = last.filter(|(place, _)| place.0 > class) else {
                return false;
            };
            dropped.extend(self.remove(place, due).map(|entry| entry.message));
        }
        true
    }

    /// Puts what `marker` makes of the number of those that found no room in their place.
    pub(super) fn tell_missing(&mut self, marker: impl FnOnce(u64) -> Option<Message>) {
        let missing = std::mem::take(&mut self.missing);
        if missing > 0
            && let Some(marker) = marker(missing)
        {
            let place = self.next_place(marker.severity);
            self.insert(Entry::new(marker, place));
        }
    }

    /// Lends the messages that are to be delivered next, `most` at most, leaving out the first `skip`. One that was
    /// answered with an error before goes alone.
    pub(super) fn lend(&mut self, now: Instant, most: usize, skip: usize) -> Vec<Message> {
        while let Some(first) = self.later.first_entry()
            && first.key().0 <= now
        {
            let entry = first.remove();
            self.insert_again(entry, None);
        }
        if self.order == Order::People {
            self.lend_group(now, most, skip);
            return self.lent.iter().map(|entry| entry.message.clone()).collect();
        }
        while self.lent.len() < most {
            let next = self.ready.iter().nth(skip).map(|(place, entry)| (*place, entry.tries > 0));
            let Some((place, alone)) = next else { break };
            if alone && !self.lent.is_empty() {
                break;
            }
            let entry = self.take_ready(place);
            self.lent.extend(entry);
            if alone {
                break;
            }
        }
        self.lent.iter().map(|entry| entry.message.clone()).collect()
    }

    /// Lends alerts that are told in one message. What people may not be told of now is held back, all of its rule
    /// together, until they may.
    fn lend_group(&mut self, now: Instant, most: usize, skip: usize) {
        while let Some((place, first)) = self.ready.iter().nth(skip) {
            let (place, alone, held) = (*place, first.tries > 0, first.held);
            let message = first.message.clone();
            let belongs = |entry: &Entry| {
                let with =
                    entry.is_with(&message) || (held && entry.held && entry.is_of_rule(&message));
                with && entry.tries == 0
            };
            let mut places = vec![(place, None)];
            if !alone {
                let ready =
                    self.ready.iter().filter(|(other, entry)| **other != place && belongs(entry));
                places.extend(ready.map(|(other, _)| (*other, None)));
                let later = self.later.iter().filter(|(_, entry)| belongs(entry));
                places.extend(later.map(|((due, other), _)| (*other, Some(*due))));
            }
            places.truncate(most.max(1));
            let entries: Vec<Entry> =
                places.into_iter().filter_map(|(place, due)| self.take(place, due)).collect();
            let critical = entries.iter().any(|entry| entry.message.severity == Severity::Critical);
            let rule = message.alert.as_ref().map(|alert| alert.rule.clone());
            let free = match rule {
                Some(rule) if !critical && !alone => {
                    self.limiter.tell(&rule, message.limit.unwrap_or_default(), now)
                }
                _ => Ok(()),
            };
            let Err(until) = free else {
                self.lent = entries;
                return;
            };
            for mut entry in entries {
                entry.held = true;
                self.insert_again(entry, Some(until.max(now + COLLECTED)));
            }
        }
    }

    /// Messages that are held back, as people were told enough of their rules.
    pub(super) fn held(&self) -> usize {
        self.later.values().filter(|entry| entry.held).count()
    }

    fn take(&mut self, place: Place, due: Option<Instant>) -> Option<Entry> {
        let Some(due) = due else { return self.take_ready(place) };
        let entry = self.later.remove(&(due, place))?;
        if let Some(key) = self.key(&entry.message) {
            self.alerts.remove(&key);
        }
        Some(entry)
    }

    fn take_ready(&mut self, place: Place) -> Option<Entry> {
        let entry = self.ready.remove(&place)?;
        if let Some(key) = self.key(&entry.message) {
            self.alerts.remove(&key);
        }
        Some(entry)
    }

    /// The first `count` of the lent messages are done with. Those that were `delivered` are not to come again.
    pub(super) fn done(&mut self, count: usize, delivered: bool) -> Vec<Entry> {
        let done: Vec<Entry> = self.lent.drain(..count.min(self.lent.len())).collect();
        for entry in &done {
            self.bytes -= entry.message.bytes();
            if let Some(alert) = entry.message.alert_id().filter(|_| delivered) {
                self.told.note(alert.clone(), entry.message.revision());
            }
        }
        done
    }

    /// The lent messages were not delivered: they are where they were. Gives the states of alerts that a newer one has
    /// taken the place of meanwhile.
    pub(super) fn put_back(&mut self) -> Vec<Entry> {
        let mut old = Vec::new();
        for entry in std::mem::take(&mut self.lent) {
            if self.has_newer(&entry) {
                self.bytes -= entry.message.bytes();
                old.push(entry);
            } else {
                self.insert_again(entry, None);
            }
        }
        old
    }

    /// The lent message is to be tried again after a time.
    pub(super) fn set_aside(&mut self, until: Instant, error: &str) -> Vec<Entry> {
        let mut old = Vec::new();
        for mut entry in std::mem::take(&mut self.lent) {
            if self.has_newer(&entry) {
                self.bytes -= entry.message.bytes();
                old.push(entry);
                continue;
            }
            entry.tries = entry.tries.saturating_add(1);
            entry.place.0 = self.class(entry.message.severity) + AGAIN;
            entry.error = Some(error.to_owned());
            self.insert_again(entry, Some(until));
        }
        old
    }

    /// Takes out what waits for longer than `age`.
    pub(super) fn take_older(&mut self, age: Duration) -> Vec<Entry> {
        let is_old = |entry: &Entry| entry.since.elapsed() >= age;
        let ready = self.ready.iter().filter(|(_, entry)| is_old(entry));
        let ready = ready.map(|(place, _)| (*place, None));
        let later = self.later.iter().filter(|(_, entry)| is_old(entry));
        let later = later.map(|((due, place), _)| (*place, Some(*due)));
        let places: Vec<_> = ready.chain(later).collect();
        places.into_iter().filter_map(|(place, due)| self.remove(place, due)).collect()
    }

    fn has_newer(&self, entry: &Entry) -> bool {
        self.key(&entry.message).is_some_and(|key| self.alerts.contains_key(&key))
    }

    pub(super) fn lent(&mut self) -> &mut [Entry] {
        &mut self.lent
    }

    /// When the next message that waits apart is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.later.keys().next().map(|(due, _)| *due)
    }

    /// Messages that can be tried now.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The messages that their receiver answered with an error, `most` at most, and how many there are.
    pub(super) fn aside(&self, most: usize) -> (Vec<SetAside>, usize) {
        let waiting = self.later.values().chain(self.ready.values()).chain(&self.lent);
        let failed = waiting.filter(|entry| entry.tries > 0);
        let told = failed.clone().take(most).map(|entry| SetAside {
            id: entry.message.id.clone(),
            severity: entry.message.severity,
            tries: entry.tries,
            error: entry.error.clone().unwrap_or_default(),
        });
        (told.collect(), failed.count())
    }

    /// Everything that waits, in order; nothing stays.
    pub(super) fn take_all(&mut self) -> Vec<Message> {
        let mut all: BTreeMap<Place, Entry> = std::mem::take(&mut self.ready);
        let later = std::mem::take(&mut self.later).into_values();
        let lent = std::mem::take(&mut self.lent);
        all.extend(later.chain(lent).map(|entry| (entry.place, entry)));
        self.alerts.clear();
        self.bytes = 0;
        all.into_values().map(|entry| entry.message).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.later.len() + self.lent.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of which alert it is, where only the latest state of each waits.
    fn key(&self, message: &Message) -> Option<Arc<str>> {
        if self.is_of_alerts() { message.alert_id().cloned() } else { None }
    }

    fn is_of_alerts(&self) -> bool {
        matches!(self.order, Order::Alerts | Order::People)
    }

    fn class(&self, severity: Severity) -> u8 {
        match severity {
            _ if !self.is_of_alerts() => 0,
            Severity::Critical => 0,
            Severity::Warning => 1,
            Severity::Info => 2,
        }
    }

    fn next_place(&mut self, severity: Severity) -> Place {
        self.next += 1;
        (self.class(severity), self.next)
    }

    fn insert(&mut self, entry: Entry) {
        self.bytes += entry.message.bytes();
        self.insert_again(entry, None);
    }

    fn insert_later(&mut self, entry: Entry, due: Instant) {
        self.bytes += entry.message.bytes();
        self.insert_again(entry, Some(due));
    }

    /// Puts an entry whose bytes are counted into its place.
    fn insert_again(&mut self, entry: Entry, due: Option<Instant>) {
        let place = entry.place;
        if let Some(key) = self.key(&entry.message) {
            self.alerts.insert(key, (place, due));
        }
        match due {
            Some(due) => self.later.insert((due, place), entry),
            None => self.ready.insert(place, entry),
        };
    }

    fn remove(&mut self, place: Place, due: Option<Instant>) -> Option<Entry> {
        let entry = match due {
            Some(due) => self.later.remove(&(due, place)),
            None => self.ready.remove(&place),
        }?;
        if let Some(key) = self.key(&entry.message) {
            self.alerts.remove(&key);
        }
        self.bytes -= entry.message.bytes();
        Some(entry)
    }
}

impl Entry {
    /// It belongs to the same group as `other`.
    fn is_with(&self, other: &Message) -> bool {
        let group = |message: &Message| message.alert.as_ref().map(|alert| alert.group.clone());
        group(&self.message).is_some_and(|own| !own.is_empty() && Some(own) == group(other))
    }

    /// It is of the same rule as `other`.
    fn is_of_rule(&self, other: &Message) -> bool {
        let rule = |message: &Message| message.alert.as_ref().map(|alert| alert.rule.clone());
        rule(&self.message) == rule(other)
    }

    fn new(message: Message, place: Place) -> Self {
        let since = Instant::now();
        Self { message, place, since, tries: 0, error: None, broke_at: None, held: false }
    }
}

/// The last revision of each alert that was delivered, of the latest alerts.
#[derive(Debug, Default)]
struct Told {
    revisions: HashMap<Arc<str>, u64>,
    order: VecDeque<Arc<str>>,
}

impl Told {
    fn knows(&self, message: &Message) -> bool {
        let told = message.alert_id().and_then(|alert| self.revisions.get(alert));
        told.is_some_and(|told| *told >= message.revision())
    }

    fn note(&mut self, alert: Arc<str>, revision: u64) {
        match self.revisions.get_mut(&alert) {
            Some(known) => *known = revision.max(*known),
            None => {
                self.revisions.insert(alert.clone(), revision);
                self.order.push_back(alert);
            }
        }
        if self.order.len() > MOST_TOLD
            && let Some(oldest) = self.order.pop_front()
        {
            self.revisions.remove(&oldest);
        }
    }
}
