//! What can be asked over HTTP; docs/deployment.md is the reference.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::on;
use axum::{Json, Router};
use bytes::Bytes;
use http_body_util::Channel;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use super::openapi::{self, Route, parameters, shape};
use super::peers::PEER;
use super::raised::{DetailRequest, DetailStatus};
use super::reload::{Live, Reloaded};
use super::seldom::Seldom;
use super::status::Status;
use super::store::{self, Refusal};
use super::{Ask, Dumped, metrics};
use crate::pattern::Pattern;
use crate::trigger::Firing;
use crate::trigger::alertmanager::{self, Notification};

/// The way to the daemon.
#[derive(Clone)]
pub struct Asker {
    pub ask: mpsc::Sender<Ask>,
    pub live: watch::Receiver<Live>,
    /// Notifications that nobody understands.
    pub unknown: Arc<Seldom>,
}

/// What a dump is wanted for. All of it may be left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DumpRequest {
    /// Names the folder.
    pub name: Option<String>,
    /// How far back, ms.
    pub last_ms: Option<u64>,
    /// How long to go on recording first, ms.
    pub after_ms: Option<u64>,
    /// Pattern of the event to explain.
    pub symptom: Option<String>,
    /// Pattern of an event that did not happen.
    pub missing: Option<String>,
    /// The host whose daemon asks for this host's part of its own dump: no further hosts are asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
    /// What that host calls its dump: parts of one incident are uploaded to one place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
}

/// Larger bodies are refused unread.
const MOST_BYTES: usize = 1 << 20;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// All that can be asked: the router and docs/openapi.json are both made from it.
pub const ROUTES: &[Route] = &[
    Route {
        path: "/healthz",
        serve: |method| on(method, async || "ok\n"),
        told: "Says `ok`",
        ..Route::GET
    },
    Route {
        path: "/metrics",
        serve: |method| on(method, metrics),
        told: "How things stand, in the text format of Prometheus",
        query: Some(parameters::<StatusQuery>),
        ..Route::GET
    },
    Route {
        path: "/v1/status",
        serve: |method| on(method, status),
        told: "How things stand",
        query: Some(parameters::<StatusQuery>),
        answer: Some(shape::<Status>),
        ..Route::GET
    },
    Route {
        path: "/v1/openapi.json",
        serve: |method| on(method, async || Json(openapi::document(ROUTES))),
        told: "This document",
        answer: Some(shape::<serde_json::Map<String, serde_json::Value>>),
        ..Route::GET
    },
    Route {
        path: "/v1/dump",
        serve: |method| on(method, dump),
        told: "Keeps what the rings hold and explains it; answers when the dump is made",
        body: Some(shape::<DumpRequest>),
        answer: Some(shape::<Dumped>),
        refusals: &[(429, "A limit does not allow another dump now")],
        ..Route::POST
    },
    Route {
        path: "/v1/dumps/{dump}/recording.parquet",
        serve: |method| on(method, recording),
        told: "The recording of a dump that is held here",
        media: PARQUET,
        refusals: &[(404, "There is no such dump")],
        ..Route::GET
    },
    Route {
        path: "/v1/detail",
        serve: |method| on(method, detail),
        told: "Records more for a while, or no more; answers what is recorded now",
        body: Some(shape::<DetailRequest>),
        answer: Some(shape::<DetailStatus>),
        ..Route::POST
    },
    Route {
        path: "/v1/reload",
        serve: |method| on(method, reload),
        told: "Reads the configuration again",
        answer: Some(shape::<Reloaded>),
        refusals: &[(422, "The configuration is wrong, and nothing was changed")],
        ..Route::POST
    },
    Route {
        path: "/api/v1/alerts",
        serve: |method| on(method, alerts),
        told: "For Alertmanager's webhook; answers at once",
        body: Some(shape::<Notification>),
        answer: Some(shape::<Heard>),
        ..Route::POST
    },
];

/// For those who may use the machine's own socket.
pub fn router(asker: Asker) -> Router {
    let add = |router: Router<Asker>, route: &Route| {
        router.route(route.path, (route.serve)(route.method))
    };
    ROUTES.iter().fold(Router::new(), add).with_state(asker)
}

