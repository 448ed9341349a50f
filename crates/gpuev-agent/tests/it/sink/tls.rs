//! TLS: every sink that speaks HTTP trusts whom it is told to trust, and nobody else.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use gpuev_agent::AlertState;
use gpuev_agent::sink::{Notice, Settings, Sinks};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::fixture::{Told, change, context, until};
use crate::receiver::{Does, ELSEWHERE, Receiver};
use crate::servers::has;

/// Makes an authority, whose certificate is `folder`/`name`, and what it vouches for: a server on `localhost`.
pub(super) fn certified(folder: &Path, name: &str) -> Arc<ServerConfig> {
    let path = |what: &str| folder.join(format!("{name}{what}"));
    let subject = format!("/CN={name}");
    certificate([&subject, "basicConstraints=critical,CA:TRUE"], &[], &path(".key"), &path(""));
    let server = ["/CN=localhost", "basicConstraints=critical,CA:FALSE"];
    let (ca, ca_key) = (path(""), path(".key"));
    let of_ca = [Path::new("-CA"), &ca, Path::new("-CAkey"), &ca_key];
    certificate(server, &of_ca, &path(".server.key"), &path(".server"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(path(".server")).unwrap()],
            PrivateKeyDer::from_pem_file(path(".server.key")).unwrap(),
        );
    Arc::new(config.unwrap())
}

fn certificate([subject, constraints]: [&str; 2], signer: &[&Path], key: &Path, cert: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-config", "/dev/null", "-subj", subject])
        .args(["-addext", constraints, "-addext", "subjectAltName=DNS:localhost"])
        .args(signer)
        .args([Path::new("-keyout"), key, Path::new("-out"), cert])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// The sinks that speak HTTP, each for the server at `url`.
fn sinks(url: &str) -> [(&'static str, String); 3] {
    [
        ("webhook", format!("[webhook.one]\nurl = \"{url}/hook\"\n")),
        ("alertmanager", format!("[alertmanager.one]\nurls = [\"{url}\"]\n")),
        ("otlp", format!("[otlp.one]\nurl = \"{url}\"\nmetrics_every = \"0s\"\n")),
    ]
}

fn start(folder: &Path, sink: &str, ca: &str, told: &Told) -> Sinks {
    let ca = folder.join(ca);
    let fast = "queue.retry_first = \"1ms\"\nqueue.retry_most = \"5ms\"\n";
    let settings: Settings =
        toml::from_str(&format!("{sink}http.ca_file = {ca:?}\n{fast}")).unwrap();
    Sinks::start(&settings, context(folder, told)).unwrap()
}

#[test]
fn whom_the_authority_vouches_for_is_told() {
    if !has("openssl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tls = certified(folder.path(), "ca");
    for (kind, sink) in sinks_of(Does::Answers(200), &tls) {
        let sinks = start(folder.path(), &sink.1, "ca", &Told::default());
        sinks.change(&change(kind, AlertState::Firing));
        until("it is told", || !sink.0.taken().is_empty());
        until("nothing waits", || sinks.stats()[0].waiting == 0);
        assert!(sink.0.taken()[0].body.contains("memory fault"), "{kind}");
    }
}

/// A receiver for each kind of sink, and the sink's settings.
fn sinks_of(
    does: Does,
    tls: &Arc<ServerConfig>,
) -> impl Iterator<Item = (&'static str, (Receiver, String))> {
    (0..3).map(move |which| {
        let receiver = Receiver::with_tls(does, tls.clone());
        let [webhook, alertmanager, otlp] = sinks(&format!("https://localhost:{}", receiver.port));
        let (kind, sink) = [webhook, alertmanager, otlp].into_iter().nth(which).unwrap();
        (kind, (receiver, sink))
    })
}

#[test]
fn a_server_of_another_authority_or_of_another_name_learns_nothing() {
    if !has("openssl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tls = certified(folder.path(), "ca");
    let _another = certified(folder.path(), "another");
    let receiver = Receiver::with_tls(Does::Answers(200), tls);
    for (host, ca, why) in
        [("localhost", "another", "UnknownIssuer"), ("127.0.0.1", "ca", "not valid for name")]
    {
        for (kind, sink) in sinks(&format!("https://{host}:{}", receiver.port)) {
            let spool = tempfile::tempdir_in(folder.path()).unwrap();
            std::fs::copy(folder.path().join(ca), spool.path().join(ca)).unwrap();
            let told = Told::default();
            let sinks = start(spool.path(), &sink, ca, &told);
            sinks.change(&change("a1", AlertState::Firing));
            until("it is told", || told.count(|n| matches!(n, Notice::Failing { .. })) > 0);
            let said = told.all()[0].to_string();
            assert!(said.contains("certificate") && said.contains(why), "{kind} {ca}: {said}");
            assert_eq!((receiver.seen(), sinks.stats()[0].waiting), (0, 1), "{kind} {ca}");
        }
    }
}

#[test]
fn redirects_are_not_followed() {
    if !has("openssl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tls = certified(folder.path(), "ca");
    for status in [301, 302, 303, 307, 308] {
        for (kind, (receiver, sink)) in sinks_of(Does::Answers(status), &tls) {
            let spool = tempfile::tempdir_in(folder.path()).unwrap();
            std::fs::copy(folder.path().join("ca"), spool.path().join("ca")).unwrap();
            let told = Told::default();
            let sinks = start(spool.path(), &sink, "ca", &told);
            sinks.change(&change("a1", AlertState::Firing));
            until("it is told", || told.count(|n| matches!(n, Notice::Failing { .. })) > 0);
            let said = told.all()[0].to_string();
            assert!(said.contains("redirects are not followed"), "{kind} {status}: {said}");
            receiver.does(Does::Answers(200));
            until("nothing waits", || sinks.stats()[0].waiting == 0);
            let taken = receiver.taken();
            assert!(taken.iter().all(|request| request.path != ELSEWHERE), "{kind} {status}");
        }
    }
}
