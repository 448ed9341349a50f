//! A message as a mail (RFC 5322, MIME).

use std::fmt::Write;

use gpuev::time::{Anchor, Rfc3339};
use serde_json::Value;

use crate::sink::base64::base64;
use crate::sink::message::Message;
use crate::sink::words::Words;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Bytes of text in one encoded word of a header, so that it has at most 75 characters.
const ENCODED_WORD: usize = 45;
/// Bytes in a line of a Base64 body.
const BODY_LINE: usize = 57;

/// Refuses what is no address, or holds what could be taken for SMTP.
///
/// # Errors
/// It is none.
pub(super) fn check_address(address: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_graphic() && !"<>()[],;:\\\"".contains(c);
    let parts = address.split_once('@');
    let sound = parts.is_some_and(|(name, domain)| !name.is_empty() && !domain.is_empty());
    let sound = sound && address.chars().all(plain);
    sound.then_some(()).ok_or_else(|| format!("{address:?} is no mail address"))
}

/// The whole mail with its headers.
pub(super) fn text(
    message: &Message,
    record: &Value,
    host: &str,
    from: &str,
    to: &[String],
) -> String {
    let words = Words::of(message, record, host);
    let domain: String =
        host.chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect();
    let id = |id: &str| {
        let id: String =
            id.chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).collect();
        format!("<{id}@{domain}>")
    };
    let thread = id(&words.key);
    let headers = [
        ("From", from.to_owned()),
        ("To", to.join(",\r\n ")),
        ("Subject", header_text(&words.headline)),
        ("Date", date(Anchor::now().unix_ns)),
        ("Message-ID", id(&message.id)),
        ("In-Reply-To", thread.clone()),
        ("References", thread),
        ("Auto-Submitted", "auto-generated".to_owned()),
        ("X-Gpuev-Id", id(&message.id)),
        ("MIME-Version", "1.0".to_owned()),
        ("Content-Type", "text/plain; charset=utf-8".to_owned()),
        ("Content-Transfer-Encoding", "base64".to_owned()),
    ];
    let mut mail = String::new();
    for (name, value) in headers {
        let _infallible = write!(mail, "{name}: {value}\r\n");
    }
    let body = body(&words, record, message);
    for line in body.as_bytes().chunks(BODY_LINE) {
        mail.push_str("\r\n");
        mail.push_str(&base64(line));
    }
    mail.push_str("\r\n");
    mail
}

/// What people read.
fn body(words: &Words, record: &Value, message: &Message) -> String {
    let mut text = format!("{}\n\n{}\n", words.headline, words.summary);
    if !words.action.is_empty() {
        let _infallible = write!(text, "\nWhat to do: {}\n", words.action);
    }
    let _infallible = write!(text, "\n{}\n", words.details);
    if let Some(count) = record["count"].as_u64() {
        let _infallible = writeln!(text, "count: {count}");
    }
    let _infallible = write!(text, "time: {}\nid: {}\n", Rfc3339(message.unix_ns), message.id);
    text
}

/// Encoded words (RFC 2047) for what is not plain ASCII; no control character is left.
fn header_text(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(500).collect();
    if text.is_ascii() && text.len() <= 900 {
        return text;
    }
    let mut words: Vec<String> = vec![String::new()];
    for character in text.chars() {
        let full =
            words.last().is_some_and(|word| word.len() + character.len_utf8() > ENCODED_WORD);
        if full {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(character);
        }
    }
    let words: Vec<String> =
        words.iter().map(|word| format!("=?utf-8?B?{}?=", base64(word.as_bytes()))).collect();
    words.join("\r\n ")
}

/// `22 Nov 2026 11:45:01 +0000`.
fn date(unix_ns: i64) -> String {
    let text = Rfc3339(unix_ns).to_string();
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    let month = part(5, 7).parse().ok().and_then(|month: usize| MONTHS.get(month.wrapping_sub(1)));
    format!("{} {} {} {} +0000", part(8, 10), month.unwrap_or(&"Jan"), part(0, 4), part(11, 19))
}
