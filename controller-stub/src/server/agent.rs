//! What agents ask: registration, reports, the stream of tables.

use super::body::{Asked, At, Body};
use super::lease::Held;
use super::rejection::Rejection;
use super::view::line;
use super::{Failure, Shared};
use crate::api::{HostId, MAX_BATCH, Registered, Registration, Reported, Reports, TableLine};
use crate::controller::Refused;
use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::time::timeout;

/// Query of `GET /v1/hosts/{id}/table`.
#[derive(Debug, Deserialize)]
pub(super) struct After {
    #[serde(default)]
    after: u64,
}

pub(super) async fn register(
    State(shared): State<Shared>,
    At(host): At<HostId>,
    Body(registration): Body<Registration>,
) -> Result<Json<Registered>, Rejection> {
    shared.leases.heard(host);
    let lease = u64::try_from(shared.options.lease.as_millis()).unwrap_or(u64::MAX);
    let order =
        shared.orders.give(move |controller, now| controller.register(host, registration, lease, now));
    Ok(Json(order.await?))
}

pub(super) async fn report(
    State(shared): State<Shared>,
    At(host): At<HostId>,
    Body(reports): Body<Reports>,
) -> Result<Json<Reported>, Rejection> {
    if reports.reports.len() > MAX_BATCH {
        return Err(Failure::Refused(Refused::TooManyReports(reports.reports.len())).into());
    }
    shared.leases.heard(host);
    Ok(Json(shared.orders.give(move |controller, now| controller.report(host, reports, now)).await?))
}

pub(super) async fn table(
    State(shared): State<Shared>,
    At(host): At<HostId>,
    Asked(asked): Asked<After>,
) -> Result<Response, Rejection> {
    let view = Arc::clone(&shared.view.borrow());
    if !view.knows(host) {
        return Err(Failure::Refused(Refused::UnknownHost(host)).into());
    }
    let at = view.status.generation;
    if asked.after > at {
        return Err(Failure::Refused(Refused::GenerationAhead { held: asked.after, at }).into());
    }
    let held = shared.leases.hold(host);
    // The host is there again: its services count before it gets a table that says otherwise. A store that cannot be
    // written is no reason to withhold the table.
    let welcomed = shared.orders.give(move |controller, now| controller.heard(host, now));
    if timeout(shared.options.heartbeat, welcomed).await.is_err() {
        log::debug!(host:% = host; "the lease is not stored yet, the table goes out all the same");
    }
    let (lines, body) = Channel::new(1);
    tokio::spawn(send_tables(shared, held, asked.after, lines));
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
    Ok((headers, axum::body::Body::new(body)).into_response())
}

/// Sends the newest table whenever it is above what the host has, and a heartbeat when there is nothing to send.
/// Ends when the host hangs up or the server stops.
async fn send_tables(mut shared: Shared, held: Held, after: u64, mut lines: Sender<Bytes, Infallible>) {
    let mut sent = after;
    while !*shared.stop.borrow() {
        let view = Arc::clone(&shared.view.borrow_and_update());
        let generation = view.status.generation;
        if generation > sent {
            if lines.send_data(view.table_line.clone()).await.is_err() {
                break;
            }
            sent = generation;
        }
        tokio::select! {
            changed = shared.view.changed() => if changed.is_err() { break },
            _ = shared.stop.changed() => break,
            () = tokio::time::sleep(shared.options.heartbeat) => {
                if lines.send_data(line(&TableLine::Heartbeat { generation })).await.is_err() {
                    break;
                }
            }
        }
    }
    drop(held);
}
