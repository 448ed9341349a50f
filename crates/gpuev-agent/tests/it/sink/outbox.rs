//! What stands before every sink.

use std::sync::Arc;
use std::time::Duration;

use gpuev::Severity;
use gpuev_agent::AlertState;
use gpuev_agent::quantity::{Period, Size};
use gpuev_agent::sink::{Kind, Message, Notice, Numbering, OutboxSettings};

use super::fixture::{
    Fake, Server, Told, change, close, counted, fault, firing, impatient, mirror, start,
    start_with, until,
};

#[test]
fn records_arrive_in_order_and_once_while_the_server_comes_and_goes() {
    let (fake, told) = (Fake::of_records(Server::Takes), Told::default());
    let outbox = start(fake.clone(), impatient(), None, &told).unwrap();
    for round in 0..20 {
        let tries = fake.tries();
        fake.becomes(if round % 2 == 0 { Server::Fails } else { Server::Takes });
        for number in 0..10 {
            outbox.offer(&firing(&format!("a{:03}", round * 10 + number)));
        }
        until("another try", || fake.tries() > tries);
    }
    until("all delivered", || outbox.is_idle());
    let ids = fake.ids();
    assert_eq!(ids.len(), 200);
    assert!(ids.is_sorted() && counted(&ids).values().all(|count| *count == 1), "{ids:?}");
    let stats = outbox.stats();
    assert_eq!((stats.accepted, stats.delivered, stats.lost), (200, 200, 0));
    assert!(stats.failures > 0 && stats.failing.is_none());
    // Each outage is told once, and its end.
    let failing = told.count(|notice| matches!(notice, Notice::Failing { .. }));
    let recovered = told.count(|notice| matches!(notice, Notice::Recovered { .. }));
    assert!(failing >= 1 && failing == recovered && failing <= 20, "{:?}", told.all());
}

#[test]
fn offering_never_waits_and_what_finds_no_room_is_counted_and_marked_in_its_place() {
    let (fake, told) = (Fake::of_records(Server::Hangs), Told::default());
    let settings = OutboxSettings { messages: 10, ..impatient() };
    let outbox = start(fake.clone(), settings, None, &told).unwrap();
    outbox.offer(&firing("a00"));
    until("a server that hangs", || fake.is_hanging());
    for number in 1..=30 {
        outbox.offer(&firing(&format!("a{number:02}")));
    }
    assert_eq!(outbox.stats().lost, 21);
    fake.becomes(Server::Takes);
    until("room again", || outbox.is_idle());
    outbox.offer(&firing("b"));
    until("all delivered", || outbox.is_idle());
    let taken = fake.taken();
    let kinds: Vec<Kind> = taken.iter().map(|message| message.kind).collect();
    let lost = kinds.iter().position(|kind| *kind == Kind::Lost).unwrap();
    // The ten that found room, then the mark, then what came after.
    assert_eq!((lost, kinds.len()), (10, 12));
    assert!(
        taken[lost].json.contains("\"sink\":\"test.one\",\"count\":21,"),
        "{}",
        taken[lost].json
    );
    assert_eq!(told.count(|notice| *notice == Notice::Full), 1);
    assert_eq!(outbox.stats().delivered, 11);
}

#[test]
fn the_queue_is_bounded_in_bytes_too() {
    let (fake, told) = (Fake::new(Server::Hangs, 1), Told::default());
    let settings = OutboxSettings { memory: Size(4096), ..impatient() };
    let outbox = start(fake.clone(), settings, None, &told).unwrap();
    for number in 0..1000 {
        outbox.offer(&firing(&format!("a{number}")));
    }
    let stats = outbox.stats();
    assert!(stats.memory_bytes <= 4096 && stats.waiting >= 2, "{stats:?}");
    assert_eq!(stats.accepted + stats.lost, 1000);
    fake.becomes(Server::Takes);
    let _left = outbox.stop(Duration::ZERO);
}

