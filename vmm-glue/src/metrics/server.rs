//! The HTTP side: one request a connection, few connections, little time for each.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use controller_stub::server::{HostName, asked_as, is_own};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use super::exposition::{self, OPEN_METRICS, TEXT};
use super::reading::Reading;
use crate::config::HostConfig;
use crate::daemon::Shared;

/// Connections at a time; more wait in the kernel, which keeps few.
const MAX_CONNECTIONS: usize = 16;
/// From the connection to the last byte of the answer. A reader that is slower is cut off.
const DEADLINE: Duration = Duration::from_secs(5);
/// Until the request has come.
const REQUEST: Duration = Duration::from_secs(2);
/// Longest head of a request, in bytes; the least that hyper takes.
const MAX_HEAD: usize = 8 << 10;
/// Whoever asks again sooner gets the same page, so that no scraper takes more of the host than this.
const FRESH: Duration = Duration::from_millis(250);
/// From one connection to the next, whether the last one could be taken or not: a scraper that asks again and again gets
/// a hundredth of a core, not a whole one.
const PACE: Duration = Duration::from_millis(10);
/// To whoever asks by a name that is not the host's.
const FOREIGN: &str = "livepathd is not known by this name: ask by an IP address or localhost, or add the name to metrics_names in [host]\n";

/// Answers until told to stop.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let names = own_names(&shared.config().host);
    let page = Arc::new(Page { shared, names, kept: Mutex::new(None) });
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        loop {
            // It is never closed.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let page = Arc::clone(&page);
                    tokio::spawn(async move {
                        let _ = timeout(DEADLINE, converse(stream, page)).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    log::debug!(error:%; "a scraper's connection cannot be taken");
                }
            }
            sleep(PACE).await;
        }
    };
    tokio::select! {
        () = accepting => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

async fn converse(stream: TcpStream, page: Arc<Page>) {
    let answer = service_fn(move |request| {
        let response = answer(&request, &page);
        async { Ok::<_, Infallible>(response) }
    });
    let outcome = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .max_buf_size(MAX_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    if let Err(error) = outcome {
        log::debug!(error:%; "a scraper was not answered");
    }
}

/// What it may be asked by, besides addresses and `localhost`.
fn own_names(host: &HostConfig) -> Vec<HostName> {
    // Every name of a host is one for a URL too.
    host.name.as_str().parse().into_iter().chain(host.metrics_names.iter().cloned()).collect()
}

fn answer(request: &Request<Incoming>, page: &Page) -> Response<Full<Bytes>> {
    let asked = asked_as(request.headers(), request.uri());
    if !asked.is_ok_and(|asked| asked.is_none_or(|asked| is_own(&asked, &page.names))) {
        return plain(StatusCode::MISDIRECTED_REQUEST, FOREIGN);
    }
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "metrics can only be read\n");
        refusal.headers_mut().insert(ALLOW, const { hyper::header::HeaderValue::from_static("GET, HEAD") });
        return refusal;
    }
    let Ok(texts) = page.texts() else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n");
    };
    let mut accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let open = accepted.any(|value| value.contains("application/openmetrics-text"));
    let (form, text) = if open { (OPEN_METRICS, texts.open) } else { (TEXT, texts.text) };
    let mut response = Response::new(Full::new(text));
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(form));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// The metrics, not older than [`FRESH`].
struct Page {
    shared: Arc<Shared>,
    names: Vec<HostName>,
    kept: Mutex<Option<(Instant, Texts)>>,
}

/// The same metrics in both forms.
#[derive(Clone)]
struct Texts {
    open: Bytes,
    text: Bytes,
}

impl Page {
    fn texts(&self) -> Result<Texts, std::fmt::Error> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, texts)) = &*kept
            && made.elapsed() < FRESH
        {
            return Ok(texts.clone());
        }
        let open = exposition::open_metrics(Reading::of(&self.shared))?;
        let text = exposition::text(&open);
        let texts = Texts { open: open.into(), text: text.into() };
        *kept = Some((Instant::now(), texts.clone()));
        Ok(texts)
    }
}
