//! What tells one history and one session from all others, on every machine.

use std::fmt;
use std::str::FromStr;

use gpuev::{Error, ErrorKind, Result};

/// 128 bits, random unless the session was recorded by a gpuev that gave it none. Written as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(u128);

impl Uid {
    /// A new one, from the kernel's random numbers.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(16) => Self(u128::from_ne_bytes(bytes)),
            // Where the system call is forbidden: the keys of the standard library's maps are random as well.
            _ => Self(u128::from(of_map_keys()) << 64 | u128::from(of_map_keys())),
        }
    }

    /// The one that these facts make, always the same: of a session that has none of its own.
    pub(crate) fn of_facts<'a>(facts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        // FNV-1a of 128 bits.
        const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
        let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
        let mut take = |byte: u8| hash = (hash ^ u128::from(byte)).wrapping_mul(PRIME);
        for fact in facts {
            fact.iter().for_each(|byte| take(*byte));
            take(0xff);
        }
        Self(hash)
    }
}

fn of_map_keys() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Uid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_one = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(number) if is_one => Ok(Self(number)),
            _ => {
                let what = format!("{text:?} is no id of a session: 32 hex digits");
                Err(Error::new(ErrorKind::InvalidInput, what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written_and_never_comes_twice() {
        let uids: Vec<Uid> = (0..100).map(|_| Uid::random()).collect();
        for (place, uid) in uids.iter().enumerate() {
            assert_eq!(uid.to_string().parse::<Uid>().unwrap(), *uid);
            assert!(!uids[..place].contains(uid));
        }
        for text in ["", "12", "+1234567890123456789012345678901", &"g".repeat(32)] {
            assert!(text.parse::<Uid>().is_err(), "{text}");
        }
    }

    #[test]
    fn facts_make_the_same_id_and_others_another() {
        let of = |facts: [&str; 2]| Uid::of_facts(facts.map(str::as_bytes));
        assert_eq!(of(["a", "b"]), of(["a", "b"]));
        assert_ne!(of(["a", "b"]), of(["ab", ""]));
    }
}
