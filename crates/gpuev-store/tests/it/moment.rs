//! Moments as people write them.

use gpuev::time::Anchor;
use gpuev_store::unix_ns_of;

const SECOND: i64 = 1_000_000_000;

/// 2026-11-22T11:45:01Z.
const NOW: Anchor = Anchor { boot_ns: 0, unix_ns: 1_795_347_901 * SECOND };

#[test]
fn before_now() {
    let before = |text| NOW.unix_ns - unix_ns_of(text, NOW).unwrap();
    assert_eq!(before("now"), 0);
    assert_eq!(before("10m ago"), 600 * SECOND);
    assert_eq!(before("10 minutes ago"), 600 * SECOND);
    assert_eq!(before("-1h30m"), 5_400 * SECOND);
    assert_eq!(before("1.5h"), 5_400 * SECOND);
    assert_eq!(before(" 250ms "), SECOND / 4);
    assert_eq!(before("2w"), 14 * 86_400 * SECOND);
}

#[test]
fn absolute() {
    let at = |text| unix_ns_of(text, NOW).unwrap();
    assert_eq!(at("2026-11-22T11:45:01Z"), NOW.unix_ns);
    assert_eq!(at("2026-11-22T12:45:01.5+01:00"), NOW.unix_ns + SECOND / 2);
    assert_eq!(at("@1795347901.5"), NOW.unix_ns + SECOND / 2);
    assert_eq!(at("2026-11-22 11:45") - at("2026-11-22"), (11 * 60 + 45) * 60 * SECOND);
    assert!(at("today") <= NOW.unix_ns && at("yesterday") < at("today"));
}

#[test]
fn what_means_nothing_is_told_with_what_would() {
    for text in
        ["", "soon", "10", "10x ago", "2026-13-01", "@", "-", "ago", "1e99h", "99999999999w"]
    {
        let error = unix_ns_of(text, NOW).unwrap_err();
        assert!(error.to_string().contains("10m ago"), "{text}: {error}");
    }
}
