//! What stands before every sink.

use std::time::Duration;

use gpuev_agent::quantity::{Period, Size};
use gpuev_agent::sink::{Kind, Notice, Numbering, OutboxSettings};

use super::fixture::{Fake, Server, Told, counted, fault, firing, impatient, start, until};

#[test]
fn messages_arrive_in_order_and_once_while_the_server_comes_and_goes() {
    let (fake, told) = (Fake::new(Server::Takes, 4), Told::default());
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
fn a_message_that_the_server_refuses_is_put_aside_and_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (fake, told) = (Fake::new(Server::Refuses("bad".to_owned()), 8), Told::default());
    let spool = folder.path().join("spool");
    let outbox = start(fake.clone(), impatient(), Some(&spool), &told).unwrap();
    for id in ["a1", "a2", "bad3", "a4", "bad5", "a6"] {
        outbox.offer(&firing(id));
    }
    until("all settled", || outbox.is_idle());
    assert_eq!(fake.ids(), ["a1.1", "a2.1", "a4.1", "a6.1"]);
    let stats = outbox.stats();
    assert_eq!((stats.delivered, stats.dead_letters, stats.lost), (4, 2, 0));
    let letters = std::fs::read_to_string(spool.join("dead-letters.ndjson")).unwrap();
    let letters: Vec<serde_json::Value> =
        letters.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&letters[0]["id"], &letters[1]["id"]), (&"bad3.1".into(), &"bad5.1".into()));
    assert_eq!(letters[0]["error"], "not like this");
    assert_eq!(letters[0]["message"]["record"], "alert");
    let told = told.count(|notice| matches!(notice, Notice::DeadLetter { .. }));
    assert_eq!(told, 2);
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
    let outbox = start(fake.clone(), impatient(), Some(folder.path()), &told).unwrap();
    outbox.offer(&firing("a1"));
    outbox.offer(&firing("a2"));
    until("a server that hangs", || fake.is_hanging());
    assert!(outbox.stop(Duration::from_millis(10)).is_empty(), "both are on disk");
    // The thread is left behind with its call; the spool is free for the next.
    let next = Fake::new(Server::Takes, 1);
    let outbox = start(next.clone(), impatient(), Some(folder.path()), &told).unwrap();
    until("both delivered", || outbox.is_idle());
    assert_eq!(next.ids(), ["a1.1", "a2.1"]);
    fake.becomes(Server::Takes);
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
