//! Answers HTTP requests for one page, the metrics, in a thread of its own that has nothing else to do: however slow,
//! many or hostile the clients are, nothing that decides or protects waits for them. Requests are small, answers
//! short-lived: one request a connection, bounds on its header, its time and the number of connections.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::TcpListener as StdTcp;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdUnix;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use super::runtime;
use super::serve::make_room;
use crate::config::Endpoint;
use crate::fault;

/// Connections at a time; those beyond are closed at once.
const CONNECTIONS: usize = 32;
/// A request's header must be there in this time.
const HEADER_PATIENCE: Duration = Duration::from_secs(3);
/// And everything be over in this, the client's reading included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Header lines, and bytes of the whole header.
const HEADERS: usize = 64;
const HEADER_BYTES: usize = 16 << 10;
/// How long the end may take.
const PATIENCE_AT_END: Duration = Duration::from_secs(1);

/// What is answered to GET /metrics, by the Accept header of the request: content type and body.
pub type Answer = dyn Fn(&str) -> (&'static str, Bytes) + Send + Sync;

/// A page that can be asked for. Dropping it ends that, and removes its socket.
pub struct HttpServer {
    at: Endpoint,
    end: Option<oneshot::Sender<()>>,
    ended: Receiver<()>,
}

enum Listener {
    Tcp(StdTcp),
    Unix(StdUnix),
}

impl HttpServer {
    /// Begins to listen and to answer. A Unix socket can be used by its owner and its group.
    ///
    /// # Errors
    /// When the address cannot be had, or the kernel refuses a thread.
    pub fn start(endpoint: &Endpoint, answer: Arc<Answer>) -> io::Result<Self> {
        let (listener, at) = match endpoint {
            Endpoint::Tcp(address) => {
                let listener = StdTcp::bind(address)?;
                listener.set_nonblocking(true)?;
                let at = Endpoint::Tcp(listener.local_addr()?);
                (Listener::Tcp(listener), at)
            }
            Endpoint::Unix(path) => {
                make_room(path)?;
                let listener = StdUnix::bind(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
                listener.set_nonblocking(true)?;
                (Listener::Unix(listener), endpoint.clone())
            }
        };
        let runtime = runtime()?;
        let (end, asked_to_end) = oneshot::channel();
        let (has_ended, ended) = channel();
        thread::Builder::new().name("guard-metrics".to_owned()).spawn(move || {
            let served = fault::caught(|| {
                runtime.block_on(async {
                    tokio::select! {
                        error = accept(listener, answer) => Err(error),
                        _ = asked_to_end => Ok(()),
                    }
                })
            });
            if let Err(error) = served.map_err(io::Error::other).flatten() {
                tracing::error!("metrics are not shown any more: {error}");
            }
            // Nobody waits for it after the patience is over.
            let _ = has_ended.send(());
        })?;
        Ok(Self { at, end: Some(end), ended })
    }

    /// Where it listens: with the port that the kernel chose, if it was asked to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.at
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.ended.recv_timeout(PATIENCE_AT_END).is_err() {
            tracing::warn!("the thread that shows metrics does not end");
        }
        if let Endpoint::Unix(path) = &self.at {
            remove(path);
        }
    }
}

fn remove(path: &PathBuf) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}

/// Accepts until the listener cannot be used at all.
async fn accept(listener: Listener, answer: Arc<Answer>) -> io::Error {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    match listener {
        Listener::Tcp(listener) => match TcpListener::from_std(listener) {
            Ok(listener) => loop {
                take(listener.accept().await.map(|(stream, _)| stream), &free, &answer).await;
            },
            Err(error) => error,
        },
        Listener::Unix(listener) => match UnixListener::from_std(listener) {
            Ok(listener) => loop {
                take(listener.accept().await.map(|(stream, _)| stream), &free, &answer).await;
            },
            Err(error) => error,
        },
    }
}

