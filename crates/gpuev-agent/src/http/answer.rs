//! Answers: JSON, and refusals that say what would be right.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header::{self, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use gpuev::json::Object;
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

/// A piece that is written at once.
const PIECE: usize = 64 << 10;

/// JSON as it is.
pub(super) fn json(text: String) -> Response {
    with_type(StatusCode::OK, "application/json", Body::from(text))
}

/// JSON that holds its place among those under way until it is sent.
pub(super) fn held_json(text: String, place: OwnedSemaphorePermit) -> Response {
    let body = Held { rest: Bytes::from(text), _place: place };
    with_type(StatusCode::OK, "application/json", Body::new(body))
}

pub(super) fn with_type(status: StatusCode, content: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    response
}

/// `{"error":"…"}`
pub(super) fn refused(status: StatusCode, why: &str) -> Response {
    let mut text = String::new();
    let mut object = Object::nested(&mut text);
    object.text("error", why);
    object.end();
    with_type(status, "application/json", Body::from(text))
}

pub(super) async fn nothing_here(uri: Uri) -> Response {
    let why =
        format!("there is nothing at {}; /api/v1/openapi.json tells what there is", uri.path());
    refused(StatusCode::NOT_FOUND, &why)
}

pub(super) async fn only_get() -> Response {
    let mut response =
        refused(StatusCode::METHOD_NOT_ALLOWED, "only GET: nothing can be changed here");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// A body that gives its place back when it is gone.
struct Held {
    rest: Bytes,
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