#[test]
fn a_message_that_the_server_refuses_is_a_dead_letter_and_holds_up_nobody() {
    let (fake, told) = (Fake::new(Server::Refuses("bad".to_owned()), 8), Told::default());
    let folder = tempfile::tempdir().unwrap();
    let mirror = mirror(folder.path(), &told);
    let outbox = start_with(fake.clone(), impatient(), Some(mirror.clone()), &told).unwrap();
    for id in ["a1", "a2", "bad3", "a4", "bad5", "a6"] {
        outbox.offer(&firing(id));
    }
    until("all settled", || outbox.is_idle());
    let mut ids = fake.ids();
    ids.sort();
    assert_eq!(ids, ["a1.1", "a2.1", "a4.1", "a6.1"]);
    let stats = outbox.stats();
    assert_eq!((stats.delivered, stats.dead_letters, stats.lost), (4, 2, 0));
    let letters: Vec<_> =
        stats.last_dead_letters.iter().map(|letter| (&*letter.id, &*letter.error)).collect();
    assert_eq!(letters, [("bad3.1", "not like this"), ("bad5.1", "not like this")]);
    let told = told.count(|notice| matches!(notice, Notice::DeadLetter { .. }));
    assert_eq!(told, 2);
    drop(outbox);
    close(&mirror);
    // They are kept, for who wants to know what was not said.
    let file = rusqlite::Connection::open(folder.path().join("queue.db")).unwrap();
    let kept: (i64, String) = file
        .query_row("SELECT count(*), min(json) FROM dead_letter", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert!(kept.0 == 2 && kept.1.contains("\"record\":\"alert\""), "{kept:?}");
}

/// A receiver that answers one message with errors, for hours: the others come, and it when it may.
#[test]
fn a_message_that_is_answered_with_errors_waits_alone_until_it_is_taken() {
    for (server, batch) in [
        (Server::FailsAt("bad".to_owned()), 1),
        (Server::FailsAt("bad".to_owned()), 8),
        (Server::DiesOf("bad".to_owned()), 1),
        (Server::DiesOf("bad".to_owned()), 8),
    ] {
        let (fake, told) = (Fake::new(server.clone(), batch), Told::default());
        let outbox = start(fake.clone(), impatient(), None, &told).unwrap();
        outbox.offer(&firing("bad0"));
        for number in 0..100 {
            outbox.offer(&firing(&format!("a{number:02}")));
        }
        until("all others", || fake.ids().len() == 100);
        until("it is named", || outbox.stats().set_aside == 1);
        let stats = outbox.stats();
        assert_eq!((stats.waiting, stats.dead_letters, stats.lost), (1, 0, 0), "{server:?}");
        assert_eq!(&*stats.set_aside_messages[0].id, "bad0.1");
        assert!(told.count(|notice| matches!(notice, Notice::SetAside { .. })) == 1);
        let tries = fake.tries();
        until("it is tried again", || fake.tries() > tries + 2);
        // A later state of the alert comes in its place.
        outbox.offer(&Message::of_change(&change("bad0", AlertState::Resolved)));
        fake.becomes(Server::Takes);
        until("all delivered", || outbox.is_idle());
        assert_eq!(fake.ids().last().unwrap(), "bad0.2");
        assert_eq!(outbox.stats().failing, None);
    }
}

#[test]
fn records_stay_in_order_beside_one_that_is_answered_with_errors() {
    let fake = Fake::of_records(Server::FailsAt("bad".to_owned()));
    let outbox = start(fake.clone(), impatient(), None, &Told::default()).unwrap();
    for id in ["a1", "a2", "bad3", "a4", "a5"] {
        outbox.offer(&firing(id));
    }
    until("all others", || fake.ids().len() == 4);
    assert_eq!(fake.ids(), ["a1.1", "a2.1", "a4.1", "a5.1"]);
    fake.becomes(Server::Takes);
    until("all delivered", || outbox.is_idle());
    assert_eq!(fake.ids().last().unwrap(), "bad3.1");
}

#[test]
fn of_an_alert_the_latest_state_is_told_and_the_worst_first() {
    let (fake, told) = (Fake::new(Server::Hangs, 1), Told::default());
    let outbox = start(fake.clone(), impatient(), None, &told).unwrap();
    outbox.offer(&firing("first"));
    until("a server that hangs", || fake.is_hanging());
    let with = |id: &str, severity, state| {
        let mut change = change(id, state);
        Arc::make_mut(&mut change.alert).severity = severity;
        Message::of_change(&change)
    };
    outbox.offer(&with("info", Severity::Info, AlertState::Firing));
    outbox.offer(&with("warning", Severity::Warning, AlertState::Firing));
    outbox.offer(&with("critical", Severity::Critical, AlertState::Firing));
    outbox.offer(&with("info", Severity::Info, AlertState::Resolved));
    outbox.offer(&with("first", Severity::Critical, AlertState::Resolved));
    // What came before says nothing new.
    outbox.offer(&with("info", Severity::Info, AlertState::Firing));
    fake.becomes(Server::Takes);
    until("all delivered", || outbox.is_idle());
    let expected = ["first.1", "critical.1", "first.2", "warning.1", "info.2"];
    assert_eq!(fake.ids(), expected);
    let stats = outbox.stats();
    assert_eq!((stats.accepted, stats.delivered, stats.superseded), (6, 5, 1));
    // Nor does it after it was delivered.
    outbox.offer(&with("info", Severity::Info, AlertState::Firing));
    assert!(outbox.is_idle());
}

#[test]
fn where_there_is_no_room_what_is_less_bad_makes_way_for_critical_alerts() {
    let (fake, told) = (Fake::new(Server::Hangs, 1), Told::default());
    let settings = OutboxSettings { messages: 10, ..impatient() };
    let outbox = start(fake.clone(), settings, None, &told).unwrap();
    outbox.offer(&firing("first"));
    until("a server that hangs", || fake.is_hanging());
    for number in 0..20 {
        let mut change = change(&format!("info{number}"), AlertState::Firing);
        Arc::make_mut(&mut change.alert).severity = Severity::Info;
        outbox.offer(&Message::of_change(&change));
    }
    for number in 0..9 {
        outbox.offer(&firing(&format!("critical{number}")));
    }
    fake.becomes(Server::Takes);
    until("all delivered", || outbox.is_idle());
    assert_eq!(fake.ids().iter().filter(|id| id.starts_with("critical")).count(), 9);
    assert_eq!(fake.ids().len(), 10);
    assert_eq!(outbox.stats().lost, 20);
}

#[test]
fn what_cannot_be_delivered_for_too_long_makes_way() {
    let (fake, told) = (Fake::new(Server::Fails, 1), Told::default());
    let settings = OutboxSettings { give_up: Period::from_millis(0), ..impatient() };
    let outbox = start(fake.clone(), settings, None, &told).unwrap();
    outbox.offer(&firing("old"));
    until("given up", || outbox.stats().dead_letters == 1);
    fake.becomes(Server::Takes);
    outbox.offer(&firing("new"));
    until("all settled", || outbox.is_idle());
    assert_eq!(fake.ids(), ["new.1"]);
}

#[test]
fn a_server_that_hangs_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (fake, told) = (Fake::new(Server::Hangs, 1), Told::default());
    let kept = mirror(folder.path(), &told);
    let outbox = start_with(fake.clone(), impatient(), Some(kept.clone()), &told).unwrap();
    outbox.offer(&firing("a1"));
    outbox.offer(&firing("a2"));
    until("a server that hangs", || fake.is_hanging());
    let _kept = outbox.stop(Duration::from_millis(10));
    close(&kept);
    // The thread is left behind with its call, and what it still does is not written down.
    let next = Fake::new(Server::Takes, 1);
    let outbox = start(next.clone(), impatient(), Some(folder.path()), &told).unwrap();
    until("both delivered", || next.ids().len() == 2);
    assert_eq!(next.ids(), ["a1.1", "a2.1"]);
    fake.becomes(Server::Takes);
    drop(outbox);
}

