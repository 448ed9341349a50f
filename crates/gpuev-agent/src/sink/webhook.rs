//! Webhooks: a POST for each message, its body made by a template. Ready ones are `json` (the record itself),
//! `slack`, `teams` and `pagerduty`.
//!
//! What `{{ … }}` puts into a JSON template is JSON: texts come quoted and escaped, so that no task name can
//! break out of its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Value, context};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::http::{Client, HttpSettings, check_url};
use super::message::{Message, Numbering};
use super::outbox::OutboxSettings;
use super::people::{MOST, as_one, group_state};
use super::secret::Secret;
use super::settings::{Context, Firing, SinkSettings};
use super::words::Words;
use super::{Failure, Filter, Order, Sink};
use crate::alert::{Alert, AlertState};

/// Where PagerDuty takes events, for its ready template.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";
const JSON: &str = "application/json";

/// `[sinks.webhook.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookSettings {
    /// The address.
    pub url: Option<String>,
    /// The file with the address, where it is a secret as with Slack and Teams.
    pub url_file: Option<PathBuf>,
    /// A ready template: `json`, `slack`, `teams` or `pagerduty`.
    pub template: Ready,
    /// A template of one's own instead.
    pub template_file: Option<PathBuf>,
    /// The file whose text is `secret` in templates: PagerDuty's routing key.
    pub secret_file: Option<PathBuf>,
    /// The body's type.
    pub content_type: String,
    /// More headers.
    pub headers: BTreeMap<String, String>,
    /// How the server is reached.
    pub http: HttpSettings,
    /// What is sent. Unset: alerts that should wake somebody.
    pub send: Filter,
    /// How messages wait. They are kept on disk, too, unless `queue.spool` says otherwise.
    pub queue: OutboxSettings,
}

impl Default for WebhookSettings {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            template: Ready::Json,
            template_file: None,
            secret_file: None,
            content_type: JSON.to_owned(),
            headers: BTreeMap::new(),
            http: HttpSettings::default(),
            send: Filter::default(),
            queue: OutboxSettings::default(),
        }
    }
}

/// A ready template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ready {
    /// The record as it is.
    Json,
    /// An incoming webhook of Slack; Mattermost takes it, too.
    Slack,
    /// A workflow of Microsoft Teams that takes adaptive cards.
    Teams,
    /// PagerDuty's Events API v2.
    PagerDuty,
}

impl Ready {
    const fn text(self) -> &'static str {
        match self {
            Self::Json => "{{ record }}",
            Self::Slack => include_str!("webhook/slack.json.j2"),
            Self::Teams => include_str!("webhook/teams.json.j2"),
            Self::PagerDuty => include_str!("webhook/pagerduty.json.j2"),
        }
    }
}

impl SinkSettings for WebhookSettings {
    const KIND: &'static str = "webhook";
    const PROMISES: bool = true;

    fn defaults() -> Filter {
        Filter::of_alerts()
    }

    fn send(&self) -> &Filter {
        &self.send
    }

    fn queue(&self) -> &OutboxSettings {
        &self.queue
    }

    fn build(&self, context: &Context) -> Result<Box<dyn Sink>, String> {
        let text = match &self.template_file {
            Some(path) => read(path)?,
            None => self.template.text().to_owned(),
        };
        let webhook = Webhook {
            client: Client::new(&self.http)?,
            template: template(text, self.content_type.contains("json"))?,
            settings: self.clone(),
            host: context.host.clone(),
            firing: context.firing.clone(),
        };
        check_url(&webhook.url()?)?;
        webhook.try_template()?;
        Ok(Box::new(webhook))
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("template {}: {error}", path.display()))
}

/// # Errors
/// It is no template: why, with the line.
fn template(text: String, json: bool) -> Result<Environment<'static>, String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(
        move |_| {
            if json { AutoEscape::Json } else { AutoEscape::None }
        },
    );
    environment.add_filter("slack", slack);
    let added = environment.add_template_owned("webhook", text);
    added.map_err(|error| format!("its template: {error:#}"))?;
    Ok(environment)
}

