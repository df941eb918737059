//! Shows Snapshots to whoever connects to a Unix socket: read-only, for root and guard's own user. Each Snapshot is a
//! frame: its length in four bytes (big-endian), then its JSON. A client that reads slowly misses Snapshots and holds
//! nobody up: guard keeps the last one only, and gives a client that takes nothing for ten seconds up.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::fault;

/// Where `guard run --listen` and `guard top --connect` meet unless told otherwise.
pub const SOCKET: &str = "/run/guard/guard.sock";
/// A client that has not taken a frame in this time is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clients at a time.
const CLIENTS: usize = 16;

/// A socket that Snapshots are shown on. Dropping it removes the socket.
pub struct Server {
    path: PathBuf,
    newest: watch::Sender<Bytes>,
}

impl Server {
    /// Begins to listen, within the runtime that will serve the clients. A socket that nobody listens on any more is
    /// replaced; its directory is created if need be.
    ///
    /// # Errors
    /// When the socket cannot be created, or somebody listens there.
    pub fn bind(path: &Path) -> io::Result<Self> {
        make_room(path)?;
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let (newest, _) = watch::channel(Bytes::new());
        let accepting = tokio::spawn(accept(listener, newest.clone()));
        let name = path.display().to_string();
        // The runtime catches panics of its tasks; those of a client's end that client only.
        tokio::spawn(async move {
            let Err(error) = accepting.await else { return };
            if error.is_panic() {
                tracing::error!("{name} is not served any more: {error}");
            }
        });
        Ok(Self { path: path.to_owned(), newest })
    }

    /// Shows a Snapshot, given as JSON. Never waits.
    pub fn show(&self, json: &[u8]) {
        let Ok(length) = u32::try_from(json.len()) else { return };
        let mut frame = BytesMut::with_capacity(4 + json.len());
        frame.put_u32(length);
        frame.put_slice(json);
        self.newest.send_replace(frame.freeze());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Creates the directory of a socket, and removes one that nobody listens on any more.
pub(super) fn make_room(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        fs::create_dir_all(dir)?;
    }
    remove_stale(path)
}

/// Removes a socket that refuses connections: whoever made it is gone.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        return Ok(());
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}

async fn accept(listener: UnixListener, newest: watch::Sender<Bytes>) {
    loop {
        let accepted = listener.accept().await;
        fault::point("socket");
        match accepted {
            Ok((stream, _)) if newest.receiver_count() >= CLIENTS => {
                tracing::warn!("{CLIENTS} clients are connected to the socket; one more was turned away");
                drop(stream);
            }
            Ok((stream, _)) if !is_trusted(&stream) => drop(stream),
            Ok((stream, _)) => {
                tokio::spawn(serve(stream, newest.subscribe()));
            }
            Err(error) => {
                tracing::warn!("cannot accept a client on the socket: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Whether the other side is root or who guard runs as, by the kernel's word.
fn is_trusted(stream: &UnixStream) -> bool {
    let uid = stream.peer_cred().map(|peer| peer.uid());
    let trusted = uid.as_ref().is_ok_and(|uid| *uid == 0 || *uid == rustix::process::geteuid().as_raw());
    if !trusted {
        tracing::warn!("turned a client of the socket away: {uid:?} is neither root nor guard's own user");
    }
    trusted
}

async fn serve(mut stream: UnixStream, mut newest: watch::Receiver<Bytes>) {
    // Whoever comes sees at once what is known.
    newest.mark_changed();
    while newest.changed().await.is_ok() {
        let frame = newest.borrow_and_update().clone();
        if frame.is_empty() {
            continue;
        }
        match timeout(PATIENCE, stream.write_all(&frame)).await {
            Ok(Ok(())) => {}
            // It has gone, which is its right.
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::warn!("gave up a client of the socket that read nothing for {PATIENCE:?}");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream as Client;

    use super::*;
    use crate::control::runtime;

    fn frame(client: &mut Client) -> Vec<u8> {
        let mut length = [0; 4];
        client.read_exact(&mut length).unwrap();
        let mut json = vec![0; u32::from_be_bytes(length) as usize];
        client.read_exact(&mut json).unwrap();
        json
    }

    /// Runs `client` in a thread while the server serves.
    fn with_client<T: Send + 'static>(server_does: impl Fn(&Server), client: fn(Client) -> T) -> T {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/guard.sock");
        runtime().unwrap().block_on(async {
            let server = Server::bind(&path).unwrap();
            server_does(&server);
            let stream = Client::connect(&path).unwrap();
            let result = tokio::task::spawn_blocking(move || client(stream)).await.unwrap();
            drop(server);
            assert!(!path.exists());
            result
        })
    }

    #[test]
    fn whoever_comes_late_gets_the_newest_at_once() {
        let got = with_client(
            |server| {
                server.show(b"old");
                server.show(b"new");
            },
            |mut client| frame(&mut client),
        );
        assert_eq!(got, b"new");
    }

    #[test]
    fn a_client_that_never_reads_holds_nobody_up() {
        with_client(
            // Far more than any socket buffers, in one thread: this would never return if it waited.
            |server| (0..64).for_each(|_| server.show(&vec![b'x'; 1 << 20])),
            |mut client| assert_eq!(frame(&mut client).len(), 1 << 20),
        );
    }

    #[test]
    fn a_socket_left_by_a_crash_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        runtime().unwrap().block_on(async {
            let _server = Server::bind(&path).unwrap();
            assert_eq!(Server::bind(&path).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        });
    }

    #[test]
    fn only_the_owner_may_open_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        runtime().unwrap().block_on(async {
            let _server = Server::bind(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        });
    }
}