/// The same for those who have the token.
pub fn guarded(asker: Asker) -> Router {
    router(asker.clone()).layer(middleware::from_fn_with_state(asker, check))
}

async fn check(State(asker): State<Asker>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let given = given.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
    let token = asker.live.borrow().token.clone();
    if !token.is_some_and(|token| same(given.as_bytes(), token.as_bytes())) {
        return refuse(StatusCode::UNAUTHORIZED, "a bearer token is needed, and this is not it");
    }
    next.run(request).await
}

/// Takes as long for a wrong token as for the right one, so that its letters cannot be guessed one by one.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differs = a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differs) == 0
}

/// Why something is not done.
#[derive(Serialize, JsonSchema)]
pub struct Refused {
    error: String,
}

fn refuse(status: StatusCode, why: impl std::fmt::Display) -> Response {
    (status, Json(Refused { error: why.to_string() })).into_response()
}

/// The daemon has more to do than it can remember, or is about to end.
fn busy() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "the daemon is busy; ask again in a moment")
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    /// Have the kernel count for so long what the probes cost, at most 2000 ms.
    measure_ms: Option<u64>,
}

/// Longer than this nobody would wait for.
const MOST_MEASURE_MS: u64 = 2000;

async fn status(State(asker): State<Asker>, Query(query): Query<StatusQuery>) -> Response {
    match standing(&asker, &query).await {
        Ok(status) => Json(status).into_response(),
        Err(response) => response,
    }
}

async fn metrics(State(asker): State<Asker>, Query(query): Query<StatusQuery>) -> Response {
    match standing(&asker, &query).await {
        Ok(status) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::text(&status))
                .into_response()
        }
        Err(response) => response,
    }
}

/// How things stand. Others are answered while the probes are measured.
async fn standing(asker: &Asker, query: &StatusQuery) -> Result<Status, Response> {
    let failed =
        |error: anyhow::Error| refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"));
    let mut counting = None;
    if let Some(ms) = query.measure_ms {
        counting = Some(ask(asker, Ask::Count).await.ok_or_else(busy)?.map_err(failed)?);
        tokio::time::sleep(Duration::from_millis(ms.min(MOST_MEASURE_MS))).await;
    }
    let status = ask(asker, |reply| Ask::Status(counting, reply)).await;
    status.ok_or_else(busy)?.map_err(failed)
}

async fn dump(State(asker): State<Asker>, body: Body) -> Response {
    let request = match read::<DumpRequest>(body).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    let firing = match firing(request) {
        Ok(firing) => firing,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, why),
    };
    match ask(&asker, |reply| Ask::Dump(Box::new(firing), reply)).await {
        Some(outcome) => told(outcome),
        None => busy(),
    }
}

fn firing(request: DumpRequest) -> Result<Firing, String> {
    for pattern in [&request.symptom, &request.missing].into_iter().flatten() {
        pattern.parse::<Pattern>().map_err(|error| error.to_string())?;
    }
    if let Some(name) = &request.incident {
        if !store::is_plain(name) || !store::is_name(name) {
            return Err("`incident` is no dump's name".to_owned());
        }
        if request.asked_by.is_none() {
            return Err("`incident` is for hosts that ask: it wants `asked_by`".to_owned());
        }
    }
    let name = request.name.as_deref().unwrap_or("asked");
    let source = if request.asked_by.is_some() { PEER } else { "api" };
    let since = |ms| Timestamp::now().checked_sub(Duration::from_millis(ms));
    Ok(Firing {
        // Whoever asks in person means it: only the limits of an hour hold.
        key: format!("{source} {}", Timestamp::now()),
        symptoms: request.symptom.clone().into_iter().collect(),
        missing: request.missing.clone(),
        since: request.last_ms.map(since).transpose().map_err(|error| error.to_string())?,
        after_ms: Some(request.after_ms.unwrap_or(0)),
        incident: request.incident.clone(),
        said: json!(request),
        ..Firing::new(name, source)
    })
}