/// What Slack would take for a link or a mention.
fn slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

struct Webhook {
    client: Client,
    settings: WebhookSettings,
    template: Environment<'static>,
    host: String,
    firing: Firing,
}

impl Webhook {
    /// Chats and pagers; what reads JSON gets each alert.
    fn is_for_people(&self) -> bool {
        self.settings.template_file.is_none() && self.settings.template != Ready::Json
    }

    /// Read each time where it is in a file: it may be changed while the agent runs.
    fn url(&self) -> Result<String, String> {
        match (&self.settings.url, &self.settings.url_file) {
            (Some(url), None) => Ok(url.clone()),
            (None, Some(file)) => Ok(Secret::read(file)?.text().to_owned()),
            (None, None) if self.settings.template == Ready::PagerDuty => Ok(PAGERDUTY.to_owned()),
            _ => Err("give either `url` or `url_file`".to_owned()),
        }
    }

    fn secret(&self) -> Result<Option<String>, String> {
        let file = self.settings.secret_file.as_deref();
        let secret = file.map(Secret::read).transpose()?;
        if secret.is_none() && self.settings.template == Ready::PagerDuty {
            return Err("give PagerDuty's routing key in `secret_file`".to_owned());
        }
        Ok(secret.map(|secret| secret.text().to_owned()))
    }

    fn body(&self, message: &Message, secret: Option<&str>) -> Result<String, String> {
        let record: Json = serde_json::from_str(&message.json).map_err(|e| e.to_string())?;
        let state = group_state(message, |group| {
            let fires = |alert: &Arc<Alert>| alert.state == AlertState::Firing && !alert.silenced;
            (self.firing)().iter().any(|alert| fires(alert) && alert.group == group)
        });
        let values = values(message, &record, (&self.host, secret, state));
        let template = self.template.get_template("webhook").map_err(|e| e.to_string())?;
        let body = template.render(values).map_err(|error| format!("its template: {error:#}"))?;
        if self.settings.content_type.contains("json") {
            let parsed: Result<Json, _> = serde_json::from_str(&body);
            parsed.map_err(|error| format!("its template makes no JSON: {error}"))?;
        }
        Ok(body)
    }

    /// Whether the template works, tried on a loss: the record that has the fewest fields.
    fn try_template(&self) -> Result<(), String> {
        let secret = self.secret()?;
        self.body(&Numbering::new().of_loss("example", 1), secret.as_deref()).map(drop)
    }
}

/// What templates may use. `docs/sinks.md` lists it.
fn values(
    message: &Message,
    record: &Json,
    (host, secret, group_state): (&str, Option<&str>, Json),
) -> Value {
    let group = message.alert.as_ref().map(|alert| format!("{host}/{}", alert.group));
    let Words { key, state, headline, summary, action, details, labels, colour } =
        Words::of(message, record, host);
    context! {
        group, group_state => Value::from(Serde(&group_state)),
        id => &*message.id, key, host, secret, state, headline, summary, action, details, colour,
        kind => message.kind.name(),
        severity => message.severity.name(),
        labels => Value::from(Serde(&labels)),
        record => Value::from(Serde(record)),
    }
}

impl Sink for Webhook {
    fn order(&self) -> Order {
        if self.is_for_people() { Order::People } else { Order::Alerts }
    }

    fn batch(&self) -> usize {
        if self.is_for_people() { MOST } else { 1 }
    }

    fn deliver(&mut self, batch: &[Message]) -> Result<usize, Failure> {
        if let Some(message) = &as_one(batch) {
            let url = self.url().map_err(Failure::unreachable)?;
            let secret = self.secret().map_err(Failure::unreachable)?;
            let body = self.body(message, secret.as_deref()).map_err(Failure::Refused)?;
            let own = self.settings.headers.iter().map(|(name, value)| (&**name, &**value));
            let mut headers = vec![
                ("Content-Type", &*self.settings.content_type),
                ("Idempotency-Key", &*message.id),
            ];
            headers.extend(own);
            self.client.post(&url, &headers, &body)?;
        }
        Ok(0)
    }
}
