//! What every request goes through: an id, a route's label, one line in the log, one count in the
//! metrics, and a refusal in the right dialect when no route takes it. It knows nothing of `flow`.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::Request,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{AUTHORIZATION, HeaderName},
        request::Parts,
    },
    response::Response,
    routing::{MethodFilter, on},
};
use dayfly_domain::{Reason, may_hold_secret};

use super::{
    refusal::{Dialect, reason_of},
    routes::{Listener, OCSP_PATH, ROUTES, Route, RouteRow, Verb},
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// An `X-Request-Id` that is echoed; a longer one is replaced.
pub const REQUEST_ID_MAX_BYTES: usize = 128;
/// The label of requests that no route took: never the path itself (T-161).
const UNMATCHED: &str = "none";

/// Names requests and turns them away. Cheap to clone; the accept loop has one for what never
/// reaches the router.
#[derive(Clone)]
pub struct Door {
    issuer: Arc<str>,
    prefix: Arc<str>,
    count: Arc<AtomicU64>,
}

/// One request, as its refusals need it.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub request_id: Arc<str>,
    pub issuer: Arc<str>,
    pub dialect: Dialect,
    /// It brought an `Authorization` header.
    pub presented: bool,
}

impl Door {
    /// `request_prefix`: random text of this process, so that ids made here meet no others.
    pub fn new(issuer: &str, request_prefix: &str) -> Self {
        Self { issuer: issuer.into(), prefix: request_prefix.into(), count: Arc::default() }
    }

    /// A request turned away by its status alone: 408, 413, 431, 503 of the accept loop.
    pub fn refuse(&self, status: StatusCode, parts: &Parts) -> Response {
        let context = self.context(&parts.headers, parts.uri.path());
        context.named(context.refuse(reason_of(status, context.dialect).into()))
    }

    /// The routes of one listener over what answers them, and a refusal for everything else.
    pub(super) fn router<F, R>(&self, listener: Listener, answer: F) -> Router
    where
        F: Fn(Route, Context, Request) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        let mut router = Router::new();
        for row in ROUTES.iter().filter(|row| listener.serves(row.listener)) {
            let (door, answer) = (self.clone(), answer.clone());
            let serve = move |request: Request| {
                let (door, answer) = (door.clone(), answer.clone());
                async move { door.observe(row.path, request, |context, request| answer(row.route, context, request)).await }
            };
            router = router.route(row.path, on(filter(row.verb), serve));
        }
        router.fallback(self.refusing(Reason::NotFound)).method_not_allowed_fallback(self.refusing(Reason::Method))
    }

    fn refusing(
        &self,
        reason: Reason,
    ) -> impl Fn(Request) -> std::pin::Pin<Box<dyn Future<Output = Response> + Send>> + Clone + Send + Sync + 'static
    {
        let door = self.clone();
        move |request| {
            let door = door.clone();
            let refuse = move |context: Context, _| std::future::ready(context.refuse(reason.into()));
            Box::pin(async move { door.observe(UNMATCHED, request, refuse).await })
        }
    }

    async fn observe<R: Future<Output = Response>>(
        &self,
        label: &'static str,
        request: Request,
        answer: impl FnOnce(Context, Request) -> R,
    ) -> Response {
        let began = Instant::now();
        let context = self.context(request.headers(), request.uri().path());
        let (method, trace) = (request.method().clone(), trace_id(request.headers()));
        let plain = is_plain(request.uri().path()) || label == OCSP_PATH && is_base64(request.uri().path());
        let (label, response) = match plain {
            true => (label, answer(context.clone(), request).await),
            false => (UNMATCHED, context.refuse(Reason::NotFound.into())),
        };
        let response = context.named(response);
        told(label, &method, &context, trace.as_deref(), &response, began.elapsed());
        response
    }

    fn context(&self, headers: &HeaderMap, path: &str) -> Context {
        Context {
            request_id: self.request_id(headers),
            issuer: self.issuer.clone(),
            dialect: Dialect::of_path(path),
            presented: headers.contains_key(AUTHORIZATION),
        }
    }

    fn request_id(&self, headers: &HeaderMap) -> Arc<str> {
        let mut sent = headers.get_all(REQUEST_ID).iter();
        let one = sent.next().filter(|_| sent.next().is_none()).and_then(|value| value.to_str().ok());
        match one.filter(|id| is_request_id(id)) {
            Some(id) => id.into(),
            None => format!("{}-{:x}", self.prefix, self.count.fetch_add(1, Ordering::Relaxed)).into(),
        }
    }
}

impl Context {
    fn named(&self, mut response: Response) -> Response {
        if let Ok(value) = HeaderValue::from_str(&self.request_id) {
            response.headers_mut().insert(REQUEST_ID, value);
        }
        response
    }
}

// SECURITY: router, policy and log see one spelling of a path, because there is only one: no
// escapes, no parameters, no empty or dot segments;
// t_113_paths_that_are_not_spelled_as_in_the_table_are_unknown
fn is_plain(path: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-');
    let whole = |segment: &str| !matches!(segment, "" | "." | "..");
    path == "/" || path.bytes().all(letter) && path.split('/').skip(1).all(whole)
}

/// An OCSP request in a path (RFC 6960 appendix A.1): its letters may be escaped or not, and are the request itself.
/// Nothing is found by them, and all spellings are read as one.
fn is_base64(path: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'+' | b'=' | b'%');
    path.bytes().all(letter)
}

/// One event and one count per request: never a path, a query, a header or a body.
fn told(
    label: &'static str,
    method: &Method,
    context: &Context,
    trace: Option<&str>,
    response: &Response,
    took: Duration,
) {
    let status = response.status();
    let reason = response.extensions().get::<Reason>().map(|reason| reason.code());
    metrics::counter!("dayfly_http_requests_total", "route" => label, "status" => status.as_str().to_owned())
        .increment(1);
    if label == "/oauth2/token" {
        metrics::histogram!("dayfly_issue_duration_seconds").record(took.as_secs_f64());
    }
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let (method, status, request_id) = (known_method(method), status.as_u16(), &*context.request_id);
    if is_quiet(label, status) {
        tracing::debug!(method, route = label, status, micros, request_id, trace, reason, "request");
    } else {
        tracing::info!(method, route = label, status, micros, request_id, trace, reason, "request");
    }
}

/// Probes are no news, they come every few seconds for ever; nor is what went well and changed nothing:
/// a server introspects for each of its own requests.
fn is_quiet(label: &str, status: u16) -> bool {
    let quiet = |row: &RouteRow| row.listener == Listener::Ops || status < 400 && row.records.is_empty();
    ROUTES.iter().any(|row| row.path == label && quiet(row))
}

/// A method is text of the caller's choice; only the usual ones are written down.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

fn is_request_id(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=REQUEST_ID_MAX_BYTES).contains(&text.len()) && text.bytes().all(letter) && !may_hold_secret(text)
}

/// The trace id of a well-formed `traceparent` (W3C Trace Context, version 00).
fn trace_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let [version, trace, span, flags] = <[&str; 4]>::try_from(text.split('-').collect::<Vec<_>>()).ok()?;
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let filled = |part: &str| part.bytes().any(|byte| byte != b'0');
    let good = version == "00" && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && filled(trace) && filled(span);
    good.then(|| trace.to_owned())
}

fn filter(verb: Verb) -> MethodFilter {
    match verb {
        Verb::Get => MethodFilter::GET,
        Verb::Post => MethodFilter::POST,
        Verb::Delete => MethodFilter::DELETE,
    }
}

#[cfg(test)]
#[path = "door_tests.rs"]
mod tests;
