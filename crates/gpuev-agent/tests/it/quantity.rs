//! Times and sizes as people write them.

use std::time::Duration;

use gpuev_agent::quantity::{Period, Size};

#[derive(serde::Deserialize, serde::Serialize, PartialEq, Debug)]
struct Both {
    time: Period,
    size: Size,
}

#[test]
fn times_and_sizes_are_read_as_people_write_them_and_shown_as_short() {
    for (text, time) in [("500ms", 500), ("1.5s", 1500), ("90", 90_000), ("2h", 7_200_000)] {
        assert_eq!(text.parse::<Period>().unwrap().0, Duration::from_millis(time), "{text}");
    }
    for text in ["0s", "500ms", "30s", "5m", "2h", "7d"] {
        assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
    }
    for text in ["0", "1000", "64K", "16M", "2G", "1T"] {
        assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
    }
    let both: Both = toml::from_str("time = 30\nsize = \"2MiB\"").unwrap();
    assert_eq!(both, Both { time: Period::from_secs(30), size: Size(2 << 20) });
}

#[test]
fn nonsense_is_refused_with_what_would_make_sense() {
    for text in ["", "s", "10x", "-1s", "1e400d", "٣s"] {
        let told = text.parse::<Period>().unwrap_err().to_string();
        assert!(told.contains("write it as"), "{told}");
    }
    for text in ["", "M", "1.5M", "-1", "99999999999T", "1é"] {
        assert!(text.parse::<Size>().unwrap_err().to_string().contains("write it as"));
    }
    let told = toml::from_str::<Both>("time = \"soon\"\nsize = 1").unwrap_err().to_string();
    assert!(told.contains("line 1"), "{told}");
    assert!(toml::from_str::<Both>("time = -1\nsize = 1").is_err());
}
