//! A client of the Container Runtime Interface, made of curl (HTTP/2 over the runtime's socket) and protoc (messages to
//! and from text, by the interface's own definition): what a kubelet would ask for, without a kubelet.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::shell::limit;
use crate::harness::{Tool, scratch_dir};

const SOCKET: &str = "/run/containerd/containerd.sock";
/// Kubernetes' definition of the interface, in field guests.
const PROTO_DIR: &str = "/usr/local/share/cri";
const PROTO: &str = "api.proto";

/// Calls a method of the runtime service with a request in protobuf's text form; returns the response in that form.
pub(super) fn call(method: &str, request: &str) -> Result<String> {
    let scratch = scratch_dir()?;
    let file = |name: &str| scratch.path().join(name);
    fs::write(file("text"), request).context("write of a request")?;
    let message = protoc(&["--encode", &format!("runtime.v1.{method}Request")], &file("text"), &file("message"))?;
    // gRPC's frame: not compressed, length, message.
    let length = u32::try_from(message.len()).context("length of a request")?;
    let framed = [&[0], &length.to_be_bytes()[..], &message].concat();
    fs::write(file("framed"), framed).context("write of a request")?;
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--http2-prior-knowledge", "--unix-socket", SOCKET])
        .args(["--header", "content-type: application/grpc", "--header", "te: trailers"])
        .arg("--data-binary")
        .arg(format!("@{}", file("framed").display()))
        .arg("--dump-header")
        .arg(file("headers"))
        .arg("--output")
        .arg(file("response"))
        .arg(format!("http://localhost/runtime.v1.RuntimeService/{method}"));
    Tool::start(&mut curl)?.success(limit()).with_context(|| format!("CRI {method}"))?;
    let headers = fs::read_to_string(file("headers")).context("read of the response's headers")?;
    let header =
        |name: &str| headers.lines().rev().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(": "));
    let status = header("grpc-status").unwrap_or("none");
    ensure!(status == "0", "CRI {method}: status {status}: {}", header("grpc-message").unwrap_or_default());
    let response = fs::read(file("response")).context("read of a response")?;
    fs::write(file("answer"), response.get(5..).unwrap_or_default()).context("write of a response")?;
    let text = protoc(&["--decode", &format!("runtime.v1.{method}Response")], &file("answer"), &file("answer.text"))?;
    String::from_utf8(text).context("a response in text form")
}

/// The first value of a field in protobuf's text form.
pub(super) fn field<'a>(text: &'a str, name: &str) -> Result<&'a str> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
    value.map(|value| value.trim_matches('"')).with_context(|| format!("no {name} in {text}"))
}

fn protoc(what: &[&str], from: &Path, to: &Path) -> Result<Vec<u8>> {
    let open = |path: &Path| File::open(path).with_context(|| format!("open of {}", path.display()));
    let output = File::create(to).with_context(|| format!("create {}", to.display()))?;
    let mut child = Command::new("protoc")
        .arg(format!("--proto_path={PROTO_DIR}"))
        .args(what)
        .arg(PROTO)
        .stdin(Stdio::from(open(from)?))
        .stdout(Stdio::from(output))
        .spawn()
        .context("start of protoc")?;
    let status = child.wait().context("wait for protoc")?;
    ensure!(status.success(), "protoc {what:?} ended with {status}");
    fs::read(to).with_context(|| format!("read of {}", to.display()))
}
