//! The controller as an HTTP server.
//!
//! ```text
//!  operator.rs ─┐                 ┌─ writer.rs, one thread ───────────────────────┐
//!  agent.rs ────┼── orders ─────▶ │ Controller ── Changes ──▶ Store ── durable ──▶│── answers
//!  lease.rs ────┘    (bounded)    └───────────────┬───────────────────────────────┘
//!                                                 ▼
//!  operator.rs, events.rs, metrics.rs, agent.rs (table streams) ◀── View, the newest only
//!
//!  agent ── samples.rs, a minute of every service in memory ──▶ page.html
//! ```
//!
//! connections.rs bounds connections; access.rs stands before every request.
//!
//! An order is answered when it is stored; orders that wait together are stored in one transaction. Reads never wait
//! for the store: they see the last view that became durable.

mod access;
mod agent;
mod body;
mod connections;
mod events;
mod host_name;
mod lease;
mod metrics;
mod openapi;
mod operator;
mod page;
mod rejection;
mod samples;
mod view;
mod writer;

pub use host_name::{HostName, NoHostName, asked_as, is_own};
pub use openapi::document;

use crate::controller::Refused;
use crate::server::lease::Leases;
use crate::server::metrics::Counts;
use crate::server::samples::Kept;
use crate::server::view::View;
use crate::server::writer::Orders;
use crate::store::{Store, StoreError};
use crate::token::Token;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post, put};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long open requests may take to end after the shutdown began.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// How the server treats those who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A host without an open table stream is lost when no request came for this long.
    pub lease: Duration,
    /// A table stream carries a line at least this often. A host that acknowledges nothing for a lease is cut off.
    pub heartbeat: Duration,
    /// What a change must show. Without one everybody who reaches the server may change everything, so it listens on
    /// loopback only.
    pub token: Option<Token>,
    /// The names it may be asked by, besides addresses and `localhost`.
    pub hosts: Vec<HostName>,
    /// Most connections at a time; more wait in the kernel.
    pub connections: u32,
    /// A connection without a request under way is closed when none is begun for this long, or up to twice as long.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            lease: Duration::from_secs(10),
            heartbeat: Duration::from_secs(2),
            token: None,
            hosts: Vec::new(),
            connections: 4096,
            patience: Duration::from_secs(10),
        }
    }
}

/// Why the server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could reach the address and change everything.
    #[error(
        "without a token everybody who reaches {addr} may change everything: \
         give --token-file FILE, or listen on 127.0.0.1"
    )]
    Exposed {
        /// The address.
        addr: SocketAddr,
    },
    /// No thread can be started.
    #[error("cannot start the writer")]
    Thread(#[source] io::Error),
    /// The writer ended; nothing can be stored any more.
    #[error("the writer ended unexpectedly")]
    Writer,
}

/// What every request works with.
#[derive(Debug, Clone)]
struct Shared {
    orders: Orders,
    view: watch::Receiver<Arc<View>>,
    store: Arc<Store>,
    leases: Arc<Leases>,
    samples: Arc<Kept>,
    counts: Counts,
    options: Arc<Options>,
    /// True once the server shuts down.
    stop: watch::Receiver<bool>,
}

/// A controller that listens. Dropping it closes everything.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    shared: Shared,
    stop: watch::Sender<bool>,
    writer: JoinHandle<()>,
}

impl Server {
    /// Listens on `addr` (port 0: any free one) with the store in the file `store`, which is made if it is not there.
    /// Connections are accepted from now on and answered once [`Server::serve`] runs.
    ///
    /// # Errors
    /// The store cannot be used, or the address cannot be listened on or is not loopback.
    pub async fn bind(addr: SocketAddr, store: &Path) -> Result<Server, ServerError> {
        Server::bind_with(addr, store, Options::default()).await
    }

