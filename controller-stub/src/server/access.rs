//! Who may ask, and who may change things: whoever shows the token, and no page of another origin.
//!
//! Every request names whom it believes to ask. A name that is not the controller's is refused, reads included.
//!
//! Everybody who reaches the controller may read. A change is whatever is not a GET, the reports of agents among them:
//! a false report takes a service down like an operator's word; and an agent's stream of tables, which holds the lease of
//! its host.

use super::rejection::Rejection;
use super::{HostName, Options, Shared, asked_as, is_own};
use crate::token::Token;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HeaderName, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use std::time::Duration;
use tokio::time::timeout;

/// Most bytes of a refused change that are read.
const READ_IN_VAIN: usize = 64 << 10;

pub(super) async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    match allowed(&request, &shared.options) {
        Ok(()) => next.run(request).await,
        Err(rejection) => {
            // Over HTTP/2 an answer ahead of the body resets the stream, and some clients then drop the answer.
            let body = Limited::new(request.into_body(), READ_IN_VAIN).collect();
            _ = timeout(Duration::from_secs(1), body).await;
            rejection.into_response()
        }
    }
}

fn allowed(request: &Request, options: &Options) -> Result<(), Rejection> {
    let asked = own(request, &options.hosts)?;
    if request.method().is_safe() && !holds_a_lease(request.uri()) {
        return Ok(());
    }
    origin(request.headers(), asked.as_ref())?;
    options.token.as_ref().map_or(Ok(()), |token| shown(request.headers(), token))
}

/// Whom the request is for, if it says so: an address, `localhost` or one of these names.
fn own(request: &Request, names: &[HostName]) -> Result<Option<Authority>, Rejection> {
    let detail = match asked_as(request.headers(), request.uri()) {
        Ok(None) => return Ok(None),
        Ok(Some(asked)) if is_own(&asked, names) => return Ok(Some(asked)),
        Ok(Some(asked)) => format!("the controller is not known as {:?}", asked.host()),
        Err(error) => format!("Host is no name: {error}"),
    };
    let remedy = "ask it by an IP address or localhost, or start it with --host and this name";
    Err(Rejection::new(StatusCode::MISDIRECTED_REQUEST, "foreign-name", detail, remedy))
}

/// Following a host's tables says that the host is there: only its agent may.
fn holds_a_lease(uri: &Uri) -> bool {
    uri.path().strip_prefix("/v1/hosts/").is_some_and(|rest| rest.ends_with("/table"))
}

/// The request shows the token.
fn shown(headers: &HeaderMap, token: &Token) -> Result<(), Rejection> {
    let refused =
        |error, detail: &str, remedy| Rejection::new(StatusCode::UNAUTHORIZED, error, detail, remedy);
    let Some(given) = headers.get(AUTHORIZATION) else {
        let remedy = "send Authorization: Bearer TOKEN with the token of the controller's --token-file";
        return Err(refused("no-token", "changes need a token", remedy));
    };
    let bearer = given.to_str().ok().and_then(|text| text.split_once(' '));
    match bearer {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case("bearer") && token.is(given.trim()) => Ok(()),
        _ => {
            let remedy = "send the token of the controller's --token-file";
            Err(refused("wrong-token", "the token is not the controller's", remedy))
        }
    }
}

/// A browser says which page sends a change. Only the controller's own page may: otherwise any page that an operator
/// looks at could.
fn origin(headers: &HeaderMap, asked: Option<&Authority>) -> Result<(), Rejection> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let page = text(headers, &ORIGIN).and_then(|text| text.split_once("://")).map(|(_, page)| page);
    if asked.is_some() && page == asked.map(Authority::as_str) {
        return Ok(());
    }
    let detail = format!("a page of {origin:?} wants to change something");
    let remedy = "use the page at the controller's own address";
    Err(Rejection::new(StatusCode::FORBIDDEN, "foreign-page", detail, remedy))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::{HostName, Options, allowed};
    use axum::body::Body;
    use axum::extract::Request;
    use axum::http::header::{HOST, ORIGIN};
    use rstest::rstest;

    #[rstest]
    #[case(None, "controller:8300", true)]
    #[case(None, "Controller", true)]
    #[case(None, "other:8300", false)]
    #[case(None, "controller.evil.example", false)]
    #[case(None, "{.evil.example", false)]
    #[case(None, "", false)]
    #[case(Some("http://127.0.0.1:8300"), "127.0.0.1:8300", true)]
    #[case(Some("http://[::1]:8300"), "[::1]:8300", true)]
    #[case(Some("http://localhost:8300"), "localhost:8300", true)]
    #[case(Some("https://controller"), "controller", true)]
    #[case(Some("http://other:8300"), "other:8300", false)]
    #[case(Some("http://evil.example"), "127.0.0.1:8300", false)]
    #[case(Some("http://evil.example"), "controller:8300", false)]
    #[case(Some("http://127.0.0.1:80"), "127.0.0.1:8300", false)]
    #[case(Some("null"), "127.0.0.1:8300", false)]
    fn pages(#[case] page: Option<&str>, #[case] host: &str, #[case] good: bool) {
        let mut request = Request::post("/v1/services/svm2/fail").header(HOST, host);
        if let Some(page) = page {
            request = request.header(ORIGIN, page);
        }
        let options =
            Options { hosts: vec!["controller".parse::<HostName>().unwrap()], ..Options::default() };
        assert_eq!(allowed(&request.body(Body::empty()).unwrap(), &options).is_ok(), good);
    }
}
