//! Messages are found wherever the stream is cut.

use gpuev_kfd::framing::{LONGEST_LINE, message_length};
use proptest::prelude::*;

use crate::captures::messages;

/// Feeds `stream` in pieces of the given sizes; says it is drained only at the end.
fn reassemble(stream: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut held: Vec<u8> = Vec::new();
    let mut rest = stream;
    let mut sizes = cuts.iter().copied().cycle();
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
        held.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        take(&mut held, rest.is_empty(), &mut found);
    }
    found.push(held);
    found
}

fn take(held: &mut Vec<u8>, drained: bool, found: &mut Vec<Vec<u8>>) {
    while let Some(length) = message_length(held, drained) {
        found.push(held.drain(..length).collect());
    }
}

/// Streams of genuine lines, over-long messages of both kinds, and noise.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let old_over_long = prop::collection::vec(any::<u8>(), 7).prop_map(|junk| {
        let mut message = vec![b'5'; 95];
        message.push(0);
        message.extend(junk);
        message
    });
    let part = prop_oneof![
        8 => super::codec::record().prop_map(|record| {
            let mut line = Vec::new();
            record.encode(&mut line);
            line.truncate(94);
            line.push(b'\n');
            line
        }),
        1 => old_over_long,
        1 => Just(vec![b'7'; 95]),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ];
    prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn a_stream_cut_anywhere_gives_the_same_messages(
        stream in stream(),
        cuts in prop::collection::vec(1..150_usize, 1..20),
    ) {
        let whole = reassemble(&stream, &[usize::MAX]);
        prop_assert_eq!(whole.concat(), stream.clone(), "no byte is lost");
        prop_assert_eq!(&reassemble(&stream, &cuts), &whole);
        prop_assert_eq!(&reassemble(&stream, &[1]), &whole);
    }
}

#[test]
fn an_over_long_message_does_not_swallow_the_next() {
    let mut old = vec![b'5'; 95];
    old.extend(b"\0\0\x0a\x4c\n\x62\xec\x0d");
    old.extend(b"2 400:7\n");
    let found = messages(&old);
    assert_eq!(found[0].len(), 103);
    assert_eq!(found[1], b"2 400:7\n");

    let mut new = vec![b'5'; 190];
    new.extend(b"7 1 -2 @7(1) R\n");
    let found = messages(&new);
    assert_eq!((found[0].len(), found[1].len(), found[2]), (95, 95, &b"7 1 -2 @7(1) R\n"[..]));
}

#[test]
fn a_longer_line_of_a_later_kernel_stays_whole() {
    let mut line = b"f 123 ".to_vec();
    line.extend(vec![b'x'; 200]);
    line.push(b'\n');
    assert_eq!(messages(&line), [&line[..]]);
}

#[test]
fn a_mebibyte_of_noise_without_a_newline_comes_in_bounded_pieces() {
    let noise = vec![b'n'; 1 << 20];
    let found = messages(&noise);
    assert!(found.iter().all(|piece| piece.len() <= LONGEST_LINE));
    assert_eq!(found.concat(), noise);
}