    /// The same, with options.
    ///
    /// # Errors
    /// As [`Server::bind`]; with a token the address may be any.
    pub async fn bind_with(addr: SocketAddr, store: &Path, options: Options) -> Result<Server, ServerError> {
        if options.token.is_none() && !addr.ip().to_canonical().is_loopback() {
            return Err(ServerError::Exposed { addr });
        }
        let store = Arc::new(Store::open(store)?);
        let counts = Counts::default();
        let (orders, view, writer) = writer::start(Arc::clone(&store), counts.clone())?;
        let listen = |source| ServerError::Listen { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        let leases = Arc::new(Leases::new(options.lease));
        let (stop, stopped) = watch::channel(false);
        let (samples, options) = (Arc::default(), Arc::new(options));
        let shared = Shared { orders, view, store, leases, samples, counts, options, stop: stopped };
        Ok(Server { listener, addr, shared, stop, writer })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers requests until `shutdown` is ready; then ends the table streams, lets open requests finish for a
    /// second, and closes the store.
    ///
    /// # Errors
    /// [`ServerError::Writer`].
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ServerError> {
        let Server { listener, addr, shared, stop, mut writer } = self;
        log::info!(addr:% = addr, store:% = shared.store.path(); "controller serves");
        let orders = shared.orders.clone();
        let mut watching = pin!(lease::watch(shared.clone()));
        let (options, stopped) = (Arc::clone(&shared.options), shared.stop.clone());
        let mut serving = pin!(connections::serve(listener, router(shared), options, stopped));

        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            _ = &mut writer => Err(ServerError::Writer),
            // Neither of these ends by itself.
            () = &mut watching => Ok(()),
            () = &mut serving => Ok(()),
        };
        _ = stop.send(true);
        if timeout(LAST_REQUESTS, serving).await.is_err() {
            log::warn!("a request did not end in time and is dropped");
        }
        if outcome.is_ok() {
            orders.stop().await;
            writer.await.map_err(|_| ServerError::Writer)?;
        }
        log::info!(addr:% = addr; "controller stopped");
        outcome
    }
}

/// Tables go out as they are made, and a host that acknowledges nothing for `silence` loses its connection, so that
/// its lease runs out although nobody closed it.
fn prepare(stream: &TcpStream, silence: Duration) {
    let millis = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, millis)?));
    if let Err(error) = set {
        log::debug!(error:%; "connection keeps the system's options");
    }
}

fn router(shared: Shared) -> Router {
    use crate::api::Action;
    Router::new()
        .route("/v1/status", get(operator::status))
        .route("/", get(page::page))
        .route("/v1/openapi.json", get(openapi::openapi))
        .route("/v1/events", get(events::events))
        .route("/v1/samples", get(samples::samples))
        .route(
            "/v1/chains/{name}",
            get(operator::chain).put(operator::put_chain).delete(operator::delete_chain),
        )
        .route("/v1/services/{name}/fail", post(|shared, name| operator::act(shared, name, Action::Fail)))
        .route(
            "/v1/services/{name}/restore",
            post(|shared, name| operator::act(shared, name, Action::Restore)),
        )
        .route(
            "/v1/services/{name}/maintain",
            post(|shared, name| operator::act(shared, name, Action::Maintain)),
        )
        .route("/v1/services/{name}/interface", post(operator::interface))
        .route("/v1/hosts", get(operator::hosts))
        .route("/v1/hosts/{id}", put(agent::register).delete(operator::forget_host))
        .route("/v1/hosts/{id}/reports", post(agent::report))
        .route("/v1/hosts/{id}/samples", post(samples::measured))
        .route("/v1/hosts/{id}/table", get(agent::table))
        .route("/metrics", get(metrics::metrics))
        .route("/healthz", get(operator::healthy))
        .route("/readyz", get(operator::ready))
        .fallback(rejection::no_such_page)
        .method_not_allowed_fallback(rejection::no_such_method)
        .layer(DefaultBodyLimit::max(body::MAX_BODY as usize))
        .layer(from_fn_with_state(shared.clone(), access::guard))
        .with_state(shared)
}

/// Why a request was not carried out.
#[derive(Debug)]
enum Failure {
    /// The order is not possible.
    Refused(Refused),
    /// Nothing can be stored at the moment.
    Store(Arc<StoreError>),
    /// More orders wait than can be stored soon.
    Busy,
    /// The server shuts down.
    Stopping,
}