/// The end is no reason to try again and again: each message has one more try.
#[test]
fn while_stopping_a_message_that_fails_is_tried_once() {
    let (fake, told) = (Fake::new(Server::FailsAt("a".to_owned()), 1), Told::default());
    let outbox = start(fake.clone(), impatient(), None, &told).unwrap();
    for number in 0..5 {
        outbox.offer(&firing(&format!("a{number}")));
    }
    until("all were tried", || outbox.stats().set_aside == 5);
    let tries = fake.tries();
    let left = outbox.stop(Duration::from_secs(60));
    assert_eq!(left.len(), 5);
    // One that was being tried when the end began may come on top.
    assert!(fake.tries() <= tries + 6, "{} after {tries}", fake.tries());
}

#[test]
fn what_waits_in_memory_at_the_end_is_given_back() {
    let (fake, told) = (Fake::new(Server::Fails, 1), Told::default());
    let outbox = start(fake, impatient(), None, &told).unwrap();
    for id in ["a1", "a2", "a3"] {
        outbox.offer(&firing(id));
    }
    let left = outbox.stop(Duration::ZERO);
    let ids: Vec<&str> = left.iter().map(|message| &*message.id).collect();
    assert_eq!(ids, ["a1.1", "a2.1", "a3.1"]);
}

#[test]
fn ids_are_in_the_records_and_no_two_are_alike() {
    let (first, second) = (Numbering::new(), Numbering::new());
    let mut ids: Vec<String> = Vec::new();
    for seq in 0..100 {
        for message in [first.of_signal(&fault(seq)), second.of_signal(&fault(seq))] {
            let json: serde_json::Value = serde_json::from_str(&message.json).unwrap();
            assert_eq!((&json["id"], &json["seq"]), (&(*message.id).into(), &seq.into()));
            ids.push(message.id.to_string());
        }
    }
    assert_eq!(counted(&ids).len(), 200);
}