fn told(outcome: Result<Dumped, Refusal>) -> Response {
    match outcome {
        Ok(dumped @ Dumped::Kept { .. }) => Json(dumped).into_response(),
        Ok(Dumped::Failed { why }) => refuse(StatusCode::INTERNAL_SERVER_ERROR, why),
        Err(refusal) => refuse(StatusCode::TOO_MANY_REQUESTS, refusal),
    }
}

const PARQUET: &str = "application/vnd.apache.parquet";
/// What is read of a file at a time, and how many such pieces wait for a slow client.
const PIECE: usize = 64 << 10;
const MOST_PIECES: usize = 2;

async fn recording(State(asker): State<Asker>, Path(dump): Path<String>) -> Response {
    let directory = asker.live.borrow().directory.clone();
    let file = store::recording(&directory, &dump).and_then(|path| File::open(path).ok());
    let Some(mut file) = file else {
        return refuse(StatusCode::NOT_FOUND, "there is no such dump");
    };
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(MOST_PIECES);
    tokio::spawn(async move {
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece) {
                Ok(0) => return,
                Ok(length) => {
                    let piece = Bytes::copy_from_slice(&piece[..length]);
                    let sent = tokio::time::timeout(PATIENCE, sender.send_data(piece)).await;
                    if !matches!(sent, Ok(Ok(()))) {
                        return sender.abort(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return sender.abort(error),
            }
        }
    });
    ([(header::CONTENT_TYPE, PARQUET)], Body::new(body)).into_response()
}

/// What became of a notification.
#[derive(Serialize, JsonSchema)]
struct Heard {
    fired: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
}

/// Alertmanager tries again when it is told that something failed, and waits meanwhile: so it is answered
/// at once, and refusals by the limits are no failure.
async fn alerts(State(asker): State<Asker>, body: Body) -> Response {
    let said = match read::<serde_json::Value>(body).await {
        Ok(said) => said,
        Err(response) => return response,
    };
    let notification = match Notification::deserialize(&said) {
        Ok(notification) => notification,
        Err(error) => {
            let why = format!("not a notification of Alertmanager: {error}");
            if let Some(why) = asker.unknown.say(&why, Instant::now()) {
                log::warn!("{why}");
            }
            return refuse(StatusCode::BAD_REQUEST, why);
        }
    };
    let rules = asker.live.borrow().rules.clone();
    let Some(firing) = alertmanager::firing(&notification, &rules, said) else {
        return Json(Heard { fired: false, why: Some("no alert is firing") }).into_response();
    };
    let (reply, _) = oneshot::channel();
    match asker.ask.try_send(Ask::Dump(Box::new(firing), reply)) {
        Ok(()) => Json(Heard { fired: true, why: None }).into_response(),
        Err(_) => busy(),
    }
}

async fn detail(State(asker): State<Asker>, body: Body) -> Response {
    let request = match read::<DetailRequest>(body).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    match ask(&asker, |reply| Ask::Detail(request.into(), reply)).await {
        Some(Ok(now)) => Json(now).into_response(),
        Some(Err(error)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")),
        None => busy(),
    }
}

async fn reload(State(asker): State<Asker>) -> Response {
    match ask(&asker, Ask::Reload).await {
        Some(Ok(reloaded)) => Json(reloaded).into_response(),
        Some(Err(error)) => refuse(StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}")),
        None => busy(),
    }
}

async fn ask<T>(asker: &Asker, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    asker.ask.try_send(ask(reply)).ok()?;
    answer.await.ok()
}

/// A body as JSON; an empty one is an empty object.
async fn read<T: for<'a> Deserialize<'a>>(body: Body) -> Result<T, Response> {
    let bytes = match tokio::time::timeout(PATIENCE, to_bytes(body, MOST_BYTES)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let why = format!("more than {MOST_BYTES} bytes, or broken off");
            return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        Err(_) => return Err(refuse(StatusCode::REQUEST_TIMEOUT, "the body did not arrive")),
    };
    let text = if bytes.is_empty() { b"{}" } else { &bytes[..] };
    serde_json::from_slice(text).map_err(|error| refuse(StatusCode::BAD_REQUEST, error))
}
