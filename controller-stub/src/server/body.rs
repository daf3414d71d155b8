//! Reading a request: body, path and query, each refused with a [`Rejection`].

use super::rejection::Rejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use hyper::body::{Body as _, Bytes};
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::timeout;

/// Largest request body, in bytes.
pub(super) const MAX_BODY: u64 = 4 << 20;

/// How long a body may take to arrive.
const WHOLE_BODY: Duration = Duration::from_secs(10);

/// The JSON body, whatever its content type says.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Rejection> {
        let remedy = "send the whole body, at most 4 MiB, without a pause";
        // Not waited for when its length says already that it is too long.
        let least = request.body().size_hint().lower();
        if least > MAX_BODY {
            let detail = format!("the body has {least} bytes");
            return Err(Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, "bad-body", detail, remedy));
        }
        let bytes = match timeout(WHOLE_BODY, Bytes::from_request(request, state)).await {
            Ok(read) => read.map_err(|rejection| {
                Rejection::new(rejection.status(), "bad-body", rejection.body_text(), remedy)
            })?,
            Err(_) => {
                let detail = "the body did not arrive in time";
                return Err(Rejection::new(StatusCode::REQUEST_TIMEOUT, "bad-body", detail, remedy));
            }
        };
        serde_json::from_slice(&bytes).map(Body).map_err(|error| {
            if error.is_data() {
                let remedy = "correct the field at that place";
                Rejection::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-field", error.to_string(), remedy)
            } else {
                Rejection::new(StatusCode::BAD_REQUEST, "bad-json", error.to_string(), "send a JSON object")
            }
        })
    }
}

/// The one name or number in the path.
pub(super) struct At<T>(pub(super) T);

impl<T, S> FromRequestParts<S> for At<T>
where
    T: FromStr<Err: Display>,
    S: Send + Sync,
{
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<At<T>, Rejection> {
        let remedy = "correct the path";
        let text = Path::<String>::from_request_parts(parts, state).await;
        let Path(text) =
            text.map_err(|error| Rejection::new(error.status(), "bad-path", error.body_text(), remedy))?;
        let value = text.parse().map(At);
        value.map_err(|error| Rejection::new(StatusCode::BAD_REQUEST, "bad-path", format!("{error}"), remedy))
    }
}

/// The query.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Asked<T>, Rejection> {
        let query = Query::try_from_uri(&parts.uri).map(|Query(asked)| Asked(asked));
        query.map_err(|error| {
            let remedy = "correct the part of the URL after the question mark";
            Rejection::new(StatusCode::BAD_REQUEST, "bad-query", error.body_text(), remedy)
        })
    }
}