async fn take<S>(stream: io::Result<S>, free: &Arc<Semaphore>, answer: &Arc<Answer>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fault::point("http");
    match stream {
        Ok(stream) => {
            let Ok(permit) = Arc::clone(free).try_acquire_owned() else {
                return tracing::debug!("{CONNECTIONS} clients ask for metrics; one more was turned away");
            };
            let answer = Arc::clone(answer);
            tokio::spawn(async move {
                connection(stream, answer).await;
                drop(permit);
            });
        }
        Err(error) => {
            // Out of descriptors, for one: accepting again at once would be a busy loop.
            tracing::warn!("cannot accept a client for metrics: {error}");
            sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, answer: Arc<Answer>) {
    let service = service_fn(move |request| {
        let response = respond(&request, &*answer);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .max_headers(HEADERS)
        .max_buf_size(HEADER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(PATIENCE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("a client for metrics: {error}"),
        Err(_) => tracing::debug!("gave up a client for metrics that took longer than {PATIENCE:?}"),
    }
}

fn respond(request: &Request<Incoming>, answer: &Answer) -> Response<Full<Bytes>> {
    let plain = |status, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            // Several Accept headers are one list.
            let accepts: Vec<&str> =
                request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
            let page = fault::caught(|| {
                fault::point("metrics");
                answer(&accepts.join(","))
            });
            let (content_type, body) = match page {
                Ok(page) => page,
                Err(panic) => {
                    tracing::error!("a client got no metrics: {panic}");
                    return plain(StatusCode::INTERNAL_SERVER_ERROR, "a defect of guard: its log says more\n");
                }
            };
            let mut response = Response::new(Full::new(body));
            response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
            response
        }
        (&Method::GET | &Method::HEAD, "/") => plain(StatusCode::OK, "guard: metrics are at /metrics\n"),
        (&Method::GET | &Method::HEAD, _) => plain(StatusCode::NOT_FOUND, "there is only /metrics\n"),
        _ => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "there is only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    fn server(body: &'static [u8]) -> HttpServer {
        let answer = move |accept: &str| {
            let kind = if accept.contains("open") { "application/openmetrics-text" } else { "text/plain" };
            (kind, Bytes::from_static(body))
        };
        HttpServer::start(&"127.0.0.1:0".parse().unwrap(), Arc::new(answer)).unwrap()
    }

    fn connect(server: &HttpServer) -> TcpStream {
        let Endpoint::Tcp(address) = server.endpoint() else { panic!("no address") };
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    fn ask(server: &HttpServer, request: &str) -> String {
        let mut stream = connect(server);
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn there_is_one_page_in_the_form_that_is_asked_for() {
        let server = server(b"guard_x 1\n");
        let text = ask(&server, "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: a\r\naccept: open\r\n\r\n");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nguard_x 1\n"), "{text}");
        assert!(text.contains("content-type: application/openmetrics-text\r\n"), "{text}");
        let head = ask(&server, "HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
        assert!(head.contains("content-length: 10\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        for (request, status) in [
            ("GET /other HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", "405"),
            ("nonsense\r\n\r\n", "400"),
        ] {
            let text = ask(&server, request);
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {text}");
        }
    }

    #[test]
    fn a_header_without_end_is_refused() {
        let server = server(b"");
        let mut stream = connect(&server);
        let line = format!("x: {}\r\n", "y".repeat(1_000));
        // The server may close, or reset, at any of these.
        let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n");
        let _ = (0..100).try_for_each(|_| stream.write_all(line.as_bytes()));
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }

    #[test]
    fn clients_that_say_nothing_are_bounded_and_given_up() {
        let server = server(b"guard_x 1\n");
        let silent: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(&server)).collect();
        let begin = Instant::now();
        // Those beyond are turned away until the silent ones are given up; all that counts is that they are.
        let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
        loop {
            let mut stream = connect(&server);
            let mut text = String::new();
            let _ = stream.write_all(request);
            let _ = stream.read_to_string(&mut text);
            if text.ends_with("guard_x 1\n") {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "never answered again");
            thread::sleep(Duration::from_millis(100));
        }
        drop(silent);
    }

    #[test]
    fn a_unix_socket_serves_its_group_and_goes_with_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/metrics.sock");
        let endpoint = Endpoint::Unix(path.clone());
        let server =
            HttpServer::start(&endpoint, Arc::new(|_: &str| ("text/plain", Bytes::from_static(b"1\n")))).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("\r\n\r\n1\n"), "{text}");
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn an_address_in_use_is_refused() {
        let server = server(b"");
        let again = HttpServer::start(server.endpoint(), Arc::new(|_: &str| ("", Bytes::new())));
        assert_eq!(again.err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
    }

    #[test]
    fn a_page_that_panics_is_an_error_of_the_server_and_the_next_one_is_answered() {
        let panics = std::sync::atomic::AtomicBool::new(true);
        let answer = move |_: &str| {
            assert!(!panics.swap(false, std::sync::atomic::Ordering::Relaxed), "no page");
            ("text/plain", Bytes::from_static(b"1\n"))
        };
        let server = HttpServer::start(&"127.0.0.1:0".parse().unwrap(), Arc::new(answer)).unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";
        let answered = ask(&server, request);
        assert!(answered.starts_with("HTTP/1.1 500 "), "{answered}");
        let answered = ask(&server, request);
        assert!(answered.starts_with("HTTP/1.1 200 ") && answered.ends_with("1\n"), "{answered}");
    }
}
